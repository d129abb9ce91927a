"""The head of a frozen network as its exact optimum: logistic regression, its strength chosen between patients."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

# Inverse strengths of the penalty to choose from; pooled features of a ReLU network are of the order of 1.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_DEFAULT = 1e-3
_FOLDS = 5
_ITERATIONS = 2000


def fit_classes(
    features: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray,
    *,
    num_classes: int,
    balanced: bool,
    strength: float | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Multinomial logistic regression with an L2 penalty.

    Args:
        features: float32 [N, F].
        classes: int64 [N]; each class occurs.
        groups: [N], images of one patient have one value: they are in one fold of the cross-validation.
        num_classes: K.
        balanced: whether classes count alike, however many images they have.
        strength: inverse strength of the penalty, scikit-learn's C; None for that of STRENGTHS with the best mean
            ROC-AUC (of several classes: log loss) over folds of patients.

    Returns:
        Kernel float32 [F, K] and bias float32 [K] of the head, and the inverse strength of the penalty.
    """
    scoring = "roc_auc" if num_classes == 2 else "neg_log_loss"
    fitted, strength = _fit(features, classes, groups, scoring=scoring, balanced=balanced, strength=strength)
    kernel, bias = fitted.coef_.T, fitted.intercept_
    if num_classes == 2:  # scikit-learn has one logit, the difference of ours
        kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
    return kernel.astype(np.float32), bias.astype(np.float32), strength


def fit_labels(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, balanced: bool, strength: float | None = None
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """As `fit_classes`, a logistic regression for each label.

    Args:
        features, groups, strength: as there.
        labels: bool [N, K]; each has both values.
        balanced: whether having a label and not having it count alike.

    Returns:
        Kernel float32 [F, K], bias float32 [K], and the inverse strength of each label's penalty.
    """
    settings: dict[str, Any] = {"scoring": "roc_auc", "balanced": balanced, "strength": strength}
    found = [_fit(features, column, groups, **settings) for column in labels.T]
    kernel = np.concatenate([fitted.coef_.T for fitted, _ in found], axis=1)
    bias = np.concatenate([fitted.intercept_ for fitted, _ in found])
    return kernel.astype(np.float32), bias.astype(np.float32), [strength for _, strength in found]


def _fit(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    *,
    scoring: str,
    balanced: bool,
    strength: float | None,
) -> tuple[LogisticRegression, float]:
    chosen = strength or _DEFAULT
    model = LogisticRegression(max_iter=_ITERATIONS, class_weight="balanced" if balanced else None, C=chosen)
    holders = min(len(np.unique(groups[targets == value])) for value in np.unique(targets))
    if strength or holders < 2:  # of one patient some fold would lack a value
        return model.fit(features, targets), chosen
    folds = StratifiedGroupKFold(min(_FOLDS, holders), shuffle=True, random_state=0)
    search = GridSearchCV(model, {"C": list(STRENGTHS)}, scoring=scoring, cv=folds, error_score=-np.inf)
    search.fit(features, targets, groups=groups)
    return search.best_estimator_, float(search.best_params_["C"])

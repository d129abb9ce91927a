"""The head of a frozen network as its exact optimum: logistic regression, its strength chosen between patients."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrecords_builder.progress import Progress, progress

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

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
    with _progress(1, strength) as done:
        fitted, strength = _fit(features, classes, groups, done, scoring=scoring, balanced=balanced, strength=strength)
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
    with _progress(labels.shape[1], strength) as done:
        found = [_fit(features, column, groups, done, **settings) for column in labels.T]
    kernel = np.concatenate([fitted.coef_.T for fitted, _ in found], axis=1)
    bias = np.concatenate([fitted.intercept_ for fitted, _ in found])
    return kernel.astype(np.float32), bias.astype(np.float32), [strength for _, strength in found]


def _progress(number: int, strength: float | None) -> AbstractContextManager[Progress]:
    """Counts penalties tried, and fits with the one chosen, of so many regressions."""
    return progress(number * (1 if strength else 1 + len(STRENGTHS)), "logistic regression", "fits")


def _fit(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    done: Progress,
    *,
    scoring: str,
    balanced: bool,
    strength: float | None,
) -> "tuple[LogisticRegression, float]":
    # Not before: scikit-learn takes 0.7 s to import, and a training can begin without it.
    from sklearn import linear_model, model_selection

    def make(strength: float) -> "LogisticRegression":
        weights = "balanced" if balanced else None
        return linear_model.LogisticRegression(max_iter=_ITERATIONS, class_weight=weights, C=strength)

    chosen = strength or _DEFAULT
    holders = min(len(np.unique(groups[targets == value])) for value in np.unique(targets))
    if not strength and holders >= 2:  # of one patient some fold would lack a value
        folds = model_selection.StratifiedGroupKFold(min(_FOLDS, holders), shuffle=True, random_state=0)
        scores = []
        for each in STRENGTHS:  # as GridSearchCV does, which cannot tell how far it is
            settings = {"groups": groups, "scoring": scoring, "cv": folds, "error_score": -np.inf}
            scores.append(model_selection.cross_val_score(make(each), features, targets, **settings).mean())
            done.update()
        chosen = STRENGTHS[int(np.argmax(scores))]
    elif not strength:
        done.update(len(STRENGTHS))
    fitted = make(chosen).fit(features, targets)
    done.update()
    return fitted, chosen

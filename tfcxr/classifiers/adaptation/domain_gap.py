"""Numbers that show whether two domains come together, and at what price."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfcxr.classifiers import inference
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.training import losses

_MMD_IMAGES = 256  # of each domain: enough for a steady value, and a small kernel matrix
_COLLAPSED = 0.98


def measure(classifier: models.Classifier, source: inference.Outputs, target: inference.Outputs) -> dict[str, float]:
    """The distance between the domains' features, and their size.

    Returns:
        mmd/before_correction: multi-kernel MMD between source and target features. feature_norm/source and /target:
        mean length of a feature vector. Where the classifier corrects features also mmd/after_correction and
        feature_norm/correction, the mean length of what the correction adds to target features.
    """
    picked = [spread(outputs.features, _MMD_IMAGES) for outputs in (source, target)]
    row = {
        "mmd/before_correction": float(losses.quadratic_mmd(*picked)),
        "feature_norm/source": _mean_norm(source.features),
        "feature_norm/target": _mean_norm(target.features),
    }
    if classifier.config.correction:
        corrected, _ = classifier.correct(tf.constant(picked[1]))
        row["mmd/after_correction"] = float(losses.quadratic_mmd(picked[0], corrected))
        row["feature_norm/correction"] = _mean_norm(corrected.numpy() - picked[1])
    return row


def predicted_shares(outputs: inference.Outputs, classes: Sequence[str], prefix: str) -> dict[str, float]:
    """{"<prefix>/predicted/<class>": share of the images that are predicted as it}."""
    return {f"{prefix}/predicted/{name}": share for name, share in zip(classes, _shares(outputs), strict=True)}


def marginal_distance(target: inference.Outputs, source_shares: np.ndarray) -> float:
    """Total variation, in 0..1, between predicted target classes and the source's class shares [K].

    Methods that align whole domains push it towards 0, whatever the target's true shares are.
    """
    return float(0.5 * np.abs(np.array(_shares(target)) - source_shares).sum())


def attention_statistics(classifier: models.Classifier, images: Mapping[str, tf.Tensor]) -> dict[str, float]:
    """Mean and standard deviation of the channel attention's factors, over images and channels of a stage.

    Args:
        classifier: with attention.
        images: path (source, target) -> float [N, S, S, 1] in [0, 1], framed, of that domain.

    Returns:
        {"attention/<stage>/<path>/mean" and ".../spread"}; stages are the backbone's: conv2, conv3 ...
    """
    stages = [layer.name.split("_")[0] for layer in classifier.backbone.attentions]
    row = {}
    for path, of_domain in images.items():
        scales = classifier.backbone.scales(classifier.normalise(of_domain), path)
        for stage in dict.fromkeys(stages):
            factors = [np.ravel(tf.cast(s, tf.float32)) for s, of in zip(scales, stages, strict=True) if of == stage]
            joined = np.concatenate(factors)
            row[f"attention/{stage}/{path}/mean"] = float(joined.mean())
            row[f"attention/{stage}/{path}/spread"] = float(joined.std())
    return row


def warn_of_collapse(target: inference.Outputs, classes: Sequence[str]) -> None:
    """Says so if nearly all target images are predicted as one class, and what to try."""
    shares = _shares(target)
    if max(shares) >= _COLLAPSED:
        name = classes[int(np.argmax(shares))]
        print(
            f"warning: {100 * max(shares):.0f}% of the target validation images are predicted as {name}: the "
            "adaptation has collapsed, or not begun; try --init_from a trained baseline, a smaller --beta or "
            "--alpha, --balanced",
            flush=True,
        )


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, evenly over the set (records may be ordered by patient or class)."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def _shares(outputs: inference.Outputs) -> list[float]:
    counts = np.bincount(outputs.predictions, minlength=outputs.logits.shape[1])
    return [float(share) for share in counts / len(outputs.predictions)]


def _mean_norm(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows, axis=1).mean())

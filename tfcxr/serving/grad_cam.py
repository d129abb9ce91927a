"""Grad-CAM: which parts of an image speak for a class or label, and pictures of it.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
arXiv 1610.02391.
"""

import math
import os
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tfcxr.classifiers.networks import attention, models, preprocessing

_COLOURS = "turbo"
_COLUMNS = 4  # of heat maps in one picture


def grad_cam(maps: tf.Tensor, classify: Callable[[tf.Tensor], tf.Tensor], class_id: tf.Tensor) -> tf.Tensor:
    """Equations 1 and 2 of the paper: ReLU(sum over channels of weight * map), weight = mean gradient of the logit.

    Args:
        maps: float [N, h, w, C], of the last convolution.
        classify: function of such maps -> logits [N, K].
        class_id: integer [N], whose logit is explained.

    Returns:
        float32 [N, h, w] in [0, 1]: each image divided by its own maximum; all 0 where nothing speaks for the class.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(maps)
        logit = tf.gather(classify(maps), class_id, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(logit, maps), axis=[1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=[1, 2], keepdims=True))


def make_explainer(classifier: models.Classifier, path: str = "target") -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Grad-CAM of a trained classifier.

    Args:
        classifier: its weights are shared, not copied.
        path: source or target, as of `Classifier`.

    Returns:
        Function of images float [N, H, W, 1] in [0, 1] and class numbers [N] -> float32 [N, h, w], see `grad_cam`, of
        the centre that evaluation crops: `cropped_part`.
    """
    # All backbones end in global average pooling; what it pools is the last convolution's map.
    body = tf.keras.Model(classifier.base.inputs, classifier.base.layers[-1].input)
    is_attended = isinstance(classifier.backbone, attention.AttendedBackbone)
    if is_attended:
        attended = attention.AttendedBackbone(body, reduction=classifier.config.reduction)
        attended.attentions = classifier.backbone.attentions

    @tf.function(autograph=False)
    def explain(images: tf.Tensor, class_id: tf.Tensor) -> tf.Tensor:
        config = classifier.config
        normalised = classifier.normalise(preprocessing.frame(images, config.image_size, config.framing))
        maps = attended(normalised, path=path) if is_attended else body(normalised, training=False)

        def classify(maps: tf.Tensor) -> tf.Tensor:
            return classifier.classify(tf.reduce_mean(maps, axis=[1, 2]), path)

        return grad_cam(tf.cast(maps, tf.float32), classify, class_id)

    return explain


def cropped_part(
    image_size: int, framing: str, shown: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """What evaluation's framing leaves of `shown`: left, right, top and bottom, in the same unit."""
    side = preprocessing.framed_size(image_size, framing)
    start = (side - image_size) // 2
    low, high = start / side, (start + image_size) / side
    left, right, top, bottom = shown
    width, height = right - left, bottom - top
    return left + low * width, left + high * width, top + low * height, top + high * height


def draw_overlay(
    file: str | os.PathLike,
    picture: np.ndarray,
    heats: Mapping[str, np.ndarray],
    part: tuple[float, float, float, float],
    title: str,
) -> None:
    """Writes a PNG: the radiograph, and beside it the same under each of its heat maps.

    Args:
        file: to write.
        picture: float [H, W] in [0, 1], of any size and aspect.
        heats: what is above a heat map -> float [h, w] in [0, 1].
        part: that they cover: left, right, top and bottom in pixels of the picture; may reach beyond it.
        title: above all.
    """
    height, width = picture.shape
    columns = min(_COLUMNS, 1 + len(heats))
    rows = math.ceil((1 + len(heats)) / columns)
    figure = Figure(figsize=(4.5 * columns, 0.9 + 4 * rows * min(2, height / width)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    left, right, top, bottom = part
    # Cold parts stay nearly transparent: the anatomy under them is what the hot ones are judged by.
    scale = ScalarMappable(Normalize(0, 1), _COLOURS)
    shown: list[tuple[str, np.ndarray | None]] = [("", None), *heats.items()]
    for axes, (name, heat) in zip(panels, shown, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        if heat is None:
            continue
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.imshow(
            heat,
            cmap=scale.cmap,
            norm=scale.norm,
            extent=(left, right, bottom, top),
            interpolation="bilinear",
            alpha=0.1 + 0.4 * heat,
        )
        axes.set(xlim=(0, width), ylim=(height, 0))
    figure.colorbar(scale, ax=panels[1:].tolist(), shrink=0.8, label="speaks for the class (1: most)")
    figure.savefig(file, dpi=100)

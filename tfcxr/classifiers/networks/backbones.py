"""Feature extractors: ResNet-50, DenseNet-121 (both of Keras), SE-ResNet-50, EfficientNet-Lite0, a small network.

ResNet: He et al. 2016, arXiv 1512.03385; squeeze-and-excitation (SE): Hu et al. 2018, arXiv 1709.01507; DenseNet: Huang
et al. 2017, arXiv 1608.06993.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import tensorflow as tf

from tfcxr.classifiers import choices
from tfcxr.classifiers.networks import efficientnet_lite0, seeding

layers = tf.keras.layers


# Backbone of choices.BACKBONES -> function that makes it: images [N, H, W, 3], normalised -> features [N, F].
MAKERS: dict[str, Callable[[], tf.keras.Model]] = {
    "resnet50": lambda: tf.keras.applications.ResNet50(include_top=False, weights=None, pooling="avg"),
    "densenet121": lambda: tf.keras.applications.DenseNet121(include_top=False, weights=None, pooling="avg"),
    "se_resnet50": lambda: residual_network(
        "se_resnet50", 64, ((64, 3), (128, 4), (256, 6), (512, 3)), torch_style=True
    ),
    choices.EFFICIENTNET_LITE0: efficientnet_lite0.make,
    choices.EFFICIENTNET_LITE0_MIDDLE: lambda: efficientnet_lite0.make(middle=True),
    "resnet_tiny": lambda: residual_network("resnet_tiny", 32, ((16, 2), (32, 2), (64, 2))),
}
# PyTorch's 0.1, seen from the other side. Keras's 0.99 needs some 500 steps before the stored statistics are those of
# the data; a short run would be evaluated with statistics of nothing.
BATCH_NORM_MOMENTUM = 0.9


def build(name: str, stem: str = "imagenet", *, seed: int = 0, dtype: str = "float32") -> tf.keras.Model:
    """Makes a backbone with random weights.

    Args:
        name: one of choices.BACKBONES.
        stem: imagenet: the network as published. small: the first convolution has stride 1 and there is no max pooling,
            so that images of 64 px and less keep their detail; the weights have the same shapes, and the network costs
            about 16 times as much.
        seed: of the weights, which depend on nothing else.
        dtype: Keras dtype policy of the layers.

    Returns:
        Functional model of images [N, H, W, 3], normalised -> features [N, F]; without channel attention, which
        attention.AttendedBackbone adds.

    Raises:
        ValueError: no such backbone or stem.
    """
    if name not in choices.BACKBONES:
        raise ValueError(f"name={name!r}: must be one of {', '.join(choices.BACKBONES)}")
    if stem not in choices.STEMS:
        raise ValueError(f"stem={stem!r}: must be one of {', '.join(choices.STEMS)}")
    pads: list[str] = []

    def change(layer: tf.keras.layers.Layer, config: MutableMapping[str, Any]) -> tf.keras.layers.Layer | None:
        if isinstance(layer, layers.BatchNormalization):
            config["momentum"] = BATCH_NORM_MOMENTUM
        if isinstance(layer, layers.ZeroPadding2D):
            pads.append(layer.name)
        if stem == "small" and layer.name in ("conv1_conv", "conv1/conv", "stem_conv"):
            config["strides"] = (1, 1)
        # In all these networks the second padding belongs to the stem's pooling; DenseNet's has no fixed name.
        if stem == "small" and (layer.name in ("pool1_pool", "pool1") or layer.name in pads[1:2]):
            return layers.Activation("linear", name=layer.name, dtype=dtype)
        return None

    return seeding.rebuild(MAKERS[name], seed=seed, dtype=dtype, change=change)


def residual_network(
    name: str, stem: int, stages: Sequence[tuple[int, int]], *, torch_style: bool = False
) -> tf.keras.Model:
    """ResNet v1 of bottlenecks whose first 1x1 convolution has the stride, with layers named as in Keras's ResNet-50.

    Args:
        name: of the model.
        stem: filters of the first convolution.
        stages: filters and number of blocks of each; a block has 4 times as many channels as filters.
        torch_style: as the reference's SE-ResNet-50: convolutions without bias, epsilon 1e-5, and pooling without
            padding in ceil mode. Otherwise as Keras's ResNet-50.

    Returns:
        Functional model of images [N, H, W, 3] -> features [N, F], F = 4 times the last filters.
    """

    def convolution(y, width, size, strides, part):
        padding = "valid" if part == "conv1" else "same"
        y = layers.Conv2D(width, size, strides, padding, use_bias=not torch_style, name=f"{part}_conv")(y)
        return layers.BatchNormalization(epsilon=1e-5 if torch_style else 1.001e-5, name=f"{part}_bn")(y)

    def bottleneck(y, filters, strides, project, part):
        shortcut = convolution(y, 4 * filters, 1, strides, f"{part}_0") if project else y
        y = layers.Activation("relu", name=f"{part}_1_relu")(convolution(y, filters, 1, strides, f"{part}_1"))
        y = layers.Activation("relu", name=f"{part}_2_relu")(convolution(y, filters, 3, 1, f"{part}_2"))
        y = layers.Add(name=f"{part}_add")([shortcut, convolution(y, 4 * filters, 1, 1, f"{part}_3")])
        return layers.Activation("relu", name=f"{part}_out")(y)

    inputs = layers.Input([None, None, 3])
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = layers.Activation("relu", name="conv1_relu")(convolution(x, stem, 7, 2, "conv1"))
    # Ceil mode adds a row and a column after the last ones where the windows do not come out even. A zero never is the
    # maximum of what ReLU gives, and where they come out even it is in no window.
    x = layers.ZeroPadding2D(((0, 1), (0, 1)) if torch_style else 1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, (filters, blocks) in enumerate(stages, start=2):
        for block in range(1, blocks + 1):
            strides = 2 if block == 1 and stage > 2 else 1
            x = bottleneck(x, filters, strides, block == 1, f"conv{stage}_block{block}")
    return tf.keras.Model(inputs, layers.GlobalAveragePooling2D(name="avg_pool")(x), name=name)

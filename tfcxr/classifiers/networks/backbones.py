"""Feature extractors: ResNet-50, DenseNet-121 (both of Keras), SE-ResNet-50, and a small network for quick looks.

ResNet: He et al. 2016, arXiv 1512.03385; squeeze-and-excitation (SE): Hu et al. 2018, arXiv 1709.01507; DenseNet: Huang
et al. 2017, arXiv 1608.06993.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfrecords_builder.errors import InputError

layers = tf.keras.layers


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What is known about a backbone.

    Attributes:
      make: function without arguments -> functional model of images [N, H, W, 3], normalised -> features [N, F].
      normalisation: of its ImageNet weights, see preprocessing.Normalise.
      min_size: smallest side of the input in pixels.
      imagenet: address of its ImageNet weights; the file is looked for in the Keras cache. None if there are none.
      attention: whether its blocks end in residual sums of bottlenecks, where channel attention fits.
      squeeze_excite: whether channel attention is part of it, in every classifier.
    """

    make: Callable[[], tf.keras.Model]
    normalisation: str
    min_size: int
    imagenet: str | None
    attention: bool
    squeeze_excite: bool = False


KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"

BACKBONES = {
    "resnet50": Backbone(
        make=lambda: tf.keras.applications.ResNet50(include_top=False, weights=None, pooling="avg"),
        normalisation="caffe",
        min_size=32,
        imagenet=f"{KERAS_URL}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        attention=True,
    ),
    "densenet121": Backbone(
        make=lambda: tf.keras.applications.DenseNet121(include_top=False, weights=None, pooling="avg"),
        normalisation="torch",
        min_size=32,
        imagenet=f"{KERAS_URL}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        attention=False,
    ),
    "se_resnet50": Backbone(
        make=lambda: residual_network("se_resnet50", 64, ((64, 3), (128, 4), (256, 6), (512, 3)), torch_style=True),
        normalisation="torch",
        min_size=32,
        imagenet="http://data.lip6.fr/cadene/pretrainedmodels/se_resnet50-ce0d4300.pth",
        attention=True,
        squeeze_excite=True,
    ),
    "resnet_tiny": Backbone(
        make=lambda: residual_network("resnet_tiny", 32, ((16, 2), (32, 2), (64, 2))),
        normalisation="torch",
        min_size=8,
        imagenet=None,
        attention=True,
    ),
}
# PyTorch's 0.1, seen from the other side. Keras's 0.99 needs some 500 steps before the stored statistics are those of
# the data; a short run would be evaluated with statistics of nothing.
BATCH_NORM_MOMENTUM = 0.9
STEMS = ("imagenet", "small")


def build(name: str, stem: str = "imagenet") -> tf.keras.Model:
    """Makes a backbone with random weights (of TensorFlow's global seed).

    Args:
      name: one of BACKBONES.
      stem: imagenet: the network as published. small: the first convolution has stride 1 and there is no max pooling,
        so that images of 64 px and less keep their detail; the weights have the same shapes, and the network costs
        about 16 times as much.

    Returns:
      Functional model of images [N, H, W, 3], normalised -> features [N, F]; without channel attention, which
      attention.AttendedBackbone adds.
    """
    if name not in BACKBONES:
        raise ValueError(f"name={name!r}: must be one of {', '.join(BACKBONES)}")
    if stem not in STEMS:
        raise ValueError(f"stem={stem!r}: must be one of {', '.join(STEMS)}")
    model = BACKBONES[name].make()
    if stem == "small":
        model = _without_stem_strides(model)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return model


def imagenet_path(name: str) -> pathlib.Path:
    """Where the Keras cache has the ImageNet weights of a backbone.

    Raises InputError if there are none for it, or the file is not there (nothing is downloaded).
    """
    weights = BACKBONES[name].imagenet
    if weights is None:
        raise InputError(f"--weights=imagenet: there are none for {name}; give --weights=none")
    return find_cached(weights, "--weights", "--weights=none")


def find_cached(url: str, flag: str, instead: str) -> pathlib.Path:
    """Where the Keras cache has a published file.

    Args:
      url: where it is published.
      flag: that asked for the ImageNet weights, for the message.
      instead: flag and value that do without them.

    Raises:
      InputError: the file is not there (nothing is downloaded).
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    path = home / "models" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise InputError(f"{flag}=imagenet: put {url} at {path} (nothing is downloaded by itself), or give {instead}")
    return path


def _without_stem_strides(model: tf.keras.Model) -> tf.keras.Model:
    # In all these networks the second padding belongs to the stem's pooling; DenseNet's has no fixed name.
    pads = [layer.name for layer in model.layers if isinstance(layer, layers.ZeroPadding2D)]

    def clone(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        config = layer.get_config()
        if layer.name in ("conv1_conv", "conv1/conv"):
            config["strides"] = (1, 1)
        elif layer.name in ("pool1_pool", "pool1", pads[1]):
            return layers.Activation("linear", name=layer.name)
        return type(layer).from_config(config)

    return tf.keras.models.clone_model(model, clone_function=clone)


def residual_network(
    name: str, stem: int, stages: Sequence[tuple[int, int]], *, torch_style: bool = False
) -> tf.keras.Model:
    """ResNet v1 of bottlenecks whose first 1x1 convolution has the stride, with layers named as in Keras's ResNet-50.

    Args:
      name: of the model.
      stem: filters of the first convolution.
      stages: filters and number of blocks of each; a block has 4 times as many channels as filters.
      torch_style: as the reference's SE-ResNet-50: convolutions without bias, epsilon 1e-5, and pooling without padding
        in ceil mode. Otherwise as Keras's ResNet-50.

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

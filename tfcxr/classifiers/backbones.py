"""Feature extractors: Keras ResNet-50 and DenseNet-121, and a small residual network for tests and quick looks.

ResNet: He et al. 2016, arXiv 1512.03385; DenseNet: Huang et al. 2017, arXiv 1608.06993.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import h5py
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
      imagenet: file name of the ImageNet weights in the Keras cache; None if there are none.
      attention: whether its blocks end in residual sums of bottlenecks, where channel attention fits.
    """

    make: Callable[[], tf.keras.Model]
    normalisation: str
    min_size: int
    imagenet: str | None
    attention: bool


_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_EPSILON = 1.001e-5  # of Keras's ResNet

BACKBONES = {
    "resnet50": Backbone(
        make=lambda: tf.keras.applications.ResNet50(include_top=False, weights=None, pooling="avg"),
        normalisation="caffe",
        min_size=32,
        imagenet="resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        attention=True,
    ),
    "densenet121": Backbone(
        make=lambda: tf.keras.applications.DenseNet121(include_top=False, weights=None, pooling="avg"),
        normalisation="torch",
        min_size=32,
        imagenet="densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        attention=False,
    ),
    "resnet_tiny": Backbone(
        make=lambda: _resnet_tiny(), normalisation="torch", min_size=8, imagenet=None, attention=True
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
      Functional model of images [N, H, W, 3], normalised -> features [N, F].
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


def find_cached(weights: str, flag: str, instead: str) -> pathlib.Path:
    """Where the Keras cache has a weights file of keras.applications.

    Args:
      weights: folder and name below the address where Keras publishes them.
      flag: that asked for the ImageNet weights, for the message.
      instead: flag and value that do without them.

    Raises:
      InputError: the file is not there (nothing is downloaded).
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    path = home / "models" / pathlib.Path(weights).name
    if not path.is_file():
        raise InputError(
            f"{flag}=imagenet: put {_URL}/{weights} at {path} (nothing is downloaded by itself), or give {instead}"
        )
    return path


def load_h5(model: tf.keras.Model, path: str | os.PathLike) -> None:
    """Loads the weights of a Keras `.h5` file (weights or whole model) into a backbone by layer name.

    Raises InputError naming the file if it cannot be read or is of another architecture.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            names = {n.decode() if isinstance(n, bytes) else n for n in root.attrs.get("layer_names", [])}
    except OSError as error:
        raise InputError(f"--weights={path}: is not a readable .h5 file ({error})") from error
    missing = [layer.name for layer in model.layers if layer.weights and layer.name not in names]
    if missing:
        raise InputError(
            f"--weights={path}: is not of this backbone: it lacks {len(missing)} layers, such as {missing[0]}"
        )
    try:
        model.load_weights(str(path), by_name=True)
    except (ValueError, OSError) as error:
        raise InputError(f"--weights={path}: does not fit this backbone ({str(error).splitlines()[0]})") from error


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


def _resnet_tiny() -> tf.keras.Model:
    """ResNet v1 of 3 stages of 2 bottlenecks, 256 features, 0.2 M weights; layers named as in Keras's ResNet-50."""
    inputs = layers.Input([None, None, 3])
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = layers.Conv2D(32, 7, strides=2, name="conv1_conv")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name="conv1_bn")(x)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, filters in enumerate((16, 32, 64), start=2):
        for block in (1, 2):
            stride = 2 if block == 1 and stage > 2 else 1
            x = _bottleneck(x, filters, stride, block == 1, f"conv{stage}_block{block}")
    return tf.keras.Model(inputs, layers.GlobalAveragePooling2D(name="avg_pool")(x), name="resnet_tiny")


def _bottleneck(x, filters: int, stride: int, project: bool, name: str):
    def convolution(y, width, size, strides, part):
        y = layers.Conv2D(width, size, strides, padding="same", name=f"{name}_{part}_conv")(y)
        return layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_{part}_bn")(y)

    shortcut = convolution(x, 4 * filters, 1, stride, 0) if project else x
    y = layers.Activation("relu", name=f"{name}_1_relu")(convolution(x, filters, 1, stride, 1))
    y = layers.Activation("relu", name=f"{name}_2_relu")(convolution(y, filters, 3, 1, 2))
    y = layers.Add(name=f"{name}_add")([shortcut, convolution(y, 4 * filters, 1, 1, 3)])
    return layers.Activation("relu", name=f"{name}_out")(y)

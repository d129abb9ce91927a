"""Features of networks: Inception v3, EfficientNet-Lite0, classifiers of ours, and other Keras classifiers.

Inception v3 (Szegedy et al. 2016, arXiv 1512.00567) is that of keras.applications, fed with the grey channel three
times, resized to 299 px by the project's one resize, in [-1, 1]. Published FIDs use another copy of the network (with
1008 classes) and another resize, so they are not comparable with ours, not even with the ImageNet weights.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfcxr import foreign_models
from tfcxr.classifiers import choices, inference, loading
from tfcxr.classifiers.networks import backbones, efficientnet_lite0, preprocessing, seeding
from tfcxr.fidelity.extractor import Extractor
from tfcxr.fidelity.feature_names import INCEPTION, PIXELS_PCA
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import image_ops, pixel_ranges

_INCEPTION_SIZE = 299
_LITE0_SIZE = 224  # that it was trained with

_INCEPTION_URL = f"{choices.KERAS_URL}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
# MD5 of that file, as keras.applications checks it.
_INCEPTION_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"
# Images in 0..255 make a network's stored variances 65025 times those of images in [0, 1]. Other images of the same
# range differ by far less than 100 times, as does [-1, 1], which this cannot tell.
_SUSPICIOUS_VARIANCE = 100.0
_PROBE_SEED = 1


class NetworkFeatures(Extractor):
    """Features of a network, computed in one traced function; float32."""

    def __init__(self, name: str, resolution: int, compute: Callable[[tf.Tensor], tf.Tensor]):
        """`compute`: TensorFlow function of images float32 [N, R, R, 1] in [-1, 1] -> [N, F]."""
        self.name = name
        specification = tf.TensorSpec([None, resolution, resolution, 1], tf.float32)
        self._compute = tf.function(lambda images: tf.cast(compute(images), tf.float32), [specification])

    def _extract(self, images: np.ndarray) -> np.ndarray:
        return self._compute(tf.constant(images, tf.float32)).numpy()


def make_inception(weights: str, resolution: int) -> NetworkFeatures:
    """Inception v3, average-pooled: 2048 features.

    Args:
        weights: imagenet (from the Keras cache; nothing is downloaded) or an .h5 file of the network without its top.
        resolution: side of the images in pixels.

    Raises:
        InputError: no such file, or a damaged one, or of another network.
    """
    if weights == "imagenet":
        path = choices.find_cached(_INCEPTION_URL, "--features_weights", f"--features={PIXELS_PCA}")
        if _digest(path, "md5") != _INCEPTION_MD5:
            raise InputError(f"--features_weights=imagenet: {path} is damaged or another file; fetch it again")
    else:
        path = pathlib.Path(weights)
        if not path.is_file():
            raise InputError(f"--features_weights={weights}: must be imagenet or an .h5 file; no such file is there")
    original = _digest(path, "md5") == _INCEPTION_MD5
    network = seeding.rebuild(
        lambda: tf.keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg"),
        seed=0,
        dtype="float32",
    )
    try:
        # By position: Keras numbers the layers anew with every model it makes.
        network.load_weights(str(path))
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"--features_weights={weights}: is no Inception v3 without top ({_line(error)})") from error

    def compute(images: tf.Tensor) -> tf.Tensor:
        resized = image_ops.resize(images, _INCEPTION_SIZE, _INCEPTION_SIZE)
        return network(tf.repeat(resized, 3, axis=-1), training=False)

    return NetworkFeatures(INCEPTION if original else f"{INCEPTION}-{_short(path)}", resolution, compute)


def make_efficientnet_lite0(resolution: int) -> NetworkFeatures:
    """EfficientNet-Lite0 with its ImageNet weights, average-pooled: 1280 features of images resized to 224 px.

    Args:
        resolution: side of the images in pixels.

    Raises:
        InputError: the package with the weights is not installed, or holds another file.
    """
    path = choices.find_lite0(f"--features={choices.EFFICIENTNET_LITE0}", f"--features={PIXELS_PCA}")
    network = backbones.build(choices.EFFICIENTNET_LITE0)
    efficientnet_lite0.load(network, path)
    normalise = preprocessing.Normalise(choices.BACKBONES[choices.EFFICIENTNET_LITE0].normalisation)

    def compute(images: tf.Tensor) -> tf.Tensor:
        resized = image_ops.resize(pixel_ranges.signed_to_unit(images), _LITE0_SIZE, _LITE0_SIZE)
        return network(normalise(resized), training=False)

    return NetworkFeatures(choices.EFFICIENTNET_LITE0, resolution, compute)


def make_classifier(path: str | os.PathLike, resolution: int) -> NetworkFeatures:
    """A classifier of ours: what its last dense layer sees (of DCAN the corrected features of the target path).

    Or a pretrained network, which has no such layer: its pooled features.

    Raises InputError if `path` is no run folder of either or export of a classifier, or has no weights yet.
    """
    network = loading.load_encoder_network(path)
    config = network.config

    def compute(images: tf.Tensor) -> tf.Tensor:
        features = inference.compute_features(network, pixel_ranges.signed_to_unit(images))
        return network.correct(features)[0] if config.correction else features

    # The same weights see something else behind another stem or at another size, so the name tells these apart too.
    settings = json.dumps(dataclasses.asdict(config), sort_keys=True)
    whole = hashlib.sha256((loading.weights_digest(path, "--features") + settings).encode()).hexdigest()
    return NetworkFeatures(f"{config.backbone}-{whole[:8]}", resolution, compute)


def make_keras(path: str | os.PathLike, resolution: int) -> NetworkFeatures:
    """Any Keras classifier of images in [0, 1]: the input of its last dense layer; its output if it ends in pooling.

    Images are resized to the model's input size, if it has one, and repeated to 3 channels if it wants 3.

    Args:
        path: .keras or .h5 file, or SavedModel that Keras wrote.
        resolution: side of the images in pixels.

    Raises:
        InputError: no Keras model, one with layers that could run code, that takes something else than one image, whose
            features are no vector, or that expects another range than [0, 1]: as its rescaling layer says, or the
            stored statistics of its first BatchNormalization.
    """
    path = pathlib.Path(path)
    foreign_models.check_keras(path, "--features")
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the content happens to break
        raise InputError(f"--features={path}: Keras cannot load it ({_line(error)})") from error
    if not isinstance(model, tf.keras.Model) or len(getattr(model, "inputs", None) or []) != 1:
        raise InputError(f"--features={path}: is no Keras model of one image; save it with model.save")
    shape = model.input_shape
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise InputError(f"--features={path}: takes inputs of shape {list(shape)}, not [N, H, W, 1 or 3]")
    try:
        network = _headless(model)
    except Exception as error:  # a layer used twice, or not made of layers at all
        raise InputError(f"--features={path}: has no last dense layer to cut off ({_line(error)})") from error
    found = network.output_shape
    if not isinstance(found, tuple) or len(found) != 2 or found[1] is None:
        raise InputError(f"--features={path}: its features have shape {found}, not [N, F]")
    height, width, channels = shape[1] or resolution, shape[2] or resolution, shape[3]
    _check_range(model, path, [height, width, channels])

    def compute(images: tf.Tensor) -> tf.Tensor:
        resized = image_ops.resize(pixel_ranges.signed_to_unit(images), height, width)
        return network(tf.repeat(resized, channels, axis=-1), training=False)

    return NetworkFeatures(f"keras-{_short(path)}", resolution, compute)


def _headless(model: tf.keras.Model) -> tf.keras.Model:
    """The model up to the input of its last dense layer, whatever follows without weights; whole if it has none.

    Looks into a model that is the last layer with weights, such as one behind a rescaling layer.
    """
    for layer in reversed(model.layers):
        if isinstance(layer, tf.keras.layers.Dense):
            return tf.keras.Model(model.inputs, layer.input)
        if isinstance(layer, tf.keras.Model):
            return tf.keras.Model(model.inputs, _headless(layer)(layer.inbound_nodes[-1].input_tensors))
        if layer.weights:
            break
    return model


def _check_range(model: tf.keras.Model, path: pathlib.Path, shape: list[int]) -> None:
    layers = list(_leaves(model))
    for layer in layers:
        if isinstance(layer, tf.keras.layers.Rescaling):
            if np.max(np.abs(layer.scale)) < 0.05:  # 1/255 and 1/127.5, not 1 or 2
                raise InputError(
                    f"--features={path}: expects images in 0..255, not [0, 1] (it rescales them by "
                    f"{float(np.max(layer.scale)):.4g}); save it without that layer or put Rescaling(255) before"
                )
            break
    norm = next((layer for layer in layers if isinstance(layer, tf.keras.layers.BatchNormalization)), None)
    if norm is None or _untrained(norm):
        return
    seen: list[np.ndarray] = []
    call = norm.call

    def look(inputs, *args, **kwargs):
        seen.append(np.asarray(inputs))
        return call(inputs, *args, **kwargs)

    norm.call = look
    try:
        model(_probe(shape), training=False)
    finally:
        del norm.call
    ratios = norm.moving_variance.numpy() / np.maximum(seen[0].var(axis=(0, 1, 2)), 1e-12) if seen else np.ones(1)
    ratio = float(np.median(ratios))
    if ratio > _SUSPICIOUS_VARIANCE:
        raise InputError(
            f"--features={path}: expects another range than [0, 1], probably 0..255 (its {norm.name} stores variances "
            f"{ratio:.3g} times those of radiograph-like images); put Rescaling(255) before it"
        )


def _leaves(layer) -> Iterator[tf.keras.layers.Layer]:
    if isinstance(layer, tf.keras.Model):
        for inner in layer.layers:
            yield from _leaves(inner)
    else:
        yield layer


def _untrained(norm: tf.keras.layers.BatchNormalization) -> bool:
    return bool(np.all(norm.moving_mean.numpy() == 0) and np.all(norm.moving_variance.numpy() == 1))


def _probe(shape: list[int]) -> tf.Tensor:
    """Smooth pictures with the contrast of radiographs (standard deviation 0.25), [4, H, W, C] in [0, 1]."""
    height, width, channels = shape
    coarse = tf.random.stateless_normal([4, 8, 8, 1], [_PROBE_SEED, 0], 0.5, 0.3)
    return tf.repeat(tf.clip_by_value(image_ops.resize(coarse, height, width), 0.0, 1.0), channels, axis=-1)


def _digest(path: pathlib.Path, algorithm: str = "sha256") -> str:
    """Of a file, or of a folder's files and their names."""
    total = hashlib.new(algorithm)
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            total.update(f"{file.relative_to(path)}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(2**20):
                total.update(chunk)
    return total.hexdigest()


def _short(path: pathlib.Path) -> str:
    return _digest(path)[:8]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

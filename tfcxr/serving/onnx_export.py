"""A classifier as an ONNX file; needs the extra `onnx`.

The input has one size, that of the training records: ONNX has no antialiased resize, and at a fixed size the resize to
what the backbone sees is a product with two constant matrices.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr.classifiers import inference, loading
from tfcxr.classifiers.networks import models, preprocessing
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import image_ops

FILE = "model.onnx"
TOLERANCE = 1e-4

_OPSET = 17
_CHECKED_IMAGES = 3


def check_installed() -> None:
    """Raises InputError if a package of the extra is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx: needs the extra: pip install 'tfcxr[onnx]' ({error})") from error


def export_onnx(run_dir: str | os.PathLike, folder: pathlib.Path) -> dict[str, Any]:
    """Writes `folder`/model.onnx and runs it once with onnxruntime: the converter may write broken files in silence.

    Input: images, float [N, R, R, 1] in [0, 1], made from files as those of the training records, whose resolution R,
    aspect and contrast are those of the metadata; outputs: probabilities float [N, K] and class_id int64 [N], or for
    labels that do not exclude each other the probabilities only; also in the metadata: classes (or labels), joined by
    `|`, multilabel and label_version. Computed in float32, whatever the run's type.

    Args:
        run_dir: a baseline or DCAN run that has weights, or its export.
        folder: existing folder to write into.

    Returns:
        {"file", "opset", "max_difference": of probabilities from Keras, on random images}.

    Raises:
        InputError: not such a run; the extra is missing.
        RunError: the file gives other probabilities than Keras.
    """
    check_installed()
    import onnx
    import tf2onnx

    config = dataclasses.replace(models.ModelConfig.from_dict(loading.load_classifier_config(run_dir)), dtype="float32")
    classifier = models.Classifier(config)
    models.load_weights(classifier, loading.weights_path(run_dir))
    loading.calibrate(classifier, run_dir)
    specification = tf.TensorSpec([None, config.resolution, config.resolution, 1], tf.float32, name="images")
    proto, _ = tf2onnx.convert.from_function(
        tf.function(_at_one_size(classifier), input_signature=[specification]),
        input_signature=[specification],
        opset=_OPSET,
    )
    properties = {
        "label_version": config.label_version,
        "multilabel": config.multilabel,
        **dataclasses.asdict(config.picture),
    }
    properties = {name: str(value) for name, value in properties.items()}
    onnx.helper.set_model_props(proto, {"classes": "|".join(config.classes), **properties})
    with files.atomic_path(folder / FILE) as temporary:
        temporary.write_bytes(proto.SerializeToString())

    return {"file": FILE, "opset": _OPSET, "max_difference": check_same(folder / FILE, classifier)}


def check_same(file: pathlib.Path, classifier: models.Classifier) -> float:
    """The largest difference between probabilities of an ONNX file and of Keras, on random images.

    Raises RunError if it is above TOLERANCE.
    """
    import onnxruntime

    shape = [_CHECKED_IMAGES, classifier.config.resolution, classifier.config.resolution, 1]
    batch = np.random.default_rng(0).random(shape, np.float32)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": batch})
    difference = float(np.abs(found - inference.InferenceModel(classifier)(batch).numpy()).max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"--onnx: {file.name} gives probabilities that differ by {difference:.2g} from Keras's "
            f"(at most {TOLERANCE:g})"
        )
    return difference


def framing_matrix(resolution: int, image_size: int, framing: str) -> np.ndarray:
    """float32 [S, R] such that matrix @ image @ transposed matrix is preprocessing.frame of a square image [R, R]."""
    side = preprocessing.framed_size(image_size, framing)
    start = (side - image_size) // 2
    columns = image_ops.resize(tf.eye(resolution)[..., tf.newaxis], side, resolution)[..., 0]
    return columns[start : start + image_size].numpy()


def _at_one_size(classifier: models.Classifier):
    """The signature image_tensor for images of the records' resolution, of operations that ONNX has."""
    config = classifier.config
    constants = framing_matrix(config.resolution, config.image_size, config.framing)

    def image_tensor(images: tf.Tensor) -> dict[str, tf.Tensor]:
        matrix = tf.constant(constants)  # made outside, it would become an input of the graph
        framed = tf.matmul(tf.matmul(matrix, images[..., 0]), matrix, transpose_b=True)[..., tf.newaxis]
        probabilities = classifier.probabilities(classifier(framed, path="target", training=False))
        if classifier.config.multilabel:
            return {"probabilities": probabilities}
        return {"probabilities": probabilities, "class_id": tf.argmax(probabilities, axis=-1)}

    return image_tensor

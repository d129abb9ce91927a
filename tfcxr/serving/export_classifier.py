"""Exports a classifier as a SavedModel: encoded bytes in, probabilities out, with all that its use needs inside."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfcxr import foreign_models
from tfcxr.classifiers import calibration, loading
from tfcxr.classifiers.networks import models
from tfcxr.serving import model_cards, warmup_requests
from tfcxr.training import digests, runs
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import image_ops, pictures, pixel_ranges

_SAVED_MODEL = "saved_model.pb"


class ServedClassifier(tf.Module):
    """The signatures of an exported classifier; `predict` uses them for runs as well.

    Each returns {"probabilities": float [N, K], "class_id": int64 [N], "class_name": string [N]}; where labels do not
    exclude each other, {"probabilities": float [N, K], "positive": bool [N, K], whether that is a label's threshold or
    more, "label_names": string [N, K], the same in each row}.

    Attributes:
        functions: signature -> tf.function.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        classes: Sequence[str],
        picture: pictures.PictureOptions,
        *,
        thresholds: Sequence[float] | None = None,
    ):
        """Makes the signatures.

        Args:
            model: the classifier, images [N, H, W, 1] in [0, 1] -> probabilities [N, K].
            classes: K names of classes or labels.
            picture: how the images of the records it was trained on were made: files become such images first, as
                build-records would have done.
            thresholds: of labels that do not exclude each other: from which probability on each is called positive,
                [K]; None: the outputs are classes.
        """
        super().__init__(name="classifier")
        # Not the model itself: a SavedModel would hold a graph of each of its layers, too, at several times the size.
        self._weights = list(model.variables)
        self._classify = lambda batch: model(batch, training=False)
        self.functions = {
            "serving_default": self.image_bytes,
            "image_tensor": self.image_tensor,
            "tf_example": self.tf_example,
        }
        self._picture = picture
        self._classes = tf.constant(classes)
        self._thresholds = None if thresholds is None else tf.constant(thresholds, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """PNG of 8 or 16 bits or JPEG of 8, of any size, grey or RGB; string [N]."""
        return self._outputs(decode_files(image_bytes, self._picture))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32, name="images")])
    def image_tensor(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Float [N, H, W, 1] in [0, 1], contrast and aspect as in the records; values outside are an error."""
        with tf.control_dependencies([pixel_ranges.assert_within(images, pixel_ranges.UNIT)]):
            return self._outputs(tf.identity(images))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def tf_example(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialised tf.train.Example, our records, of which `image/encoded` is read; string [N].

        Unlike that of files, the contrast of records has been set.
        """
        parsed = tf.io.parse_example(examples, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        return self._outputs(decode_files(parsed["image/encoded"], dataclasses.replace(self._picture, contrast="none")))

    def _outputs(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        number = tf.shape(batch)[0]
        # Some networks fail on no image at all: one is added then, and its result taken away.
        batch = tf.pad(batch, [[0, tf.cast(number == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        probabilities = tf.cast(self._classify(batch), tf.float32)[:number]
        if self._thresholds is not None:
            names = tf.broadcast_to(self._classes, tf.shape(probabilities))
            positive = probabilities >= self._thresholds
            return {"probabilities": probabilities, "positive": positive, "label_names": names}
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(self._classes, class_id),
        }


def decode_files(encoded: tf.Tensor, picture: pictures.PictureOptions) -> tf.Tensor:
    """Files, string [N] -> float32 [N, R, R, 1] in [0, 1], as images of records."""

    def decode(data: tf.Tensor) -> tf.Tensor:
        made = pixel_ranges.uint8_to_unit(pictures.fit(image_ops.decode_grey_float(data), 255.0, picture))
        return tf.ensure_shape(made, shape)

    shape = [picture.resolution, picture.resolution, 1]  # known, so that there may be no file at all
    return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def load_config(path: str | os.PathLike) -> dict[str, Any]:
    """As `loading.load_classifier_config`; of an exported generator the InputError says what it is."""
    if (pathlib.Path(path) / runs.EXPORTED_GENERATOR).is_file():
        raise InputError(f"--model={path}: is an exported generator; give a classifier's run folder or export")
    return loading.load_classifier_config(path)


def picture_options(config: dict[str, Any]) -> pictures.PictureOptions:
    """How files become images for a classifier of this configuration, see `load_config`."""
    return models.ModelConfig.from_dict(config).picture


def find_thresholds(path: str | os.PathLike, config: dict[str, Any]) -> list[float] | None:
    """From which probability on each label is called positive; None for classes, of which the most probable is named.

    It is the threshold of the best F1 where the export at `path` was calibrated, 0.5 elsewhere and for labels for which
    none could be chosen. `config`: see `load_config`.
    """
    if not config["multilabel"]:
        return None
    known = calibration.read(path)
    chosen = known.thresholds if known else {}
    cuts = [chosen.get(name, {}).get(calibration.BEST_F1, calibration.HALF) for name in config["classes"]]
    return [float("inf") if cut is None else float(cut) for cut in cuts]


def load_image_tensor(path: str | os.PathLike) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The function behind the signature `image_tensor` of an export, or of what a run's export would be.

    Raises InputError: not of a classifier, without weights yet, or a damaged SavedModel.
    """
    config = load_config(path)
    if not (pathlib.Path(path) / _SAVED_MODEL).exists():
        served = _serve(path, config)
        return lambda images: served.image_tensor(images)  # keeps `served`, which its method alone does not
    digests.check(path)
    foreign_models.check_saved_model(path, "--model")
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"--model={path}: its SavedModel cannot be read ({reason}); export the run again") from error
    return lambda images: loaded.signatures["image_tensor"](images=images)


def export_classifier(
    run_dir: str | os.PathLike,
    folder: pathlib.Path,
    evaluations: Sequence[str | os.PathLike] = (),
    calibrated: calibration.Calibration | None = None,
) -> dict[str, Any]:
    """Writes a run's classifier as a SavedModel into `folder`.

    The folder gets the SavedModel with the signatures of `ServedClassifier`, a warm-up request for each (if the extra
    `serving` is installed), the files of the run from which `tfcxr.load_classifier` rebuilds the Keras model, and the
    assets class_names.txt, label_names.txt and model_card.md.

    Args:
        run_dir: a baseline or DCAN run that has weights.
        folder: existing folder to write into.
        evaluations: output folders of evaluations of this run, for the model card.
        calibrated: what its probabilities are calibrated by.

    Returns:
        What result.json should hold.

    Raises:
        InputError: not a run of a classifier, or one without weights yet; an evaluation of another model.
    """
    run_dir = pathlib.Path(run_dir)
    config = loading.load_classifier_config(run_dir)
    classes, picture = list(config["classes"]), picture_options(config)
    loading.load_network(run_dir)  # refuses one without weights before anything is written
    measured = [_read_evaluation(path, run_dir) for path in evaluations]
    result_path = run_dir / "result.json"
    result = files.read_json(result_path) if result_path.exists() else {}
    card = model_cards.classifier_card(config, result, measured, calibrated)
    loading.copy_files(run_dir, folder)
    if calibrated:
        calibrated.write(folder)
    served = _serve(folder, config)
    with tempfile.TemporaryDirectory() as temporary:
        assets = pathlib.Path(temporary)
        files.write_text(assets / "class_names.txt", "".join(f"{name}\n" for name in classes))
        files.write_text(assets / "label_names.txt", "".join(f"{name}\n" for name in config["labels"]))
        files.write_text(assets / "model_card.md", card)
        served.assets = [tf.saved_model.Asset(str(path)) for path in sorted(assets.iterdir())]
        tf.saved_model.save(served, str(folder), signatures=served.functions)
    warmed = warmup_requests.write_requests(folder, "classifier", _requests(picture.resolution))
    return {
        "kind": "classifier",
        "run": str(run_dir),
        "classes": classes,
        "multilabel": config["multilabel"],
        "calibrated": calibrated is not None,
        "signatures": list(served.functions),
        "warmup_requests": warmed,
        **dataclasses.asdict(picture),
    }


def _serve(path: str | os.PathLike, config: dict[str, Any]) -> ServedClassifier:
    """The signatures of a run, or of an export as Keras loads it."""
    model = loading.load_classifier(path)
    return ServedClassifier(model, config["classes"], picture_options(config), thresholds=find_thresholds(path, config))


def _requests(resolution: int) -> dict[str, dict[str, tensor_pb2.TensorProto]]:
    """A request of one black image for each signature."""
    png = image_ops.encode_png(tf.zeros([resolution, resolution, 1], tf.uint8)).numpy()
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
    example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
    return {
        "serving_default": {"image_bytes": tf.make_tensor_proto([png])},
        # One value and a shape: stored once, not for each pixel.
        "image_tensor": {"images": tf.make_tensor_proto(0.0, shape=[1, resolution, resolution, 1])},
        "tf_example": {"examples": tf.make_tensor_proto([example.SerializeToString()])},
    }


def _read_evaluation(path: str | os.PathLike, run_dir: pathlib.Path) -> dict[str, Any]:
    """result.json of an evaluation of this run's weights. Raises InputError if it is none."""
    result = files.read_json(pathlib.Path(path) / "result.json")
    if not isinstance(result, dict) or "roc_auc" not in result:
        raise InputError(f"--evaluations={path}: is no output folder of evaluate")
    if result.get("model_digest") != loading.weights_digest(run_dir, "--run_dir"):
        raise InputError(f"--evaluations={path}: is of another model ({result.get('model')}) or of earlier weights")
    return result

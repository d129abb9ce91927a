"""Exports a classifier as a SavedModel: encoded bytes in, probabilities out, with all that its use needs inside."""

import os
import pathlib
import shutil
import tempfile
from typing import Any

import tensorflow as tf

from tfcxr.classifiers import loading, preprocessing
from tfrecords_builder import files, images


class ServedClassifier(tf.Module):
    """The signatures of an exported classifier; `predict` uses them as well, so both give the same numbers.

    Attributes:
      model: Keras model of images [N, H, W, 1] in [0, 1] -> probabilities [N, K].
    """

    def __init__(self, model: tf.keras.Model, classes: list[str], resolution: int):
        """Makes the signatures.

        Args:
          model: the classifier.
          classes: K class names.
          resolution: side in pixels of the records it was trained on: images of another size are resized to that
            first, as build-records would have done, and rounded to 8 bits.
        """
        super().__init__(name="classifier")
        self.model = model
        self._resolution = resolution
        self._classes = tf.constant(classes)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """PNG or JPEG of any size, grey or RGB, 8 bits; string [N]."""
        decoded = tf.map_fn(self._decode, image_bytes, fn_output_signature=tf.float32)
        decoded = tf.ensure_shape(decoded, [None, self._resolution, self._resolution, 1])
        return self._outputs(decoded)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32, name="images")])
    def image_tensor(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Float [N, H, W, 1] in [0, 1]; values outside are an error."""
        check = tf.debugging.Assert(
            tf.reduce_all((images >= 0.0) & (images <= 1.0)), ["images must be in [0, 1]; divide 8-bit values by 255"]
        )
        with tf.control_dependencies([check]):
            return self._outputs(tf.identity(images))

    def _decode(self, encoded: tf.Tensor) -> tf.Tensor:
        image = images.decode_grey(encoded)
        resized = images.resize(image, self._resolution, self._resolution)
        return preprocessing.to_unit(images.to_uint8(resized))

    def _outputs(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.cast(self.model(batch, training=False), tf.float32)
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(self._classes, class_id),
        }


def load_served(path: str | os.PathLike) -> tuple[ServedClassifier, dict[str, Any]]:
    """The signatures of a run or export, rebuilt from its configuration and weights, and its configuration."""
    config = loading.load_classifier_config(path)
    return ServedClassifier(loading.load_classifier(path), list(config["classes"]), config["resolution"]), config


def export_classifier(run_dir: str | os.PathLike, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a run's classifier as a SavedModel into `folder`.

    The folder gets the SavedModel with the signatures `serving_default` (image_bytes) and `image_tensor`, the files
    of the run from which `tfcxr.load_classifier` rebuilds the Keras model, and the assets class_names.txt,
    label_names.txt and model_card.md.

    Args:
      run_dir: a baseline or DCAN run that has weights.
      folder: existing folder to write into.

    Returns:
      What result.json should hold.

    Raises:
      InputError: not a run of a classifier, or one without weights yet.
    """
    run_dir = pathlib.Path(run_dir)
    served, config = load_served(run_dir)
    for name in loading.FILES:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run_dir / name, target)
    classes = list(config["classes"])
    signatures = {"serving_default": served.image_bytes, "image_tensor": served.image_tensor}
    with tempfile.TemporaryDirectory() as temporary:
        assets = pathlib.Path(temporary)
        files.write_text(assets / "class_names.txt", "".join(f"{name}\n" for name in classes))
        files.write_text(assets / "label_names.txt", "".join(f"{name}\n" for name in config["labels"]))
        files.write_text(assets / "model_card.md", model_card(run_dir, config))
        served.assets = [tf.saved_model.Asset(str(path)) for path in sorted(assets.iterdir())]
        tf.saved_model.save(served, str(folder), signatures=signatures)
    return {
        "kind": "classifier",
        "run": str(run_dir),
        "classes": classes,
        "signatures": list(signatures),
        "resolution": config["resolution"],
    }


def model_card(run_dir: pathlib.Path, config: dict[str, Any]) -> str:
    """Markdown: what the model is, what it was trained on, what it is for, what was measured."""
    result_path = run_dir / "result.json"
    result = files.read_json(result_path) if result_path.exists() else {}
    chosen = result.get("select", "source")
    lines = [
        f"# {config['kind']} classifier, label version {config['label_version']}",
        "",
        "## Output",
        "",
        *[f"{k}. {name}" for k, name in enumerate(config["classes"])],
        "",
        "## Input",
        "",
        f"Frontal chest radiographs. `image_bytes`: PNG or JPEG of any size, grey or RGB, 8 bits, resized to "
        f"{config['resolution']} px. `image_tensor`: float [N, H, W, 1] in [0, 1].",
        "",
        "## Training data",
        "",
        *[f"- {flag}: digest {digest}" for flag, digest in config["records"].items()],
        "",
        "## Selection",
        "",
        f"Weights chosen on: {chosen}."
        + (" This used labels of the target domain." if result.get("selected_on_target_labels") else ""),
        "",
        "## Intended use",
        "",
        "Research on learning from synthetic images. Not a medical device; not for diagnosis.",
    ]
    return "\n".join(lines) + "\n"

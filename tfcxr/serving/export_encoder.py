"""Exports the network of a pretraining run as a SavedModel: encoded bytes or images in, features out."""

import dataclasses
import os
import pathlib
from typing import Any

import tensorflow as tf

from tfcxr.classifiers import loading
from tfcxr.serving import export_classifier
from tfrecords_builder.images import pictures, pixel_ranges


class ServedEncoder(tf.Module):
    """The signatures of an exported encoder; each returns {"features": float32 [N, F]}.

    Attributes:
        functions: signature -> tf.function.
    """

    def __init__(self, model: tf.keras.Model, picture: pictures.PictureOptions):
        """Makes the signatures; arguments as of export_classifier.ServedClassifier, the model gives features."""
        super().__init__(name="encoder")
        self._weights = list(model.variables)
        self._compute = lambda batch: model(batch, training=False)
        self._picture = picture
        self.functions = {"serving_default": self.image_bytes, "image_tensor": self.image_tensor}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """PNG of 8 or 16 bits or JPEG of 8, of any size, grey or RGB; string [N]."""
        return {"features": self._compute(export_classifier.decode_files(image_bytes, self._picture))}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32, name="images")])
    def image_tensor(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Float [N, H, W, 1] in [0, 1], contrast and aspect as in the records; values outside are an error."""
        with tf.control_dependencies([pixel_ranges.assert_within(images, pixel_ranges.UNIT)]):
            return {"features": self._compute(tf.identity(images))}


def export_encoder(run_dir: str | os.PathLike, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a pretraining run's network as a SavedModel into `folder`, with what `tfcxr.load_encoder` needs of it.

    Args:
        run_dir: a pretraining run that has weights.
        folder: existing folder to write into.

    Returns:
        What result.json should hold.

    Raises:
        InputError: not such a run, or one without weights yet.
    """
    model = loading.load_encoder(run_dir)
    picture = model.encoder.config.picture
    loading.copy_files(run_dir, folder)
    served = ServedEncoder(model, picture)
    tf.saved_model.save(served, str(folder), signatures=served.functions)
    return {
        "kind": "encoder",
        "run": str(run_dir),
        "num_features": model.encoder.width,
        "signatures": list(served.functions),
        **dataclasses.asdict(picture),
    }

"""Exports a generator as a SavedModel: labels and a seed in, images out, with everything needed to use it inside."""

import os
import pathlib
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfcxr.gan import latent_sampling, loading
from tfcxr.gan.networks import convolutions
from tfcxr.gan.reference import variable_names
from tfcxr.serving import model_cards, warmup_requests
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import image_ops, pixel_ranges
from tfrecords_builder.records import scorecards


class ServedGenerator(tf.Module):
    """The signatures of an exported generator.

    Attributes:
        labels: names of all labels, in the order of label vectors.
        seen: names of the labels that it was conditioned on.
        functions: signature -> tf.function.
    """

    def __init__(self, generator: loading.Generator):
        super().__init__(name="generator")
        # Not the model itself: a SavedModel would hold a graph of each of its layers, too.
        self._weights = list(generator.model.variables)
        model = generator.model

        def generate(inputs):
            with convolutions.portable():
                return model(inputs, training=False)

        self._generate = generate
        self._latent_size = generator.network.latent_size
        self._seen = generator.network.seen_labels
        self.labels = generator.label_set.labels
        self.seen = tuple(self.labels[index] for index in self._seen)
        network = generator.network
        self.functions = {
            "serving_default": self._signature(
                self._images, _labels(network), tf.TensorSpec([], tf.int64, name="seed")
            ),
            "png": self._signature(self._png, _labels(network), tf.TensorSpec([], tf.int64, name="seed")),
            "from_latents": self._signature(
                self._from_latents,
                tf.TensorSpec([None, network.latent_size], tf.float32, name="latents"),
                _labels(network),
            ),
        }

    @staticmethod
    def _signature(function, *specs):
        return tf.function(function, input_signature=specs)

    def _images(self, labels, seed):
        """uint8 [N, R, R, 1] of labels float [N, L] in {0, 1}; row i depends on `seed`, i and its labels only."""
        numbers = tf.range(tf.shape(labels, out_type=tf.int64)[0])
        latents = latent_sampling.numbered_latents(seed, numbers, self._latent_size)
        return {"images": pixel_ranges.signed_to_uint8(self._from_latents(latents, labels)["images"])}

    def _png(self, labels, seed):
        """The same images as `serving_default`, encoded: string [N]."""
        images = self._images(labels, seed)["images"]
        return {"png": tf.map_fn(image_ops.encode_png, images, fn_output_signature=tf.string)}

    def _from_latents(self, latents, labels):
        """float [N, R, R, 1], nominally in [-1, 1], of latents from N(0, I) and labels."""
        binary = tf.reduce_all(tf.equal(labels, 0.0) | tf.equal(labels, 1.0))
        seen = tf.reduce_any(tf.gather(labels, self._seen, axis=1) > 0, axis=1)
        checks = [
            tf.debugging.Assert(binary, ["labels must be 0 or 1"]),
            tf.debugging.Assert(
                tf.reduce_all(seen), [f"each row of labels needs at least one 1 among: {', '.join(self.seen)}"]
            ),
        ]
        with tf.control_dependencies(checks):
            return {"images": self._generate([tf.identity(latents), labels])}


def save_generator(
    source: str | os.PathLike | loading.Generator, folder: str | os.PathLike, scorecard: str | None = None
) -> dict[str, Any]:
    """Writes the generator of a run (or a loaded one) as a SavedModel into an existing folder.

    Signatures, each with a warm-up request (if the extra `serving` is installed): `serving_default` (labels float
    [N, L], seed int64 []) -> images uint8 [N, R, R, 1]; `png`, the same encoded; `from_latents` (latents float
    [N, nf(0)], labels) -> images float in [-1, 1].
    Assets: generator.json and weights.npz, from which `tfcxr.load_generator` rebuilds the Keras model, label_names.txt
    and model_card.md.

    Args:
        source: run folder, or the generator.
        folder: where.
        scorecard: output folder of scorecard of a set that this generator drew, whose lines the model card carries.

    Returns:
        What result.json should hold.

    Raises:
        InputError: not a GAN's run, or one without a checkpoint yet; a scorecard of another generator's set.
    """
    generator = source if isinstance(source, loading.Generator) else loading.load(source)
    lines = [] if scorecard is None else _read_scorecard(scorecard, generator)
    served, description = ServedGenerator(generator), loading.description(generator)
    with tempfile.TemporaryDirectory() as temporary:
        assets = pathlib.Path(temporary)
        files.write_json(assets / "generator.json", description)
        variables = variable_names.reference_variables(generator.model)
        np.savez(assets / "weights.npz", **{name: variable.numpy() for name, variable in variables.items()})
        files.write_text(assets / "label_names.txt", "".join(f"{name}\n" for name in served.labels))
        files.write_text(
            assets / "model_card.md",
            model_cards.generator_card(description, generator.network.kind, served.seen, lines),
        )
        served.assets = [tf.saved_model.Asset(str(path)) for path in sorted(assets.iterdir())]
        tf.saved_model.save(served, str(folder), signatures=served.functions)
    warmed = warmup_requests.write_requests(folder, "generator", _requests(served, generator.network.latent_size))
    return {
        "kind": "generator",
        "run": generator.name,
        "kimg": generator.kimg,
        "resolution": generator.network.resolution,
        "labels": list(served.labels),
        "signatures": list(served.functions),
        "warmup_requests": warmed,
    }


def _requests(served: ServedGenerator, latent_size: int) -> dict[str, dict[str, tensor_pb2.TensorProto]]:
    """A request of one image for each signature."""
    labels = tf.make_tensor_proto([[float(name == served.seen[0]) for name in served.labels]])
    seed = tf.make_tensor_proto(0, tf.int64)
    latents = tf.make_tensor_proto(0.0, shape=[1, latent_size])
    numbered = {"labels": labels, "seed": seed}
    return {"serving_default": numbered, "png": numbered, "from_latents": {"latents": latents, "labels": labels}}


def _labels(network):
    return tf.TensorSpec([None, network.num_labels], tf.float32, name="labels")


def _read_scorecard(path: str, generator: loading.Generator) -> list[str]:
    card = scorecards.read(path, "--scorecard")
    if card["set"].get("generator_sha256") != loading.digest_weights(generator):
        raise InputError(
            f"--scorecard={path}: is of a set that another generator drew; give that of a set of {generator.name}, or "
            "none"
        )
    return [f"Of the set {card['set']['name']}, digest {card['set']['digest'][:12]}:", *card["lines"]]

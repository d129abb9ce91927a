"""The generator's SavedModel equals the Keras model, loads without our code, and can be rebuilt."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tfcxr
from tests import gan_runs
from tfcxr.gan import latent_sampling
from tfcxr.serving import export_generator, warmup_requests
from tfcxr.training import runs
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels import LABELS

PLAIN_TENSORFLOW = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfcxr", "tfrecords_builder", "flags"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
latents, labels = (tf.constant(array) for array in np.load(sys.argv[2]).values())
signatures = model.signatures
np.savez(
    sys.argv[3],
    floats=signatures["from_latents"](latents=latents, labels=labels)["images"].numpy(),
    images=signatures["serving_default"](labels=labels, seed=tf.constant(5, tf.int64))["images"].numpy(),
    fewer=signatures["serving_default"](labels=labels[:2], seed=tf.constant(5, tf.int64))["images"].numpy(),
    png=np.stack([tf.io.decode_png(e) for e in signatures["png"](labels=labels, seed=tf.constant(5, tf.int64))["png"]]),
)
try:
    signatures["from_latents"](latents=latents, labels=labels * 0)
except tf.errors.InvalidArgumentError as error:
    assert "needs at least one 1" in error.message, error.message
else:
    raise AssertionError("all-zero labels were accepted")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(run folder, export folder) of an untrained generator."""
    root = tmp_path_factory.mktemp("gan_export")
    run = gan_runs.make_gan_run(root / "run", resolution=16)
    (root / "export").mkdir()
    result = export_generator.save_generator(run, root / "export")
    assert result["signatures"] == ["serving_default", "png", "from_latents"]
    return run, root / "export"


def batch(model):
    size = model.input_shape[0][1]
    return latent_sampling.numbered_latents(5, np.arange(5), size).numpy(), np.eye(14, dtype=np.float32)[:5]


def test_saved_model_in_a_fresh_process_equals_the_keras_model(exported, tmp_path):
    run, folder = exported
    model = tfcxr.load_generator(run)
    latents, labels = batch(model)
    np.savez(tmp_path / "in.npz", latents=latents, labels=labels)
    command = [
        sys.executable,
        "-I",
        "-c",
        PLAIN_TENSORFLOW,
        str(folder),
        str(tmp_path / "in.npz"),
        str(tmp_path / "out.npz"),
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    out = np.load(tmp_path / "out.npz")
    images = model([latents, labels]).numpy()
    assert np.max(np.abs(out["floats"] - images)) <= 1e-5 * np.max(np.abs(images))
    assert out["images"].dtype == np.uint8
    difference = np.abs(out["images"].astype(int) - pixel_ranges.signed_to_uint8(tf.constant(images)).numpy())
    assert difference.max() <= 1
    np.testing.assert_array_equal(out["png"], out["images"])
    assert np.abs(out["fewer"].astype(int) - out["images"][:2]).max() <= 1


def test_export_rebuilds_the_keras_model_and_describes_itself(exported):
    run, folder = exported
    first, second = tfcxr.load_generator(run), tfcxr.load_generator(folder)
    inputs = list(batch(first))
    np.testing.assert_array_equal(first(inputs), second(inputs))
    value = json.loads((folder / runs.EXPORTED_GENERATOR).read_text())
    assert value["labels"] == list(LABELS)
    assert value["kimg"] == 2
    assert value["combinations"][0] == {"labels": "No Finding", "count": 50}
    assert (folder / "assets/label_names.txt").read_text().splitlines() == list(LABELS)
    card = (folder / "assets/model_card.md").read_text()
    for words in (
        "generator run",
        "after 2 thousand",
        "50 images: No Finding",
        "not for diagnosis",
        "guarantees privacy",
    ):
        assert words in card, words


def test_warm_up_requests_call_every_signature(exported):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="extra serving")
    _, folder = exported
    model = tf.saved_model.load(str(folder))
    shapes = {}
    for record in tf.data.TFRecordDataset(str(folder / warmup_requests.FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        name = request.model_spec.signature_name
        shapes[name] = next(iter(model.signatures[name](**inputs).values())).shape
    assert shapes == {"serving_default": [1, 16, 16, 1], "png": [1], "from_latents": [1, 16, 16, 1]}


def test_discriminator_of_a_run(exported):
    run, _ = exported
    model = tfcxr.load_discriminator(run)
    scores = model([np.zeros([4, 16, 16, 1], np.float32), np.eye(14, dtype=np.float32)[:4]])
    assert scores.shape == [4, 1]


def test_latents_of_numbered_images_do_not_depend_on_the_batch():
    together = latent_sampling.numbered_latents(3, np.arange(10), 6).numpy()
    np.testing.assert_array_equal(latent_sampling.numbered_latents(3, [7, 2], 6), together[[7, 2]])
    assert abs(together.mean()) < 0.5
    assert together.std() == pytest.approx(1, abs=0.3)


def test_folders_that_hold_no_generator(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        tfcxr.load_generator(tmp_path)
    run = gan_runs.make_gan_run(tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="has no checkpoint yet"):
        tfcxr.load_generator(run)

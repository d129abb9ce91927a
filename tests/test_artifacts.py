"""The committed generator still loads, both ways, and its images are those of its SavedModel."""

import numpy as np
import tensorflow as tf

import tfcxr
from tests.conftest import ROOT
from tfrecords_builder.labels import LABELS

FOLDER = ROOT / "artifacts" / "generator_nih_32"


def test_the_committed_generator_loads_and_equals_its_savedmodel():
    labels = np.zeros([3, len(LABELS)], np.float32)
    labels[range(3), [LABELS.index(name) for name in ("No Finding", "Pneumothorax", "Pleural Effusion")]] = 1
    latents = np.random.default_rng(0).standard_normal([3, 48], np.float32)
    images = tfcxr.load_generator(FOLDER)([latents, labels]).numpy()
    assert images.shape == (3, 32, 32, 1)
    served = tf.saved_model.load(str(FOLDER)).signatures["from_latents"]
    out = served(latents=tf.constant(latents), labels=tf.constant(labels))["images"].numpy()
    np.testing.assert_allclose(out, images, atol=1e-5)
    # A radiograph, not noise: neighbouring pixels go together, and lungs are darker than what lies below them.
    pixels = images[..., 0]
    assert np.corrcoef(pixels[:, :, :-1].ravel(), pixels[:, :, 1:].ravel())[0, 1] > 0.9
    assert pixels[:, 8:20].mean() < pixels[:, 24:, 8:24].mean()

"""The classifier: initial values, weights in and out, backbones."""

import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.networks import models
from tfrecords_builder.errors import InputError

TINY = models.ModelConfig(("a", "b", "c"), "v3_0s", 16, 16, "resnet_tiny", attention=True, correction=True)


@pytest.fixture(scope="module")
def adapted():
    return models.Classifier(TINY, seed=1)


def test_initial_values_are_those_of_the_paper(adapted):
    assert adapted.head.kernel.numpy().std() == pytest.approx(0.01, rel=0.15)
    assert not adapted.head.bias.numpy().any()
    for block in (adapted.feature_correction, adapted.logit_correction):
        for layer in block.layers:
            np.testing.assert_array_equal(layer.bias, np.full(layer.bias.shape, 0.1, np.float32))
    assert adapted.feature_correction.layers[0].kernel.numpy().std() == pytest.approx(0.005, rel=0.1)
    assert adapted.feature_correction.layers[0].kernel.shape == (256, 128)


def test_corrections_are_residual(adapted):
    features = tf.random.stateless_normal([2, 256], [0, 0])
    corrected, logits = adapted.correct(features)
    np.testing.assert_allclose(corrected, features + adapted.feature_correction(features), rtol=1e-6)
    plain = adapted.head(corrected)
    np.testing.assert_allclose(logits, plain + adapted.logit_correction(plain), rtol=1e-6)
    np.testing.assert_allclose(adapted.classify(features, "source"), adapted.head(features))


def test_weights_round_trip(adapted, tmp_path):
    path = tmp_path / "checkpoints" / "best.weights.h5"
    models.save_weights(adapted, path)
    other = models.Classifier(TINY, seed=2)
    models.load_weights(other, path)
    for a, b in zip(adapted.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.name)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(InputError, match="no weights yet"):
        models.load_weights(other, tmp_path / "nothing.weights.h5")


def test_copy_takes_what_both_have(adapted):
    plain = models.Classifier(dataclasses.replace(TINY, attention=False, correction=False, classes=("x", "y")), seed=3)
    assert models.copy_weights(adapted, plain) == ["backbone"]
    for a, b in zip(adapted.base.get_weights(), plain.base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    model = models.Classifier(
        models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny", dtype="mixed_bfloat16"), seed=0
    )
    assert model.base.layers[2].compute_dtype == "bfloat16"
    assert {w.dtype for w in model.weights} == {tf.float32}
    assert model(tf.zeros([1, 16, 16, 1])).dtype == tf.float32
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_channel_attention_needs_residual_sums():
    with pytest.raises(InputError, match="residual"):
        models.ModelConfig(("a", "b"), "v1_0s", 32, 32, "densenet121", attention=True)


def test_a_full_disk_is_an_error_and_no_crash(tmp_path):
    """A limit on the size of files stands for the disk; HDF5 that hits it may end the program by a signal."""
    program = """
        import resource, sys
        from tfcxr.classifiers.networks import models

        classifier = models.Classifier(models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        try:
            models.save_weights(classifier, sys.argv[1])
        except OSError as error:
            print(error.strerror)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "best.weights.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert not list(tmp_path.iterdir())

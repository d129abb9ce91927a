"""First weights by seed and name alone, and a caller who notices nothing of a network being made."""

import random
import threading

import numpy as np
import pytest
import tensorflow as tf

import tfcxr
from tests import classifier_runs, gan_runs
from tfcxr.classifiers.networks import models, seeding
from tfcxr.fidelity import feature_networks

CONFIG = models.ModelConfig(("a", "b"), "v2", 16, 16, "resnet_tiny", attention=True, correction=True)
IMAGES = np.random.default_rng(0).random([2, 16, 16, 1], np.float32)


def weights(seed):
    return {weight.name: weight.numpy() for weight in models.Classifier(CONFIG, seed).weights}


def test_weights_are_a_function_of_the_seed_alone():
    first, second = weights(1), weights(2)
    tf.keras.utils.set_random_seed(5)
    again_second, again_first = weights(2), weights(1)
    for a, b in ((first, again_first), (second, again_second)):
        assert all(np.array_equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    kernels = [i for i, name in enumerate(first) if "kernel" in name]
    assert len(kernels) > 20
    for i in kernels:
        assert not np.array_equal(list(first.values())[i], list(second.values())[i])
    # No two layers draw the same numbers.
    corners = {float(list(first.values())[i].flat[0]) for i in kernels}
    assert len(corners) == len(kernels)


def test_kernels_are_distributed_as_keras_does_it():
    model = models.Classifier(CONFIG, 3)
    kernel = model.base.get_layer("conv4_block1_2_conv").kernel.numpy()
    limit = np.sqrt(6 / (9 * (kernel.shape[2] + kernel.shape[3])))
    assert kernel.max() == pytest.approx(limit, rel=0.01) and kernel.min() == pytest.approx(-limit, rel=0.01)
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    squeeze = model.backbone.attentions[-1].source.kernel.numpy()
    assert squeeze.std() == pytest.approx(np.sqrt(2 / squeeze.shape[0]), rel=0.1)
    assert model.head.kernel.numpy().std() == pytest.approx(0.01, rel=0.1)


def test_layer_seeds_are_valid_and_differ():
    seeds = [seeding.layer_seed(seed, f"conv{i}") for seed in range(20) for i in range(50)]
    assert len(set(seeds)) == 1000
    assert min(seeds) >= 0
    assert max(seeds) < 2**31


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    records = classifier_runs.make_records(folder / "records")
    classifier_runs.make_classifier_run(folder / "dcan", records, kind="dcan")
    gan_runs.make_gan_run(folder / "gan")
    return folder


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "w.h5"
    tf.keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg").save_weights(path)
    return path


LOADERS = {
    "classifier": lambda folders, _: tfcxr.load_classifier(folders / "dcan"),
    "generator": lambda folders, _: tfcxr.load_generator(folders / "gan"),
    "discriminator": lambda folders, _: tfcxr.load_discriminator(folders / "gan"),
    "inception": lambda _, inception: feature_networks.make_inception(str(inception), 16),
    "features": lambda folders, _: feature_networks.make_classifier(folders / "dcan", 16),
}


def draw():
    unseeded = tf.keras.initializers.GlorotUniform()([2, 2]).numpy().ravel().tolist()
    return [random.random(), float(np.random.rand()), *tf.random.uniform([2]).numpy().tolist(), *unseeded]


def assert_computes_in_float32(features):
    """No layer rounds to bfloat16: 7 bits would leave few distinct features."""
    found = features(np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 16, 16, 1))
    assert np.any(found != tf.cast(tf.cast(found, tf.bfloat16), tf.float32).numpy())


@pytest.mark.parametrize(
    ("name", "policy"), [(name, "mixed_bfloat16") for name in LOADERS] + [("classifier", "float32")]
)
def test_loading_leaves_the_random_numbers_and_the_policy_of_its_caller_alone(
    folders, inception, monkeypatch, name, policy
):
    def refuse(_):
        raise AssertionError("another thread would see it")

    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(tf.keras.mixed_precision, "set_global_policy", refuse)
            tf.keras.utils.set_random_seed(7)
            expected = draw()
            tf.keras.utils.set_random_seed(7)
            made = LOADERS[name](folders, inception)
            assert draw() == expected
            if name == "inception":
                assert_computes_in_float32(made)
        assert tf.keras.mixed_precision.global_policy().name == policy
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


def test_loading_in_a_thread_draws_nothing_from_python(folders):
    """Keras keeps what set_random_seed gave to the thread; in others it draws seeds from Python's random numbers."""
    random.seed(3)
    expected = random.getstate()
    thread = threading.Thread(target=LOADERS["classifier"], args=(folders, None))
    thread.start()
    thread.join()
    assert random.getstate() == expected


def test_a_caller_with_mixed_precision_gets_the_same_numbers(folders):
    calls = {
        "classifier": lambda model: model(IMAGES),
        "generator": lambda model: model([tf.ones([2, model.inputs[0].shape[1]]), tf.ones([2, 14])]),
        "features": lambda features: features(2 * IMAGES - 1),
    }
    expected = {name: np.asarray(call(LOADERS[name](folders, None))) for name, call in calls.items()}
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        for name, call in calls.items():
            found = np.asarray(call(LOADERS[name](folders, None)))
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected[name], err_msg=name)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


def test_a_mixed_classifier_computes_in_bfloat16_whatever_its_caller_does(folders):
    config = models.ModelConfig(**{**CONFIG.__dict__, "dtype": "mixed_bfloat16"})
    classifier = models.Classifier(config, 1)
    for layer in classifier.base.layers[1:]:
        assert layer.dtype_policy.name == "mixed_bfloat16", layer.name
    assert classifier.backbone.attentions[0].shared.dtype_policy.name == "mixed_bfloat16"
    assert classifier.head.dtype_policy.name == "float32"
    assert classifier(IMAGES).dtype == tf.float32
    assert all(weight.dtype == tf.float32 for weight in classifier.weights)

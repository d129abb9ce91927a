"""Each method's terms and gradients against sums written out with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.adaptation import methods
from tfcxr.classifiers.adaptation.methods import adabn, cdan, discriminator, mcc
from tfcxr.classifiers.adaptation.methods.method import Batch, Setting
from tfcxr.classifiers.training import losses

N, WIDTH, CLASSES = 6, 5, 3


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def entropies(probabilities):
    return -(probabilities * np.log(probabilities)).sum(axis=1)


def make_batch(seed=0, progress=0.5, correct=None):
    rng = np.random.default_rng(seed)

    def rows(width):
        return tf.constant(rng.normal(size=(N, width)), tf.float32)

    return Batch(
        labels=tf.constant([0, 1, 2] * (N // 3), tf.int64),
        source_features=rows(WIDTH),
        source_logits=rows(CLASSES),
        target_features=rows(WIDTH) + 1.0,
        target_logits=rows(CLASSES),
        correct=correct or (lambda features: (features, features[:, :CLASSES])),
        number=tf.constant(4, tf.int64),
        progress=tf.constant(progress),
        strong_logits=rows(CLASSES),
        teacher_logits=rows(CLASSES) * 3.0,
    )


def make(name, **settings):
    return methods.make(name, Setting(num_classes=CLASSES, feature_width=WIDTH, **settings))


def written_out_domain_loss(network, source, target, weights=None):
    """The discriminator in NumPy, and its binary cross entropy."""

    def probability(values):
        for layer in network.layers[:-1]:
            kernel, bias = (w.astype(np.float64) for w in layer.get_weights())
            values = np.maximum(values @ kernel + bias, 0)
        kernel, bias = network.layers[-1].get_weights()
        return 1 / (1 + np.exp(-(values @ kernel + bias)[:, 0]))

    of_source, of_target = -np.log(probability(source)), -np.log(1 - probability(target))
    if weights:
        of_source, of_target = weights[0] * of_source, weights[1] * of_target
    return (of_source.mean() + of_target.mean()) / 2


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_returns_the_terms_it_weighs(name):
    method = make(name)
    values = method.losses(make_batch())
    assert values.keys() == method.weights.keys()
    assert all(value.shape == () and np.isfinite(value) for value in values.values())
    assert method.corrected == methods.is_corrected(name) == (name in ("dcan", "dcan_noreg"))
    assert bool(method.layers) == (name in ("dann", "cdan", "cdan_e"))


def test_alpha_is_the_papers_unless_given():
    assert make("dcan").weights == {"mmd_features": 1.5, "mmd_probabilities": 1.5, "entropy": 0.1, "reg": 1.5}
    assert make("dcan_noreg", alpha=2.0, beta=0.3).weights == {
        "mmd_features": 2.0, "mmd_probabilities": 2.0, "entropy": 0.3,
    }  # fmt: skip
    assert make("dan").weights == {"mmd_features": 1.0}
    assert make("cdan", alpha=0.0).weights == {"domain": 0.0}


def test_none_adds_nothing_and_needs_no_target():
    method = make("none")
    assert method.losses(make_batch()) == {}
    assert not method.uses_target


def test_dan_is_the_multi_kernel_discrepancy_of_the_features():
    batch = make_batch()
    rows = np.concatenate([batch.source_features, batch.target_features]).astype(np.float64)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    width = squared.sum() / (2 * N * (2 * N - 1))
    kernel = sum(np.exp(-squared / (width * factor)) for factor in (0.25, 0.5, 1, 2, 4))
    expected = kernel[:N, :N].mean() + kernel[N:, N:].mean() - 2 * kernel[:N, N:].mean()
    np.testing.assert_allclose(make("dan").losses(batch)["mmd_features"], expected, rtol=1e-5)


def test_the_estimate_of_the_discrepancy_is_a_choice():
    batch = make_batch()
    for mmd, estimate in (("linear", losses.linear_mmd), ("quadratic", losses.quadratic_mmd)):
        expected = estimate(batch.source_features, batch.target_features)
        for name in ("dan", "dcan_noreg"):
            np.testing.assert_allclose(make(name, mmd=mmd).losses(batch)["mmd_features"], expected, rtol=1e-6)
    assert (make("dan").mmd, make("dcan").mmd, make("dcan_noreg").mmd) == ("quadratic", "linear", "linear")


def test_fixmatch_takes_certain_predictions_for_labels():
    batch = make_batch()
    logits = (batch.teacher_logits, batch.strong_logits, batch.source_logits)
    teacher, strong, source = (softmax(x.numpy().astype(np.float64)) for x in logits)
    teacher = teacher * source.mean(axis=0) / teacher.mean(axis=0)
    teacher /= teacher.sum(axis=1, keepdims=True)
    threshold = np.sort(teacher.max(axis=1))[2:4].mean()
    certain = teacher.max(axis=1) >= threshold
    assert 0 < certain.sum() < N
    each = -np.log(strong[np.arange(N), teacher.argmax(axis=1)])
    method = make("fixmatch", threshold=float(threshold))
    values = method.losses(batch)
    np.testing.assert_allclose(values["pseudo_labels"], (certain * each).sum() / N, rtol=1e-5)
    np.testing.assert_allclose(values["certain"], certain.mean(), rtol=1e-6)
    assert method.weights == {"pseudo_labels": 1.0, "certain": 0.0}


def test_mean_teacher_wants_the_teachers_probabilities():
    batch = make_batch()
    teacher, strong = (softmax(x.numpy().astype(np.float64)) for x in (batch.teacher_logits, batch.strong_logits))
    threshold = np.median(teacher.max(axis=1))
    certain = teacher.max(axis=1) >= threshold
    method = make("mean_teacher", threshold=float(threshold))
    expected = (certain * ((strong - teacher) ** 2).sum(axis=1)).sum() / N
    np.testing.assert_allclose(method.losses(batch)["consistency"], expected, rtol=1e-5)
    assert method.weights == {"consistency": 3.0, "certain": 0.0}
    assert method.averages


def test_reversal_grows_as_published():
    assert float(discriminator.reversal_strength(tf.constant(0.0))) == 0.0
    np.testing.assert_allclose(discriminator.reversal_strength(tf.constant(0.1)), 2 / (1 + np.exp(-1)) - 1, rtol=1e-6)
    np.testing.assert_allclose(discriminator.reversal_strength(tf.constant(1.0)), 0.9999092, rtol=1e-6)


def test_dann_reverses_the_gradient_of_the_features_only():
    method = make("dann")
    batch = make_batch(progress=0.1)
    expected = written_out_domain_loss(method.discriminator, batch.source_features, batch.target_features)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(batch.source_features)
        value = method.losses(batch)["domain"]
        inputs = tf.concat([batch.source_features, batch.target_features], axis=0)
        logits = method.discriminator(inputs)[:, 0]
        labels = tf.constant([1.0] * N + [0.0] * N)
        forward = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    strength = 2 / (1 + np.exp(-1)) - 1
    np.testing.assert_allclose(
        tape.gradient(value, batch.source_features),
        -strength * tape.gradient(forward, batch.source_features),
        rtol=1e-4,
        atol=1e-8,
    )
    for own, plain in zip(
        tape.gradient(value, method.layers[0].trainable_variables),
        tape.gradient(forward, method.layers[0].trainable_variables),
        strict=True,
    ):
        np.testing.assert_allclose(own, plain, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["cdan", "cdan_e"])
def test_cdan_discriminates_products_of_features_and_probabilities(name):
    method = make(name)
    batch = make_batch()
    joint, weights = [], []
    for features, logits in (
        (batch.source_features, batch.source_logits),
        (batch.target_features, batch.target_logits),
    ):
        probabilities = softmax(logits.numpy().astype(np.float64))
        joint.append(np.stack([np.outer(f, p).ravel() for f, p in zip(features.numpy(), probabilities, strict=True)]))
        certainty = 1 + np.exp(-entropies(probabilities))
        weights.append(certainty / certainty.mean())
    expected = written_out_domain_loss(method.discriminator, *joint, weights if name == "cdan_e" else None)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([batch.source_logits, batch.source_features])
        value = method.losses(batch)["domain"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert tape.gradient(value, batch.source_logits) is None
    assert np.abs(tape.gradient(value, batch.source_features)).max() > 0


def test_cdan_projects_what_would_be_wider_than_4096():
    exact = cdan.Cdan(Setting(num_classes=2, feature_width=2048))
    assert exact.discriminator.input_shape == (None, 4096)
    setting = Setting(num_classes=3, feature_width=2048, seed=7)
    method = cdan.Cdan(setting)
    assert method.discriminator.input_shape == (None, 1024)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(1, 2048)).astype(np.float32) for _ in range(2))
    p, q = np.array([[0.7, 0.2, 0.1]], np.float32), np.array([[0.1, 0.1, 0.8]], np.float32)
    np.testing.assert_array_equal(method.joint(a, p), cdan.Cdan(setting).joint(a, p))
    # The projections keep inner products of the multilinear map, <f x g, f' x g'> = <f, f'> <g, g'>, on average.
    inner = float(tf.reduce_sum(method.joint(a, p) * method.joint(a, q)))
    assert inner == pytest.approx(float((a @ a.T * (p @ q.T)).item()), rel=0.35)
    cross = float(tf.reduce_sum(method.joint(a, p) * method.joint(b, p)))
    assert abs(cross) < 0.2 * float((a @ a.T * (p @ p.T)).item())


def test_mcc_is_the_confusion_off_the_diagonal():
    batch = make_batch()
    probabilities = softmax(batch.target_logits.numpy().astype(np.float64) / 2.5)
    certainty = 1 + np.exp(-entropies(probabilities))
    certainty *= N / certainty.sum()
    expected = 0.0
    for j in range(CLASSES):
        row = [sum(w * p[j] * p[k] for w, p in zip(certainty, probabilities, strict=True)) for k in range(CLASSES)]
        expected += sum(value for k, value in enumerate(row) if k != j) / sum(row)
    np.testing.assert_allclose(make("mcc").losses(batch)["confusion"], expected / CLASSES, rtol=1e-5)


def test_certain_predictions_are_not_confused():
    assert float(mcc.class_confusion(tf.constant([[90.0, -90.0], [-90.0, 90.0]]))) == pytest.approx(0, abs=1e-6)
    assert float(mcc.class_confusion(tf.zeros([4, 2]))) == pytest.approx(0.5)


def test_dcan_noreg_measures_features_and_probabilities():
    batch = make_batch()
    values = make("dcan_noreg").losses(batch)
    np.testing.assert_allclose(
        values["mmd_features"], losses.linear_mmd(batch.source_features, batch.target_features), rtol=1e-6
    )
    probabilities = [softmax(logits.numpy()) for logits in (batch.source_logits, batch.target_logits)]
    np.testing.assert_allclose(
        values["mmd_probabilities"],
        losses.linear_mmd(*map(tf.constant, probabilities), num_kernels=1, width=1.68),
        rtol=1e-4,
    )
    np.testing.assert_allclose(values["entropy"], entropies(probabilities[1]).mean(), rtol=1e-5)


def test_the_regulariser_compares_classes_with_random_corrected_images():
    def correct(features):
        return features * 1.5, features[:, :CLASSES] - 1.0

    batch = make_batch(correct=correct)
    draws = tf.random.stateless_uniform([CLASSES, N], tf.constant([9, 4], tf.int64))  # seed, step
    keep = draws < 0.8 / CLASSES
    assert 0 < int(tf.reduce_sum(tf.cast(keep, tf.int32))) < CLASSES * N
    corrected, logits = correct(batch.source_features)
    expected = losses.regulariser(batch.source_features, corrected, batch.labels, keep, num_kernels=5, width=None)
    expected += losses.regulariser(batch.source_logits, logits, batch.labels, keep, num_kernels=1, width=1.68)
    np.testing.assert_allclose(make("dcan", seed=9).losses(batch)["reg"], expected, rtol=1e-6)


def test_a_moved_head_says_of_the_target_what_it_said_of_the_source():
    rng = np.random.default_rng(2)
    source, kernel, bias = rng.normal(3, 2, [50, 4]), rng.normal(size=[4, 2]), np.array([0.5, -0.5])
    method = adabn.AdaBnHead(Setting(num_classes=2, feature_width=4))
    stretched = source * [1.0, 4.0, 0.5, 2.0] + [0.0, -7.0, 2.0, 1.0]
    moved, offset = method.move_head(kernel, bias, source, stretched, np.ones(50))
    assert moved.dtype == offset.dtype == np.float32
    np.testing.assert_allclose(stretched @ moved + offset, source @ kernel + bias, atol=0.01)
    # Images that count three times are as good as three images.
    counts = np.tile([1, 3], 25)
    weighed = method.move_head(kernel, bias, source, stretched, counts)
    repeated = method.move_head(kernel, bias, np.repeat(source, counts, axis=0), stretched, np.ones(100))
    for a, b in zip(weighed, repeated, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_moved_head_of_one_feature_by_hand():
    # Source 0 and 2 (mean 1, variance 1), target 4 and 4 (mean 4, variance 0): 0.001 is added to each variance.
    method = adabn.AdaBnHead(Setting(num_classes=2, feature_width=1))
    kernel, bias = np.array([[1.0, -1.0]]), np.array([0.0, 3.0])
    features = np.array([[0.0], [2.0]]), np.array([[4.0], [4.0]])
    moved, offset = method.move_head(kernel, bias, *features, np.ones(2))
    scale = (1.001 / 0.001) ** 0.5
    np.testing.assert_allclose(moved, [[scale, -scale]], rtol=1e-6)
    np.testing.assert_allclose(offset, [1 - 4 * scale, 3 - 1 + 4 * scale], rtol=1e-5)

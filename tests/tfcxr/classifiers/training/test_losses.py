"""Losses against the reference's numbers where it is right, and against sums written out by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.training import losses


@pytest.fixture(scope="module")
def golden(shared_dir):
    return np.load(shared_dir / "golden" / "dcan_losses.npz")


def assert_close(actual, expected, tolerance):
    expected = np.asarray(expected)
    assert np.max(np.abs(np.asarray(actual) - expected)) <= tolerance * np.max(np.abs(expected))


def value_and_gradients(function, *arrays):
    tensors = [tf.constant(a) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
    return value, [tf.convert_to_tensor(g).numpy() for g in gradients]


@pytest.mark.parametrize("name, keys, options", [
    ("mmd_k5", ("src", "trg"), {}),
    ("mmd_k1", ("src_prob", "trg_prob"), {"num_kernels": 1, "width": 1.68}),
])  # fmt: skip
def test_linear_mmd_equals_the_reference(golden, name, keys, options):
    value, gradients = value_and_gradients(
        lambda a, b: losses.linear_mmd(a, b, **options), *(golden[key] for key in keys)
    )
    assert_close(value, golden[name], 1e-5)
    for i, gradient in enumerate(gradients):
        assert_close(gradient, golden[f"{name}/grad{i}"], 1e-4)


@pytest.mark.parametrize("name, key", [("entropy", "trg_prob"), ("entropy_with_zeros", "prob_with_zeros")])
def test_entropy_equals_the_reference(golden, name, key):
    value, (gradient,) = value_and_gradients(losses.entropy, golden[key])
    assert_close(value, golden[name], 1e-5)
    assert_close(gradient, golden[f"{name}/grad0"], 1e-4)


def test_entropy_of_a_certain_prediction_is_zero_with_zero_gradient():
    value, (gradient,) = value_and_gradients(losses.entropy, np.array([[0.0, 1.0]], np.float32))
    assert value == 0.0
    assert gradient[0, 0] == 0.0


@pytest.mark.parametrize("sizes", ["3_5", "5_3", "4_4", "1_3", "3_1", "1_1"])
def test_reference_set_mmd_equals_the_reference(golden, sizes):
    n, m = map(int, sizes.split("_"))
    meta = json.loads(str(golden["meta"]))
    for num_kernels, width in ((5, None), (1, 1.68)):
        name = f"mmd_reg_{sizes}_k{num_kernels}"
        if abs(meta[name]) < 1e-9:
            continue
        value, gradients = value_and_gradients(
            lambda a, b: losses.reference_set_mmd(a, b, num_kernels=num_kernels, width=width),  # noqa: B023
            golden["src"][:n],
            golden["trg"][:m],
        )
        assert_close(value, golden[name], 1e-5)
        if num_kernels == 5:
            for i, gradient in enumerate(gradients):
                expected = golden[f"{name}/grad{i}"]
                assert np.max(np.abs(gradient - expected)) <= 1e-4 * max(np.max(np.abs(expected)), 1e-6)
        fixed = losses.reference_set_mmd(
            tf.constant(golden["src"][:n]), tf.constant(golden["trg"][:m]),
            num_kernels=num_kernels, width=width, fix_index=True,
        )  # fmt: skip
        assert_close(fixed, meta[f"{name}_ifindexfixed"], 1e-5)


def written_out_mmd(a, b, num_kernels, width):
    rows = np.concatenate([a, b]).astype(np.float64)
    if width is None:
        pairs = [np.sum((x - y) ** 2) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        width = np.mean(pairs)

    def k(x, y):
        d = np.sum((x.astype(np.float64) - y) ** 2)
        return sum(np.exp(-d / (width * 2.0**i / 2.0 ** (num_kernels // 2))) for i in range(num_kernels))

    def mean(p, q):
        return np.mean([[k(x, y) for y in q] for x in p])

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def test_quadratic_mmd_by_hand():
    # One point each, 2 apart: width 4 (mean squared distance), kernels exp(-4/4) = 1/e: 1 + 1 - 2/e.
    value = losses.quadratic_mmd(tf.constant([[0.0]]), tf.constant([[2.0]]), num_kernels=1)
    np.testing.assert_allclose(value, 2 - 2 / np.e, rtol=1e-6)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(losses.quadratic_mmd(a, b), written_out_mmd(a, b, 5, None), rtol=1e-5)


@pytest.mark.parametrize("num_kernels, width", [(5, None), (1, 1.68)])
def test_paper_regulariser_is_the_sum_over_classes_written_out(num_kernels, width):
    rng = np.random.default_rng(1)
    base = rng.normal(size=(7, 3)).astype(np.float32)
    corrected = (base + rng.normal(0, 0.3, size=(7, 3))).astype(np.float32)
    labels = np.array([0, 1, 0, 1, 1, 3, 3])  # no image of class 2
    keep = rng.random((4, 7)) < 0.5
    keep[3] = False  # an empty subset
    expected = sum(
        written_out_mmd(base[labels == k], corrected[keep[k]], num_kernels, width)
        for k in range(4)
        if keep[k].any() and (labels == k).any()
    )
    value, gradients = value_and_gradients(
        lambda a, b: losses.regulariser(a, b, labels, tf.constant(keep), num_kernels=num_kernels, width=width),
        base,
        corrected,
    )
    np.testing.assert_allclose(value, expected / 4, rtol=1e-5)
    assert all(np.isfinite(g).all() for g in gradients)


def test_reference_regulariser_takes_the_first_rows():
    rng = np.random.default_rng(2)
    base, corrected = (rng.normal(size=(6, 3)).astype(np.float32) for _ in range(2))
    labels = np.array([0, 1, 0, 1, 1, 0])
    keep = np.array([[False, True, False, True, False, False], [False] * 6])
    value = losses.regulariser(base, corrected, labels, tf.constant(keep), num_kernels=5, width=None, form="reference")
    expected = losses.reference_set_mmd(tf.constant(base[labels == 0]), tf.constant(corrected[:2]), num_kernels=5) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_identical_rows_give_no_nan():
    rows = np.ones([4, 3], np.float32)
    for function in (losses.linear_mmd, losses.quadratic_mmd):
        value, gradients = value_and_gradients(function, rows, rows)
        assert value == 0.0
        assert all(np.isfinite(g).all() for g in gradients)


def test_cross_entropy_weighs_classes():
    logits = tf.constant([[0.0, 0.0], [0.0, 0.0]])
    value = losses.cross_entropy(logits, tf.constant([0, 1]), tf.constant([1.0, 3.0]))
    np.testing.assert_allclose(value, 2 * np.log(2), rtol=1e-6)


def test_label_cross_entropy_by_hand():
    """Probabilities 1/2 and 3/4; the weights of having and not having a label are its column's."""
    logits = tf.constant([[0.0, np.log(3)], [0.0, np.log(3)]], tf.float32)
    members = tf.constant([[1.0, 1.0], [0.0, 0.0]])
    plain = losses.label_cross_entropy(logits, members)
    np.testing.assert_allclose(plain, (2 * np.log(2) - np.log(0.75) - np.log(0.25)) / 4, rtol=1e-6)
    weights = tf.constant([[0.5, 2.0], [3.0, 4.0]])  # without, with
    weighted = losses.label_cross_entropy(logits, members, weights)
    expected = (3 * np.log(2) - 4 * np.log(0.75) + 0.5 * np.log(2) - 2 * np.log(0.25)) / 4
    np.testing.assert_allclose(weighted, expected, rtol=1e-6)


def test_label_focal_loss_by_hand():
    logits = tf.constant([[0.0, np.log(3)], [0.0, np.log(3)]], tf.float32)
    members = tf.constant([[1.0, 1.0], [0.0, 0.0]])
    each = [0.5**2 * np.log(2), -(0.25**2) * np.log(0.75), 0.5**2 * np.log(2), -(0.75**2) * np.log(0.25)]
    focal = losses.label_focal_loss(logits, members)
    np.testing.assert_allclose(focal, np.dot(each, [0.25, 0.25, 0.75, 0.75]) / 4, rtol=1e-6)
    weighted = losses.label_focal_loss(logits, members, tf.constant([[0.5, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(weighted, np.dot(each, [3, 4, 0.5, 2]) / 4, rtol=1e-6)

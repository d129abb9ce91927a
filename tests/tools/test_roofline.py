"""The roofline's counts, by hand: arithmetic of products, convolutions and their gradients, bytes, and the share."""

import pytest
import tensorflow as tf

from tools import roofline

MACHINE = roofline.Machine(flops=1e6, bandwidth=1e3, cpu_flops=1e4, cpu_bandwidth=2e3)


def test_a_product_and_its_gradients():
    a, b = tf.ones([3, 4]), tf.Variable(tf.ones([4, 5]))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(a @ b)
        return tape.gradient(loss, b)

    counts = roofline.count(step)
    # 3 x 4 by 4 x 5, and 4 x 3 by 3 x 5: two operations for each of 3 * 4 * 5 pairs.
    assert counts["MatMul"].calls == 2
    assert counts["MatMul"].flops == 2 * 120
    assert counts["MatMul"].moved == 4 * ((12 + 20 + 15) + (12 + 15 + 20))


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_many_matrices(transposed):
    a = tf.ones([2, 4, 3] if transposed else [2, 3, 4])
    counts = roofline.count(lambda: tf.linalg.matmul(a, tf.ones([2, 4, 5]), transpose_a=transposed))
    assert counts["BatchMatMulV2"].flops == 2 * 2 * 3 * 4 * 5


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_and_its_gradients(depthwise):
    images, kernel = tf.Variable(tf.ones([2, 8, 8, 3])), tf.Variable(tf.ones([3, 3, 3, 1 if depthwise else 7]))

    def step():
        with tf.GradientTape() as tape:
            if depthwise:
                made = tf.nn.depthwise_conv2d(images, kernel, [1, 2, 2, 1], "SAME")
            else:
                made = tf.nn.conv2d(images, kernel, 2, "SAME")
            loss = tf.reduce_sum(made)
        return tape.gradient(loss, [images, kernel])

    counts = roofline.count(step)
    name = "DepthwiseConv2dNative" if depthwise else "Conv2D"
    # Each of the values at 4 x 4 places takes 3 x 3 products for each channel that it sees.
    flops = 2 * (2 * 4 * 4 * 3) * 9 if depthwise else 2 * (2 * 4 * 4 * 7) * 9 * 3
    for kind in (name, f"{name}BackpropInput", f"{name}BackpropFilter"):
        assert counts[kind].flops == flops, kind


def test_a_row_of_the_table():
    square = tf.ones([100, 100])
    row = roofline.measure("product", tf.function(lambda: square @ square), MACHINE, rounds=2)
    assert row["gflop"] == pytest.approx(2e-3)
    assert row["arithmetic_seconds"] == pytest.approx(2e6 / 1e6)
    assert row["memory_seconds"] == pytest.approx(3 * 40_000 / 1e3)
    # oneDNN's product has a name of its own.
    assert sum(seconds for kind, seconds in row["kind_seconds"].items() if "MatMul" in kind) > 0
    assert row["share"] == pytest.approx(120 / row["seconds"])
    assert row["cpu_limit"] == pytest.approx(2e6 / 1e4)
    assert row["cpu_share"] == pytest.approx(200 / row["cpu_seconds"])
    assert "product" in roofline.format_row(row)

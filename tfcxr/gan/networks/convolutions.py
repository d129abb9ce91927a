"""The convolutions of both networks, faster on a CPU than TensorFlow's where images and channels are many.

TensorFlow's own (oneDNN's) convolutions run close to the peak of the processor there. What is gained is arithmetic:
Winograd's minimal filtering F(4, 3) along the height makes half the multiplications (Lavin and Gray 2016, section 4).
The additions before and after are compiled (XLA), so that each makes one pass over memory. Results equal those of the
plain convolution up to rounding: the largest difference is about 4e-6 of the largest value, of gradients in the kernel
2e-5.

Images are [N, H, W, C] of static H, W and C.
"""

import contextlib
import functools

import numpy as np
import tensorflow as tf

# With fewer, the additions cost more than the multiplications saved (measured on two cores with AVX2).
_MIN_CHANNELS, _MIN_CHANNELS_TIMES_HEIGHT = 64, 2048

# F(4, 3) for the points 0, 1, -1, 2, -2 and infinity: four outputs of a filter of three taps k on six inputs x are
# _OUT @ ((_KERNEL @ k) * (_IN @ x)).
_IN = np.array([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])

_compiled = functools.partial(tf.function, jit_compile=True)
_portable = False


@contextlib.contextmanager
def portable():
    """What is traced inside holds TensorFlow's own operations only: not every server of SavedModels can run XLA."""
    global _portable
    before, _portable = _portable, True
    try:
        yield
    finally:
        _portable = before


def conv(x, kernel):
    """Convolution, stride 1, SAME, of [N, H, W, A] with a kernel [k, k, A, B], k odd."""
    height, channels = x.shape[1], min(kernel.shape[2:])
    pays = channels >= _MIN_CHANNELS and channels * height >= _MIN_CHANNELS_TIMES_HEIGHT
    fits = kernel.shape[0] == 3 and height % 4 == 0 and x.dtype == tf.float32
    if pays and fits and not _portable and not tf.config.list_physical_devices("GPU"):
        return _winograd(x, kernel)
    return tf.nn.conv2d(x, kernel, 1, "SAME")


# The gradients of a convolution are two more functions of this kind, and theirs are again these three.


@tf.custom_gradient
def _winograd(x, kernel):
    """Convolution of [N, H, W, A], H divisible by 4, with a kernel [3, 3, A, B]."""

    def gradient(y):
        return _winograd(y, _flipped(kernel)), _winograd_kernel_gradient(x, y)

    # Six convolutions 1x3 of images of a quarter of the height instead of twelve.
    pairs = zip(_transform_in(x), _transform_kernel(kernel), strict=True)
    return _transform_out(*[tf.nn.conv2d(part, taps, 1, "VALID") for part, taps in pairs]), gradient


@tf.custom_gradient
def _winograd_kernel_gradient(x, y):
    """The gradient in the kernel [3, 3, A, B], of an input [N, H, W, A] and the gradient in the output [N, H, W, B]."""

    def gradient(kernel):
        return _winograd(y, _flipped(kernel)), _winograd(x, kernel)

    shape = [1, 3, x.shape[3], y.shape[3]]
    return _transposed_kernel(*[
        tf.raw_ops.Conv2DBackpropFilter(
            input=part, filter_sizes=shape, out_backprop=grown, strides=[1] * 4, padding="VALID"
        )
        for part, grown in zip(_transform_in(x), _transposed_out(y), strict=True)
    ]), gradient  # fmt: skip


def _combine(coefficients, terms):
    """Σ coefficient · term, without those of coefficient 0."""
    return tf.add_n([term * float(c) for c, term in zip(coefficients, terms, strict=True) if c])


@_compiled
def _flipped(kernel):
    return tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2])


@_compiled
def _transform_in(x):
    height = x.shape[1]
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = [x[:, i : i + height - 3 : 4] for i in range(6)]
    return [_combine(line, rows) for line in _IN]


@_compiled
def _transform_kernel(kernel):
    return [_combine(line, tf.unstack(kernel))[None] for line in _KERNEL]


@_compiled
def _transposed_kernel(*parts):
    return tf.concat([_combine(line, parts) for line in _KERNEL.T], axis=0)


@_compiled
def _transform_out(*parts):
    _, quarter, width, channels = parts[0].shape
    return tf.reshape(tf.stack([_combine(line, parts) for line in _OUT], axis=2), [-1, 4 * quarter, width, channels])


@_compiled
def _transposed_out(y):
    rows = [y[:, i::4] for i in range(4)]
    return [_combine(line, rows) for line in _OUT.T]

# The Keras methods build, call and get_config are what they are in every Keras layer.
# ruff: noqa: D102
"""Layers of cpD-GAN.

Activations are NHWC float32 (on a CPU 1.7 times faster than NCHW). Weights keep the names, shapes and layouts of the
reference (golden files and imported checkpoints load without a transposition): convolution kernels [k, k, in, out], the
fused up-convolution [k, k, out, in], dense [in, out]; the dense layers beside the 4x4 images count their units
channel-first.

Sources: Karras et al. 2018 (progressive growing: equalized learning rate, pixel norm, minibatch standard deviation),
Karras et al. 2019 (StyleGAN: fused up- and down-sampling convolutions).
"""

import math
import zlib

import tensorflow as tf

_LEAK = 0.2
_EPSILON = 1e-8

register = tf.keras.saving.register_keras_serializable("tfcxr")


@register
class SeededNormal(tf.keras.initializers.Initializer):
    """N(0, stddev) that depends on `seed` and `name` only, so that a network is the same in every process."""

    def __init__(self, *, seed: int, name: str, stddev: float = 1.0):
        self._config = {"seed": seed, "name": name, "stddev": stddev}

    def __call__(self, shape, dtype=None, **kwargs):
        seed = [self._config["seed"], zlib.crc32(self._config["name"].encode())]
        return tf.random.stateless_normal(shape, seed, stddev=self._config["stddev"], dtype=dtype or tf.float32)

    def get_config(self):
        return dict(self._config)


def leaky_relu(x):
    """Leaky ReLU of slope 0.2."""
    return tf.nn.leaky_relu(x, alpha=_LEAK)


def pixel_norm(x):
    """x / sqrt(mean over channels of x² + 1e-8), for x of shape [..., C] (Karras 2018, section 4.2)."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + _EPSILON)


def upsample(x):
    """Nearest-neighbour enlargement by two of [N, H, W, C]."""
    _, height, width, channels = x.shape
    x = tf.reshape(x, [-1, height, 1, width, 1, channels])
    return tf.reshape(tf.tile(x, [1, 1, 2, 1, 2, 1]), [-1, 2 * height, 2 * width, channels])


def downsample(x):
    """Mean over 2x2 pixels of [N, H, W, C]."""
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


def four_shifts(kernel):
    """The sum of the four one-pixel shifts of a kernel [k, k, a, b], as [k+1, k+1, a, b].

    A stride-2 convolution with it is the plain convolution before (after) a 2x2 mean (a nearest-neighbour enlargement),
    at less than half the work.
    """
    kernel = tf.pad(kernel, [[1, 1], [1, 1], [0, 0], [0, 0]])
    return kernel[1:, 1:] + kernel[:-1, 1:] + kernel[1:, :-1] + kernel[:-1, :-1]


def _transposed_conv(x, kernel):
    """Transposed convolution, stride 2, SAME, of [N, H, W, C] with a kernel [4, 4, out, C], as [N, 2H, 2W, out]."""
    _, height, width, channels = x.shape
    units = kernel.shape[2]
    if height < 16:
        shape = [tf.shape(x)[0], 2 * height, 2 * width, units]
        return tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME")
    # Large images: one plain convolution with the 2x2 kernels of the four phases, then interleaving. The same sums, in
    # two thirds of the time (measured on two cores with AVX512); at 8 px and below the rearranging costs more than
    # it saves.
    kernel = tf.reshape(kernel[::-1, ::-1], [2, 2, 2, 2, units, channels])
    kernel = tf.reshape(tf.transpose(kernel, [0, 2, 5, 1, 3, 4]), [2, 2, channels, 4 * units])
    y = tf.nn.conv2d(x, kernel, 1, [[0, 0], [1, 1], [1, 1], [0, 0]])
    # tf.slice, not indexing: its gradient is a plain padding, which is several times faster than StridedSliceGrad.
    size = [-1, height, width, units]
    parts = [tf.slice(y, [0, i, j, (2 * i + j) * units], size) for i in (0, 1) for j in (0, 1)]
    return tf.nn.depth_to_space(tf.concat(parts, axis=3), 2)


class _Equalized(tf.keras.layers.Layer):
    """A layer with one `weight`, stored as N(0, 1) and multiplied by gain / sqrt(fan_in) at run time, and a `bias`."""

    def __init__(
        self, units: int, *, gain: float = 1.0, use_bias: bool = True, activate: bool = False, seed: int = 0, **kwargs
    ):
        super().__init__(**kwargs)
        self.units, self.gain, self.use_bias, self.activate, self.seed = units, gain, use_bias, activate, seed

    def _build(self, weight_shape):
        self._scale = self.gain / math.sqrt(math.prod(weight_shape[:-1]))
        initializer = SeededNormal(seed=self.seed, name=self.name)
        self.weight = self.add_weight(name="weight", shape=weight_shape, initializer=initializer)
        self.bias = (
            self.add_weight(name="bias", shape=[self._bias_size()], initializer="zeros") if self.use_bias else None
        )

    def _bias_size(self):
        return self.units

    def _scaled_weight(self):
        return self.weight * tf.cast(self._scale, self.weight.dtype)

    def _finish(self, x):
        if self.bias is not None:
            x = tf.nn.bias_add(x, self.bias)
        return leaky_relu(x) if self.activate else x

    def get_config(self):
        own = {key: getattr(self, key) for key in ("units", "gain", "use_bias", "activate", "seed")}
        return {**super().get_config(), **own}


@register
class Dense(_Equalized):
    """Equalized dense layer on [N, C]."""

    def build(self, input_shape):
        self._build([input_shape[-1], self.units])

    def call(self, x):
        return self._finish(tf.matmul(x, self._scaled_weight()))


@register
class DenseToImage(_Equalized):
    """Equalized dense layer from [N, C] to a 4x4 image [N, 4, 4, units]; one bias per channel."""

    def build(self, input_shape):
        self._build([input_shape[-1], self.units * 16])

    def call(self, x):
        x = tf.reshape(tf.matmul(x, self._scaled_weight()), [-1, self.units, 4, 4])
        return self._finish(tf.transpose(x, [0, 2, 3, 1]))


@register
class DenseFromImage(_Equalized):
    """Equalized dense layer from a 4x4 image [N, 4, 4, C] to [N, units]."""

    def build(self, input_shape):
        self._channels = input_shape[-1]
        self._build([self._channels * 16, self.units])

    def call(self, x):
        x = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, self._channels * 16])
        return self._finish(tf.matmul(x, self._scaled_weight()))


@register
class Conv(_Equalized):
    """Equalized convolution, stride 1, SAME."""

    def __init__(self, units: int, kernel: int, **kwargs):
        super().__init__(units, **kwargs)
        self.kernel = kernel

    def build(self, input_shape):
        self._build([self.kernel, self.kernel, input_shape[-1], self.units])

    def call(self, x):
        return self._finish(tf.nn.conv2d(x, self._scaled_weight(), 1, "SAME"))

    def get_config(self):
        return {**super().get_config(), "kernel": self.kernel}


@register
class UpConv(_Equalized):
    """Fused enlargement by two and convolution (transposed, stride 2); the kernel is stored [k, k, out, in]."""

    def __init__(self, units: int, kernel: int, *, gain: float = math.sqrt(2), **kwargs):
        super().__init__(units, gain=gain, **kwargs)
        self.kernel = kernel

    def build(self, input_shape):
        self._build([self.kernel, self.kernel, self.units, input_shape[-1]])

    def call(self, x):
        weight = self._scaled_weight()
        if self.kernel == 1:
            # The 2x2 kernel has four equal entries: a 1x1 convolution of the small image, enlarged.
            return self._finish(upsample(tf.nn.conv2d(x, tf.transpose(weight, [0, 1, 3, 2]), 1, "SAME")))
        return self._finish(_transposed_conv(x, four_shifts(weight)))

    def get_config(self):
        return {**super().get_config(), "kernel": self.kernel}


@register
class DownConv(_Equalized):
    """Fused convolution and 2x2 mean (stride 2)."""

    def __init__(self, units: int, kernel: int, *, gain: float = math.sqrt(2), **kwargs):
        super().__init__(units, gain=gain, **kwargs)
        self.kernel = kernel

    def build(self, input_shape):
        self._build([self.kernel, self.kernel, input_shape[-1], self.units])

    def call(self, x):
        if self.kernel == 1:
            # As above: the mean first, and a 1x1 convolution of a quarter of the pixels.
            return self._finish(tf.nn.conv2d(downsample(x), self._scaled_weight(), 1, "SAME"))
        return self._finish(tf.nn.conv2d(x, four_shifts(self._scaled_weight()) * 0.25, 2, "SAME"))

    def get_config(self):
        return {**super().get_config(), "kernel": self.kernel}


@register
class PixelNorm(tf.keras.layers.Layer):
    """`pixel_norm` as a layer."""

    def call(self, x):
        return pixel_norm(x)


@register
class ConditionalPixelNorm(tf.keras.layers.Layer):
    """pixel_norm(x)·γ + β with γ and β equalized dense functions of the condition [N, D].

    `calm` starts γ's bias at 1 and both weights at a tenth of their usual deviation: the same function class, but the
    first images are not scaled at random, channel by channel. The reference starts γ around 0.
    """

    def __init__(self, *, calm: bool = False, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.calm, self.seed = calm, seed

    def build(self, input_shapes):
        (*_, channels), (_, size) = input_shapes
        self._scale = 1 / math.sqrt(size)
        for part in ("beta", "gamma"):
            initializer = SeededNormal(seed=self.seed, name=f"{self.name}/{part}", stddev=0.1 if self.calm else 1.0)
            weight = self.add_weight(name=f"{part}/weight", shape=[size, channels], initializer=initializer)
            start = "ones" if self.calm and part == "gamma" else "zeros"
            bias = self.add_weight(name=f"{part}/bias", shape=[channels], initializer=start)
            setattr(self, f"{part}_weight", weight)
            setattr(self, f"{part}_bias", bias)

    def call(self, inputs):
        x, condition = inputs
        condition = condition * self._scale
        gamma = tf.matmul(condition, self.gamma_weight) + self.gamma_bias
        beta = tf.matmul(condition, self.beta_weight) + self.beta_bias
        return pixel_norm(x) * gamma[:, None, None, :] + beta[:, None, None, :]

    def get_config(self):
        return {**super().get_config(), "calm": self.calm, "seed": self.seed}


@register
class MinibatchStddev(tf.keras.layers.Layer):
    """Appends the mean standard deviation over groups of images as one more channel (Karras 2018, section 3).

    The batch is read as [group, N / group, ...]: image i belongs to group i mod N / group. A batch smaller than a
    group is one group; N must otherwise be divisible by the group size.
    """

    def __init__(self, *, group: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.group = group

    def call(self, x):
        _, height, width, channels = x.shape
        size = tf.shape(x)[0]
        group = tf.minimum(self.group, size)
        y = tf.reshape(x, [group, -1, height * width * channels])
        y = y - tf.reduce_mean(y, axis=0, keepdims=True)
        y = tf.reduce_mean(tf.sqrt(tf.reduce_mean(tf.square(y), axis=0) + _EPSILON), axis=-1)
        y = tf.tile(y, [group])[:, None, None, None]
        return tf.concat([x, tf.broadcast_to(y, [size, height, width, 1])], axis=-1)

    def get_config(self):
        return {**super().get_config(), "group": self.group}


@register
class SelectLabels(tf.keras.layers.Layer):
    """Columns `indices` of a label matrix [N, L]: what a GAN conditioned on a subset of the labels sees."""

    def __init__(self, indices, **kwargs):
        super().__init__(**kwargs)
        self.indices = [int(index) for index in indices]

    def call(self, labels):
        return tf.gather(labels, self.indices, axis=1)

    def get_config(self):
        return {**super().get_config(), "indices": self.indices}


@register
class LabelScore(tf.keras.layers.Layer):
    """score = Σ_l out_l·y_l of ([N, L], [N, L]), as [N, 1]. An all-zero label scores 0 whatever the image."""

    def call(self, inputs):
        outputs, labels = inputs
        return tf.reduce_sum(outputs * labels, axis=1, keepdims=True)


@register
class Upsample(tf.keras.layers.Layer):
    """`upsample` as a layer."""

    def call(self, x):
        return upsample(x)


@register
class Downsample(tf.keras.layers.Layer):
    """`downsample` as a layer."""

    def call(self, x):
        return downsample(x)


@register
class ResidualMean(tf.keras.layers.Layer):
    """(x + t) / sqrt 2: the sum of two branches at the variance of one."""

    def call(self, inputs):
        x, t = inputs
        return (x + t) * math.sqrt(0.5)

# The Keras methods build, call and get_config are what they are in every Keras layer.
# ruff: noqa: D102
"""Layers of cpD-GAN.

Activations are NHWC (on a CPU 1.7 times faster than NCHW), of the type that each layer's Keras policy computes in:
float32, or a short float with `mixed_bfloat16` and `mixed_float16`. Variables are float32 always, and what would
overflow or lose its meaning in a short float is computed in float32: means of squares, scales and shifts by the
condition, sums of kernels.

Weights keep the names, shapes and layouts of the reference (golden files and imported checkpoints load without a
transposition): convolution kernels [k, k, in, out], the fused up-convolution [k, k, out, in], dense [in, out]; the
dense layers beside the 4x4 images count their units channel-first.

Sources: Karras et al. 2018 (progressive growing: equalized learning rate, pixel norm, minibatch standard deviation),
Karras et al. 2019 (StyleGAN: fused up- and down-sampling convolutions).
"""

import math
import zlib

import tensorflow as tf

from tfcxr.gan.networks import convolutions

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
    """x / sqrt(mean over channels of x² + 1e-8), for x of shape [..., C] (Karras 2018, section 4.2).

    Short floats give float32: the square of a float16 overflows from 256 on.
    """
    x = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + _EPSILON)


def upsample(x):
    """Nearest-neighbour enlargement by two of [N, H, W, C]."""
    _, height, width, channels = x.shape
    x = tf.reshape(x, [-1, height, 1, width, 1, channels])
    return tf.reshape(tf.tile(x, [1, 1, 2, 1, 2, 1]), [-1, 2 * height, 2 * width, channels])


def downsample(x):
    """Mean over 2x2 pixels of [N, H, W, C]."""
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


# An operation and its transpose: each is the gradient of the other. TensorFlow's own gradients give the same numbers,
# but take up to 1.4 times as long on a CPU.


@tf.custom_gradient
def _blur(x):
    """Means of 2x2 neighbours: [N, H, W, C] to [N, H-1, W-1, C]."""
    return tf.nn.avg_pool2d(x, 2, 1, "VALID"), _padded_blur


@tf.custom_gradient
def _padded_blur(x):
    """The same with one pixel of zeros around: [N, H, W, C] to [N, H+1, W+1, C]."""
    return tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 2, 1, "VALID"), _blur


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
        # Not cast by Keras: `_compute` does it, after scaling and adding up.
        own = {"experimental_autocast": False}
        self.weight = self.add_weight(name="weight", shape=weight_shape, initializer=initializer, **own)
        self.bias = (
            self.add_weight(name="bias", shape=[self.units], initializer="zeros", **own) if self.use_bias else None
        )

    def _scaled_weight(self):
        return self.weight * self._scale

    def _compute(self, kernel):
        """A kernel in the type that the layer computes in."""
        return tf.cast(kernel, self.compute_dtype)

    def _finish(self, x):
        if self.bias is not None:
            x = tf.nn.bias_add(x, self._compute(self.bias))
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
        return self._finish(tf.matmul(x, self._compute(self._scaled_weight())))


@register
class DenseToImage(_Equalized):
    """Equalized dense layer from [N, C] to a 4x4 image [N, 4, 4, units]; one bias per channel."""

    def build(self, input_shape):
        self._build([input_shape[-1], self.units * 16])

    def call(self, x):
        x = tf.reshape(tf.matmul(x, self._compute(self._scaled_weight())), [-1, self.units, 4, 4])
        return self._finish(tf.transpose(x, [0, 2, 3, 1]))


@register
class DenseFromImage(_Equalized):
    """Equalized dense layer from a 4x4 image [N, 4, 4, C] to [N, units]."""

    def build(self, input_shape):
        self._channels = input_shape[-1]
        self._build([self._channels * 16, self.units])

    def call(self, x):
        x = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, self._channels * 16])
        return self._finish(tf.matmul(x, self._compute(self._scaled_weight())))


@register
class Conv(_Equalized):
    """Equalized convolution, stride 1, SAME."""

    def __init__(self, units: int, kernel: int, **kwargs):
        super().__init__(units, **kwargs)
        self.kernel = kernel

    def build(self, input_shape):
        self._build([self.kernel, self.kernel, input_shape[-1], self.units])

    def call(self, x):
        return self._finish(convolutions.conv(x, self._compute(self._scaled_weight())))

    def get_config(self):
        return {**super().get_config(), "kernel": self.kernel}


class _Fused(_Equalized):
    """A convolution fused with a change of resolution by two.

    The papers' kernel of a fused convolution is the sum of its four shifts by one pixel, 4x4 from 3x3. That sum is the
    kernel convolved with a 2x2 box, and it is cheaper to convolve the image: a blur and a stride-2 convolution with 3x3
    make 9 multiplications where the 4x4 kernel makes 16. Convolutions are nine tenths of a training step.
    """

    def __init__(self, units: int, kernel: int, *, gain: float = math.sqrt(2), **kwargs):
        if kernel not in (1, 3):
            raise ValueError(f"kernel={kernel}: must be 1 or 3")
        super().__init__(units, gain=gain, **kwargs)
        self.kernel = kernel

    def get_config(self):
        return {**super().get_config(), "kernel": self.kernel}


@register
class UpConv(_Fused):
    """Fused enlargement by two and convolution (transposed, stride 2); the kernel is stored [k, k, out, in]."""

    def build(self, input_shape):
        self._build([self.kernel, self.kernel, self.units, input_shape[-1]])

    def call(self, x):
        weight = self._scaled_weight()
        if self.kernel == 1:
            # The 2x2 kernel has four equal entries: a 1x1 convolution of the small image, enlarged.
            weight = self._compute(tf.transpose(weight, [0, 1, 3, 2]))
            return self._finish(upsample(convolutions.conv(x, weight)))
        # Times 4: the blur is a mean, the four shifts are a sum.
        _, height, width, _ = x.shape
        shape = [tf.shape(x)[0], 2 * height + 1, 2 * width + 1, self.units]
        return self._finish(_blur(tf.nn.conv2d_transpose(x, self._compute(weight * 4), shape, 2, "VALID")))


@register
class DownConv(_Fused):
    """Fused convolution and 2x2 mean (stride 2)."""

    def build(self, input_shape):
        self._build([self.kernel, self.kernel, input_shape[-1], self.units])

    def call(self, x):
        weight = self._compute(self._scaled_weight())
        if self.kernel == 1:
            return self._finish(convolutions.conv(downsample(x), weight))
        return self._finish(tf.nn.conv2d(_padded_blur(x), weight, 2, "VALID"))


@register
class PixelNorm(tf.keras.layers.Layer):
    """`pixel_norm` as a layer."""

    def call(self, x):
        return tf.cast(pixel_norm(x), self.compute_dtype)


@register
class ConditionalPixelNorm(tf.keras.layers.Layer):
    """pixel_norm(x)·γ + β with γ and β equalized dense functions of the condition [N, D].

    `calm` starts γ's bias at 1 and both weights at a tenth of their usual deviation: the same function class, but the
    first images are not scaled at random, channel by channel. The reference starts γ around 0.
    """

    def __init__(self, *, calm: bool = False, seed: int = 0, **kwargs):
        # The condition stays float32: so do γ and β.
        super().__init__(autocast=False, **kwargs)
        self.calm, self.seed = calm, seed

    def build(self, input_shapes):
        (*_, channels), (_, size) = input_shapes
        self._scale = 1 / math.sqrt(size)
        for part in ("beta", "gamma"):
            initializer = SeededNormal(seed=self.seed, name=f"{self.name}/{part}", stddev=0.1 if self.calm else 1.0)
            own = {"experimental_autocast": False}
            weight = self.add_weight(name=f"{part}/weight", shape=[size, channels], initializer=initializer, **own)
            start = "ones" if self.calm and part == "gamma" else "zeros"
            bias = self.add_weight(name=f"{part}/bias", shape=[channels], initializer=start, **own)
            setattr(self, f"{part}_weight", weight)
            setattr(self, f"{part}_bias", bias)

    def call(self, inputs):
        x, condition = inputs
        condition = tf.cast(condition, tf.float32) * self._scale
        gamma = tf.matmul(condition, self.gamma_weight) + self.gamma_bias
        beta = tf.matmul(condition, self.beta_weight) + self.beta_bias
        x = pixel_norm(x) * gamma[:, None, None, :] + beta[:, None, None, :]
        return tf.cast(x, self.compute_dtype)

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
        y = tf.reshape(tf.cast(x, tf.float32), [group, -1, height * width * channels])
        y = y - tf.reduce_mean(y, axis=0, keepdims=True)
        y = tf.reduce_mean(tf.sqrt(tf.reduce_mean(tf.square(y), axis=0) + _EPSILON), axis=-1)
        y = tf.cast(tf.tile(y, [group]), x.dtype)[:, None, None, None]
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

"""The yardstick of the GAN benchmark: cpD-GAN and its WGAN-GP step written directly in TensorFlow 2.

This is what one writes from the papers (Karras et al. 2018, 2019 and 2020; Gulrajani et al. 2017; Schütte et al. 2021)
without measuring anything: NHWC float32, every fused convolution with its padded and shifted kernel, reals, fakes and
interpolates through the discriminator one after the other, one tape per network, Keras's Adam, one `tf.function`. It
shares no code with `tfcxr.gan`, but names and shapes of the variables, so that weights can be copied and results
compared. Only the 'skip' generator with the 'resnet' discriminator exists here. Nothing trains with it.
"""

import dataclasses
import math

import tensorflow as tf

from tfrecords_builder.labels import DEFAULT


@dataclasses.dataclass(frozen=True)
class PlainConfig:
    """Sizes and training settings; feature maps at stage s are min(fmap_base / 2^s, fmap_max)."""

    resolution: int
    fmap_base: int = 16384
    fmap_max: int = 512
    num_labels: int = len(DEFAULT)
    learning_rate: float = 0.005
    beta2: float = 0.99
    ema_decay: float = 0.999

    def feature_maps(self, stage: int) -> int:
        """Feature maps at a stage; the block of resolution 2^r uses stage r - 1, the latent stage 0."""
        return min(self.fmap_base // 2**stage, self.fmap_max)

    @property
    def stages(self) -> int:
        """n of resolution 2^n."""
        return self.resolution.bit_length() - 1


class Variables:
    """Variables by name, made when a network first asks for them."""

    def __init__(self):
        self.by_name: dict[str, tf.Variable] = {}

    def get(self, name: str, shape: list[int], initial=tf.random.normal) -> tf.Variable:
        """The variable `name`, float32 of `shape`."""
        if name not in self.by_name:
            self.by_name[name] = tf.Variable(initial(shape), name=name)
        return self.by_name[name]

    def weight(self, name: str, shape: list[int], gain: float = 1.0) -> tf.Tensor:
        """The variable `name`/weight, scaled by gain / sqrt(fan_in)."""
        return self.get(f"{name}/weight", shape) * (gain / math.sqrt(math.prod(shape[:-1])))

    def bias(self, name: str, size: int) -> tf.Variable:
        """The variable `name`/bias."""
        return self.get(f"{name}/bias", [size], tf.zeros)

    def all(self) -> list[tf.Variable]:
        """All variables made so far."""
        return list(self.by_name.values())


def leaky_relu(x):
    """Leaky ReLU of slope 0.2."""
    return tf.nn.leaky_relu(x, 0.2)


def pixel_norm(x):
    """Divides by the root mean square over channels."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + 1e-8)


def shifted_sum(kernel):
    """[k, k, a, b] -> [k+1, k+1, a, b]: the kernel of a stride-2 convolution fused with a 2x2 box."""
    kernel = tf.pad(kernel, [[1, 1], [1, 1], [0, 0], [0, 0]])
    return kernel[1:, 1:] + kernel[:-1, 1:] + kernel[1:, :-1] + kernel[:-1, :-1]


def conv(variables, name, x, units, size):
    """Convolution [N, H, W, C] -> [N, H, W, units], with a bias."""
    weight = variables.weight(name, [size, size, x.shape[-1], units])
    return tf.nn.conv2d(x, weight, 1, "SAME") + variables.bias(name, units)


def up_conv(variables, name, x, units):
    """Fused enlargement and 3x3 convolution: [N, H, W, C] -> [N, 2H, 2W, units], with a bias."""
    weight = shifted_sum(variables.weight(name, [3, 3, units, x.shape[-1]], gain=math.sqrt(2)))
    shape = [tf.shape(x)[0], 2 * x.shape[1], 2 * x.shape[2], units]
    return tf.nn.conv2d_transpose(x, weight, shape, 2, "SAME") + variables.bias(name, units)


def down_conv(variables, name, x, units, size):
    """Fused convolution and 2x2 mean: [N, H, W, C] -> [N, H/2, W/2, units], without a bias."""
    weight = shifted_sum(variables.weight(name, [size, size, x.shape[-1], units], gain=math.sqrt(2))) * 0.25
    return tf.nn.conv2d(x, weight, 2, "SAME")


def dense(variables, name, x, units):
    """[N, C] -> [N, units], with a bias."""
    return x @ variables.weight(name, [x.shape[-1], units]) + variables.bias(name, units)


def conditional_norm(variables, name, x, condition):
    """pixel_norm(x)·γ + β with γ and β dense functions of the condition [N, D]."""
    gamma = dense(variables, f"{name}/PixelNorm/gamma", condition, x.shape[-1])
    beta = dense(variables, f"{name}/PixelNorm/beta", condition, x.shape[-1])
    return pixel_norm(x) * gamma[:, None, None, :] + beta[:, None, None, :]


def generator(variables: Variables, config: PlainConfig, latents, labels):
    """(latents [N, nf(0)], labels [N, L]) -> images [N, R, R, 1]."""
    nf = config.feature_maps
    condition = tf.concat([latents, labels], axis=1)

    def block(x, name):
        return conditional_norm(variables, name, leaky_relu(x), condition)

    x = pixel_norm(condition) @ variables.weight("4x4/Dense", [condition.shape[-1], nf(1) * 16])
    x = tf.transpose(tf.reshape(x, [-1, nf(1), 4, 4]), [0, 2, 3, 1])
    x = block(x + variables.bias("4x4/Dense", nf(1)), "4x4/Dense")
    x = block(conv(variables, "4x4/Conv", x, nf(1), 3), "4x4/Conv")
    image = conv(variables, "4x4/ToRGB", x, 1, 1)
    for r in range(3, config.stages + 1):
        size = 2**r
        x = block(up_conv(variables, f"{size}x{size}/Conv0_up", x, nf(r - 1)), f"{size}x{size}/Conv0_up")
        x = block(conv(variables, f"{size}x{size}/Conv1", x, nf(r - 1), 3), f"{size}x{size}/Conv1")
        image = tf.image.resize(image, [size, size], method="nearest")
        image += conv(variables, f"{size}x{size}/ToRGB", x, 1, 1)
    return image


def minibatch_stddev(x):
    """Appends the mean standard deviation over groups of four images, image i in group i mod N/4, as a channel."""
    _, height, width, channels = x.shape
    y = tf.reshape(x, [4, -1, height, width, channels])
    y = tf.sqrt(tf.math.reduce_variance(y, axis=0) + 1e-8)
    y = tf.tile(tf.reduce_mean(y, axis=[1, 2, 3], keepdims=True), [4, height, width, 1])
    return tf.concat([x, y], axis=-1)


def discriminator(variables: Variables, config: PlainConfig, images, labels):
    """(images [N, R, R, 1], labels [N, L]) -> scores [N]; N divisible by 4."""
    nf, side = config.feature_maps, config.resolution
    x = leaky_relu(conv(variables, f"{side}x{side}/FromRGB", images, nf(config.stages - 1), 1))
    for r in range(config.stages, 2, -1):
        name = f"{2**r}x{2**r}"
        skip = down_conv(variables, f"{name}/Skip", x, nf(r - 2), 1)
        x = leaky_relu(conv(variables, f"{name}/Conv0", x, nf(r - 1), 3))
        x = down_conv(variables, f"{name}/Conv1_down", x, nf(r - 2), 3)
        x = leaky_relu(x + variables.bias(f"{name}/Conv1_down", nf(r - 2)))
        x = (x + skip) / math.sqrt(2)
    x = leaky_relu(conv(variables, "4x4/Conv", minibatch_stddev(x), nf(1), 3))
    x = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, nf(1) * 16])
    x = leaky_relu(dense(variables, "4x4/Dense0", x, nf(0)))
    return tf.reduce_sum(dense(variables, "Output", x, labels.shape[-1]) * labels, axis=1)


class PlainGan:
    """Both networks, the averaged generator and their optimizers.

    Attributes:
        g, d, ema: their `Variables`.
    """

    def __init__(self, config: PlainConfig):
        self.config = config
        self.g, self.d, self.ema = Variables(), Variables(), Variables()
        latents, labels = tf.zeros([4, config.feature_maps(0)]), tf.zeros([4, config.num_labels])
        images = generator(self.g, config, latents, labels)
        discriminator(self.d, config, images, labels)
        generator(self.ema, config, latents, labels)
        for name, average in self.ema.by_name.items():
            average.assign(self.g.by_name[name])
        self._g_optimizer, self._d_optimizer = self._adam(), self._adam()
        self._g_optimizer.build(self.g.all())
        self._d_optimizer.build(self.d.all())

    def _adam(self):
        return tf.keras.optimizers.Adam(self.config.learning_rate, beta_1=0.0, beta_2=self.config.beta2, epsilon=1e-8)

    @tf.function
    def step(self, images, labels, label_table):
        """One step of both networks with fresh random numbers.

        Args:
            images: [N, R, R, 1] uint8.
            labels: [N, L] float32, theirs.
            label_table: [M, L] float32, of all training images.

        Returns:
            The losses of D and G.
        """
        size = tf.shape(images)[0]
        reals = tf.cast(images, tf.float32) / 127.5 - 1
        rows = tf.random.uniform([size], 0, tf.shape(label_table)[0], tf.int32)
        shape = [size, self.config.feature_maps(0)]
        mix = tf.random.uniform([size, 1, 1, 1])
        fake_labels = tf.gather(label_table, rows)
        return self.update(reals, labels, tf.random.normal(shape), mix, tf.random.normal(shape), fake_labels)

    def update(self, reals, labels, d_latents, mix, g_latents, g_labels):
        """One step with these random numbers; all [N, ...], reals in [-1, 1]. Returns the losses of D and G."""
        d_loss = self.discriminator_step(reals, labels, d_latents, mix)
        g_loss = self.generator_step(g_latents, g_labels)
        for name, average in self.ema.by_name.items():
            average.assign(self.config.ema_decay * average + (1 - self.config.ema_decay) * self.g.by_name[name])
        return d_loss, g_loss

    def discriminator_step(self, reals, labels, latents, mix):
        """Updates D; returns its loss, penalty included."""
        fakes = generator(self.g, self.config, latents, labels)
        with tf.GradientTape() as tape:
            real_scores = discriminator(self.d, self.config, reals, labels)
            fake_scores = discriminator(self.d, self.config, fakes, labels)
            mixed = reals + (fakes - reals) * mix
            with tf.GradientTape() as inner:
                inner.watch(mixed)
                mixed_scores = discriminator(self.d, self.config, mixed, labels)
            norms = tf.sqrt(tf.reduce_sum(tf.square(inner.gradient(mixed_scores, mixed)), axis=[1, 2, 3]))
            penalty = 10 * tf.square(norms - 1)
            loss = tf.reduce_mean(fake_scores - real_scores + 0.001 * tf.square(real_scores) + penalty)
        variables = self.d.all()
        self._d_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def generator_step(self, latents, labels):
        """Updates G; returns its loss."""
        with tf.GradientTape() as tape:
            fakes = generator(self.g, self.config, latents, labels)
            loss = -tf.reduce_mean(discriminator(self.d, self.config, fakes, labels))
        variables = self.g.all()
        self._g_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

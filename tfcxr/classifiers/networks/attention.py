"""Domain conditioned channel attention (DCCA).

Li et al., "Domain Conditioned Adaptation Network", AAAI 2020, arXiv 2005.06717, section 3.2: squeeze-and-excitation
(Hu et al. 2018) whose squeezing layer is one per domain, so that each domain may weigh the shared channels its own way.
With one squeezing layer for both domains it is squeeze-and-excitation itself.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfcxr.classifiers.networks import seeding

PATHS = ("source", "target", "both")

# sigmoid(4) = 0.982: a network that gets the attention added starts near what it computed before, and the sigmoid's
# slope (0.018) still lets it learn.
OPEN_BIAS = 4.0
_OPEN_STDDEV = 0.01


class ChannelAttention(tf.keras.layers.Layer):
    """Pool -> dense C/reduction (one for source, one for target) -> ReLU -> shared dense C -> sigmoid -> scale.

    Input and output: float [N, H, W, C]. The attention starts near identity (factors near sigmoid(4) = 0.98).
    """

    def __init__(self, *, reduction: int = 16, per_domain: bool = True, seed: int = 0, **kwargs):
        """Makes the layer.

        Args:
            reduction: the squeezed width is C // reduction, at least 1.
            per_domain: whether source and target have squeezing layers of their own.
            seed: of the first weights, with the layer's name.
            **kwargs: of any Keras layer.
        """
        super().__init__(**kwargs)
        self.reduction, self.per_domain, self.seed = reduction, per_domain, seed

    def build(self, input_shape) -> None:
        """Makes the dense layers for C = input_shape[-1]."""
        channels = int(input_shape[-1])
        squeezed = max(1, channels // self.reduction)

        def seed_of(name: str) -> int:
            return seeding.layer_seed(self.seed, f"{self.name}/{name}")

        def squeezing(name: str) -> tf.keras.layers.Dense:
            initializer = tf.keras.initializers.HeNormal(seed_of(name))
            return tf.keras.layers.Dense(
                squeezed, "relu", kernel_initializer=initializer, name=name, dtype=self.dtype_policy
            )

        self.source = squeezing("source" if self.per_domain else "squeeze")
        self.target = squeezing("target") if self.per_domain else self.source
        self.shared = tf.keras.layers.Dense(
            channels,
            "sigmoid",
            kernel_initializer=tf.keras.initializers.RandomNormal(stddev=_OPEN_STDDEV, seed=seed_of("shared")),
            bias_initializer=tf.keras.initializers.Constant(OPEN_BIAS),
            name="shared",
            dtype=self.dtype_policy,
        )
        widths = [(self.source, channels), (self.shared, squeezed)]
        if self.per_domain:
            widths.insert(1, (self.target, channels))
        for layer, width in widths:
            # Scopes make the variables' names unique.
            with tf.name_scope(f"{self.name}/{layer.name}"):
                layer.build([None, width])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, path: str = "target") -> tf.Tensor:
        """Scales the channels of float [N, H, W, C]; arguments as of `scales`."""
        return inputs * self.scales(inputs, path)[:, tf.newaxis, tf.newaxis, :]

    def scales(self, inputs: tf.Tensor, path: str = "target") -> tf.Tensor:
        """The factors in 0..1, float [N, C].

        Args:
            inputs: float [N, H, W, C].
            path: source or target for all images; both: the first N // 2 images are of the source, the others of the
                target.
        """
        pooled = tf.reduce_mean(inputs, axis=[1, 2])
        if path == "both":
            half = tf.shape(pooled)[0] // 2
            squeezed = tf.concat([self.source(pooled[:half]), self.target(pooled[half:])], axis=0)
        elif path in PATHS:
            squeezed = (self.source if path == "source" else self.target)(pooled)
        else:
            raise ValueError(f"path={path!r}: must be one of {', '.join(PATHS)}")
        return self.shared(squeezed)

    def set_paths(
        self, *, source: Sequence[np.ndarray], target: Sequence[np.ndarray], shared: Sequence[np.ndarray]
    ) -> None:
        """Sets kernels [in, out] and biases of the dense layers; without `per_domain` those of `target` for both."""
        self.source.set_weights(source)
        self.target.set_weights(target)
        self.shared.set_weights(shared)

    def copy_paths(self, other: "ChannelAttention") -> None:
        """Takes the weights of another one of the same widths; what that has for both domains goes to each path."""
        layers = {"source": other.source, "target": other.target, "shared": other.shared}
        self.set_paths(**{name: layer.get_weights() for name, layer in layers.items()})

    def get_config(self) -> dict:
        """Adds `reduction`, `per_domain` and `seed`."""
        own = {"reduction": self.reduction, "per_domain": self.per_domain, "seed": self.seed}
        return {**super().get_config(), **own}


class AttendedBackbone(tf.keras.layers.Layer):
    """A Keras residual network whose bottlenecks end in channel attention, before the residual sum.

    The network itself is kept as Keras made it (its weights load by name); its graph is walked layer by layer, and the
    residual input of each `*_add` layer goes through attention first.
    """

    def __init__(self, base: tf.keras.Model, *, reduction: int = 16, per_domain: bool = True, seed: int = 0, **kwargs):
        """Adds the attention.

        Args:
            base: functional model, one input and output, with sums named `<block>_add` of [shortcut, residual].
            reduction: see ChannelAttention.
            per_domain: see ChannelAttention.
            seed: see ChannelAttention.
            **kwargs: of any Keras layer; `dtype` is that of the attention, too.

        Raises:
            ValueError: there is no such sum.
        """
        super().__init__(**kwargs)
        self.base = base
        self._walk = [_node(layer) for layer in base.layers if not isinstance(layer, tf.keras.layers.InputLayer)]
        self._input_id, self._output_id = id(base.inputs[0]), id(base.outputs[0])
        self.attentions: list[ChannelAttention] = []
        self._attention_of = {}
        for layer, _, _ in self._walk:
            if layer.name.endswith("_add"):
                name = layer.name.replace("_add", "_attention")
                attention = ChannelAttention(
                    reduction=reduction, per_domain=per_domain, seed=seed, name=name, dtype=self.dtype_policy
                )
                attention.build(layer.input[1].shape)
                self._attention_of[layer.name] = len(self.attentions)
                self.attentions.append(attention)
        if not self.attentions:
            raise ValueError(f"base={base.name!r}: has no residual sums for channel attention")

    def call(self, images: tf.Tensor, path: str = "target", training: bool = False) -> tf.Tensor:
        """Runs the network.

        Args:
            images: float [N, H, W, 3], normalised.
            path: see ChannelAttention.
            training: whether BatchNorm uses the batch's statistics and updates the stored ones.

        Returns:
            What `base` returns: features [N, F].
        """
        return self._run(images, path, training)[0]

    def scales(self, images: tf.Tensor, path: str) -> list[tf.Tensor]:
        """The factors of each of `attentions`, float [N, C]; arguments as of `call`."""
        return self._run(images, path, False)[1]

    def _run(self, images: tf.Tensor, path: str, training: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Features, and the factors of each attention."""
        scales: list[tf.Tensor] = []
        values = {self._input_id: images}
        for layer, inputs, output in self._walk:
            arguments = [values[i] for i in inputs]
            if layer.name in self._attention_of:
                scales.append(self.attentions[self._attention_of[layer.name]].scales(arguments[1], path))
                arguments[1] *= scales[-1][:, tf.newaxis, tf.newaxis, :]
            argument = arguments if len(arguments) > 1 else arguments[0]
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                values[output] = layer(argument, training=training)
            else:
                values[output] = layer(argument)
        return values[self._output_id], scales


def _node(layer: tf.keras.layers.Layer) -> tuple[tf.keras.layers.Layer, list[int], int]:
    """A layer of a functional model with the identities of its input tensors and its output tensor."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return layer, [id(tensor) for tensor in inputs], id(layer.output)

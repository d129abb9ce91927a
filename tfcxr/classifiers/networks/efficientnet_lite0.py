"""EfficientNet-Lite0, and its weights from PyTorch's names.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, arXiv 1905.11946. The
Lite form of it has no squeeze-and-excitation, ReLU6 instead of swish, and stem and head of fixed widths. Its blocks are
the inverted residuals of Sandler et al., "MobileNetV2", CVPR 2018, arXiv 1801.04381.

Layers are named `stem_{conv,bn}`, `block<n>_{expand,depthwise,project}_{conv,bn}` with n from 0, `block<n>_add` where a
block has a skip, and `head_{conv,bn}`. PyTorch's names: `_conv_stem.weight`, `_bn0.*`; `_blocks.<n>._expand_conv`,
`._depthwise_conv` and `._project_conv` with `._bn0`, `._bn1` and `._bn2`; `_conv_head`, `_bn1`. The classifier of
ImageNet (`_fc.*`) is left out.

The middle of the network (`make(middle=True)`) ends with three of its blocks, of 80, 112 and 192 channels. The last
layers were made for the classes of ImageNet; what these blocks see tells more of radiographs (docs/results/nih.md).
"""

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfcxr import pickles
from tfcxr.classifiers.networks import torch_files, weight_files
from tfrecords_builder.errors import InputError

layers = tf.keras.layers

# Kernel, number of blocks, stride of the first, expansion of the input's channels, channels of the output.
_STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3

# What the middle gives: the first two have maps of 1/16, the last of 1/32 of the image's side.
MIDDLE = ("block7_add", "block10_add", "block14_add")

_LEFT_OUT = ("_fc.", "num_batches_tracked")
_BEHIND_THE_MIDDLE = ("_blocks.15.", "_conv_head.", "_bn1.")
_BLOCK_NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
# Keras's order of the axes of a kernel, from PyTorch's: [height, width, in, out] and [height, width, channel, 1].
_AXES, _DEPTHWISE_AXES = (2, 3, 1, 0), (2, 3, 0, 1)


def make(*, middle: bool = False) -> tf.keras.Model:
    """The network with random weights.

    Args:
        middle: whether it ends in the middle, see above.

    Returns:
        Functional model of images [N, H, W, 3], normalised -> features [N, 1280], of the middle [N, 384].
    """

    def norm(x, name):
        return layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)

    def conv(x, width, size, strides, name):
        return norm(layers.Conv2D(width, size, strides, "same", use_bias=False, name=f"{name}_conv")(x), name)

    def relu6(x, name):
        return layers.ReLU(6.0, name=f"{name}_relu6")(x)

    def inverted_residual(x, size, strides, expansion, out, name):
        width, y = x.shape[-1], x
        if expansion > 1:
            y = relu6(conv(y, width * expansion, 1, 1, f"{name}_expand"), f"{name}_expand")
        y = layers.DepthwiseConv2D(size, strides, "same", use_bias=False, name=f"{name}_depthwise_conv")(y)
        y = relu6(norm(y, f"{name}_depthwise"), f"{name}_depthwise")
        y = conv(y, out, 1, 1, f"{name}_project")
        return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and width == out else y

    inputs = layers.Input([None, None, 3])
    x = relu6(conv(inputs, _STEM, 3, 2, "stem"), "stem")
    number, ends = 0, {}
    for size, blocks, first_stride, expansion, out in _STAGES:
        for block in range(blocks):
            strides = first_stride if block == 0 else 1
            x = inverted_residual(x, size, strides, expansion, out, f"block{number}")
            ends[f"block{number}_add"] = x
            number += 1
    if middle:
        *fine, coarse = (ends[block] for block in MIDDLE)
        x = layers.Concatenate()([*(layers.AveragePooling2D(2, padding="same")(maps) for maps in fine), coarse])
    else:
        x = relu6(conv(x, _HEAD, 1, 1, "head"), "head")
    name = f"efficientnet_lite0{'_middle' if middle else ''}"
    return tf.keras.Model(inputs, layers.GlobalAveragePooling2D(name="avg_pool")(x), name=name)


def load(model: tf.keras.Model, path: str | os.PathLike) -> None:
    """Sets all weights from a PyTorch file of named tensors, of which nothing is run.

    Args:
        model: of `make`; changed in place, unless the file does not fit.
        path: the file; of PyTorch's first format, see torch_files.

    Raises:
        InputError: the file is damaged, or of another network.
    """
    try:
        state = torch_files.read(path)
    except (pickles.Refused, OSError) as error:
        raise InputError(f"--weights={path}: {getattr(error, 'strerror', None) or error}") from error
    assign(model, state, path)


def assign(model: tf.keras.Model, state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Sets all weights.

    Args:
        model: of `make`; changed in place, unless the arrays do not fit.
        state: arrays by PyTorch's names; kernels are [out, in, height, width].
        path: where they are from, for messages.

    Raises:
        InputError: an array is absent, unknown, of another shape, or holds a value that is not finite.
    """
    behind = _BEHIND_THE_MIDDLE if model.output_shape[-1] != _HEAD else ()
    left = {
        name: array
        for name, array in state.items()
        if not (any(part in name for part in _LEFT_OUT) or name.startswith(behind))
    }

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise InputError(f"--weights={path}: is not of {model.name}: it lacks {name}")
        return left.pop(name)

    found = {}
    for layer in model.layers:
        if layer.name.endswith("_conv"):
            axes = _DEPTHWISE_AXES if isinstance(layer, layers.DepthwiseConv2D) else _AXES
            name = f"{_torch_name(layer.name)}.weight"
            kernel = take(name)
            if kernel.ndim != len(axes):
                raise InputError(f"--weights={path}: is not of {model.name}: {name} is no kernel of a convolution")
            found[layer.name] = [np.transpose(kernel, axes)]
        elif layer.name.endswith("_bn"):
            parts = ("weight", "bias", "running_mean", "running_var")
            found[layer.name] = [take(f"{_torch_name(layer.name)}.{part}") for part in parts]
    if left:
        shown = ascii(min(left))[1:-1][:60]
        raise InputError(f"--weights={path}: is not of {model.name}: it has {shown}, which that lacks")
    weight_files.assign(model, found, path)


def _torch_name(name: str) -> str:
    """stem_bn -> _bn0; head_conv -> _conv_head; block3_expand_conv -> _blocks.3._expand_conv."""
    *place, kind = name.split("_")
    if len(place) == 1:
        return f"_conv_{place[0]}" if kind == "conv" else {"stem": "_bn0", "head": "_bn1"}[place[0]]
    block, part = place
    return f"_blocks.{block.removeprefix('block')}.{f'_{part}_conv' if kind == 'conv' else _BLOCK_NORMS[part]}"

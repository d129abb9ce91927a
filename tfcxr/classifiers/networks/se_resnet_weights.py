"""The reference's first weights of DCAN: SE-ResNet-50 (Hu et al. 2018), trained on ImageNet, in a PyTorch `.pth` file.

Its names: `layer0.conv1.weight`, `layer0.bn1.*`, then for stage s and block b from 0 `layer<s>.<b>.conv1 .. conv3`,
`.bn1 .. bn3`, `.downsample.0` (convolution) and `.1` (BatchNorm) where the shortcut has them, and `.se_module.fc1`,
`.fc2`. The classifier of ImageNet (`last_linear.*`) is left out.
"""

import os
from collections.abc import Mapping

import numpy as np

from tfcxr.classifiers.networks import attention, weight_files
from tfrecords_builder.errors import InputError

_LEFT_OUT = ("last_linear.", "num_batches_tracked")


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a PyTorch file of named tensors.

    Nothing in the file is run (`weights_only`).

    Raises:
        InputError: PyTorch is not installed, or the file is damaged or holds something else.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"--weights={path}: reading it needs PyTorch: pip install 'tfcxr[torch]'") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): tensor.detach().numpy() for name, tensor in state.items()}
    except Exception as error:  # torch.load raises almost anything for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--weights={path}: is damaged, or no PyTorch file of named tensors ({reason})") from error


def assign(backbone: attention.AttendedBackbone, state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Sets all weights of an SE network: base and attention; each path of the attention gets the same ones.

    Args:
        backbone: its base is of backbones.residual_network with torch_style; changed in place.
        state: arrays by the names above; convolutions are [out, in, height, width].
        path: where they are from, for messages.

    Raises:
        InputError: an array is absent, unknown, or has another shape.
    """
    left = {name: array for name, array in state.items() if not any(part in name for part in _LEFT_OUT)}

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise InputError(f"--weights={path}: is not of {backbone.base.name}: it lacks {name}")
        return left.pop(name)

    def dense(name: str) -> list[np.ndarray]:
        return [take(f"{name}.weight")[:, :, 0, 0].T, take(f"{name}.bias")]

    found = {}
    for layer in backbone.base.layers:
        if layer.name.endswith("_conv"):
            found[layer.name] = [np.transpose(take(f"{_torch_name(layer.name)}.weight"), (2, 3, 1, 0))]
        elif layer.name.endswith("_bn"):
            parts = ("weight", "bias", "running_mean", "running_var")
            found[layer.name] = [take(f"{_torch_name(layer.name)}.{part}") for part in parts]
    scales = []
    for layer in backbone.attentions:
        block = _torch_name(layer.name)
        scales.append([dense(f"{block}.se_module.fc1"), dense(f"{block}.se_module.fc2")])
    if left:
        raise InputError(f"--weights={path}: is not of {backbone.base.name}: it has {min(left)}, which that lacks")
    for layer, (squeeze, _) in zip(backbone.attentions, scales, strict=True):
        (channels, given), ours = squeeze[0].shape, layer.source.kernel.shape[1]
        if given != ours:
            raise InputError(
                f"--weights={path}: {layer.name} squeezes to {given} channels, not {ours}; "
                f"give --reduction={channels // given}"
            )
    weight_files.assign(backbone.base, found, path)
    for layer, (squeeze, excite) in zip(backbone.attentions, scales, strict=True):
        layer.set_paths(source=squeeze, target=squeeze, shared=excite)


def _torch_name(name: str) -> str:
    """conv1_bn -> layer0.bn1; conv3_block2_1_conv -> layer2.1.conv1; conv3_block2_attention -> layer2.1."""
    stage, *rest = name.split("_")
    if stage == "conv1":
        return f"layer0.{rest[0]}1"
    block = f"layer{int(stage.removeprefix('conv')) - 1}.{int(rest[0].removeprefix('block')) - 1}"
    if rest[1] == "attention":
        return block
    part, kind = rest[1:]
    if part == "0":
        return f"{block}.downsample.{0 if kind == 'conv' else 1}"
    return f"{block}.{kind}{part}"

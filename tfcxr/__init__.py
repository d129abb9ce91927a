"""tfcxr: how much of a chest X-ray classifier can be learned from synthetic images.

The functions below load what the programs have written; TensorFlow is imported when one is first used.
"""

import importlib
from typing import Any

# Prepares TensorFlow's environment, which has to be done before anything imports TensorFlow.
import tfrecords_builder  # noqa: F401

__version__ = "0.1.0"

_WHERE = {
    "load_generator": "tfcxr.gan.loading",
    "load_discriminator": "tfcxr.gan.loading",
    "load_classifier": "tfcxr.classifiers.loading",
    "read_records": "tfcxr.data",
}

__all__ = ["load_classifier", "load_discriminator", "load_generator", "read_records"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'tfcxr' has no attribute {name!r}")

"""tfcxr: how much of a chest X-ray classifier can be learned from synthetic images.

The functions below load what the programs have written; TensorFlow is imported when one is first used.
"""

import contextlib
import importlib
import random
from collections.abc import Iterator
from typing import Any

# Prepares TensorFlow's environment, which has to be done before anything imports TensorFlow.
import tfrecords_builder  # noqa: F401

__version__ = "0.1.0"

_WHERE = {
    "load_generator": "tfcxr.gan.loading",
    "load_discriminator": "tfcxr.gan.loading",
    "load_classifier": "tfcxr.classifiers.loading",
    "load_encoder": "tfcxr.classifiers.loading",
    "read_records": "tfcxr.data",
}

__all__ = ["load_classifier", "load_discriminator", "load_encoder", "load_generator", "read_records"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        with _random_state_kept():
            return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'tfcxr' has no attribute {name!r}")


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Libraries that are imported first here may draw random numbers; a caller's draws stay those of its seed."""
    import numpy as np

    before, before_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)

"""Writes pickles as the reference GAN's training left them: its class exists only while one is written."""

import contextlib
import pickle
import sys
import types

import numpy as np


@contextlib.contextmanager
def network_class(module="tfutil"):
    """The reference's class, importable under its name within the block."""

    class Network:
        def __init__(self, state):
            self.state = state

        def __getstate__(self):
            return self.state

    Network.__module__, Network.__qualname__ = module, "Network"
    fake = types.ModuleType(module)
    fake.Network = Network
    assert module not in sys.modules
    sys.modules[module] = fake
    try:
        yield Network
    finally:
        del sys.modules[module]


def state(name, variables, **static_kwargs):
    """What such an object holds; the source text must never be looked at."""
    return {
        "version": 2,
        "name": name,
        "static_kwargs": static_kwargs,
        "build_module_src": "raise SystemExit('the source text was run')",
        "build_func_name": "G_paper",
        "variables": [(key, np.asarray(value)) for key, value in variables.items()],
    }


def dump(networks, *, protocol=4, static_kwargs=None) -> bytes:
    """A pickle of the networks {name: {variable: array}}, in their order."""
    with network_class() as network:
        objects = tuple(network(state(name, values, **(static_kwargs or {}))) for name, values in networks.items())
        return pickle.dumps(objects, protocol=protocol)

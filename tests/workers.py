"""Programs of their own for tests of several devices and workers: those are set before anything else of TensorFlow."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_PROGRAM = """
import importlib
import sys
import tensorflow as tf
from flags import app

module, devices = importlib.import_module(sys.argv[1]), int(sys.argv[2])
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
sys.exit(app.run(module.main, module.define_flags, sys.argv[2:]))
"""


def start(module: str, arguments: Sequence[str], *, devices: int = 1, config: dict | None = None) -> subprocess.Popen:
    """Runs a binary on so many logical CPUs; `config`: TF_CONFIG."""
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="", **({"TF_CONFIG": json.dumps(config)} if config else {}))
    command = [sys.executable, "-c", _PROGRAM, module, str(devices), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_two(module: str, first: Sequence[str], second: Sequence[str]) -> list[subprocess.Popen]:
    """Two workers of one cluster on this machine, with these arguments."""
    return start_cluster(module, [first, second])


def start_cluster(module: str, arguments: Sequence[Sequence[str]], *, chief: bool = False) -> list[subprocess.Popen]:
    """Workers of one cluster on this machine, with the arguments of each.

    Args:
        module: the command.
        arguments: of each worker.
        chief: whether the first one is called chief, as on Vertex AI.
    """
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in arguments]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in taken]
    cluster = {"chief": hosts[:1], "worker": hosts[1:]} if chief else {"worker": hosts}
    tasks = [{"type": kind, "index": index} for kind, names in cluster.items() for index in range(len(names))]
    return [
        start(module, [*own, "--strategy=multiworker"], config={"cluster": cluster, "task": task})
        for own, task in zip(arguments, tasks, strict=True)
    ]


def ended(processes: Sequence[subprocess.Popen], seconds: float = 240) -> tuple[list[int], list[str]]:
    """Codes and last lines of what they wrote to stderr."""
    try:
        texts = [process.communicate(timeout=seconds)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [(text.splitlines() or [""])[-1] for text in texts]


def wait_for(path: pathlib.Path, processes: Sequence[subprocess.Popen], seconds: float = 240) -> None:
    """Waits for a file whose name fits the pattern `path`; fails if a process ends before."""
    deadline = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)


def assert_same_variables(a: pathlib.Path, b: pathlib.Path, prefixes: tuple[str, ...]):
    """The same in the last checkpoints of two runs, for names with these prefixes; returns the readers of both."""
    first, second = (tf.train.load_checkpoint(str(folder / "checkpoints")) for folder in (a, b))
    names = first.get_variable_to_shape_map()
    assert names == second.get_variable_to_shape_map()
    compared = [name for name in names if name.startswith(prefixes)]
    assert len(compared) > 30
    for name in compared:
        # Variances of BatchNorm are large, and workers may round their last digit differently.
        np.testing.assert_allclose(second.get_tensor(name), first.get_tensor(name), rtol=1e-6, atol=1e-5, err_msg=name)
    return first, second

"""The devices that a training runs on: their names, and whether a batch can fit into their memory."""

import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent import futures

import tensorflow as tf

from tfrecords_builder.errors import InputError

# What a step holds for its gradients: the results of operations that multiply by weights. There is more, such as those
# of normalisations, so that the sum of these is less than what a step needs.
_KEPT = (
    "Conv2D",
    "Conv2DBackpropInput",
    "DepthwiseConv2dNative",
    "MatMul",
    "PartitionedCall",
    "StatefulPartitionedCall",
)

# No network of ours keeps more bytes for a byte of its float32 input; ResNet-50 with a stem for small images 8000.
_MOST_KEPT = 16_000

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def describe(strategy: tf.distribute.Strategy) -> str:
    """The devices that a strategy trains on, in one line."""
    physical = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in physical]
    shown = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    cores = f"CPU, {len(os.sched_getaffinity(0))} cores"
    number = strategy.num_replicas_in_sync
    if number == 1:
        others = f" (1 of {len(names)} GPUs; --strategy=mirrored trains on all of them)" if len(names) > 1 else ""
        return f"device: {names[0] if names else cores}{others}"
    return f"devices: {number} share each batch; of this program: {shown or cores}"


def check_batch(
    batch_size: int,
    *,
    num_images: int,
    pixels: int,
    graphs: Callable[[int], Iterable[tf.Graph]],
    passes: int | None = None,
    flag: str = "--batch_size",
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Refuses a batch that cannot fit into memory, before anything is made; warns of one that hardly will.

    Counted is what a step is certain to keep for its gradients. What it needs is more, so that a batch that is not
    refused may still be too large.

    Args:
        batch_size: images of a step, on all devices of the strategy.
        num_images: training images.
        pixels: of an image as the network sees it.
        graphs: traces the networks for a number of images: graphs whose results a step keeps at the same time.
        passes: parts in which a step goes through its batch; None if it has no --passes.
        flag: that gave the batch size.
        strategy: that trains; None: the current one. Of several workers each looks at its own memory, so that one may
            refuse what others do not.

    Raises:
        InputError: the device has less memory than a step keeps.
    """
    if batch_size > num_images:
        _warn(f"{flag}={batch_size}: there are {num_images} training images, so a batch holds some more than once")
    memory = _gpu_memory() if tf.config.list_physical_devices("GPU") else _host_memory()
    replicas = (strategy or tf.distribute.get_strategy()).num_replicas_in_sync
    share = max(1, batch_size // (replicas * (passes or 1)))
    if memory is None or share * pixels * 4 * _MOST_KEPT <= memory[1]:
        return
    total, free = memory
    # In a thread there is no strategy, which would have the tracing wait for other workers.
    with futures.ThreadPoolExecutor(1) as thread:
        need = thread.submit(lambda: sum(_kept_bytes(graph) for graph in graphs(share))).result()
    helps = "give a smaller one" if passes is None else "give a smaller one or more --passes"
    text = f"{flag}={batch_size}: a step keeps at least {need / 2**30:.1f} GiB for its gradients"
    if need > total:
        raise InputError(f"{text}, and the memory is {total / 2**30:.1f} GiB; {helps}")
    if need > free:
        _warn(f"{text}, and {free / 2**30:.1f} GiB of memory are free; {helps} if it does not suffice")


def trace(model: tf.keras.Model, number: int) -> tf.Graph:
    """The graph of a functional model for so many images; sizes of its inputs must be known."""
    inputs = [tf.TensorSpec([number, *tensor.shape[1:]], tensor.dtype) for tensor in model.inputs]
    run = tf.function(lambda *values: model(values if len(values) > 1 else values[0], training=False), autograph=False)
    return run.get_concrete_function(*inputs).graph


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _kept_bytes(graph: tf.Graph) -> int:
    kept = 0
    for operation in graph.get_operations():
        for tensor in operation.outputs if operation.type in _KEPT else ():
            if tensor.shape.is_fully_defined() and tensor.dtype.is_floating:
                kept += math.prod(tensor.shape) * tensor.dtype.size
    return kept


def _host_memory() -> tuple[int, int] | None:
    """Bytes of memory that this program may use at most, swap included, and that are free; None if unknown."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total = 1024 * (kilobytes["MemTotal"] + kilobytes["SwapTotal"])
        free = 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, ValueError, IndexError, KeyError):
        return None
    for name in _CGROUP_LIMITS:  # of a container
        try:
            limit = int(pathlib.Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # absent, or "max"
            continue
        total, free = min(total, limit), min(free, limit)
    return total, free


def _gpu_memory() -> tuple[int, int] | None:
    """Bytes of memory of the largest GPU, and free in the emptiest, as the driver says; None if it does not."""
    # TensorFlow does not tell a GPU's size.
    command = ["nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        rows = [[int(value) for value in line.split(",")] for line in text.splitlines() if line.strip()]
        return max(row[0] for row in rows) * 2**20, max(row[1] for row in rows) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None

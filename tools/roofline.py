"""Shows how near each training step comes to what the machine can do: its arithmetic, the bytes it moves, the limit.

A step is traced, and every operation of its graph is counted: multiplications and additions of
convolutions and matrix products, and the bytes of all tensors that operations read and write. The limit of a step is
the longer of two times (the roofline of Williams et al. 2009): its arithmetic at the speed of a large matrix product,
its bytes at that of adding large tensors; both speeds are measured first. A graph joins some operations and keeps small
tensors in caches, so that it moves fewer bytes than are counted; the GAN's wide 3 x 3 convolutions are counted as what
they do, not as what they replace.
Run it with nothing else running: python -m tools.roofline
"""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from flags import app, common
from tfrecords_builder import files
from tools import bench_classifiers, bench_gan

# These move nothing, or only say where something is.
_FREE = frozenset({
    "Const", "ExpandDims", "Identity", "IdentityN", "Placeholder", "ReadVariableOp", "Reshape", "Shape", "Squeeze",
    "StopGradient", "VarHandleOp",
})  # fmt: skip
_GIGA = 1e9


@dataclasses.dataclass
class Count:
    """What operations of one kind do.

    Attributes:
        calls: how many there are.
        flops: multiplications and additions of convolutions and matrix products.
        moved: bytes of what they read and write.
    """

    calls: int = 0
    flops: int = 0
    moved: int = 0


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the machine can do: float32 arithmetic a second, bytes a second, and both a second of processor time."""

    flops: float
    bandwidth: float
    cpu_flops: float
    cpu_bandwidth: float


def count_flops(kind: str, inputs: Sequence[Any], outputs: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    """Multiplications and additions of an operation; 0 for what is neither a convolution nor a matrix product.

    Args:
        kind: name of the operation.
        inputs, outputs: its tensors, of which the shapes are looked at.
        attributes: of the operation, AttrValue by name.
    """

    def size(tensor: Any, dimensions: slice = slice(None)) -> int:
        return math.prod(tensor.shape.as_list()[dimensions])

    if kind == "MatMul":
        inner = inputs[0].shape.as_list()[0 if attributes["transpose_a"].b else 1]
        return 2 * size(outputs[0]) * inner
    if kind in ("BatchMatMulV2", "BatchMatMul"):
        inner = inputs[0].shape.as_list()[-2 if attributes["adj_x"].b else -1]
        return 2 * size(outputs[0]) * inner
    for name, taps in (("Conv2D", slice(0, 3)), ("DepthwiseConv2dNative", slice(0, 2))):  # of the kernel, for a value
        if kind == name:
            return 2 * size(outputs[0]) * size(inputs[1], taps)
        if kind == f"{name}BackpropInput":
            return 2 * size(inputs[2]) * size(inputs[1], taps)
        if kind == f"{name}BackpropFilter":
            return 2 * size(inputs[2]) * size(outputs[0], taps)
    return 0


def count(step: Callable[[], Any]) -> dict[str, Count]:
    """What each kind of operation of a step does; the step becomes a graph that is never run."""
    import tensorflow as tf
    from tensorflow.python.framework import func_graph, op_callbacks

    counts: dict[str, Count] = {}

    def look(kind, inputs, attributes, outputs, op_name=None, graph=None):
        del op_name, graph
        kind = kind.decode() if isinstance(kind, bytes) else kind
        if kind in _FREE:
            return
        named = dict(zip(attributes[::2], attributes[1::2], strict=True)) if attributes else {}
        flops = count_flops(kind, inputs, outputs, named)
        moved = sum(_bytes(tensor) for tensor in (*inputs, *outputs))
        own = counts.setdefault(kind, Count())
        own.calls, own.flops, own.moved = own.calls + 1, own.flops + flops, own.moved + moved

    tf.config.run_functions_eagerly(True)  # functions within the step are then parts of the one graph
    op_callbacks.add_op_callback(look)
    try:
        func_graph.func_graph_from_py_func("step", step, [], {})
    finally:
        op_callbacks.remove_op_callback(look)
        tf.config.run_functions_eagerly(False)
    return counts


def _bytes(tensor: Any) -> int:
    if not hasattr(tensor, "dtype") or tensor.dtype.name in ("resource", "string", "variant"):
        return 0
    if not tensor.shape.is_fully_defined():  # which axes a sum is over, what a BatchNorm keeps for its gradient
        return 0
    return math.prod(tensor.shape.as_list()) * tensor.dtype.size


def measure_machine() -> Machine:
    """Float32 arithmetic of a matrix product of side 2048, bytes of adding vectors of 256 MiB: the best of ten."""
    import tensorflow as tf

    square, vector = tf.random.normal([2048, 2048]), tf.random.normal([1 << 26])

    @tf.function
    def product():
        return tf.reduce_sum(tf.linalg.matmul(square, square)[0])

    @tf.function
    def addition():
        return tf.add(vector, 1.0)

    arithmetic, memory = _time(product, 10), _time(addition, 10)
    flops, moved = 2 * 2048**3, 2 * 4 * (1 << 26)
    return Machine(
        flops / min(arithmetic[0]), moved / min(memory[0]), flops / min(arithmetic[1]), moved / min(memory[1])
    )


def _time(step: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round by the clock and, of all threads together, of the processor."""
    step()
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def time_kinds(step: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one step that threads spent in each kind of operation, by TensorFlow's profiler, the most first."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        for path in pathlib.Path(folder).rglob("*.xplane.pb"):
            for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes:
                for line in plane.lines:
                    for event in line.events:
                        # An operation is name:Kind, oneDNN's name:_Kind, and a part of TensorFlow Class::Method.
                        operation = re.fullmatch(r"[^:]+:(_?[A-Z]\w*)", plane.event_metadata[event.metadata_id].name)
                        if operation:
                            found[operation[1]] += event.duration_ps * 1e-12
    return dict(found.most_common())


def list_steps(folder: pathlib.Path, seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The training steps by name, each made when its turn comes: GAN, baseline, adaptation, pretraining."""
    import tensorflow as tf

    for resolution in (32, 64):
        parts = bench_gan.make("float32", bench_gan.Sizes(resolution), seed)
        for part in ("D step", "G step"):
            yield f"train-gan, {part} with WGAN-GP, 64 images of {resolution} px", parts[part]
    steps = [step for step in bench_classifiers.STEPS if step.kind != "features"]
    records = {size: bench_classifiers.make_records(folder, seed, size) for size in {step.size for step in steps}}
    for step in steps:
        _, phase, batch = bench_classifiers.make_ours(step, "float32", records[step.size])
        command = {"baseline": "train-baseline", "dcan": "train-dcan"}[step.kind]
        run = tf.function(phase.step)
        yield f"{command}, {step.name.partition(', ')[2]}", _bind(run, batch)
    yield "pretrain (SimCLR), resnet50, 32 images of 64 px", _make_pretraining(records[64])


def _bind(run: Callable[[Any], Any], batch: Any) -> Callable[[], Any]:
    return lambda: run(batch)


def _make_pretraining(records: str) -> Callable[[], Any]:
    import tensorflow as tf

    from tfcxr import data
    from tfcxr.classifiers.pretraining import pretrain
    from tfcxr.training import strategies

    config = pretrain.PretrainingConfig(backbone="resnet50", image_size=64, batch_size=32, weights="none")
    phase = pretrain.Pretraining(config, data.RecordSet(records), load_weights=False)._phase()
    batch = next(iter(phase.stream(0, strategies.ALONE)))
    return _bind(tf.function(phase.step), batch)


def measure(name: str, step: Callable[[], Any], machine: Machine, rounds: int) -> dict[str, Any]:
    """One row of the table.

    Returns:
        step, gflop, gigabytes, seconds (median), arithmetic_seconds and memory_seconds (what these take at the
        machine's speed), share (the longer of them over seconds); the same by processor time, which hardly depends on
        what else runs: cpu_seconds, cpu_limit, cpu_share; kinds: what each kind of operation does, those with the
        most arithmetic, then those with the most bytes, first; and kind_seconds, see `time_kinds`.
    """
    counts = count(step)
    seconds, cpu_seconds = map(statistics.median, _time(step, rounds))
    flops = sum(each.flops for each in counts.values())
    moved = sum(each.moved for each in counts.values())
    arithmetic, memory = flops / machine.flops, moved / machine.bandwidth
    cpu_limit = max(flops / machine.cpu_flops, moved / machine.cpu_bandwidth)
    kinds = sorted(counts.items(), key=lambda pair: (-pair[1].flops, -pair[1].moved))
    return {
        "step": name,
        "gflop": flops / _GIGA,
        "gigabytes": moved / _GIGA,
        "seconds": seconds,
        "arithmetic_seconds": arithmetic,
        "memory_seconds": memory,
        "share": max(arithmetic, memory) / seconds,
        "cpu_seconds": cpu_seconds,
        "cpu_limit": cpu_limit,
        "cpu_share": cpu_limit / cpu_seconds,
        "kinds": {kind: dataclasses.asdict(each) for kind, each in kinds},
        "kind_seconds": time_kinds(step),
    }


def format_row(row: Mapping[str, Any]) -> str:
    """One line of the table."""
    all_seconds = sum(row["kind_seconds"].values())
    longest = [f"{kind} {seconds / all_seconds:.0%}" for kind, seconds in list(row["kind_seconds"].items())[:6]]
    return (
        f"{row['step']:58} {row['gflop']:8.1f} GFLOP {row['gigabytes']:6.2f} GB  {row['seconds']:7.3f} s; at the limit "
        f"{row['arithmetic_seconds']:.3f} s of arithmetic, {row['memory_seconds']:.3f} s of bytes: {row['share']:.0%}, "
        f"{row['cpu_share']:.0%} by processor time; most time in {', '.join(longest)}"
    )


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_integer("repeats", 5, "timed rounds", lower_bound=1, flag_values=fv)
    flags.DEFINE_string("only", "", "measure only the steps in whose names this is", flag_values=fv)
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    common.define_seed(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs the benchmark."""
    machine = measure_machine()
    print(f"{machine.flops / _GIGA:.0f} GFLOP/s, {machine.bandwidth / _GIGA:.1f} GB/s", flush=True)
    rows = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, step in list_steps(folder, fv.seed):
            if fv.only in name:
                rows.append(measure(name, step, machine, fv.repeats))
                print(format_row(rows[-1]), flush=True)
    if fv.output:
        cores = len(os.sched_getaffinity(0))
        files.write_json(fv.output, {"cores": cores, "machine": dataclasses.asdict(machine), "steps": rows})


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

"""Measures the classifiers' training steps against plain PyTorch (`tools/torch_classifiers.py`), and the wait for data.

Each variant is a process of its own; they take steps in turn, so that only one computes at a time and what else the
machine does meets all of them; a ratio is that of two times of one round. All start from the same weights (random, with
the batch's statistics in BatchNorm) and take the same simulated radiographs; float32 variants must compute the same
losses, or the benchmark ends. Without PyTorch (`pip install 'tfcxr[torch]'`, or --torch_python), only ours are
measured. Then short trainings show what share of their steps' time is spent waiting for data, and an epoch of the head
alone is timed. Run it with nothing else running.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from flags import app, common
from tfrecords_builder import files
from tfrecords_builder.errors import RunError
from tools import turns

PYTORCH = "PyTorch float32"
_RANDOM_TERM = "reg"  # of random subsets, so not the same everywhere
_NOT_COMPARED = ("accuracy", "total")
_TOLERANCE = 1e-3
_LEARNING_RATE = 1e-6  # a random network with fixed BatchNorm would soon diverge
_STATISTICS_IMAGES = 32  # of each domain, at 64 px: of few images, those of deep layers are noise
_HEAD_DRAWS, _HEAD_BATCH, _HEAD_EPOCHS = 5000, 32, 5  # the first of these epochs traces
_DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclasses.dataclass(frozen=True)
class Step:
    """What is measured: a training step of `kind` (baseline or dcan) on images of `size` px, `batch` of each domain.

    Of kind `features` it is the frozen network's features and their loss, without gradients. PyTorch has resnet50, and
    efficientnet_lite0 without DCAN.
    """

    kind: str
    size: int
    batch: int
    backbone: str = "resnet50"

    @property
    def domains(self) -> tuple[str, ...]:
        """Keys of the images in a batch."""
        return ("source", "target") if self.kind == "dcan" else ("image",)

    @property
    def name(self) -> str:
        """For tables."""
        batch = f"{self.batch} + {self.batch}" if self.kind == "dcan" else f"{self.batch}"
        return f"{self.kind}, {self.backbone}, {batch} images of {self.size} px"


STEPS = (
    Step("baseline", 64, 32),
    Step("dcan", 64, 8),
    Step("dcan", 224, 8),
    Step("baseline", 224, 32, "efficientnet_lite0"),
    Step("features", 224, 32, "efficientnet_lite0"),
)


def make_ours(step: Step, precision: str, records: str) -> tuple[Any, Any, dict]:
    """(classifier, phase, batch) of a real run, with random weights and statistics of the batch in BatchNorm."""
    import tensorflow as tf

    from tfcxr import data
    from tfcxr.classifiers.adaptation import train_dcan
    from tfcxr.classifiers.training import train_baseline
    from tfcxr.training import strategies

    record_set = data.RecordSet(records)
    settings: dict[str, Any] = {
        "backbone": step.backbone,
        "image_size": step.size,
        "batch_size": step.batch,
        "dtype": _DTYPES[precision],
        "learning_rate": _LEARNING_RATE,
    }
    run: Any
    if step.kind != "dcan":
        run = train_baseline.Baseline(train_baseline.BaselineConfig(**settings), record_set, load_weights=False)
        phase = run._stage2()
    else:
        config = train_dcan.AdaptationConfig(**settings)
        run = train_dcan.Adaptation(config, record_set, record_set, load_weights=False)
        phase = run._phase()
    count = max(1, _STATISTICS_IMAGES * 64**2 // (step.batch * step.size**2))
    batches = list(phase.stream(0, strategies.ALONE).take(count))
    _set_statistics(run.classifier, tf.concat([batch[domain] for batch in batches for domain in step.domains], axis=0))
    if step.kind == "features":
        phase = dataclasses.replace(phase, step=functools.partial(_frozen_step, run.classifier))
    return run.classifier, phase, batches[0]


def _frozen_step(classifier, batch) -> dict[str, Any]:
    from tfcxr.classifiers.training import losses

    logits = classifier.classify(classifier.features(batch["image"], "source"), "source")
    return {"loss": losses.cross_entropy(logits, batch["class"], None)}


def _set_statistics(classifier, images) -> None:
    """Gives every BatchNorm the statistics of these images: random weights alone would let features grow or vanish."""
    import tensorflow as tf

    layers = [layer for layer in classifier.base.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    before = [(layer.momentum, layer.trainable) for layer in layers]
    for layer in layers:
        layer.momentum, layer.trainable = 0.0, True
    # As a graph, which frees what it has used: the peak of memory is to be that of the steps.
    tf.function(lambda: classifier.features(images, "source", training=True))()
    for layer, (momentum, trainable) in zip(layers, before, strict=True):
        layer.momentum, layer.trainable = momentum, trainable


def losses_of(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The losses among what a step of ours returns, by PyTorch's names."""
    return {"cls" if name == "loss" else name: value for name, value in logs.items() if name not in _NOT_COMPARED}


def arrays_of(classifier, batch: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """What `torch_classifiers.make_step` reads."""
    arrays = {"class": batch["class"].numpy()}
    for name, domain in {"source": step.domains[0], "target": step.domains[-1]}.items():
        arrays[f"image/{name}"] = classifier.normalise(batch[domain]).numpy()
    layers = [(layer.name, layer) for layer in [*classifier.base.layers, classifier.head]]
    for attention in classifier.backbone.attentions if classifier.is_attended else []:
        parts = {"source": attention.source, "target": attention.target, "shared": attention.shared}
        layers += [(f"{attention.name}/{name}", part) for name, part in parts.items()]
    for block in (classifier.feature_correction, classifier.logit_correction):
        layers += [(layer.name, layer) for layer in block.layers] if block else []
    for name, layer in layers:
        for variable in layer.weights:
            kind = variable.name.rsplit("/", 1)[1].removesuffix(":0")
            arrays[f"weight/{name}/{kind}"] = variable.numpy()
    return arrays


def serve_ours(step: Step, precision: str, records: str, save: str | None) -> None:
    """The worker of a variant of ours; `save` is the .npz to write for the others, if any."""

    def make() -> Callable[[], dict]:
        import numpy as np
        import tensorflow as tf

        classifier, phase, batch = make_ours(step, precision, records)
        if save:
            np.savez(save, **arrays_of(classifier, batch, step))
        run = tf.function(phase.step)
        return lambda: losses_of(run(batch))

    turns.serve(make)


def measure(
    step: Step, records: str, rounds: int, *, torch_python: str | None, precisions: list[str]
) -> list[dict[str, Any]]:
    """Times all variants of a step in turn, after a step each that warms up and gives the losses.

    Returns:
        One dict per variant: step, variant, seconds and cpu_seconds (medians), peak_mib (of the process), losses (of
        the first step), and of ours, where PyTorch is measured, ratio, ratio_min, ratio_max: PyTorch's processor time
        over this one's, median and range over rounds, and clock_ratio: the median for time by the clock.

    Raises:
        RunError: a worker ended, or float32 losses of ours and PyTorch differ.
    """
    with contextlib.ExitStack() as stack:
        weights = str(pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights.npz")
        workers: dict[str, turns.Worker] = {}
        for precision in precisions:
            save = None if workers else weights
            call = f"serve_ours(bench_classifiers.{step!r}, {precision!r}, {records!r}, {save!r})"
            code = f"from tools import bench_classifiers; bench_classifiers.{call}"
            workers[f"ours {precision}"] = stack.enter_context(turns.Worker(sys.executable, code))
        if torch_python:
            make = (
                f"lambda: torch_classifiers.make_step({step.kind!r}, {step.backbone!r}, {weights!r}, {_LEARNING_RATE})"
            )
            code = f"from tools import torch_classifiers, turns; turns.serve({make})"
            workers[PYTORCH] = stack.enter_context(turns.Worker(torch_python, code))
        first = {variant: worker.step()["losses"] for variant, worker in workers.items()}
        _check_losses(step, first)
        replies: dict[str, list[dict]] = {variant: [] for variant in workers}
        for _ in range(rounds):
            for variant, worker in workers.items():
                replies[variant].append(worker.step())
    return [_row(step, variant, replies, first[variant]) for variant in workers]


def _check_losses(step: Step, losses: Mapping[str, Mapping[str, float]]) -> None:
    ours, theirs = losses.get("ours float32"), losses.get(PYTORCH)
    if not ours or not theirs:
        return
    if ours.keys() != theirs.keys():
        raise RunError(f"{step.name}: ours has the losses {', '.join(ours)}, PyTorch {', '.join(theirs)}")
    for name, value in ours.items():
        if name != _RANDOM_TERM and abs(value - theirs[name]) > _TOLERANCE * max(1.0, abs(value)):
            raise RunError(f"{step.name}: {name} is {value:.6f}, of PyTorch {theirs[name]:.6f}")


def _row(step: Step, variant: str, replies: Mapping[str, list[dict]], losses: Mapping[str, float]) -> dict[str, Any]:
    own = replies[variant]
    row: dict[str, Any] = {"step": step.name, "variant": variant}
    row |= {key: statistics.median(reply[key] for reply in own) for key in ("seconds", "cpu_seconds")}
    row |= {"peak_mib": round(own[-1]["peak_mib"]), "losses": dict(losses)}
    if variant != PYTORCH and PYTORCH in replies:
        for key, name in (("cpu_seconds", "ratio"), ("seconds", "clock_ratio")):
            ratios = [a[key] / b[key] for a, b in zip(replies[PYTORCH], own, strict=True)]
            row[name] = statistics.median(ratios)
            if name == "ratio":
                row |= {"ratio_min": min(ratios), "ratio_max": max(ratios)}
    return row


def measure_waiting(step: Step, records: str, folder: pathlib.Path, steps: int) -> dict[str, Any]:
    """Share of the time of the steps of a real training that is spent waiting for data, in the second half of it."""
    import tensorflow as tf

    from tfcxr import cli, data

    flags_ = [
        f"--backbone={step.backbone}",
        f"--image_size={step.size}",
        f"--batch_size={step.batch}",
        "--weights=none",
    ]
    run = folder / f"{step.kind}-{step.size}"
    if step.kind == "baseline":
        epochs = 1 + -(-steps * step.batch // data.RecordSet(records).num_examples("train"))
        arguments = ["train-baseline", f"--records={records}", f"--stage2_epochs={epochs}"]
    else:
        arguments = ["train-dcan", f"--source_records={records}", f"--target_records={records}", "--alignment=dcan"]
        arguments += [f"--steps={2 * steps}", f"--eval_every={steps}", "--train_batch_norm", "--embeddings_every=0"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.main([*arguments, *flags_, f"--run_dir={run}"])
    if code:
        raise RunError(f"{' '.join(arguments)}: ended with exit code {code}")
    events = [event for path in (run / "tensorboard").glob("events*") for event in _events(tf, path)]
    return {"step": step.name, "waiting_for_data": events[-1]}


def measure_head(records: str) -> dict[str, Any]:
    """Time of an epoch of the baseline's stage 1, whose features have been computed: 5,000 draws of EfficientNet-Lite0.

    Returns:
        step, seconds and cpu_seconds (medians).
    """
    import tensorflow as tf

    from tfcxr import data
    from tfcxr.classifiers.training import train_baseline
    from tfcxr.training import strategies

    record_set = data.RecordSet(records)
    steps = _HEAD_DRAWS // _HEAD_BATCH
    epochs = 1 + -(-_HEAD_EPOCHS * _HEAD_DRAWS // record_set.num_examples("train"))
    config = train_baseline.BaselineConfig(
        backbone="efficientnet_lite0", image_size=32, batch_size=_HEAD_BATCH, stage1_epochs=epochs
    )
    phase = train_baseline.Baseline(config, record_set, load_weights=False)._stage1()
    while phase.prepare and phase.prepare():
        pass
    batches = iter(phase.stream(0, strategies.ALONE))

    @tf.function
    def run(iterator):
        for _ in tf.range(steps):
            phase.step(next(iterator))

    times = []
    for _ in range(_HEAD_EPOCHS):
        start, cpu_start = time.perf_counter(), time.process_time()
        run(batches)
        times.append((time.perf_counter() - start, time.process_time() - cpu_start))
    seconds, cpu_seconds = (statistics.median(values) for values in zip(*times, strict=True))
    name = f"head, efficientnet_lite0, {_HEAD_DRAWS} images in batches of {_HEAD_BATCH}"
    return {"step": name, "seconds": seconds, "cpu_seconds": cpu_seconds}


def _events(tf, path: pathlib.Path) -> list[float]:
    values = [v for event in tf.compat.v1.train.summary_iterator(str(path)) for v in event.summary.value]
    return [float(tf.make_ndarray(v.tensor)) for v in values if v.tag == "speed/waiting_for_data"]


def make_records(folder: pathlib.Path, seed: int, size: int) -> str:
    """Records (v2) of a simulated hospital, for images of `size` px; returns their folder."""
    from tfcxr import cli

    resolution = 1 << (size - 1).bit_length()
    hospital, records = folder / "hospital", folder / f"records-{resolution}"
    with contextlib.redirect_stdout(io.StringIO()):
        if not hospital.exists():
            simulate = ["phantom", "--hospital=a", "--num_patients=150", "--resolution=128", f"--seed={seed}"]
            code = cli.main([*simulate, f"--output_dir={hospital}"])
            if code:
                raise RunError(f"phantom: ended with exit code {code}")
        build = ["build-records", "--dataset=chexpert", f"--data_dir={hospital}", "--label_version=v2"]
        code = cli.main([*build, f"--resolution={resolution}", f"--output_dir={records}"])
    if code:
        raise RunError(f"build-records: ended with exit code {code}")
    return str(records)


def format_row(row: Mapping[str, Any]) -> str:
    """One line of a table."""
    if "waiting_for_data" in row:
        return f"{row['step']:42} waiting for data {row['waiting_for_data']:.2%} of the steps' time"
    line = f"{row['step']:42} {row.get('variant', 'an epoch'):16} {row['seconds']:7.3f} s"
    line += f", {row['cpu_seconds']:7.3f} s of processor time"
    if "peak_mib" in row:
        line += f", {row['peak_mib']:6} MiB"
    if "ratio" in row:
        line += f"   PyTorch/this {row['ratio']:5.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        line += f", by the clock {row['clock_ratio']:.2f}"
    return line


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_string(
        "torch_python",
        None,
        "a Python with PyTorch and NumPy, to compare with; default: this one, if it has PyTorch",
        flag_values=fv,
    )
    flags.DEFINE_multi_enum(
        "precision",
        ["float32", "bfloat16"],
        list(_DTYPES),
        "of ours; float32 belongs to it, and comes first; give the flag several times",
        flag_values=fv,
    )
    flags.DEFINE_string("only", "", "measure only the steps in whose names this is", flag_values=fv)
    flags.DEFINE_integer("repeats", 7, "timed rounds", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer(
        "waiting_steps", 20, "steps of a training of which the wait is told", lower_bound=1, flag_values=fv
    )
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)
    common.define_seed(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs the benchmark."""
    speed, waiting = [], []
    torch_python = fv.torch_python or (sys.executable if importlib.util.find_spec("torch") else None)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        steps = [step for step in STEPS if fv.only in step.name]
        records = {size: make_records(folder, fv.seed, size) for size in sorted({step.size for step in steps})}
        for step in steps:
            rows = measure(
                step,
                records[step.size],
                fv.repeats,
                torch_python=torch_python,
                precisions=fv.precision,
            )
            print("\n".join(map(format_row, rows)), flush=True)
            speed += rows
        for step in [step for step in steps if step.kind != "features"]:
            waiting.append(measure_waiting(step, records[step.size], folder, fv.waiting_steps))
            print(format_row(waiting[-1]), flush=True)
        head = [measure_head(records[step.size]) for step in steps if step.kind == "features"]
        print("\n".join(map(format_row, head)), flush=True)
    if fv.output:
        cores = len(os.sched_getaffinity(0))
        files.write_json(fv.output, {"cores": cores, "speed": speed, "waiting": waiting, "head": head})


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

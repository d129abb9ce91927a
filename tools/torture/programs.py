"""Commands on tiny data, each started in a process of its own, and what they leave: compared but for times.

A process is forked from one that has imported everything, so that a kill finds it at work and not at importing.
"""

import dataclasses
import faulthandler
import hashlib
import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flags import app
from tests import study_runs
from tfcxr import cli

_PATIENTS = 30
_WAIT = 1200.0  # seconds that a command may take; long, since other programs may hold the processor
_POLL = 0.02
# Keys of JSON files whose values say when, how long, or how much an earlier call had done, or are made by chance.
_TIMES = re.compile(
    r"second|\btime\b|_time|hours|wall|date|created|started|finished|per_second|rate_images|images_per|memory|host|pid|taken_over|salt"
)
_IMPORTED = (
    "h5py", "matplotlib.pyplot", "tensorflow", "sklearn.linear_model", "tfcxr.gan.training.train_gan",
    "tfcxr.generation", "tfcxr.classifiers.training.train_baseline", "tfcxr.classifiers.adaptation.train_dcan",
    "tfcxr.classifiers.pretraining.pretrain", "tfcxr.evaluation.evaluate", "tfcxr.studies.study",
    "tfcxr.serving.predict", "tfcxr.serving.export_classifier", "tfcxr.serving.export_generator",
    "tfrecords_builder.build_records", "tfcxr.fidelity.compare_sets", "tfcxr.fidelity.by_class",
)  # fmt: skip
_GAN = ("--fmap_base=64", "--fmap_max=8", "--batch_size=8", "--init=calm")
_REFERENCE = "reference.npz"
_TRAININGS = ("train-gan", "train-baseline", "train-dcan", "pretrain")
_SHORT = ("--variant=sched", "--stage2_epochs=1")
_SMALL = ("--backbone=resnet_tiny", "--weights=none", "--image_size=32", "--batch_size=4")


@dataclasses.dataclass(frozen=True)
class Case:
    """A command and its arguments.

    Attributes:
        kind: the command.
        arguments: its flags.
        of: what it is given, where there are several cases of one command.
    """

    kind: str
    arguments: tuple[str, ...]
    of: str = ""

    @property
    def name(self) -> str:
        """The command, and what it is given."""
        return f"{self.kind}_{self.of}" if self.of else self.kind


def cases(folder: pathlib.Path) -> dict[str, Case]:
    """The commands by name; all that they write is below {folder}/out. `folder` holds what `prepare` made."""
    out = folder / "out"
    records, target, gan = folder / "records", folder / "records_b", folder / "gan"

    def case(kind: str, *arguments: str, flag: str = "output_dir", of: str = "") -> Case:
        return Case(kind, (*arguments, f"--{flag}={out / 'result'}"), of)

    made = [
        case("build-records", "--dataset=chexpert", f"--data_dir={folder / 'a'}", "--label_version=v2",
             "--resolution=16", "--num_shards=8", "--workers=1"),
        case("generate", f"--run_dir={gan}", "--label_version=v2", "--per_class=150", "--allow_untrained",
             "--images_per_shard=16", "--batch_size=4"),
        case("train-gan", f"--records={records}", *_GAN,
             "--total_kimg=0.24", "--tick_kimg=0.04", "--fid_images=16", "--fid_ticks=2", flag="run_dir"),
        case("train-baseline", f"--records={records}", *_SMALL, "--variant=sched", "--stage2_epochs=4", flag="run_dir"),
        case("train-dcan", f"--source_records={records}", f"--target_records={target}", *_SMALL, "--steps=12",
             "--eval_every=4", "--train_batch_norm", flag="run_dir"),
        case("pretrain", f"--records={records}", *_SMALL[:1], "--image_size=16", "--batch_size=8", "--steps=12",
             "--eval_every=4", "--probe_images=20", flag="run_dir"),
    ]  # fmt: skip
    classifier, synthetic = f"--model={folder / 'classifier'}", folder / "synthetic"
    made += [
        case("phantom", "--hospital=a", "--num_patients=20", "--resolution=16", "--workers=1"),
        case("label-stats", "--dataset=chexpert", f"--data_dir={folder / 'a'}", "--label_versions=v2"),
        case("verify-records", f"--records={records}"),
        case("evaluate", classifier, f"--records={records}", "--resamples=20"),
        case("predict", classifier, f"--images={folder / 'a'}", flag="output"),
        case("export-model", f"--run_dir={folder / 'classifier'}", of="classifier"),
        case("export-model", f"--run_dir={gan}", "--allow_untrained", of="generator"),
        case("export-model", f"--run_dir={folder / 'encoder'}", of="encoder"),
        case("import-reference", f"--checkpoint={folder / _REFERENCE}", "--kimg=1", flag="run_dir"),
        case("compare-sets", f"--real={records}", f"--synthetic={synthetic}", "--features=texture"),
        case("neighbours", f"--real={records}", f"--synthetic={synthetic}", "--neighbours=2", "--rows=2"),
        case("reader-study", f"--real={records}", f"--synthetic={synthetic}", "--split=train", "--num_images=6"),
        case(
            "audit-privacy",
            f"--train={records}",
            f"--synthetic={synthetic}",
            f"--holdout={target}",
            "--holdout_split=train",
            "--features=pixels",
            "--draws=2",
        ),
        case("scorecard", f"--synthetic_set={synthetic}"),
        case(
            "attribute",
            f"--models={folder / 'classifier'},{folder / 'classifier_b'}",
            f"--records={records}",
            "--num_images=4",
            "--resamples=100",
        ),
        case(
            "utility",
            f"--records={records}",
            f"--real={folder / 'evaluation'}",
            f"--mixed={folder / 'evaluation_b'}",
            "--resamples=20",
        ),
    ]
    study = Case("study", (f"--flagfile={folder / 'tiny.flags'}", "--jobs=2", f"--workspace={out}"))
    return {each.name: each for each in (*made, study)}


def prepare(folder: pathlib.Path, wanted: Iterable[Case]) -> None:
    """Imports what commands import, and makes in a folder what these commands read."""
    preload()
    folder.mkdir(parents=True, exist_ok=True)
    study_runs.write_definition(folder)
    if not (folder / _REFERENCE).exists():
        _in_fork(lambda: _write_reference(folder / _REFERENCE), folder / "log.txt")
    for case in wanted:
        _make_sources(folder, case)


def _make_sources(folder: pathlib.Path, case: Case) -> None:
    for name, source in _sources(folder).items():
        path = folder / name
        if not path.exists() and any(str(path) in re.split("[=,]", argument) for argument in case.arguments):
            _make_sources(folder, source)
            finish(
                dataclasses.replace(source, arguments=(*source.arguments, _output(source, path))), folder / "log.txt"
            )


def _output(source: Case, path: pathlib.Path) -> str:
    return f"--{'run_dir' if source.kind in _TRAININGS else 'output_dir'}={path}"


def _sources(folder: pathlib.Path) -> dict[str, Case]:
    """What commands read, by its name in the folder, without the flag of its output."""
    size = (f"--num_patients={_PATIENTS}", "--resolution=16", "--workers=1")
    built = ("--label_version=v2", "--resolution=8")
    records = f"--records={folder / 'records'}"
    return {
        "a": Case("phantom", ("--hospital=a", *size)),
        "b": Case("phantom", ("--hospital=b", *size)),
        "records": Case("build-records", ("--dataset=chexpert", f"--data_dir={folder / 'a'}", *built)),
        "records_b": Case("build-records", ("--dataset=chestxray", f"--data_dir={folder / 'b'}", *built)),
        "gan": Case("train-gan", (records, *_GAN, "--total_kimg=0.016", "--tick_kimg=0.016", "--fid_images=16")),
        "classifier": Case("train-baseline", (records, *_SMALL, *_SHORT)),
        "classifier_b": Case("train-baseline", (records, *_SMALL, *_SHORT, "--seed=1")),
        "encoder": Case("pretrain", (records, *_SMALL[:1], "--image_size=16", "--batch_size=8", "--steps=2",
                                     "--eval_every=2", "--probe_images=20")),
        "evaluation": Case("evaluate", (f"--model={folder / 'classifier'}", records, "--resamples=20")),
        "evaluation_b": Case("evaluate", (f"--model={folder / 'classifier_b'}", records, "--resamples=20")),
        "synthetic": Case(
            "generate", (f"--run_dir={folder / 'gan'}", "--label_version=v2", "--per_class=10", "--allow_untrained")
        ),
    }  # fmt: skip


def _write_reference(path: pathlib.Path) -> int:
    """Writes networks as the reference GAN keeps them, with TensorFlow, which is not to be used before a fork."""
    from tfcxr.gan.networks import build_networks
    from tfcxr.gan.reference import variable_names

    sizes: dict[str, Any] = {"resolution": 8, "fmap_base": 64, "fmap_max": 8}
    generator, discriminator = build_networks.build_generator(**sizes), build_networks.build_discriminator(**sizes)
    networks = {"G": generator, "D": discriminator, "Gs": generator}
    arrays = {
        f"{name}/{variable}": value.numpy()
        for name, network in networks.items()
        for variable, value in variable_names.reference_variables(network).items()
    }
    np.savez(path, **arrays)
    return 0


def finish(case: Case, log: pathlib.Path) -> None:
    """Runs a command to its end. Raises RuntimeError if it fails."""
    code = wait(start(case.kind, case.arguments, log))
    if code != 0:
        said = " ".join(log.read_text(errors="replace").split())[-300:]
        raise RuntimeError(f"{case.kind} ended with {code}: {said}")


def preload() -> None:
    """Imports what the commands import; nothing of it is used in this process, which TensorFlow's threads forbid."""
    for name in _IMPORTED:
        importlib.import_module(name)


def start(kind: str, arguments: Sequence[str], log: pathlib.Path, before: Callable[[], object] = lambda: None) -> int:
    """Starts a command in a process group of its own, whose output is added to `log`; returns its id.

    `before` is called in the new process.
    """
    module = importlib.import_module(cli.COMMANDS[kind][0])
    return fork(lambda: app.run(module.main, module.define_flags, [f"tfcxr {kind}", *arguments]), log, before)


def fork(work: Callable[[], int], log: pathlib.Path, before: Callable[[], object] = lambda: None) -> int:
    """Has a new process do some work, whose value is its exit code; returns its id."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored in the background
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        faulthandler.dump_traceback_later(_WAIT * 0.9, file=2)  # where it hangs
        before()
        code = work()
    except BaseException:  # what Python would show; this must not go back into the caller's code
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(process: int, seconds: float = _WAIT, *, kill: bool = True) -> int | None:
    """The exit code, or minus the signal's number; None if it did not end in time, and is killed then unless told."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL)
    if not kill:
        return None
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def snapshot(folder: pathlib.Path, file: pathlib.Path) -> dict[str, str]:
    """What is in a folder: name -> digest of what does not depend on the time. Another process, with TensorFlow, looks.

    `file` is where that process writes it.
    """

    def work() -> int:
        file.write_text(json.dumps(_look(folder)))
        return 0

    _in_fork(work, file.with_suffix(".log"))
    return json.loads(file.read_text())


def _in_fork(work: Callable[[], int], log: pathlib.Path) -> None:
    code = wait(fork(work, log))
    if code != 0:
        raise RuntimeError(f"ended with {code}: {log.read_text(errors='replace')}")


def differences(found: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    """What is there and should not be, is not there and should be, or differs."""
    said = [f"{name} is left" for name in found if name not in right]
    said += [f"{name} is missing" for name in right if name not in found]
    return said + [f"{name} differs" for name in right if name in found and found[name] != right[name]]


def _look(folder: pathlib.Path) -> dict[str, str]:
    found: dict[str, str] = {}
    events: dict[str, Counter] = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith("events.out.tfevents."):
            events.setdefault(f"{path.parent.relative_to(folder).as_posix()}/events", Counter()).update(_steps(path))
        elif re.fullmatch(r"ckpt-\d+\.data-.*", path.name):
            continue  # with its index
        elif path.name.endswith(".job.json") or path.name == ".tfcxr.json":
            continue  # digests of files with times in them, and the names of event files
        else:
            found[name] = _digest(path)
    return found | {name: json.dumps(sorted(counts.items())) for name, counts in events.items()}


def _steps(path: pathlib.Path) -> list[str]:
    import tensorflow as tf

    found = tf.compat.v1.train.summary_iterator(str(path))
    return [f"{value.tag} {event.step}" for event in found for value in event.summary.value]


def _digest(path: pathlib.Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    digest = hashlib.sha256()
    if path.suffix == ".index":
        import tensorflow as tf

        reader = tf.train.load_checkpoint(str(path.with_suffix("")))
        # The history holds times; what is stored of objects goes by the order in which they were made.
        names = [name for name in sorted(reader.get_variable_to_shape_map()) if "OBJECT_GRAPH" not in name]
        for name in names:
            if not name.startswith("history") and "save_counter" not in name:
                _add(digest, name, reader.get_tensor(name))
    elif path.suffix == ".h5":
        import h5py

        def add(name: str, value: Any) -> None:
            if isinstance(value, h5py.Dataset):
                _add(digest, name, value[()])

        with h5py.File(path) as file:
            file.visititems(add)
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            for name in sorted(arrays):
                _add(digest, name, arrays[name])
    elif path.suffix == ".json":
        digest.update(json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True).encode())
    elif path.suffix in (".log", ".html", ".md", ".lock") or path.name == "results.csv":
        pass  # they say when and how long
    elif path.name == "checkpoint":
        lines = path.read_text().splitlines()
        digest.update("\n".join(line for line in lines if "timestamp" not in line).encode())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _add(digest: Any, name: str, value: Any) -> None:
    array = np.asarray(value)
    digest.update(f"{name} {array.dtype} {array.shape}".encode())
    digest.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if not _TIMES.search(str(key).lower())}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def clear(folder: pathlib.Path) -> pathlib.Path:
    """Removes the output of a case."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir(exist_ok=True)  # a disk of its own stays
    return folder / "out"

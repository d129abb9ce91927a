"""Run folders: one lock, one configuration, and the rules of what may be resumed or replaced."""

import contextlib
import json
import os
import pathlib
import posixpath
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from tfcxr.training import digests
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, Interrupted

SCHEMA_VERSION = 1

# What tells an exported generator from a run.
EXPORTED_GENERATOR = "assets/generator.json"

# Settings that the records decide, and their digest says whether those are the same; earlier runs do not hold them.
_OF_RECORDS = ("aspect", "contrast")

# What classifiers did before it was a setting; earlier runs without it may go on.
EARLIER = {
    "framing": "crop",
    "labels": [],
    "loss": "cross_entropy",
    "multilabel": False,
    "stage1_crops": "random",
    "stage1_solver": "sgd",
}

# Values of settings that have a new name; runs written before hold the old one.
_RENAMED_VALUES = {("alignment", "ours"): "dcan_noreg"}

KINDS = ("gan", "pretrain", "baseline", "dcan")

# Where a study writes evaluations: each is an output with its own list of what was written there.
_EVALUATIONS = "evaluations"

# What TensorFlow leaves in a folder when it is killed amid a checkpoint.
UNFINISHED_CHECKPOINT = re.compile(
    r"ckpt-\d+\.(index|data-\d+-of-\d+)\.tempstate\d+|ckpt-\d+_temp(/part-[^/]+)?|checkpoint\.tmp[0-9a-f]+"
)

# All that programs write in a run folder, and what a kill leaves. --overwrite deletes a folder only if there is nothing
# else in it.
_ENTRIES = re.compile(
    "|".join(
        (
            r"(config|result|label_combinations|target_shares|ticks|history)\.json|flags\.txt|curves\.png",
            r"checkpoints|best|tensorboard|samples|statistics|" + _EVALUATIONS,  # while they are empty
            r"(checkpoints|best)/(checkpoint|ckpt-\d+\.(index|data-\d+-of-\d+)|" + UNFINISHED_CHECKPOINT.pattern + ")",
            r"checkpoints/best(-\d+)?\.weights\.h5",
            r"tensorboard/(events\.out\.tfevents\.[^/]+|projector_config\.pbtxt|(features|metadata)_\d+\.tsv)",
            r"tensorboard/plugins/profile/[\d_]+/[^/]+\.(pb|json|json\.gz)",
            r"samples/(reals|pairs|fakes-[\d.]+|features_\d+)\.png",
            r"statistics/[^/]+-\d+-[0-9a-f]{16}\.npz",
            _EVALUATIONS + r"/(\.[^/]+\.job\.json|[^/.][^/]*/.*|\.[^/]+\.\d+\.(lock|(old\.)?tmp/.*))",
            re.escape(files.LOCK_FILE),
        )
    )
)

_ADVICE = "choose another --run_dir or give --overwrite"


class RunFolder:
    """A training run's folder; make one with `RunFolder.open`.

    Attributes:
        path, checkpoints, best, tensorboard, samples: folders (pathlib.Path).
        resumed: whether the run was begun by an earlier call.
    """

    def __init__(self, path: pathlib.Path, resumed: bool):
        self.path = path
        self.resumed = resumed
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"
        self.tensorboard = path / "tensorboard"
        self.samples = path / "samples"

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        path: str | os.PathLike,
        *,
        kind: str,
        config: Mapping[str, Any],
        records_digests: Mapping[str, str],
        overwrite: bool = False,
        extendable: Sequence[str] = (),
    ) -> Iterator["RunFolder"]:
        """Opens a new run, or one that may go on, and holds its lock.

        Args:
            path: the run's folder.
            kind: which program makes the run, one of KINDS.
            config: settings that determine the result, JSON values; also written to config.json.
            records_digests: flag name -> digest of the record set it names.
            overwrite: delete an earlier run in that folder first.
            extendable: names in `config` that may grow between calls, such as the total length.

        Raises:
            InputError: the folder is in use, holds something else, a finished run, or a run with other settings. One
                raised in the block of a new run, before its first checkpoint, leaves nothing of the run.
            RunError: a file that cannot be read or written, such as on a full disk; also in the block.
        """
        path = pathlib.Path(path)
        new = _description(kind, config, records_digests)
        with _locked(path), files.naming_failures(path, "--run_dir"):
            resumed = any(name != files.LOCK_FILE and not _is_leftover(name) for name in files.entries(path))
            if resumed and overwrite:
                _empty(path)
                resumed = False
            if resumed:
                _check_resumable(path, new, extendable)
                for leftover in filter(_is_leftover, files.entries(path)):
                    (path / leftover).unlink(missing_ok=True)
            files.write_json(path / "config.json", digests.sealed(new))
            (path / "result.json").unlink(missing_ok=True)
            run = cls(path, resumed)
            for folder in (run.checkpoints, run.tensorboard, run.samples):
                folder.mkdir(exist_ok=True)
            try:
                yield run
            except InputError:
                # Nothing was trained: the next call may have the settings that this one should have had.
                if not resumed and not any(run.checkpoints.iterdir()):
                    _empty(path)
                raise

    @classmethod
    def joined(
        cls, path: str | os.PathLike, *, kind: str, config: Mapping[str, Any], records_digests: Mapping[str, str]
    ) -> "RunFolder":
        """A run that another worker has opened, to read only; arguments as of `open`.

        Raises InputError: that worker's folder is not this one, or its settings are others.
        """
        _check_same(pathlib.Path(path), load_config(path), _description(kind, config, records_digests), ())
        return cls(pathlib.Path(path), resumed=True)

    @contextlib.contextmanager
    def copied(self) -> Iterator["RunFolder"]:
        """A copy to write into: of the checkpoints and what is JSON; deleted at the end."""
        with (
            tempfile.TemporaryDirectory(prefix="tfcxr-") as name,
            files.naming_failures(pathlib.Path(name), "--run_dir"),
        ):
            copy = RunFolder(pathlib.Path(name), self.resumed)
            for folder in (copy.tensorboard, copy.samples):
                folder.mkdir()
            shutil.copytree(self.checkpoints, copy.checkpoints)
            for file in self.path.glob("*.json"):
                shutil.copy(file, copy.path)
            yield copy

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes result.json; from then on the run is finished."""
        files.write_json(self.path / "result.json", {"schema_version": SCHEMA_VERSION, **result})


def load_config(path: str | os.PathLike, kind: str | Sequence[str] | None = None) -> dict[str, Any]:
    """Reads a run's config.json: {"schema_version", "kind", "config", "records"}.

    Raises InputError if `path` is not a run folder, or not of the given kind(s).
    """
    path = pathlib.Path(path)
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: is not a run folder (it has no config.json){_hint_at_versions(path)}")
    config = files.read_json(path / "config.json")
    parts = {"kind", "config", "records"}
    if not isinstance(config, dict) or config.get("schema_version") != SCHEMA_VERSION or not parts <= config.keys():
        raise InputError(f"{path}/config.json: was not written by this version of tfcxr")
    config = digests.check_sealed(config, path / "config.json")
    kinds = (kind,) if isinstance(kind, str) else kind
    if kinds and config["kind"] not in kinds:
        raise InputError(f"{path}: is a run of kind {config['kind']}, not {' or '.join(kinds)}")
    for (setting, old), new in _RENAMED_VALUES.items():
        if config["config"].get(setting) == old:
            config["config"][setting] = new
    return config


@contextlib.contextmanager
def building(path: str | os.PathLike, name: str = "config.json", advice: str = "") -> Iterator[None]:
    """Within it a network is built of what file `name` of a run or export says; values that none has are an InputError.

    `advice`: what its message ends in.
    """
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}/{name}: is damaged, no network can be built of it ({reason}){advice}") from error


def _hint_at_versions(path: pathlib.Path) -> str:
    """Names what was probably meant: TensorFlow Serving wants exports in numbered subfolders, as in exports/dann/1."""
    marks = ("config.json", EXPORTED_GENERATOR)
    inside = [str(mark.parents[name.count("/")]) for name in marks for mark in path.glob(f"*/{name}")]
    return f"; did you mean {' or '.join(sorted(inside)[-3:])}?" if inside else ""


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Makes the folder and holds its lock."""
    lock_file = path / files.LOCK_FILE
    with contextlib.ExitStack() as stack:
        try:
            if path.exists() and not path.is_dir():
                raise InputError(f"--run_dir={path}: is a file, not a folder")
            stack.callback(files.remove_empty, files.missing_parents(lock_file))
            path.mkdir(parents=True, exist_ok=True)
            there = lock_file.exists()
            stack.enter_context(files.lock(lock_file))
        except files.InUse as error:
            raise InputError(f"--run_dir={path}: another program is using this run") from error
        except OSError as error:
            raise InputError(f"--run_dir={path}: cannot be made or written ({error.strerror})") from error
        try:
            yield
        except InputError:
            if not there and not _holds_run(path):
                lock_file.unlink(missing_ok=True)
            raise


def _holds_run(path: pathlib.Path) -> bool:
    try:
        return load_config(path)["kind"] in KINDS
    except InputError:
        return False


def _is_leftover(entry: str) -> bool:
    """Whether a path in a run folder is what a kill amid the atomic writing of a file of the run leaves."""
    folder, name = posixpath.split(entry)
    match = files.LEFTOVER.fullmatch(name)
    return match is not None and _ENTRIES.fullmatch(posixpath.join(folder, match[1])) is not None


def refuse_foreign(path: pathlib.Path) -> None:
    """Raises InputError if there is something in a folder that does not belong to a run in it."""
    found = set(files.entries(path))
    if _holds_run(path):
        found = {name for name in found if not (_ENTRIES.fullmatch(name) or _is_leftover(name))}
        for folder in (path / _EVALUATIONS).glob("[!.]*"):
            if folder.is_dir() and not folder.is_symlink():
                found |= {f"{_EVALUATIONS}/{folder.name}/{name}" for name in files.foreign_entries(folder)}
    files.refuse_entries(path, found, "--run_dir")


def _empty(path: pathlib.Path) -> None:
    """Deletes the run in a folder. Raises InputError, and deletes nothing, if there is something else in it."""
    refuse_foreign(path)
    # The configuration last: without it nobody could tell whose the rest is, were this to be killed.
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == "config.json"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != files.LOCK_FILE:
            entry.unlink()


def _description(kind: str, config: Mapping[str, Any], records_digests: Mapping[str, str]) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "config": json.loads(json.dumps(dict(config))),
        "records": dict(records_digests),
    }


def _check_resumable(path: pathlib.Path, new: dict[str, Any], extendable: Sequence[str]) -> None:
    extended = _check_same(path, load_config(path), new, extendable)
    if (path / "result.json").exists() and not extended:
        longer = f" or a larger --{extendable[0]}" if extendable else ""
        raise InputError(f"--run_dir={path}: this run is finished; {_ADVICE}{longer}")


def _check_same(path: pathlib.Path, old: dict[str, Any], new: dict[str, Any], extendable: Sequence[str]) -> bool:
    """Whether a value of `extendable` has grown. Raises InputError naming what else differs."""
    if old["kind"] != new["kind"]:
        raise InputError(f"--run_dir={path}: holds a run of kind {old['kind']}; {_ADVICE}")
    extended = False
    for key in sorted(old["config"].keys() | new["config"].keys()):
        was, now = (values["config"].get(key, EARLIER.get(key)) for values in (old, new))
        if was == now or (key in _OF_RECORDS and key not in old["config"]):
            continue
        if key in extendable and was is not None and now is not None and now > was:
            extended = True
            continue
        raise InputError(f"--run_dir={path}: holds a run with {key}={_show(was)}, not {_show(now)}; {_ADVICE}")
    for key in sorted(old["records"].keys() | new["records"].keys()):
        if old["records"].get(key) != new["records"].get(key):
            raise InputError(f"--run_dir={path}: holds a run on other {key} (their digest differs); {_ADVICE}")
    return extended


def _show(value: Any) -> str:
    return json.dumps(value).replace('"', "")


class StopSignals:
    """Turns SIGINT and SIGTERM into a request that a training loop answers where it can save its state.

    A second signal takes its usual effect at once. Use as a context manager in the main thread.
    """

    def __init__(self) -> None:
        self._number = 0
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._number != 0

    def raise_if_requested(self, message: str = "stopped by a signal; the same command resumes") -> None:
        """Raises Interrupted if a signal has arrived; call it after saving."""
        if self._number:
            raise Interrupted(self._number, message)

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

"""Flags that several binaries share. Every function defines its flags in the FlagValues it is given."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from absl import flags

from tfrecords_builder import files, labels
from tfrecords_builder.errors import InputError

Settings = TypeVar("Settings")


def define_required(fv: flags.FlagValues, name: str, what: str) -> None:
    """Makes the flag `name` required; `what` completes the sentence '--name is required: ...'."""
    flags.register_validator(
        name, lambda value: value not in (None, ""), f"--{name} is required: {what}", flag_values=fv
    )
    fv[name].help = f"required: {fv[name].help}"


def define_folder(fv: flags.FlagValues, name: str, help_text: str, *, required: bool = True) -> None:
    """Defines a flag that names an existing, readable folder."""
    _define_path(fv, name, help_text, pathlib.Path.is_dir, "there is no such folder")
    if required:
        define_required(fv, name, help_text)


def define_file(fv: flags.FlagValues, name: str, help_text: str) -> None:
    """Defines an optional flag that names an existing, readable file."""
    _define_path(fv, name, help_text, pathlib.Path.is_file, "there is no such file")


def read_settings(fv: flags.FlagValues, cls: type[Settings]) -> Settings:
    """The settings of a dataclass, each of whose fields is named like a flag."""
    return cls(**{field.name: fv[field.name].value for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


class PathFlag(flags.Flag):
    """A flag that names a file or folder, or is one of a few words.

    Studies tell by the class which flags stand for the content of a file, so that all such flags must be of it.

    Attributes:
        words: values that are no paths, such as none.
        reads: whether what is there decides the output; false for a folder to write, or for a cache.
    """

    def __init__(
        self,
        name: str,
        help_text: str,
        *,
        default: str | None = None,
        words: Sequence[str] = (),
        reads: bool = True,
    ):
        """A flag of the default, or without one."""
        super().__init__(flags.ArgumentParser(), flags.ArgumentSerializer(), name, default, help_text)
        self.words = tuple(words)
        self.reads = reads

    @property
    def names_a_path(self) -> bool:
        """Whether its present value is a path."""
        return bool(self.value) and self.value not in self.words


def define_path(
    fv: flags.FlagValues, name: str, help_text: str, *, default: str | None = None, words: Sequence[str] = ()
) -> None:
    """Defines a flag that names a file or folder to read, whose existence the program checks, or is one of `words`."""
    flags.DEFINE_flag(PathFlag(name, help_text, default=default, words=words), flag_values=fv)


def define_place(fv: flags.FlagValues, name: str, help_text: str) -> None:
    """Defines a flag that names a file or folder to write."""
    flags.DEFINE_flag(PathFlag(name, help_text, reads=False), flag_values=fv)


class PathListFlag(flags.Flag):
    """A flag that names several files or folders, separated by commas; some may be words instead."""

    def __init__(self, name: str, help_text: str):
        """A flag without a default."""
        super().__init__(flags.ListParser(), flags.CsvListSerializer(","), name, [], help_text)


def define_paths(fv: flags.FlagValues, name: str, help_text: str) -> None:
    """Defines a flag that names several files or folders to read, separated by commas."""
    flags.DEFINE_flag(PathListFlag(name, help_text), flag_values=fv)


def check_paths(fv: flags.FlagValues) -> None:
    """Raises InputError for what no program can read: paths that the system refuses, pipes and devices, NUL bytes."""
    for name in fv:
        flag = fv[name]
        entries = flag.value if isinstance(flag.value, list) else [flag.value]
        values: list[str] = [value for value in entries if isinstance(value, str)]
        if any("\0" in value for value in values):
            raise InputError(f"--{name}: holds a NUL byte, which is part of no text")
        if isinstance(flag, PathListFlag) or (isinstance(flag, PathFlag) and flag.names_a_path):
            for value in values:
                _check_path(f"--{name}", value)


def _check_path(flag: str, path: str) -> None:
    try:
        pathlib.Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # the program says so, or makes it
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be looked at ({error.strerror})") from error
    files.check_regular(path, flag)


def define_choice(
    fv: flags.FlagValues,
    name: str,
    default: str,
    choices: Sequence[str],
    help_text: str,
    former: Mapping[str, str] | None = None,
) -> None:
    """Defines a flag of several choices; `former`: earlier names of choices, still understood."""
    flag = flags.EnumFlag(name, default, help_text, choices)
    flag.parser = _ChoiceParser(choices, former or {})
    flags.DEFINE_flag(flag, flag_values=fv)


class _ChoiceParser(flags.EnumParser):
    def __init__(self, choices: Sequence[str], former: Mapping[str, str]):
        super().__init__(choices)
        self._former = former

    def parse(self, argument: str) -> str:
        return super().parse(self._former.get(argument, argument))


def _define_path(
    fv: flags.FlagValues, name: str, help_text: str, exists: Callable[[pathlib.Path], bool], message: str
) -> None:
    define_path(fv, name, help_text)

    def is_there(value: str | None) -> bool:
        try:
            return not value or exists(pathlib.Path(value))
        except (OSError, ValueError) as error:  # a name too long, a folder that may not be searched, a NUL byte
            raise flags.ValidationError(
                f"cannot be looked for ({getattr(error, 'strerror', None) or error})"
            ) from error

    flags.register_validator(name, is_there, message, flag_values=fv)


def define_output_dir(fv: flags.FlagValues) -> None:
    """--output_dir, required, and --overwrite."""
    define_place(fv, "output_dir", "folder to write; must be empty or new")
    define_required(fv, "output_dir", "the folder to write")
    define_overwrite(fv)


def define_run_dir(fv: flags.FlagValues, *, new: bool = True) -> None:
    """--run_dir: of a run to start or resume (`new`, with --overwrite), or of an existing one."""
    if new:
        define_place(fv, "run_dir", "folder of the run; an unfinished run with the same flags is resumed")
        define_required(fv, "run_dir", "the folder of the run, such as workspace/runs/gan")
        define_overwrite(fv)
    else:
        define_folder(fv, "run_dir", "folder of a training run")


def define_overwrite(fv: flags.FlagValues) -> None:
    """--overwrite."""
    if "overwrite" not in fv:
        flags.DEFINE_boolean("overwrite", False, "replace what an earlier call wrote there", flag_values=fv)


def define_records(fv: flags.FlagValues, name: str = "records", help_text: str = "folder of a record set") -> None:
    """A required flag naming a record set's folder, as written by build-records or generate."""
    define_folder(fv, name, help_text)


def define_seed(fv: flags.FlagValues) -> None:
    """--seed."""
    flags.DEFINE_integer(
        "seed", 0, "fixes everything that is random", lower_bound=0, upper_bound=2**31 - 1, flag_values=fv
    )


def define_deterministic(fv: flags.FlagValues) -> None:
    """--deterministic. Not of what decides whether a run may be resumed: it changes no setting of the training."""
    flags.DEFINE_boolean(
        "deterministic",
        False,
        "use only operations that give the same bits each time, so that a run on a GPU can be repeated exactly, or "
        "stopped and resumed without a trace; slower, and TensorFlow refuses what it has no such operation for. On one "
        "CPU runs repeat exactly without it",
        flag_values=fv,
    )


def define_workers(fv: flags.FlagValues) -> None:
    """--workers."""
    flags.DEFINE_integer(
        "workers",
        0,
        "parallel workers; 0: one per core. The output does not depend on it",
        lower_bound=0,
        flag_values=fv,
    )


def num_workers(fv: flags.FlagValues) -> int:
    """The value of --workers, 0 resolved: the cores that this process may use."""
    return fv.workers or len(os.sched_getaffinity(0))


def define_batch_size(fv: flags.FlagValues, default: int) -> None:
    """--batch_size."""
    flags.DEFINE_integer("batch_size", default, "images per step", lower_bound=1, flag_values=fv)


def define_resolution(fv: flags.FlagValues, default: int | None = 64, *, low: int = 8, high: int = 1024) -> None:
    """--resolution, a power of two; None as default leaves it to the records."""
    flags.DEFINE_integer(
        "resolution", default, f"side of the square images in pixels, a power of two in {low}..{high}", flag_values=fv
    )
    flags.register_validator(
        "resolution",
        lambda value: value is None or (low <= value <= high and value & (value - 1) == 0),
        f"must be a power of two in {low}..{high}",
        flag_values=fv,
    )


def define_label_version(fv: flags.FlagValues, default: str | None = None) -> None:
    """--label_version, required if there is no default, and --label_versions_file."""
    versions = ", ".join(sorted(labels.LABEL_VERSIONS))
    flags.DEFINE_string(
        "label_version",
        default,
        f"which images make which class: {versions}, a benchmark setting (resolution, classes-N, samples-N), or one of "
        "--label_versions_file",
        flag_values=fv,
    )
    if default is None:
        define_required(fv, "label_version", f"one of {versions}, ...")
    define_file(
        fv,
        "label_versions_file",
        'JSON file of label versions of your own: {"version": {"class": {"one": [labels], "zero": [labels] or '
        '"others", "any": [labels]}}}',
    )


def define_split(fv: flags.FlagValues, default: str) -> None:
    """--split: which fold to read."""
    flags.DEFINE_enum("split", default, ["train", "validation", "test"], "which fold to read", flag_values=fv)

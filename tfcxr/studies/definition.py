"""What a study is: image sets, synthetic sources, and the cells of its table. Parses the notation of the flags."""

import dataclasses
import itertools
import pathlib
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

from tfcxr.classifiers import choices
from tfcxr.classifiers.adaptation import methods
from tfrecords_builder import labels
from tfrecords_builder.errors import InputError

NONE = "none"
MULTILABEL = "multilabel"  # the label version without classes
# The control of adaptations: the classifier of the source trained on in their loop, for as many steps, by no method.
CONTINUED = "continued"
UNADAPTED = (NONE, CONTINUED)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Cells:
    """Sources times targets times methods, as one --cells flag names them."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    methods: tuple[tuple[str, str | None], ...]  # (method, variant of the baseline or None)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the table, before it is known. `variant` is the baseline's; None for an adaptation."""

    label_version: str
    source: str
    target: str
    method: str
    variant: str | None
    seed: int


@dataclasses.dataclass(frozen=True)
class Definition:
    """A checked study.

    Attributes:
        name: of the study and its folder.
        question: that it answers, one sentence.
        table: of the thesis, such as 5.8; None for another.
        label_versions, resolution: of all record sets.
        label_versions_file: of versions of a user's own.
        phantoms: set name -> flags of `phantom`.
        records: set name -> flags of `build-records`.
        data: set name -> folder of its data, for sets that are not simulated.
        synthetic: name of a synthetic source -> the set its GAN learns.
        generators: name of a synthetic source -> run or export to use instead of training a GAN.
        cells: in the order of the table.
        seeds: of the classifiers' trainings.
        adapt_from_baseline: whether an adaptation starts from the baseline of its source and seed.
        label_stats: whether the labels of each set are counted too.
        flags: command -> flags that all its jobs have.
    """

    name: str
    question: str
    table: str | None
    label_versions: tuple[str, ...]
    label_versions_file: str | None
    resolution: int
    phantoms: Mapping[str, tuple[str, ...]]
    records: Mapping[str, tuple[str, ...]]
    data: Mapping[str, pathlib.Path]
    synthetic: Mapping[str, str]
    generators: Mapping[str, pathlib.Path]
    cells: tuple[Cells, ...]
    seeds: tuple[int, ...]
    adapt_from_baseline: bool
    label_stats: bool
    flags: Mapping[str, tuple[str, ...]]

    def list_cells(self, default_variant: str | None) -> list[Cell]:
        """All cells, each once. `default_variant` is that of a method `none` without one."""
        found: dict[Cell, None] = {}
        for version, group in itertools.product(self.label_versions, self.cells):
            for source, target, (method, variant) in itertools.product(group.sources, group.targets, group.methods):
                for seed in self.seeds:
                    chosen = (variant or default_variant) if method == NONE else None
                    found[Cell(version, source, target, method, chosen, seed)] = None
        return list(found)


def parse_tokens(flag: str, text: str) -> tuple[str, ...]:
    """Flags of a command, shell-quoted; words before the first flag are presets: `demo/train_gan --total_kimg=2`.

    Raises InputError naming `flag` if the quotes do not close, or a word after a flag is no flag.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--{flag}={text}: {error}") from error
    for before, word in itertools.pairwise(words):
        if before.startswith("-") and not word.startswith("-"):
            name, equals, value = before.partition("=")
            meant = f"{name}='{value} {word}'" if equals else f"{name}={word}"
            raise InputError(
                f"--{flag}={text}: {word} stands after {before} and is no flag; if it belongs to that value, write "
                f"{meant}; presets come before all flags"
            )
    return tuple(word if word.startswith("-") else f"--flagfile={word}" for word in words)


def parse_named(flag: str, lines: Sequence[str]) -> dict[str, str]:
    """`NAME: TEXT` lines as a dictionary. Raises InputError for a line of another form or a name given twice."""
    remedy = "give each name once; a preset's lines count, too, so that another set needs another name"
    found: dict[str, str] = {}
    for line in lines:
        name, colon, text = (part.strip() for part in line.partition(":"))
        if not colon or not _NAME.fullmatch(name):
            raise InputError(f"--{flag}={line}: must look like NAME: ..., NAME of letters, digits, '_', '-' and '.'")
        if name in found:
            raise InputError(f"--{flag}: {name} is given twice, as {found[name]!r} and {text!r}; {remedy}")
        found[name] = text
    return found


def parse_cells(line: str) -> Cells:
    """`SOURCE, ... -> TARGET, ...: METHOD, ...`; a method is an --alignment, or `none/` and a variant of the baseline.

    Raises InputError that says what is wrong with the line.
    """
    sides, colon, right = line.rpartition(":")
    source, arrow, target = sides.partition("->")
    if not colon or not arrow:
        raise InputError(f"--cells={line}: must look like SOURCE, ... -> TARGET, ...: METHOD, ...")
    parts = [tuple(word.strip() for word in part.split(",")) for part in (source, target, right)]
    if not all(word for part in parts for word in part):
        raise InputError(f"--cells={line}: a name is missing")
    return Cells(parts[0], parts[1], tuple(_parse_method(line, word) for word in parts[2]))


def _parse_method(line: str, word: str) -> tuple[str, str | None]:
    method, slash, variant = word.partition("/")
    method = methods.FORMER_NAMES.get(method, method)
    if method not in methods.METHODS:
        raise InputError(f"--cells={line}: there is no method {method}; choose one of {', '.join(methods.METHODS)}")
    if slash and (method != NONE or variant not in choices.VARIANTS):
        known = ", ".join(f"{NONE}/{name}" for name in choices.VARIANTS)
        raise InputError(f"--cells={line}: there is no {word}; variants are those of the baseline: {known}")
    return method, variant or None


def parse_folders(
    flag: str,
    entries: Sequence[str],
    names: Collection[str],
    *,
    all_needed: bool = True,
    by_name: Mapping[str, pathlib.Path] | None = None,
) -> dict[str, pathlib.Path]:
    """`NAME:FOLDER` entries, or one `FOLDER` for all `names`, as name -> folder.

    A FOLDER that does not exist may be a key of `by_name`.

    Raises InputError for a folder that does not exist, an unknown name, two folders for one name or for all, or with
    `all_needed` a name without a folder.
    """
    found: dict[str, pathlib.Path] = {}
    for_all: list[str] = []
    for entry in entries:
        name, colon, folder = entry.partition(":")
        if colon and name in names:
            if name in found and found[name] != pathlib.Path(folder):
                raise InputError(f"--{flag}: {name} has two folders, {found[name]} and {folder}; give one of them")
            found[name] = pathlib.Path(folder)
        elif colon and not pathlib.Path(entry).is_dir():
            raise InputError(f"--{flag}={entry}: {name} has no use for a folder; known: {', '.join(names) or 'none'}")
        else:
            for_all.append(entry)
    if len(set(for_all)) > 1:
        raise InputError(
            f"--{flag}: {for_all[0]} and {for_all[1]} are both given for all sets; write NAME:FOLDER for each"
        )
    if for_all:
        found = dict.fromkeys(names, pathlib.Path(for_all[0])) | found
    for name in names:
        if all_needed and name not in found:
            raise InputError(f"--{flag}: has no folder for {name}; give --{flag}={name}:FOLDER")
        if name in found and not found[name].is_dir():
            by_name = by_name or {}
            if str(found[name]) not in by_name:
                known = f"; known by name: {', '.join(by_name)}" if by_name else ""
                raise InputError(f"--{flag}={name}:{found[name]}: there is no such folder{known}")
            found[name] = by_name[str(found[name])]
    return found


def check(study: Definition) -> None:
    """Raises InputError for what the flags' notation alone does not show: unknown versions, sets and sources."""
    if not _NAME.fullmatch(study.name):
        raise InputError(f"--name={study.name}: must be of letters, digits, '_', '-' and '.'")
    own = labels.load_label_versions(study.label_versions_file) if study.label_versions_file else None
    adapted = [method for group in study.cells for method, _ in group.methods if method != NONE]
    for version in study.label_versions:
        if labels.get_label_version(version, own).multilabel and adapted:
            raise InputError(
                f"--label_versions={version}: has no classes, which {adapted[0]} needs; its cells can have the method "
                f"{NONE} only: give it a study of its own"
            )
    for name in study.phantoms:
        if name not in study.records:
            raise InputError(f"--phantom={name}: is in no --records={name}: ..., which say how its records are built")
    for name, learned in study.synthetic.items():
        if name in study.records:
            raise InputError(f"--synthetic={name}: is the name of a set of --records; choose another")
        if learned not in study.records:
            raise InputError(f"--synthetic={name}: {learned}: there is no --records={learned}: ...")
    for text in _described(study):
        raise InputError(text)


def _described(study: Definition) -> Iterator[str]:
    """What is wrong with the cells."""
    known = {*study.records, *study.synthetic}
    for group in study.cells:
        for name in (*group.sources, *group.targets):
            if name not in known:
                yield f"--cells: there is no set {name}; known: {', '.join(sorted(known))}"
        adapted = [method for method, _ in group.methods if method != NONE]
        both = set(group.sources) & set(group.targets)
        if adapted and both:
            yield f"--cells: {adapted[0]} from {min(both)} to itself: nothing to adapt to"
    if (study.cells or study.synthetic) and not study.label_versions:
        yield "--label_versions is required: --cells and --synthetic are made for each"
    if not (study.cells or study.label_stats or study.synthetic):
        yield "--cells is required: without it, --label_stats or --synthetic there is nothing to do"

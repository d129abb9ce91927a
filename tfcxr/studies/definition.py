"""What a study is: image sets, synthetic sources, and the cells of its table. Parses the notation of the flags."""

import dataclasses
import itertools
import pathlib
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

from tfcxr.classifiers import choices
from tfcxr.classifiers.adaptation import methods
from tfcxr.studies import sources
from tfrecords_builder import labels
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.benchmark_settings import NAMES as SETTINGS

NONE = "none"
MULTILABEL = "multilabel"  # the label version without classes
# The control of adaptations: the classifier of the source trained on in their loop, for as many steps, by no method.
CONTINUED = "continued"
UNADAPTED = (NONE, CONTINUED)
# Variants of an adaptation: its --target_prior.
PRIORS = ("estimate",)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Cells:
    """Sources times targets times methods, as one --cells flag names them; sources as of `sources.parse`."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    methods: tuple[tuple[str, str | None], ...]  # (method, variant or None)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the table, before it is known.

    `source` is as of `sources.parse`; `variant` the baseline's, or an adaptation's --target_prior if that is not its
    default.
    """

    label_version: str
    source: str
    target: str
    method: str
    variant: str | None
    seed: int


@dataclasses.dataclass(frozen=True)
class Learned:
    """What is made from one set: a synthetic set by a GAN, or first weights by pretraining.

    Attributes:
        records: name of the set.
        flags: of generate, or of pretrain.
    """

    records: str
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Definition:
    """A checked study.

    Attributes:
        name: of the study and its folder.
        question: that it answers, one sentence.
        table: of the thesis, such as 5.8; None for another.
        label_versions: of all record sets.
        resolution: of the record sets whose flags have none.
        label_versions_file: of versions of a user's own.
        phantoms: set name -> flags of `phantom`.
        records: set name -> flags of `build-records`.
        data: set name -> folder of its data, for sets that are not simulated.
        synthetic: name of a synthetic set -> what its GAN learns; sets that learn the same share their GANs.
        generators: name of a synthetic set -> run or export to use instead of training a GAN.
        pretraining: name of first weights -> what they learn, without labels.
        gans: how many GANs learn each set; with N, the classifier of the i-th seed sees images of GAN i modulo N.
        cells: in the order of the table.
        seeds: of the classifiers' trainings.
        adapt_from_baseline: whether an adaptation starts from the baseline of its source and seed.
        label_stats: whether the labels of each set are counted too.
        compare_sets: whether fidelity and diversity of each synthetic set are measured too.
        audit_privacy: whether each synthetic set is audited too.
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
    synthetic: Mapping[str, Learned]
    generators: Mapping[str, pathlib.Path]
    pretraining: Mapping[str, Learned]
    gans: int
    cells: tuple[Cells, ...]
    seeds: tuple[int, ...]
    adapt_from_baseline: bool
    label_stats: bool
    compare_sets: bool
    audit_privacy: bool
    flags: Mapping[str, tuple[str, ...]]

    def list_cells(self, default_variant: str | None) -> list[Cell]:
        """All cells, each once. `default_variant` is that of a method `none` without one."""
        found: dict[Cell, None] = {}
        for version, group in itertools.product(self.label_versions, self.cells):
            for source, target, (method, variant) in itertools.product(group.sources, group.targets, group.methods):
                for seed in self.seeds:
                    chosen = variant or default_variant if method == NONE else variant
                    found[Cell(version, source, target, method, chosen, seed)] = None
        return list(found)

    def parse_source(self, text: str) -> sources.Source:
        """A source of the study's cells."""
        return sources.parse(text, (*sources.WEIGHTS, *self.pretraining))


def parse_learned(flag: str, name: str, text: str) -> Learned:
    """`SET FLAGS`, see `parse_tokens`. Raises InputError if there is no SET."""
    records, _, flags = text.partition(" ")
    if not _NAME.fullmatch(records):
        raise InputError(f"--{flag}={name}: {text}: must look like {name}: SET FLAGS")
    return Learned(records, parse_tokens(flag, flags))


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
    """`SOURCE, ... -> TARGET, ...: METHOD, ...`; see `sources.parse`, and for a method's variant `Cell`.

    Raises InputError that says what is wrong with the line.
    """
    sides, colon, right = line.rpartition(":")
    source, arrow, target = sides.partition("->")
    if not colon or not arrow:
        raise InputError(f"--cells={line}: must look like SOURCE, ... -> TARGET, ...: METHOD, ...")
    parts = [tuple(word.strip() for word in part.split(",")) for part in (source, target, right)]
    if not all(word for part in parts for word in part):
        raise InputError(f"--cells={line}: a name is missing")
    names = tuple("".join(name.split()) for name in parts[0])
    return Cells(names, parts[1], tuple(_parse_method(line, word) for word in parts[2]))


def _parse_method(line: str, word: str) -> tuple[str, str | None]:
    method, slash, variant = word.partition("/")
    method = methods.FORMER_NAMES.get(method, method)
    if method not in methods.METHODS:
        raise InputError(f"--cells={line}: there is no method {method}; choose one of {', '.join(methods.METHODS)}")
    known = {NONE: tuple(choices.VARIANTS), CONTINUED: ()}.get(method, PRIORS)
    if slash and variant not in known:
        listed = ", ".join(f"{method}/{name}" for name in known) or "none"
        raise InputError(f"--cells={line}: there is no {word}; variants of {method} are: {listed}")
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
        # The classes of a setting are known for images with a table, and not for synthetic ones.
        if (version in SETTINGS or labels.get_label_version(version, own).multilabel) and adapted:
            raise InputError(
                f"--label_versions={version}: has no classes, which {adapted[0]} needs; its cells can have the method "
                f"{NONE} only: give it a study of its own"
            )
    for name in study.phantoms:
        if name not in study.records:
            raise InputError(f"--phantom={name}: is in no --records={name}: ..., which say how its records are built")
    for flag, made in (("synthetic", study.synthetic), ("pretraining", study.pretraining)):
        for name, learned in made.items():
            if name in study.records or (flag == "pretraining" and name in study.synthetic):
                raise InputError(f"--{flag}={name}: is the name of a set; choose another")
            if learned.records not in study.records:
                raise InputError(f"--{flag}={name}: {learned.records}: there is no --records={learned.records}: ...")
    for name in (*study.records, *study.synthetic, *study.pretraining):
        if name in sources.WEIGHTS:
            raise InputError(
                f"--cells: {name} stands for --weights={name} at the start of a source; choose another name"
            )
    for name in study.generators if study.gans > 1 else ():
        raise InputError(f"--gans={study.gans}: --generators has one GAN for {name}; leave out one of the two")
    for text in _described(study):
        raise InputError(text)


def _described(study: Definition) -> Iterator[str]:
    """What is wrong with the cells."""
    known = {*study.records, *study.synthetic}
    for group in study.cells:
        parsed = [study.parse_source(text) for text in group.sources]
        for name in (*(name for source in parsed for name in source.names), *group.targets):
            if name not in known:
                yield f"--cells: there is no set {name}; known: {', '.join(sorted(known))}"
        adapted = [method for method, _ in group.methods if method != NONE]
        for source in parsed if adapted else ():
            last = source.stages[-1]
            if last.records in group.targets:
                yield f"--cells: {adapted[0]} from {source} to itself: nothing to adapt to"
            if str(last) != last.records:
                yield f"--cells: {adapted[0]} from {source}: adaptation reads a whole set, write {last.records}"
            if str(source) != last.records and not study.adapt_from_baseline:
                yield f"--cells: {adapted[0]} from {source}: needs --adapt_from_baseline"
    if (study.cells or study.synthetic) and not study.label_versions:
        yield "--label_versions is required: --cells and --synthetic are made for each"
    if not (study.cells or study.label_stats or study.synthetic):
        yield "--cells is required: without it, --label_stats or --synthetic there is nothing to do"

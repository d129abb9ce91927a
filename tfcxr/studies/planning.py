"""A definition as a graph of jobs: phantom -> records -> GAN -> synthetic set -> trainings -> evaluation."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tfcxr.classifiers import choices
from tfcxr.classifiers.adaptation import methods
from tfcxr.studies import definition, numerics
from tfcxr.studies.definition import MULTILABEL, NONE, Cell, Definition
from tfcxr.studies.fingerprints import Fingerprints
from tfcxr.studies.sources import WEIGHTS, Source
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.benchmark_settings import NAMES as SETTINGS

# A job's output does not depend on these.
IGNORED = ("overwrite", "workers")


@dataclasses.dataclass(frozen=True)
class Resolved:
    """All flags of a command, presets expanded.

    Attributes:
        values: flag -> value.
        defaults: flags that have their default value.
        reads: flags that are the path of something to read -> path.
        writes: flags that name what to write, or a cache.
    """

    values: Mapping[str, Any]
    defaults: Collection[str]
    reads: Mapping[str, pathlib.Path]
    writes: Collection[str]

    def settings(self) -> dict[str, Any]:
        """The flags on which the output depends, by their values: paths are in it as they were written.

        Defaults are left out, so that a flag that a later version adds changes no key of what it leaves as it was. One
        whose default changes needs a new version of the numerics.
        """
        return {flag: value for flag, value in self.values.items() if flag not in IGNORED and flag not in self.defaults}


# (command, its flags) -> Resolved; raises InputError. Given by the program, since libraries know no flags.
Resolve = Callable[[str, Sequence[str]], Resolved]


@dataclasses.dataclass(frozen=True)
class Job:
    """One tfcxr command.

    Attributes:
        id: unique, fit for a file name.
        kind: the command.
        flags: its flags, but for those of paths.
        inputs: flag -> id of the job whose output it names.
        external: flag -> existing path outside of the study.
        output: folder in the workspace, or in the output of the job `inside`.
        inside: id of the job in whose output this one lies; None once `stamps` has chosen the folder.
        former_output: what `output` was called by earlier versions, if it had another name.
        key: digest of all that determines the output.
        numerics: version of the numbers that the command makes, see `numerics`.
        newest: when the newest file outside of the study that it reads was changed, in seconds since the epoch.
    """

    id: str
    kind: str
    flags: tuple[str, ...]
    inputs: Mapping[str, str]
    external: Mapping[str, pathlib.Path]
    output: str
    inside: str | None = None
    former_output: str | None = None
    key: str = ""
    numerics: int = 1
    newest: float = 0.0

    @property
    def output_flag(self) -> str:
        """The flag that names the output."""
        return "run_dir" if self.trains else "output_dir"

    @property
    def trains(self) -> bool:
        """Whether it is a training, whose folder grows and resumes; other outputs appear whole."""
        return self.kind.startswith("train-") or self.kind == "pretrain"

    def arguments(self, outputs: Mapping[str, str]) -> list[str]:
        """The command's flags; `outputs` has the path of each job's output."""
        paths = {flag: outputs[job] for flag, job in self.inputs.items()}
        paths |= {flag: str(path) for flag, path in self.external.items()}
        return [*self.flags, *(f"--{f}={p}" for f, p in paths.items()), f"--{self.output_flag}={outputs[self.id]}"]


@dataclasses.dataclass(frozen=True)
class Graph:
    """Jobs by id, each after those it needs, and the cells with the ids of their jobs (training, evaluation)."""

    jobs: Mapping[str, Job]
    cells: Sequence[tuple[Cell, str, str]]


def plan(study: Definition, resolve: Resolve) -> Graph:
    """Expands a definition.

    Raises InputError: the definition, a preset or a flag of a command cannot be used.
    """
    definition.check(study)
    planner = _Planner(study, resolve)
    variants = [variant for group in study.cells for method, variant in group.methods if method == NONE]
    default = planner.default_variant() if study.adapt_from_baseline or None in variants else None
    cells = [(cell, *planner.cell(cell, default)) for cell in study.list_cells(default)]
    for name in study.records if study.label_stats else ():
        planner.label_stats(name)
    for name in study.synthetic if not cells else ():
        for version in study.label_versions:
            planner.records(name, version)
    planner.examine()
    return Graph(planner.jobs, cells)


class _Planner:
    """Adds the jobs that are asked for, and those that they need."""

    def __init__(self, study: Definition, resolve: Resolve):
        self._study = study
        self._resolve = resolve
        self._fingerprints = Fingerprints()
        self.jobs: dict[str, Job] = {}
        self._made: dict[
            str, tuple[str, str, str]
        ] = {}  # generate job -> name, label version, set that its GAN learned

    def cell(self, cell: Cell, default_variant: str | None) -> tuple[str, str]:
        """Ids of the cell's training and evaluation."""
        if cell.method == NONE:
            source = self._study.parse_source(cell.source)
            training = self._baseline(cell.label_version, source, cell.variant, cell.seed)
        else:
            training = self._adaptation(cell, default_variant)
        name = training.removeprefix("train-baseline-").removeprefix("train-dcan-")
        return training, self._add(
            "evaluate",
            f"{name}-on-{cell.target}",
            {},
            {"model": training, "records": self.records(cell.target, cell.label_version)},
            output=f"evaluations/{cell.target}",
            inside=training,
        )

    def records(self, name: str, version: str, gan: int = 0) -> str:
        """Id of the job that makes the record set, real or of the GAN of that number, of a label version."""
        learned = self._study.synthetic.get(name)
        # A GAN draws labels; to find the classes of a setting takes a table, and the benchmark's classifiers have none.
        own: dict[str, Any] = {"label_version": MULTILABEL if learned and version in SETTINGS else version}
        if self._study.label_versions_file:
            own["label_versions_file"] = self._study.label_versions_file
        resolution = self._resolution(learned.records if learned else name)
        if not learned:
            return self._add(
                "build-records",
                f"{name}-{version}",
                own | {"resolution": resolution},
                **self._data(name),
                output=f"records/{name}/{version}/{resolution}",
                user=self._study.records[name],
            )
        inputs, external = {}, {}
        if gan:
            own["seed"] = self._seed("generate", learned.flags) + gan
        if name in self._study.generators:
            folder = self._study.generators[name]
            external["run_dir" if (folder / "config.json").is_file() else "generator"] = folder
        else:
            inputs["run_dir"] = self._gan(learned.records, version, gan)
        name = f"{name}{_number(gan)}"
        output = f"records/{name}/{version}/{resolution}"
        user = [*self._study.flags.get("generate", ()), *learned.flags]
        job = self._add("generate", f"{name}-{version}", own, inputs, external, output=output, user=user)
        self._made[job] = (name, version, learned.records)
        return job

    def examine(self) -> None:
        """Compares and audits the synthetic sets that there are so far, if the study wants it."""
        for made, (name, version, learned) in list(self._made.items()):
            if self._study.compare_sets:
                real = self.records(learned, version)
                inputs = {"synthetic": made, "real": real, "holdout": real}
                output = f"comparisons/{name}/{version}"
                self._add("compare-sets", f"{name}-{version}", {}, inputs, output=output)
            if self._study.audit_privacy:
                inputs = {"synthetic": made, "train": self.records(learned, _learned_version(version))}
                job = self.jobs[made]
                if "run_dir" in job.inputs:
                    inputs["gan_run"] = job.inputs["run_dir"]
                external = {"gan_run": job.external["run_dir"]} if "run_dir" in job.external else {}
                self._add("audit-privacy", f"{name}-{version}", {}, inputs, external, output=f"audits/{name}/{version}")

    def _resolution(self, name: str) -> int:
        """Of a set of --records, whose own flags may have another one than the study."""
        own = [token for token in self._study.records[name] if token.startswith("--resolution=")]
        return int(own[-1].partition("=")[2]) if own else self._study.resolution

    def label_stats(self, name: str) -> None:
        """Counts a set's labels, with those flags of its build-records that both commands know."""
        data = self._data(name)
        given = [*self._study.records[name], *_stand_ins(data, "--label_version=v2")]
        build = self._resolve("build-records", given).values
        known = self._resolve("label-stats", [f"--dataset={build['dataset']}", *_stand_ins(data)]).values
        own = {flag: build[flag] for flag in known if flag in build and build[flag] != known[flag]}
        own["dataset"] = build["dataset"]
        self._add("label-stats", name, own, **data, output=f"statistics/{name}")

    def default_variant(self) -> str:
        """The baseline's variant in --baseline_flags."""
        user = self._study.flags.get("train-baseline", ())
        if any("{variant}" in token for token in user):
            raise InputError(f"--cells: {NONE} needs a variant, such as {NONE}/plain: --baseline_flags has {{variant}}")
        return self._resolve("train-baseline", [*user, "--records=.", "--run_dir=x"]).values["variant"]

    def _gan(self, name: str, version: str, gan: int) -> str:
        own: dict[str, Any] = {"resolution": self._resolution(name)}
        if gan:
            own["seed"] = self._seed("train-gan") + gan
        inputs = {"records": self.records(name, _learned_version(version))}
        name = f"{name}{f'-{version}' if version in SETTINGS else ''}{_number(gan)}"
        return self._add("train-gan", name, own, inputs, output=f"runs/gan-{name}")

    def _pretraining(self, name: str) -> str:
        learned = self._study.pretraining[name]
        inputs = {"records": self.records(learned.records, MULTILABEL)}
        return self._add("pretrain", name, {}, inputs, output=f"runs/pretrain-{name}", user=learned.flags)

    def _seed(self, kind: str, more: Sequence[str] = ()) -> int:
        """The seed in the study's flags of a command, and in `more` flags of it."""
        stand_in = {"train-gan": "--records=.", "generate": "--run_dir=."}[kind]
        output = {"train-gan": "--run_dir=x", "generate": "--output_dir=x"}[kind]
        needed = ["--label_version=v2"] if kind == "generate" else []
        user = self._study.flags.get(kind, ())
        return self._resolve(kind, [*user, *more, *needed, stand_in, output]).values["seed"]

    def _baseline(self, version: str, source: Source, variant: str | None, seed: int) -> str:
        """Id of the source's last training; adds those before it."""
        if version == MULTILABEL:
            self._refuse_class_flags()
        if version in SETTINGS:
            self._check_learns_labels(version, source)
        *before, stage = source.stages
        own: dict[str, Any] = {"variant": variant, "seed": seed}
        inputs = {"records": self._learned_records(stage.records, version, seed)}
        if stage.extra:
            inputs["extra_records"] = self._learned_records(stage.extra, version, seed)
        if stage.percent is not None:
            own["labelled_fraction"] = stage.percent / 100
        if before:
            former = dataclasses.replace(source, stages=tuple(before))
            inputs["init_from"] = self._baseline(version, former, variant, seed)
        elif source.start in WEIGHTS:
            own["weights"] = source.start
        elif source.start:
            inputs["init_from"] = self._pretraining(source.start)
        name = f"{version}-{_file_name(source)}-{NONE}-{variant}-seed{seed}"
        return self._add("train-baseline", name, own, inputs, output=f"runs/{name}")

    def _learned_records(self, name: str, version: str, seed: int) -> str:
        """Id of the set that a classifier of that seed learns: of the GAN whose turn it is, if it is synthetic."""
        gan = self._study.seeds.index(seed) % self._study.gans if name in self._study.synthetic else 0
        return self.records(name, version, gan)

    def _refuse_class_flags(self) -> None:
        """Raises InputError if --baseline_flags has a flag that needs classes, which a GAN's training would precede."""
        values = self._baseline_values()
        for flag in choices.CLASS_FLAGS:
            if values[flag]:
                raise InputError(f"--baseline_flags: --{flag} needs classes, which label version {MULTILABEL} has not")

    def _check_learns_labels(self, version: str, source: Source) -> None:
        """Raises InputError if a classifier would look for the classes of a setting in synthetic images."""
        made = next((name for name in source.names if name in self._study.synthetic), None)
        if made and not self._baseline_values()["multilabel"]:
            raise InputError(
                f"--label_versions={version}: synthetic images such as {made} have its labels and not its classes; add "
                "--multilabel to --baseline_flags"
            )

    def _baseline_values(self) -> Mapping[str, Any]:
        """Of train-baseline's flags, in the study."""
        user = [token.replace("{variant}", "plain") for token in self._study.flags.get("train-baseline", ())]
        return self._resolve("train-baseline", [*user, "--records=.", "--run_dir=x"]).values

    def _adaptation(self, cell: Cell, default_variant: str | None) -> str:
        source = self._study.parse_source(cell.source)
        learned = source.stages[-1].records
        inputs = {
            "source_records": self._learned_records(learned, cell.label_version, cell.seed),
            "target_records": self.records(cell.target, cell.label_version),
        }
        if self._study.adapt_from_baseline:
            inputs["init_from"] = self._baseline(cell.label_version, source, default_variant, cell.seed)
        start, end = f"{cell.label_version}-{_file_name(source)}-to-{cell.target}", f"seed{cell.seed}"
        own = {"alignment": cell.method, "seed": cell.seed}
        if cell.variant:
            own["target_prior"] = cell.variant
        name = f"{start}-{'-'.join(part for part in (cell.method, cell.variant) if part)}-{end}"
        former = next((old for old, new in methods.FORMER_NAMES.items() if new == cell.method), None)
        former_output = f"runs/{start}-{former}-{end}" if former else None
        return self._add("train-dcan", name, own, inputs, output=f"runs/{name}", former_output=former_output)

    def _data(self, name: str) -> dict[str, Any]:
        """Where the images of a set come from, as keyword arguments of `_add`."""
        if name not in self._study.phantoms:
            return {"inputs": {}, "external": {"data_dir": self._study.data[name]}}
        job = self._add("phantom", name, {}, {}, output=f"data/{name}", user=self._study.phantoms[name])
        return {"inputs": {"data_dir": job}, "external": {}}

    def _add(
        self,
        kind: str,
        name: str,
        own: Mapping[str, Any],
        inputs: Mapping[str, str],
        external: Mapping[str, pathlib.Path] | None = None,
        *,
        output: str,
        inside: str | None = None,
        former_output: str | None = None,
        user: Sequence[str] | None = None,
    ) -> str:
        """Adds a job whose flags are `user` (default: those of its command) and the study's `own`; returns its id."""
        job_id = f"{kind}-{name}"
        if job_id in self.jobs:
            return job_id
        tokens = self._study.flags.get(kind, ()) if user is None else user
        filled = [t.replace("{method}", str(own.get("alignment"))) for t in tokens]
        filled = [t.replace("{variant}", str(own.get("variant"))) for t in filled]
        flags = (*filled, *(_flag(flag, value) for flag, value in own.items()))
        version = numerics.VERSIONS[kind]
        job = Job(job_id, kind, flags, inputs, external or {}, output, inside, former_output, numerics=version)
        key, newest = self._key(job, filled)
        self.jobs[job_id] = dataclasses.replace(job, key=key, newest=newest)
        return job_id

    def _key(self, job: Job, user: Sequence[str]) -> tuple[str, float]:
        """The job's key, and when the newest file that it reads from outside was changed."""
        # Outputs of other jobs need not be there yet, so that the current folder stands for each of them.
        places = dict.fromkeys(job.inputs.values(), ".") | {job.id: "x"}
        arguments = job.arguments(places)
        resolved = self._resolve(job.kind, arguments)
        self._refuse_conflict(job, user, resolved.values, self._resolve(job.kind, [*arguments, *user]).values)
        files, newest = {}, 0.0
        for flag, path in resolved.reads.items():
            if flag not in job.inputs:
                files[flag], changed = self._fingerprint(job, flag, path)
                newest = max(newest, changed)
        elsewhere = {*job.inputs, *resolved.reads, *resolved.writes}
        described = {
            "kind": job.kind,
            "numerics": job.numerics,
            "flags": {flag: value for flag, value in resolved.settings().items() if flag not in elsewhere},
            "inputs": {flag: self.jobs[need].key for flag, need in job.inputs.items()},
            "files": files,
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest(), newest

    def _fingerprint(self, job: Job, flag: str, path: pathlib.Path) -> tuple[str, float]:
        if not path.exists():
            raise InputError(f"{job.id}: --{flag}={path}: there is no such file or folder")
        try:
            return self._fingerprints.find(path)
        except OSError as error:
            raise InputError(f"{job.id}: --{flag}={path}: cannot be read ({error.strerror})") from error

    def _refuse_conflict(
        self, job: Job, user: Sequence[str], values: Mapping[str, Any], preferred: Mapping[str, Any]
    ) -> None:
        """Raises InputError if the user's flags of a command set what the study itself decides."""
        for flag, value in values.items():
            # These among the user's flags are defaults that a cell may replace.
            if preferred[flag] == value or flag in ("variant", "weights", "target_prior"):
                continue
            text = (
                f"--{flag}={preferred[flag]}: is among the flags of {job.kind}, but in {job.id} the study has {value}"
            )
            if any(token.partition("=")[0] == f"--{flag}" for token in user):
                raise InputError(f"{text}; leave it out there")
            presets = [token.partition("=")[2] for token in user if token.startswith("--flagfile=")]
            raise InputError(
                f"{text}; it comes from the preset {', '.join(presets)}: {self._advise(job, presets, value)}"
            )

    def _advise(self, job: Job, presets: Sequence[str], value: Any) -> str:
        """What to do about a preset that is made for another value of a flag, such as a GAN of another resolution."""
        arguments = job.arguments({**dict.fromkeys(job.inputs.values(), "."), job.id: "x"})
        for preset in presets:
            other = re.sub(r"_\d+(?=\.flags$|$)", f"_{value}", preset)
            if other != preset:
                with contextlib.suppress(InputError):
                    self._resolve(job.kind, [f"--flagfile={other}", *arguments])
                    return f"give {other} instead"
        return "choose another preset, or give its flags one by one"


def command(job: Job, outputs: Mapping[str, str], *extra: str) -> list[str]:
    """What runs the job in a process of its own."""
    return [sys.executable, "-m", "tfcxr.cli", job.kind, *job.arguments(outputs), *extra]


def _learned_version(version: str) -> str:
    """Of the records that a GAN learns: all images, or those of a setting of the benchmark."""
    return version if version in SETTINGS else MULTILABEL


def _number(gan: int) -> str:
    """What the names of the outputs of a further GAN end in."""
    return f"-gan{gan}" if gan else ""


def _file_name(source: Source) -> str:
    """The source as a part of a file name."""
    words = {">": "-then-", "+": "-and-", "@": "-", "%": "pct"}
    return "".join(words.get(character, character) for character in str(source))


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={','.join(value) if isinstance(value, list) else value}"


def _stand_ins(data: Mapping[str, Any], *more: str) -> list[str]:
    """Flags that a command requires, for looking at its other ones."""
    return [*(f"--data_dir={path}" for path in data["external"].values() or ["."]), "--output_dir=x", *more]

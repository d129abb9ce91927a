"""What the same command with the same seed makes again: each command twice with one thread, and twice with two.

Trainings are tried with each of their methods. Compared are weights, records, tables and figures, but not times.

Example: python -m tools.determinism --output=determinism.json
"""

import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from absl import flags

from flags import app, common
from tfcxr.classifiers import choices as classifier_choices
from tfcxr.classifiers.adaptation import methods
from tfcxr.gan import choices as gan_choices
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tools.torture import programs

THREADS = (1, 2)
_RUNS = 2
_CHECKPOINT = "networks.npz"


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the tool."""
    flags.DEFINE_list(
        "commands",
        [],
        "which commands, some with a method, such as `train-gan --loss=hinge`; default: all",
        flag_values=fv,
    )
    flags.DEFINE_string("output", None, "JSON to write; what it holds of other commands stays", flag_values=fv)
    common.define_required(fv, "output", "the JSON to write")


def find_cases(folder: pathlib.Path, wanted: Sequence[str] = ()) -> dict[str, programs.Case]:
    """The commands to try, by name, and the trainings with each of their methods; no `wanted` names mean all.

    Raises:
        InputError: one of the names in `wanted` is not known.
    """
    cases = programs.cases(folder) | _cases_of_many(folder)
    trained = f"--init_from={folder / 'classifier'}"
    ways: dict[str, list[tuple[str, ...]]] = {
        "train-gan": [(f"--loss={loss}",) for loss in gan_choices.LOSSES[1:]]
        + [("--arch=prog", "--train_kimg=0.08", "--fade_kimg=0.04", "--batch_sizes=4:8,8:8"), ("--augment=ada",)],
        "train-baseline": [("--optimizer=adam",), ("--stage1_solver=logistic", trained)],
        # Continued is none by another name; dcan is the default.
        "train-dcan": [
            (f"--alignment={method}", *([trained] if method.startswith("adabn") else []))
            for method in methods.METHODS
            if method not in ("continued", "dcan")
        ],
        "pretrain": [(f"--method={method}",) for method in list(classifier_choices.PRETRAINING_METHODS)[1:]],
    }
    for command, options in ways.items():
        for words in options:
            cases[f"{command} {words[0]}"] = programs.Case(command, (*cases[command].arguments, *words))
    for name in wanted:
        if name not in cases:
            raise InputError(f"--commands={name}: must be some of {', '.join(cases)}")
    return {name: case for name, case in cases.items() if not wanted or name in wanted}


def _cases_of_many(folder: pathlib.Path) -> dict[str, programs.Case]:
    """Commands that read what several others make, and one that reads another program's file."""
    output, few = f"--output_dir={folder / 'out' / 'result'}", (f"--records={folder / 'records'}", "--resamples=100")
    models = f"--models={folder / 'classifier'},{folder / 'other_classifier'}"
    evaluations = (f"--real={folder / 'evaluation'}", f"--synthetic={folder / 'other_evaluation'}")
    imported = (f"--checkpoint={folder / _CHECKPOINT}", f"--run_dir={folder / 'out' / 'result'}")
    return {
        "attribute": programs.Case("attribute", (*few, models, "--num_images=6", output)),
        "utility": programs.Case("utility", (*few, *evaluations, output)),
        "import-reference": programs.Case("import-reference", imported),
    }


def prepare(folder: pathlib.Path, cases: Sequence[programs.Case]) -> None:
    """Makes in a folder what these cases read."""
    programs.prepare(folder, cases)
    classifier = programs.cases(folder)["train-baseline"].arguments[:-1]
    evaluation = programs.cases(folder)["evaluate"].arguments[:-1]
    trained, other = folder / "classifier", folder / "other_classifier"
    others = [
        programs.Case("train-baseline", (*classifier, f"--records={folder / 'synthetic'}", f"--run_dir={other}")),
        programs.Case("evaluate", (*evaluation, f"--output_dir={folder / 'evaluation'}")),
        programs.Case("evaluate", (*evaluation, f"--model={other}", f"--output_dir={folder / 'other_evaluation'}")),
    ]
    if any(case.kind in ("attribute", "utility") or f"--init_from={trained}" in case.arguments for case in cases):
        programs.prepare(folder, [programs.cases(folder)["export-model"], *others])
        for each in others:
            programs.finish(each, folder / "log.txt")
    if any(case.kind == "import-reference" for case in cases):
        process = programs.fork(lambda: _write_networks(folder / _CHECKPOINT), folder / "log.txt")
        if programs.wait(process):
            raise RuntimeError((folder / "log.txt").read_text()[-300:])


def _write_networks(path: pathlib.Path) -> int:
    """A file of a GAN as the reference implementation keeps it, with random weights."""
    import numpy as np

    from tfcxr.gan.networks import build_networks, network_config
    from tfcxr.gan.reference import variable_names

    config = network_config.NetworkConfig(resolution=8, fmap_base=64, fmap_max=8)
    generator, discriminator = (
        variable_names.reference_variables(build(config))
        for build in (build_networks.build_generator, build_networks.build_discriminator)
    )
    networks = {"G": generator, "D": discriminator, "Gs": generator}
    arrays = {f"{name}/{key}": value.numpy() for name, found in networks.items() for key, value in found.items()}
    np.savez(path, **arrays)
    return 0


def run(name: str, case: programs.Case, folder: pathlib.Path, threads: int) -> dict[str, str]:
    """What a command leaves: name of a file -> digest of what does not depend on the time."""

    def limit() -> None:
        for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            os.environ[variable] = str(threads)

    out = programs.clear(folder)
    log = folder / "log.txt"
    code = programs.wait(programs.start(case.kind, case.arguments, log, limit))
    if code != 0:
        raise RuntimeError(f"{name} ended with {code}: {log.read_text()[-300:]}")
    return programs.snapshot(out, folder / "snapshot.json")


def compare(name: str, case: programs.Case, folder: pathlib.Path) -> dict[str, list[str]]:
    """The files that differ between two runs with one thread, two with two, and one of each."""
    made = {threads: [run(name, case, folder, threads) for _ in range(_RUNS)] for threads in THREADS}
    (one, again), (two, other) = made[1], made[2]
    return {
        "one thread": programs.differences(again, one),
        "two threads": programs.differences(other, two),
        "one and two threads": programs.differences(two, one),
    }


def main(fv: flags.FlagValues) -> None:
    """Runs, compares, writes."""
    output = pathlib.Path(fv.output)
    found: dict[str, dict[str, list[str]]] = files.read_json(output) if output.exists() else {}
    with tempfile.TemporaryDirectory(prefix="determinism-") as name:
        folder = pathlib.Path(name)
        cases = find_cases(folder, fv.commands)
        prepare(folder, list(cases.values()))
        for command, case in cases.items():
            found[command] = compare(command, case, folder)
            said = "; ".join(f"{what}: {', '.join(names) or 'equal'}" for what, names in found[command].items())
            print(f"{command}: {said}", flush=True)
            files.write_json(output, found)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

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
# Flags of the default that a way of training does not take.
_NOT_OF = {"--arch=prog": ("--batch_size=", "--init=")}


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
    cases = programs.cases(folder)
    trained = f"--init_from={folder / 'classifier'}"
    ways: dict[str, list[tuple[str, ...]]] = {
        "train-gan": [(f"--loss={loss}",) for loss in gan_choices.LOSSES[1:]]
        + [("--arch=prog", "--train_kimg=0.08", "--fade_kimg=0.04", "--batch_sizes=8:8"), ("--augment=ada",)],
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
            kept = [each for each in cases[command].arguments if not each.startswith(_NOT_OF.get(words[0], ()))]
            cases[f"{command} {words[0]}"] = programs.Case(command, (*kept, *words))
    for name in wanted:
        if name not in cases:
            raise InputError(f"--commands={name}: must be some of {', '.join(cases)}")
    return {name: case for name, case in cases.items() if not wanted or name in wanted}


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
        programs.prepare(folder, cases.values())
        for command, case in cases.items():
            found[command] = compare(command, case, folder)
            said = "; ".join(f"{what}: {', '.join(names) or 'equal'}" for what, names in found[command].items())
            print(f"{command}: {said}", flush=True)
            files.write_json(output, found)


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

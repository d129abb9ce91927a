"""Torments tfcxr: kills its commands, fills their disks, takes their memory, and feeds them what is damaged or hostile.

Every kind of trial is a process of its own, so that one that dies takes nothing with it. The summary is printed, and
written to --output_dir as torture.json and torture.md; the exit code is 1 if anything failed, and beside each failure
stands the command that shows it again. The same seed tries the same things, as far as there is time for them.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence

from absl import flags

from flags import app, common
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError
from tools.torture import trials
from tools.torture.trials import Row

_SLACK = 600  # seconds that a process gets beyond its time


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags in `fv`."""
    flags.DEFINE_float(
        "minutes", 60.0, "for all of it; each kind of trial gets its share", lower_bound=0, flag_values=fv
    )
    flags.DEFINE_list("only", [], "kinds of trials; default: all. An unknown one lists them", flag_values=fv)
    flags.DEFINE_string(
        "input", None, "file to give to the one kind of --only, which shows what happens", flag_values=fv
    )
    flags.DEFINE_string("output_dir", "torture", "folder of the summary, and of inputs that failed", flag_values=fv)
    flags.DEFINE_list("commands", [], "those that limits are tried on; default: all", flag_values=fv)
    flags.DEFINE_integer("trials", None, "of each kind, at most; default: as many as are meant", flag_values=fv)
    common.define_seed(fv)


def kinds() -> dict[str, float]:
    """The kinds of trials, and their shares of the time."""
    from tools.torture import damage, kills, limits, texts

    fuzzed = {**dict.fromkeys(texts.SURFACES, 1.0), **dict.fromkeys(damage.SURFACES, 1.5)}
    return {**fuzzed, **kills.SHARES, **limits.SHARES}


def run_kind(
    kind: str,
    folder: pathlib.Path,
    scratch: pathlib.Path,
    *,
    seed: int,
    count: int | None,
    until: float,
    commands: Sequence[str] = (),
) -> Row:
    """Runs one kind of trial in this process; `scratch` is a folder that all kinds of a call share."""
    from tools.torture import kills, limits

    if kind in limits.SHARES:
        return limits.run(kind, scratch, folder, seed=seed, count=count, until=until, commands=commands)
    place = trials.fresh(scratch / kind)
    if kind in kills.SHARES:
        return kills.run(kind, place, folder, seed=seed, count=count, until=until)
    surface = _surfaces(kind)[kind](place)
    return trials.try_inputs(kind, surface, folder, seed=seed, count=count or surface.count, until=until)


def main(fv: flags.FlagValues) -> int:
    """Runs the trials."""
    shares, folder = kinds(), pathlib.Path(fv.output_dir)
    unknown = [kind for kind in fv.only if kind not in shares]
    if unknown:
        raise InputError(f"--only={unknown[0]}: is not one of {', '.join(shares)}")
    chosen = fv.only or list(shares)
    if fv.input:
        return _show_again(chosen, pathlib.Path(fv.input))
    if fv.commands:
        from tools.torture import programs

        known = programs.cases(folder)
        wrong = [name for name in fv.commands if name not in known]
        if wrong:
            raise InputError(f"--commands={wrong[0]}: is not one of {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    end = time.monotonic() + fv.minutes * 60
    with tempfile.TemporaryDirectory() as scratch:
        for number, kind in enumerate(chosen):
            # What one does not use goes to those after it.
            left = sum(shares[each] for each in chosen[number:])
            seconds = max(0.0, end - time.monotonic()) * shares[kind] / left
            row = _in_process(
                kind,
                trials.fresh(folder / kind),
                pathlib.Path(scratch),
                seed=fv.seed,
                count=fv.trials,
                seconds=seconds,
                commands=fv.commands,
            )
            rows.append(row)
            print(_line(row), flush=True)
            write(rows, folder, f"python -m tools.torture --minutes={fv.minutes:g} --seed={fv.seed}")
    failed = [row.kind for row in rows if row.failures]
    print(
        f"{sum(row.trials for row in rows):,} trials, {sum(len(row.failures) for row in rows)} failures; see {folder}"
    )
    if failed:
        raise RunError(f"failed: {', '.join(failed)}; {folder / 'torture.md'} has the commands that show it again")
    return 0


def _surfaces(kind: str) -> dict[str, Callable[[pathlib.Path], trials.Surface]]:
    """Those of the module that has it: the other one imports TensorFlow."""
    from tools.torture import texts

    if kind in texts.SURFACES:
        return texts.SURFACES
    from tools.torture import damage

    return damage.SURFACES


def _in_process(
    kind: str,
    folder: pathlib.Path,
    scratch: pathlib.Path,
    *,
    seed: int,
    count: int | None,
    seconds: float,
    commands: Sequence[str] = (),
) -> Row:
    """Runs a kind in a process of its own, whose output goes to a file, and returns its row."""
    result = folder / "row.json"
    code = (
        "import dataclasses, json, pathlib, sys, time\n"
        "from tools.torture import __main__ as torture\n"
        "kind, folder, scratch, options, seconds = json.loads(sys.argv[1])\n"
        "until = time.monotonic() + seconds\n"
        "row = torture.run_kind(kind, pathlib.Path(folder), pathlib.Path(scratch), **options, until=until)\n"
        "pathlib.Path(folder, 'row.json').write_text(json.dumps(dataclasses.asdict(row)))\n"
    )
    options = {"seed": seed, "count": count, "commands": list(commands)}
    command = [sys.executable, "-c", code, json.dumps([kind, str(folder), str(scratch), options, seconds])]
    start = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        try:
            ended = subprocess.run(command, stdout=log, stderr=log, timeout=seconds + _SLACK, check=False).returncode
        except subprocess.TimeoutExpired:
            ended = None
    if result.is_file():
        return Row(**json.loads(result.read_text()))
    what = "took too long" if ended is None else f"the process ended with {ended}"
    again = f"python -m tools.torture --only={kind} --seed={seed} --input={folder / 'last'}"
    failure = {"what": f"{what}; see {folder / 'log.txt'}", "where": "", "command": again}
    return Row(kind, trials=1, seconds=time.monotonic() - start, failures=[failure])


def _show_again(chosen: list[str], path: pathlib.Path) -> int:
    if len(chosen) != 1:
        raise InputError(f"--input={path}: needs one kind, by --only")
    surfaces = _surfaces(chosen[0])
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as place:
        surface = surfaces[chosen[0]](pathlib.Path(place))
        try:
            surface.check(data)
        except surface.refusals as error:
            print(f"refused, as it should be: {error}")
        except Exception:  # to be looked at
            traceback.print_exc(file=sys.stdout)
            return 1
        else:
            print("taken")
    return 0


def _line(row: Row) -> str:
    return (
        f"{row.kind}: {row.trials} trials, {row.passed} passed ({row.refused} refused), {len(row.failures)} failed, "
        f"{row.seconds:.0f} s{', ' if row.note else ''}{row.note}"
    )


def write(rows: list[Row], folder: pathlib.Path, command: str) -> None:
    """Writes torture.json and torture.md."""
    value = {"schema_version": 1, "command": command, "kinds": [dataclasses.asdict(row) for row in rows]}
    files.write_json(folder / "torture.json", value)
    lines = [
        "| kind | trials | passed | of these refused | failed |",
        "|---|---|---|---|---|",
        *(f"| {row.kind} | {row.trials} | {row.passed} | {row.refused} | {len(row.failures)} |" for row in rows),
        f"| all | {sum(row.trials for row in rows)} | {sum(row.passed for row in rows)} | "
        f"{sum(row.refused for row in rows)} | {sum(len(row.failures) for row in rows)} |",
    ]
    failures = [f"- {row.kind}: {each['what']} (`{each['command']}`)" for row in rows for each in row.failures]
    text = "\n".join([*lines, *_outcomes(rows), *(["", "Failures:", "", *failures] if failures else [])])
    files.write_text(folder / "torture.md", f"{text}\n")


def _outcomes(rows: list[Row]) -> list[str]:
    """A table of what commands ended with under each limit."""
    limits = [row for row in rows if row.outcomes]
    commands = list(dict.fromkeys(name for row in limits for name in row.outcomes))
    if not commands:
        return []
    return [
        "",
        f"| exit codes | {' | '.join(row.kind.removeprefix('limit_') for row in limits)} |",
        f"|---|{'---|' * len(limits)}",
        *(f"| {name} | {' | '.join(row.outcomes.get(name, '') for row in limits)} |" for name in commands),
    ]


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

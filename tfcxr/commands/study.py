"""Runs a whole study from one flagfile: simulates or reads data, builds records, trains GANs and classifiers,
evaluates, and puts the results in one table, the thesis's figures beside ours.

Every job is a tfcxr command with a log of its own. What is done and unchanged is skipped, so that the same command
goes on after a stop, and only what a changed flag or file affects runs again, beside what was made before. All flags
and the columns and classes of tables are checked before anything runs. A failed job leaves its cells empty and
marked; the rest goes on, and the exit code is 1. The same call takes over what a script of --emit has made.
--only runs one job, --collect none but makes the table.
Example: tfcxr study --flagfile=study/phantom --seeds=0,1,2 --jobs=2
"""

import sys

from flags import app, common, study


def define_flags(fv):
    """Defines the flags of study."""
    study.define_question(fv)
    study.define_sets(fv)
    study.define_table(fv)
    study.define_jobs(fv)
    study.define_running(fv)


def main(fv):
    """Runs the study."""
    import pathlib

    from tfcxr.studies import planning
    from tfcxr.studies import study as study_lib
    from tfrecords_builder.errors import InputError, RunError

    definition = _definition(fv)
    workspace = pathlib.Path(fv.workspace)
    folder = pathlib.Path(fv.output_dir or workspace / "studies" / definition.name)
    here = ("only", "collect", "if_running", "dry_run", "emit", "slurm")  # of this call, not of the study
    written = {name: fv[name].value for name in sorted(fv) if name not in here and fv[name].value not in (None, "", [])}
    options = _slurm_options(fv)
    if fv.only and fv.collect:
        raise InputError("--only and --collect: one runs a job, the other none; leave one out")
    graph = planning.plan(definition, _resolve)
    whole = study_lib.Study(definition, graph, written, workspace, folder, _resolve)
    if fv.dry_run:
        print(whole.describe(), flush=True)
        whole.check(_check)
        return None
    if fv.emit:
        flags = [fv[name].serialize() for name in fv if fv[name].present and name not in (*here, "flagfile")]
        print(whole.emit(fv.emit, [line for flag in flags for line in flag.split("\n")], options), end="")
        return None
    if fv.only:
        whole.run_only(fv.only, _check)
        return None
    if not fv.collect:
        whole.check(_check)
    with whole.opened(fv.if_running) as lock_handle:
        app.write_flags(fv, folder)
        whole.run(fv.jobs, lock_handle, collect=fv.collect)
    if failed := whole.failed():
        raise RunError(f"{len(failed)} of {len(whole.graph.jobs)} jobs are not done: {', '.join(failed)}; see {folder}")
    return None


def _definition(fv):
    from tfcxr import zoo
    from tfcxr.studies import definition, results
    from tfrecords_builder.errors import InputError

    if not fv.name:
        raise InputError("--name is required: of the study; or give a preset, such as --flagfile=study/phantom")
    if fv.table and fv.table not in results.Published().tables:
        raise InputError(f"--table={fv.table}: must be one of {', '.join(results.Published().tables)}")
    if not all(seed.isdecimal() for seed in fv.seeds) or not fv.seeds:
        raise InputError(f"--seeds={','.join(fv.seeds)}: must be whole numbers, such as 0,1,2")
    phantoms = definition.parse_named("phantom", fv.phantom)
    records = definition.parse_named("records", fv.records)
    synthetic, pretraining = (
        {
            name: definition.parse_learned(flag, name, text)
            for name, text in definition.parse_named(flag, fv[flag].value).items()
        }
        for flag in ("synthetic", "pretraining")
    )
    return definition.Definition(
        **{name: fv[name].value for name in ("name", "question", "table", "label_versions_file", "resolution")},
        label_versions=tuple(fv.label_versions),
        phantoms={name: definition.parse_tokens("phantom", text) for name, text in phantoms.items()},
        records={name: definition.parse_tokens("records", text) for name, text in records.items()},
        data=definition.parse_folders("data", _split(fv.data), [name for name in records if name not in phantoms]),
        synthetic=synthetic,
        pretraining=pretraining,
        gans=fv.gans,
        generators=definition.parse_folders(
            "generators", _split(fv.generators), synthetic, all_needed=False, by_name=zoo.folders()
        ),
        cells=tuple(definition.parse_cells(line) for line in fv.cells),
        seeds=tuple(int(seed) for seed in fv.seeds),
        adapt_from_baseline=fv.adapt_from_baseline,
        label_stats=fv.label_stats,
        compare_sets=fv.compare_sets,
        audit_privacy=fv.audit_privacy,
        flags={command: definition.parse_tokens(name, fv[name].value) for name, command in study.COMMANDS.items()},
    )


def _slurm_options(fv):
    """Kind of job -> its options of sbatch."""
    import shlex

    from tfcxr.studies import definition, numerics
    from tfrecords_builder.errors import InputError

    options = definition.parse_named("slurm", fv.slurm)
    for kind, text in options.items():
        if kind not in numerics.VERSIONS and kind != "table":
            raise InputError(f"--slurm={kind}: ...: must be one of {', '.join(numerics.VERSIONS)} or table")
        try:
            shlex.split(text)
        except ValueError as error:
            raise InputError(f"--slurm={kind}: {text}: {error}") from error
    return options


def _split(lists):
    """The entries of a flag that holds several with commas between them, and may be given more than once."""
    import csv

    return [entry.strip() for line in csv.reader(lists, skipinitialspace=True) for entry in line]


def _resolve(kind, arguments):
    """All flags of a command, see planning.Resolved."""
    import pathlib

    from tfcxr.studies import planning

    fv = _parse(kind, arguments)
    paths = [fv[name] for name in fv if isinstance(fv[name], common.PathFlag)]
    reads = {flag.name: pathlib.Path(flag.value) for flag in paths if flag.names_a_path and flag.reads}
    defaults = {name for name in fv if fv[name].value == fv[name].default}
    return planning.Resolved(fv.flag_values_dict(), defaults, reads, {flag.name for flag in paths if not flag.reads})


def _check(kind, arguments, pending):
    """Has a command check its flags; `pending`: those that name what has yet to be made."""
    check = getattr(_module(kind), "check", None)
    if check:
        check(_parse(kind, arguments), pending)


def _parse(kind, arguments):
    from tfrecords_builder.errors import InputError

    try:
        return app.parse(_module(kind).define_flags, [kind, *arguments])
    except InputError as error:
        raise InputError(f"flags of {kind}: {error}") from error


def _module(kind):
    import importlib

    from tfcxr import cli

    return importlib.import_module(cli.COMMANDS[kind][0])


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

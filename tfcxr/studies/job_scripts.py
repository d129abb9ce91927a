"""The jobs as a script, for machines where the study itself does not run."""

import shlex
from collections.abc import Callable, Sequence

from tfcxr.studies.planning import Graph, Job

_TOOL = "$TFCXR"
_HEAD = """\
#!/usr/bin/env bash
# {title}
# {how}
set -euo pipefail
export TFCXR=${{TFCXR:-tfcxr}}
cd {folder}
"""


def emit_shell(graph: Graph, name: str, folder: str, line: Callable[[Job], Sequence[str]], collect: str) -> str:
    """A bash script of all jobs, one after another; it stops at the first that fails.

    Args:
        graph: the jobs.
        name: of the study.
        folder: to run in.
        line: a job's result.json ("" to run it in any case), its command and its flags.
        collect: flags of `tfcxr study` for reading the results at the end.
    """
    how = "Run with bash; call it again after a stop: finished jobs are skipped, trainings go on."
    parts = [_HEAD.format(title=f"Study {name}", how=how, folder=shlex.quote(folder))]
    for job in graph.jobs.values():
        parts.append(f"\n# {job.id}\n{_line(line(job))}\n")
    return "".join([*parts, f"\n# The table: takes over what the jobs have made.\n{_TOOL} study {collect}\n"])


def emit_slurm(graph: Graph, name: str, folder: str, line: Callable[[Job], Sequence[str]], collect: str) -> str:
    """A bash script that submits an array of SLURM jobs for each level of the graph; arguments as of `emit_shell`.

    A level starts when all of the level before have ended, well or not, so that one failure stops only what needs it.
    """
    how = "Submit with bash, where sbatch is. Time, memory, GPUs: SBATCH_TIMELIMIT, SBATCH_PARTITION, SBATCH_GPUS ..."
    parts = [_HEAD.format(title=f"Study {name}", how=how, folder=shlex.quote(folder))]
    before = ""
    for number, jobs in enumerate(graph.levels(), 1):
        title = f"--job-name={name}-{number} --array=1-{len(jobs)}"
        parts.append(f"\nlevel{number}=$(sbatch --parsable {title}{before} <<'EOF'\n#!/usr/bin/env bash\nset -eu\n")
        parts.append('case "$SLURM_ARRAY_TASK_ID" in\n')
        parts += [f"{task}) # {job.id}\n  {_line(line(job))} ;;\n" for task, job in enumerate(jobs, 1)]
        parts.append("esac\nEOF\n)\n")
        before = f" --dependency=afterany:$level{number}"
    last = f"#!/usr/bin/env bash\n{_TOOL} study {collect}\n"
    parts.append(
        f"\n# The table: takes over what the jobs have made.\nsbatch --job-name={name}-table{before} <<'EOF'\n"
    )
    return "".join([*parts, last, "EOF\n"])


def _line(parts: Sequence[str]) -> str:
    """A job's command, run unless its result is there."""
    result, command, *flags = parts
    skip = f"[ -e {shlex.quote(result)} ] || " if result else ""
    return f"{skip}{_TOOL} {command} {shlex.join(flags)}"

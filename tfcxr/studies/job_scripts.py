"""The jobs as a script, for machines where the study itself does not run."""

import shlex
from collections.abc import Callable, Mapping, Sequence

from tfcxr.studies.planning import Graph, Job

_TOOL = "$TFCXR"
_SHELL_HEAD = """\
#!/usr/bin/env bash
# Study {name}
# Run with bash; call it again after a stop: finished jobs are skipped, trainings go on.
set -euo pipefail
export TFCXR=${{TFCXR:-tfcxr}}
cd {folder}
"""

# The batch shell gets USR1 before the limit (B:), and asks the job to save. The signal ends `wait`, so that it waits
# again. TFCXR is written into each job, since with SBATCH_EXPORT=NONE the job has no variable of the submitting shell.
_SLURM_HEAD = """\
#!/usr/bin/env bash
# Study {name}
# Submit with bash, where sbatch is; submit it again after a failure: finished jobs end at once, trainings go on.
# Resources: --slurm of tfcxr study for each kind of job; SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS ... for all.
set -euo pipefail
TFCXR=${{TFCXR:-$(command -v tfcxr || echo tfcxr)}}
cd {folder}
study=({flags})
logs={logs}
mkdir -p "$logs"

submit() {{ # NAME FLAG_OF_STUDY OPTIONS_OF_SBATCH...: prints the number of the job
  local name=$1 flag=$2
  shift 2
  {{
    printf '#!/usr/bin/env bash\\nset -- %s %s\\n' "$TFCXR" "$(printf '%q ' "${{study[@]}}" "$flag")"
    cat <<'EOF'
requeue=
trap 'requeue=yes; kill -TERM $job' USR1
"$@" &
job=$!
code=0
wait $job || code=$?
if [ "$requeue" ]; then
  code=0
  wait $job || code=$?
  if [ $code -gt 128 ]; then
    echo "saved before the time limit; queued again"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
  fi
fi
exit $code
EOF
  }} | sbatch --parsable --job-name={name}-"$name" --output="$logs/$name.slurm.log" --open-mode=append \\
    --kill-on-invalid-dep=yes --requeue --signal=B:USR1@120 "$@" | cut -d';' -f1
}}

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
    parts = [_SHELL_HEAD.format(name=name, folder=shlex.quote(folder))]
    for job in graph.jobs.values():
        parts.append(f"\n# {job.id}\n{_line(line(job))}\n")
    return "".join([*parts, f"\n# The table: takes over what the jobs have made.\n{_TOOL} study {collect}\n"])


def emit_slurm(
    jobs: Sequence[Job], name: str, folder: str, logs: str, flags: Sequence[str], options: Mapping[str, str]
) -> str:
    """A bash script that submits a SLURM job for each job, after those that it needs, and one for the table after all.

    Where a job fails, SLURM cancels those that need it; the table comes in any case, and says what is missing.

    Args:
        jobs: those that are not done, each after those it needs.
        name: of the study.
        folder: to run in.
        logs: folder of the logs.
        flags: of `tfcxr study`.
        options: kind of job, or `table` -> its options of sbatch.
    """
    study = shlex.join(["study", *flags])
    parts = [_SLURM_HEAD.format(name=name, folder=shlex.quote(folder), logs=shlex.quote(logs), flags=study)]
    numbers: dict[str, str] = {}
    for job in jobs:
        before = "".join(f":${numbers[need]}" for need in dict.fromkeys(job.inputs.values()) if need in numbers)
        after = [f"--dependency=afterok{before}"] if before else []
        numbers[job.id] = f"job{len(numbers) + 1}"
        line = [job.id, f"--only={job.id}", *after, *shlex.split(options.get(job.kind, ""))]
        parts.append(f"{numbers[job.id]}=$(submit {_quote(line)})\n")
    every = "".join(f":${number}" for number in numbers.values())
    after = [f"--dependency=afterany{every}"] if every else []
    line = ["table", "--collect", *after, *shlex.split(options.get("table", ""))]
    parts.append(f"table=$(submit {_quote(line)})\n")
    parts.append(f'echo "{len(numbers)} jobs submitted; the table is job $table; logs: $logs"\n')
    return "".join(parts)


def _quote(words: Sequence[str]) -> str:
    """The words for bash, in which those of dependencies keep their variables."""
    return " ".join(word if word.startswith("--dependency=after") else shlex.quote(word) for word in words)


def _line(parts: Sequence[str]) -> str:
    """A job's command, run unless its result is there."""
    result, command, *flags = parts
    skip = f"[ -e {shlex.quote(result)} ] || " if result else ""
    return f"{skip}{_TOOL} {command} {shlex.join(flags)}"

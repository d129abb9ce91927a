"""The script of --emit=slurm on a real SLURM of one node, which the test starts in a temporary folder.

It needs the packages slurm-wlm and munge of Debian, and root. The commands of most jobs are stand-ins: the script, the
cluster, its signals, limits and dependencies are what is tested here. A GAN is trained for real.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes, study_runs, workers
from tests.conftest import ROOT
from tests.test_docs import code_blocks
from tfcxr import cli

pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))) or os.geteuid() != 0,
        reason="needs root, and SLURM with munge: apt-get install slurm-wlm munge",
    ),
]

CONFIG = """\
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={port}
SlurmdPort={node_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

# The GAN's first call takes until it is asked to save, its second goes on; it says what it is, and what is there.
TOOL = """\
#!/usr/bin/env bash
word="${{!#}}"
[ "$word" != "{fails}" ] || exit 1
if [ "$word" = --only=train-gan-a ] && [ "{slow}" ] && [ ! -e {folder}/saved ]; then
  trap 'touch {folder}/saved; echo "$word saved" >> {folder}/calls; exit 143' TERM
  while :; do sleep 0.2; done
fi
echo "$word" >> {folder}/calls
"""


# Does what the GAN needs, and the GAN, for real.
REAL_TOOL = """\
#!/usr/bin/env bash
case "${{!#}}" in
  --only=phantom-a | --only=build-records-a-multilabel | --only=train-gan-a)
    export PYTHONPATH={code} TF_NUM_INTRAOP_THREADS=1  # as here: more threads add in other orders
    exec {python} -m tfcxr "$@" ;;
esac
"""


def free_ports():
    with socket.socket() as one, socket.socket() as two:
        one.bind(("", 0))
        two.bind(("", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture(scope="module")
def slurm():
    """A cluster of this machine: the environment of its clients."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm"))  # not tmp_path: the path of a socket has to be short
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    port, node_port = free_ports()
    text = CONFIG.format(
        host=socket.gethostname().split(".")[0], folder=folder, port=port, node_port=node_port, cpus=os.cpu_count()
    )
    (folder / "slurm.conf").write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            output = (folder / f"{command[0]}.out").open("wb")
            daemons.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            )
            time.sleep(2)
        wait_for(lambda: "idle" in client(environment, "sinfo", "--noheader", "--format=%T"), 60)
        yield environment
        client(environment, "scancel", "--user=root")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def client(environment, *command):
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True).stdout


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


def run_study(slurm, capsys, tmp_path, *flags, fails="", slow=""):
    """Runs the tiny study with stand-ins; what its commands were called with, in order."""
    submit(slurm, capsys, tmp_path, TOOL.format(folder=tmp_path, fails=fails, slow=slow), *flags)
    return (tmp_path / "calls").read_text().split("\n")[:-1]


def submit(slurm, capsys, tmp_path, text, *flags):
    """Submits the tiny study's script, whose commands a script of this text runs, and waits for its end."""
    definition = study_runs.write_definition(tmp_path)
    arguments = [f"--flagfile={definition}", f"--workspace={tmp_path}/w", *flags, "--emit=slurm"]
    assert cli.main(["study", *arguments]) == 0
    tool = tmp_path / "tool"
    tool.write_text(text)
    tool.chmod(0o755)
    environment = {**slurm, "TFCXR": str(tool), "SBATCH_EXPORT": "NONE"}
    script = capsys.readouterr().out
    subprocess.run(["bash"], input=script, text=True, check=True, env=environment, capture_output=True)
    wait_for(lambda: not client(slurm, "squeue", "--noheader"), 500)


def test_a_job_is_queued_again_before_its_limit_and_all_jobs_run_after_those_they_need(slurm, capsys, tmp_path):
    limit = "--slurm=train-gan: --time=1 --signal=B:USR1@50 --cpus-per-task=2"
    calls = run_study(slurm, capsys, tmp_path, limit, slow="yes")
    assert calls.index("--only=train-gan-a saved") < calls.index("--only=train-gan-a")
    assert calls.index("--only=train-gan-a") < calls.index("--only=generate-synthetic-v2")
    assert calls[-1] == "--collect"
    assert len(calls) == 12  # ten jobs, the saving, the table
    log = tmp_path / "w" / "studies" / "tiny" / "logs" / "train-gan-a.slurm.log"
    assert "saved before the time limit; queued again" in log.read_text()


def test_what_needs_a_failed_job_is_cancelled_and_the_table_comes(slurm, capsys, tmp_path):
    calls = run_study(slurm, capsys, tmp_path, fails="--only=train-gan-a")
    assert sorted(calls) == [
        "--collect", "--only=build-records-a-multilabel", "--only=build-records-b-v2", "--only=phantom-a",
        "--only=phantom-b",
    ]  # fmt: skip
    assert calls[-1] == "--collect"


def test_a_gan_that_is_queued_again_before_its_limit_ends_as_one_that_was_not(slurm, capsys, tmp_path):
    """SLURM sends the signal half a minute after the start, or up to one earlier; the training takes longer."""
    gan = "--fmap_base=64 --fmap_max=8 --batch_size=8 --total_kimg=32 --tick_kimg=8 --init=calm --fid_images=16"
    limit = "--slurm=train-gan: --time=2 --signal=B:USR1@90"
    tool = REAL_TOOL.format(code=pathlib.Path.cwd(), python=sys.executable)
    submit(slurm, capsys, tmp_path, tool, f"--gan_flags={gan}", limit)
    logs = tmp_path / "w" / "studies" / "tiny" / "logs"
    assert "saved before the time limit; queued again" in (logs / "train-gan-a.slurm.log").read_text()
    (flags,) = (tmp_path / "w").rglob("runs/**/flags.txt")
    run = flags.parent
    assert json.loads((run / "result.json").read_text())["steps"] == 4000
    alone = tmp_path / "alone"
    assert cli.main(["train-gan", f"--flagfile={flags}", f"--run_dir={alone}"]) == 0
    first, second = (tf.train.load_checkpoint(str(folder / "checkpoints")) for folder in (run, alone))
    names = first.get_variable_to_shape_map()
    assert names == second.get_variable_to_shape_map()
    weights = [name for name in names if name.startswith(("generator/", "discriminator/", "ema/", "optimizers/"))]
    assert len(weights) > 50
    for name in weights:
        np.testing.assert_array_equal(second.get_tensor(name), first.get_tensor(name), err_msg=name)


# Runs a worker for real, and notes its number.
WORKER = """\
#!/usr/bin/env bash
export PYTHONPATH={code} TF_NUM_INTRAOP_THREADS=1 CUDA_VISIBLE_DEVICES=
echo $$ > {folder}/worker-$SLURM_PROCID
exec {python} -m tfcxr "$@"
"""


def test_two_workers_of_srun_are_saved_and_killed_and_end_as_undisturbed_ones(slurm, tmp_path):
    """The guide's script on one node: asked to save as before a limit, queued again, one killed, submitted again."""
    records = fakes.make_records(tmp_path / "records", label_version="multilabel", per_class=4)
    flags = ["--fmap_base=64", "--fmap_max=8", "--batch_size=16", "--total_kimg=16", "--tick_kimg=1000", "--init=calm"]
    flags += [f"--records={records}", "--checkpoint_kimg=0.8", "--patience=0", "--fid_images=16"]
    alone, run = tmp_path / "alone", tmp_path / "run"
    codes, lines = workers.ended(
        workers.start_cluster("tfcxr.commands.train_gan", [[*flags, f"--run_dir={alone}"]] * 2), 500
    )
    assert codes == [0, 0], lines
    tool = tmp_path / "tool"
    tool.write_text(WORKER.format(code=pathlib.Path.cwd(), folder=tmp_path, python=sys.executable))
    tool.chmod(0o755)
    page = (ROOT / "docs" / "guides" / "scaling-out.md").read_text(encoding="utf-8")
    (script,) = (block for block in code_blocks(page, "bash") if "srun" in block)
    before, rest = script.split("command=(")
    script = f"{before}command=({tool} train-gan {' '.join(flags)} --run_dir={run}){rest.partition(')')[2]}"
    log = tmp_path / "log"

    def submit_job():
        small = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gres=none", "--time=30", f"--output={log}"]
        command = ["sbatch", "--parsable", *small]
        answer = subprocess.run(command, input=script, text=True, check=True, env=slurm, capture_output=True)
        return answer.stdout.strip()

    job = submit_job()
    wait_for(lambda: latest(run), 200)
    client(slurm, "scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: "stopped by a signal; the same command resumes" in log.read_text(), 100)
    saved = latest(run)
    assert 0 < saved < 1000
    wait_for(lambda: latest(run) > saved, 300)  # it was queued again, and goes on
    os.kill(int((tmp_path / "worker-1").read_text()), signal.SIGKILL)
    wait_for(lambda: not client(slurm, "squeue", "--noheader"), 200)
    assert "error: another worker is gone (" in log.read_text()
    assert saved < latest(run) < 1000
    submit_job()
    wait_for(lambda: not client(slurm, "squeue", "--noheader"), 300)
    assert latest(run) == 1000, log.read_text()
    workers.assert_same_variables(alone, run, ("generator/", "discriminator/", "ema/", "step/"))


def latest(run):
    """Steps in the last checkpoint; 0 where there is none."""
    return max((int(path.stem[5:]) for path in (run / "checkpoints").glob("ckpt-*.index")), default=0)

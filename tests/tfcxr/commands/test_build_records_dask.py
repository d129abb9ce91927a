"""build-records through Beam on Dask: in this process, and on a cluster of processes that are stopped and killed."""

import contextlib
import logging
import re
import signal
import socket
import subprocess
import sys
import time
import warnings

import pytest

from flags import app
from tests import fakes
from tfcxr.commands import build_records, verify_records
from tfrecords_builder.records import beam_runner

pytest.importorskip("apache_beam")
distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'tfcxr[beam]'")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return fakes.make_chestxray(tmp_path_factory.mktemp("nih"))


def arguments(folder, data_dir, **values):
    values = {"dataset": "chestxray", "label_version": "multilabel", "resolution": 16, **values}
    return [f"--{name}={value}" for name, value in values.items()] + [
        f"--data_dir={data_dir}",
        f"--output_dir={folder}",
    ]


def run(folder, data_dir, **values):
    argv = ["build-records", *arguments(folder, data_dir, **values)]
    return app.run(build_records.main, build_records.define_flags, argv)


def on_dask(options):
    return {"runner": "beam", "beam_options": f"--runner=DaskRunner {options}"}


def contents(folder):
    """What a build writes, but for its flags and seconds; hidden files as well."""
    own = ("flags.txt", "result.json")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in own}


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread in this process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster


def test_dask_gives_the_same_and_each_shard_is_a_task_of_its_own(tmp_path, nih, cluster, capfd):
    assert run(tmp_path / "local", nih, num_shards=5) == 0
    capfd.readouterr()
    options = on_dask(f"--dask_client_address={cluster.scheduler_address}")
    assert run(tmp_path / "dask", nih, num_shards=5, **options) == 0
    captured = capfd.readouterr()
    assert "in 15 shards with Beam" in captured.out
    assert captured.err == ""
    assert contents(tmp_path / "dask") == contents(tmp_path / "local")
    # The scheduler remembers its tasks: the steps of the pipeline, each with the number of a partition.
    parts = {key[1] for key, *_ in cluster.scheduler.transition_log if "apply_dofn_to_bundle" in str(key)}
    assert parts == set(range(15))
    assert all(worker.state.executed_count > 1 for worker in cluster.workers.values())
    assert not any(client.startswith("Client") for client in cluster.scheduler.clients)  # the build's has gone


def test_a_failure_on_dask_is_one_line(tmp_path, cluster, capfd):
    nih = fakes.make_chestxray(tmp_path / "nih")
    (nih / "images" / "00000020_000.png").write_bytes(b"")
    options = on_dask(f"--dask_client_address={cluster.scheduler_address}")
    assert run(tmp_path / "out", nih, **options) == 1
    line = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error", "warning"))]
    assert len(line) == 1
    assert "00000020_000.png: cannot be used: is empty" in line[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--runner=DaskRunner --dask_client_address=nonsense", "answers at nonsense (missing port number"),
        ("--runner=DaskRunner --dask_client_address=tcp://127.0.0.1:9 --dask_connection_timeout=1", "(no answer)"),
        ("--runner=DaskRunner --dask_scheduler_file=nowhere.json", "nowhere.json: cannot be read"),
        ("--runner=DaskRunner --dask_npartitions=many", "argument --dask_npartitions: invalid int value"),
        ("--runner=PortableRunner --job_endpoint=localhost:1", "no job server answers at localhost:1 ("),
        ("--runner=PortableRunner --job_endpoint=localhost", "no job server answers at localhost ("),
        ("--runner=SlackRunner", "Unexpected pipeline runner: SlackRunner"),
    ],
)
def test_dask_that_is_not_there_is_named_before_the_build(tmp_path, nih, capfd, options, reason):
    began = time.monotonic()
    assert run(tmp_path / "out", nih, runner="beam", beam_options=options) == 2
    assert time.monotonic() - began < 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: --beam_options={options}: ")
    assert reason in line


def test_a_pool_of_workers_that_is_not_there_fails_in_one_line(tmp_path, nih, capfd):
    pool = "--environment_type=EXTERNAL --environment_config=localhost:1"
    options = f"--runner=PortableRunner --job_endpoint=embed {pool}"
    assert run(tmp_path / "out", nih, runner="beam", beam_options=options) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("error: the Beam pipeline failed: failed to connect")
    assert all(line.startswith("warning: ") for line in lines[:-1])
    assert len(lines) < 4


def test_warnings_of_beam_are_lines(capfd):
    with beam_runner._warnings_as_lines():
        for _ in range(2):
            logging.getLogger("apache_beam.runners").warning("Waiting for %s.\nAnd so on.", "a worker")
        logging.getLogger("apache_beam").warning('Worker: severity: WARN message: "No room\\nhere" log_location: ')
        logging.getLogger("grpc").error("Traceback (most recent call last):\n  File\nOSError: no route")
        logging.getLogger("apache_beam").error("RunError: is told by the exception")
        logging.getLogger("apache_beam").info("nothing")
        warnings.warn("Mismatched versions\nfound", UserWarning, stacklevel=1)
    assert capfd.readouterr().err.splitlines() == [
        "warning: apache_beam: Waiting for a worker.",
        "warning: apache_beam: No room",
        "warning: grpc: OSError: no route",
        "warning: builtins: Mismatched versions",
    ]


def test_a_scheduler_without_workers_is_told(tmp_path, nih, capfd):
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty:
        beam_runner.run_with_beam(f"--runner=DaskRunner --dask_client_address={empty.scheduler_address}")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: the Dask scheduler has no workers yet, and the build waits for them")


def start(*command):
    """A program that sees this code, whose output is dropped."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def temporary(folder, process):
    """What a process is writing in the folder, by its number in the names."""
    name = re.compile(rf"\..+\.[\w-]+-{process.pid}\.tmp")
    return [path for path in folder.glob(".*.tmp") if name.fullmatch(path.name)]


def stop_while_writing(folder, process, seconds=60):
    """Stops a worker in the middle of a shard."""
    end = time.monotonic() + seconds
    while True:
        while not temporary(folder, process):
            assert time.monotonic() < end
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if temporary(folder, process):
            return
        process.send_signal(signal.SIGCONT)


@pytest.mark.large
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "straggler"])
def test_a_worker_that_is_lost_leaves_nothing(tmp_path, end, monkeypatch):
    """Two processes write the set; one is killed, or so late that Dask gives it up and it goes on after the end."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "3s")
    nih = fakes.make_chestxray(tmp_path / "nih", num_patients=600)
    assert run(tmp_path / "local", nih, num_shards=20) == 0
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    with contextlib.ExitStack() as stack:
        processes = []

        def launch(*command):
            process = start(*command)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
            return process

        launch(*dask, "scheduler", "--host=127.0.0.1", f"--port={address.rpartition(':')[2]}", "--no-dashboard")
        workers = [launch(*dask, "worker", address, "--nthreads=1", "--no-nanny", "--no-dashboard") for _ in range(2)]
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        options = on_dask(f"--dask_client_address={address}")
        build = launch(
            sys.executable, "-m", "tfcxr", "build-records", *arguments(tmp_path / "dask", nih, num_shards=20, **options)
        )
        partial = tmp_path / ".dask.partial"
        for worker in workers:  # both have work
            stop_while_writing(partial, worker)
            if worker is workers[0]:
                worker.send_signal(signal.SIGCONT)
        workers[1].send_signal(end)
        assert build.wait(120) == 0
        if end == signal.SIGSTOP:
            workers[1].send_signal(signal.SIGCONT)
            time.sleep(5)  # what it writes now, it writes for nobody
    assert contents(tmp_path / "dask") == contents(tmp_path / "local")
    assert not partial.exists()
    argv = ["verify-records", f"--records={tmp_path / 'dask'}"]
    assert app.run(verify_records.main, verify_records.define_flags, argv) == 0

"""Running a graph: order, skipping, failures, parallel jobs, kills and locks, with tiny Python commands as jobs."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.conftest import ROOT
from tfcxr.studies import running
from tfcxr.studies.planning import Graph, Job, Resolved
from tfcxr.studies.running import Outcome, Runner
from tfcxr.studies.stamps import Stamps, State
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, Interrupted

WRITE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "result.json").write_text(json.dumps({"argv": sys.argv[2:]}))
"""


def job(name, *needs, key="1", kind="fake", code=WRITE):
    return Job(name, kind, (code,), {f"from_{need}": need for need in needs}, {}, f"out/{name}", key=key)


def make_runner(tmp_path, *jobs, study="s", say=lambda line: None):
    def command(each, overwrite):
        output = tmp_path / each.output
        return [sys.executable, "-S", "-c", each.flags[0], str(output), *(["--overwrite"] if overwrite else [])]

    stamps = Stamps(tmp_path, study)
    return Runner({each.id: each for each in jobs}, stamps, tmp_path / "study", command=command, say=say)


def run(tmp_path, *jobs, parallel=1):
    runner = make_runner(tmp_path, *jobs)
    runner.run(parallel)
    return {name: outcome.status for name, outcome in runner.outcomes.items()}


def survey(tmp_path, *jobs, study="s", resolve=None):
    graph, states = Stamps(tmp_path, study).survey(Graph({each.id: each for each in jobs}, []), resolve)
    return list(graph.jobs.values()), states


def mtime(tmp_path, name):
    return (tmp_path / "out" / name / "result.json").stat().st_mtime_ns


def arguments(tmp_path, name):
    return json.loads((tmp_path / "out" / name / "result.json").read_text())["argv"]


def test_jobs_run_after_those_they_need_and_are_stamped(tmp_path):
    lines = []
    runner = make_runner(tmp_path, job("a"), job("b", "a"), job("c", "b"), say=lines.append)
    runner.run(3)
    assert [line.split(":")[0] for line in lines] == [
        "[1/3] a", "    a", "[2/3] b", "    b", "[3/3] c", "    c",
    ]  # fmt: skip
    assert mtime(tmp_path, "a") < mtime(tmp_path, "b") < mtime(tmp_path, "c")
    stamp = json.loads((tmp_path / "out" / ".b.job.json").read_text())
    assert stamp["study"] == "s"
    assert stamp["key"] == "1"
    assert len(stamp["result_digest"]) == 64
    assert 0 < stamp["seconds"] == runner.outcomes["b"].seconds


def test_the_longest_chain_begins_first(tmp_path):
    lines = []
    chains = [("first",), ("second", "first"), ("short",), ("end", "short"), ("third", "second")]
    jobs = [job("alone"), *(job(*names) for names in chains)]
    make_runner(tmp_path, *jobs, say=lines.append).run(1)
    started = [line.split("] ")[1].split(":")[0] for line in lines if "started" in line]
    assert started == ["first", "second", "short", "alone", "end", "third"]


def test_what_is_done_is_skipped_and_only_changed_jobs_run_again(tmp_path):
    assert run(tmp_path, job("a"), job("b", "a"), job("c")) == {"a": "done", "b": "done", "c": "done"}
    before = [mtime(tmp_path, name) for name in "abc"]
    assert run(tmp_path, job("a"), job("b", "a"), job("c")) == {"a": "done", "b": "done", "c": "done"}
    assert [mtime(tmp_path, name) for name in "abc"] == before
    chosen, states = survey(tmp_path, job("a"), job("b", "a", key="2222222"), job("c"))
    assert {name: state.value for name, state in states.items()} == {"a": "done", "b": "missing", "c": "done"}
    run(tmp_path, *chosen)
    assert [mtime(tmp_path, name) for name in "abc"] == before
    assert arguments(tmp_path, "b-222222") == []
    # The earlier definition finds its own output still there.
    assert set(survey(tmp_path, job("a"), job("b", "a"), job("c"))[1].values()) == {State.DONE}


def test_a_result_that_was_altered_counts_as_changed_and_a_deleted_one_as_missing(tmp_path):
    run(tmp_path, job("a"))
    stamps = Stamps(tmp_path, "s")
    assert stamps.state(job("a")) == State.DONE
    (tmp_path / "out" / "a" / "result.json").write_text("{}")
    assert stamps.state(job("a")) == State.CHANGED
    (tmp_path / "out" / "a" / "result.json").unlink()
    assert stamps.state(job("a")) == State.MISSING
    run(tmp_path, job("a"))
    assert arguments(tmp_path, "a") == ["--overwrite"]  # the folder is still there


@pytest.mark.parametrize("text", ['{"key": "1"}', "[]", "{"])
def test_a_damaged_stamp_is_named(tmp_path, text):
    run(tmp_path, job("a"))
    (tmp_path / "out" / ".a.job.json").write_text(text)
    with pytest.raises(InputError, match=r"\.a\.job\.json: is no(t valid JSON| stamp)"):
        Stamps(tmp_path, "s").state(job("a"))


def test_a_failure_blocks_what_needs_it_and_nothing_else(tmp_path):
    broken = job("b", "a", code="import sys; print('start'); sys.exit('error: --flag=3: too many')")
    lines = []
    runner = make_runner(tmp_path, job("a"), broken, job("c", "b"), job("d", "c"), job("e", "a"), say=lines.append)
    runner.run(2)
    assert runner.outcomes["b"].status == "failed"
    assert runner.outcomes["b"].error == "--flag=3: too many"
    assert runner.outcomes["c"] == runner.outcomes["d"] == Outcome("blocked", None, "b failed: --flag=3: too many")
    assert runner.outcomes["e"].status == "done"
    assert not (tmp_path / "out" / "c").exists()
    assert (tmp_path / "study" / "logs" / "b.log").read_text().splitlines()[1:] == [
        "start",
        "error: --flag=3: too many",
    ]
    # Once what broke it is mended, the next call runs what is left.
    assert set(run(tmp_path, job("a"), job("b", "a"), job("c", "b"), job("d", "c"), job("e", "a")).values()) == {"done"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("import sys; sys.exit(3)", "ended with exit code 3 and no message"),
        ("pass", "it ended without a result.json"),
        ("import os; os.kill(os.getpid(), 9)", "ended with exit code -9 and no message"),
    ],
)
def test_failures_are_one_line(tmp_path, code, error):
    runner = make_runner(tmp_path, job("a", code=code))
    runner.run(1)
    assert runner.outcomes["a"].error == error


def test_the_message_is_that_of_the_last_call(tmp_path):
    run(tmp_path, job("a", code="import sys; sys.exit('error: first')"))
    runner = make_runner(tmp_path, job("a", code="import sys; sys.exit(1)"))
    runner.run(1)
    assert runner.outcomes["a"].error == "ended with exit code 1 and no message"


def test_independent_jobs_run_at_the_same_time(tmp_path):
    # Each waits until the other has started; one at a time they would give up.
    wait = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
other = folder.with_name("b" if folder.name == "a" else "a")
end = time.monotonic() + 10
while not other.exists():
    if time.monotonic() > end:
        sys.exit("error: alone")
    time.sleep(0.01)
(folder / "result.json").write_text("{}")
"""
    assert run(tmp_path, job("a", code=wait), job("b", code=wait), parallel=2) == {"a": "done", "b": "done"}


def test_no_more_jobs_run_at_a_time_than_allowed(tmp_path):
    alone = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
flag = folder.with_name("busy")
flag.touch(exist_ok=False)
time.sleep(0.2)
flag.unlink()
(folder / "result.json").write_text("{}")
"""
    assert set(run(tmp_path, *(job(name, code=alone) for name in "abc")).values()) == {"done"}


@pytest.mark.parametrize(
    ("first_code", "overwritten"),
    [
        # Killed when the training had emptied the folder: it resumes.
        ("(folder / 'result.json').unlink(); os.kill(os.getpid(), 9)", []),
        # Killed before: the altered run still lies there.
        ("os.kill(os.getpid(), 9)", ["--overwrite"]),
    ],
)
def test_a_training_that_was_killed_resumes_if_the_folder_is_its_own(tmp_path, first_code, overwritten):
    begin = f"import os, pathlib, sys; folder = pathlib.Path(sys.argv[1]); {first_code}"
    run(tmp_path, job("a", kind="train-x"))
    altered = tmp_path / "out" / "a" / "result.json"
    altered.write_text("{}")
    os.utime(altered, (1, 1))
    assert run(tmp_path, job("a", kind="train-x", code=begin)) == {"a": "failed"}
    assert run(tmp_path, job("a", kind="train-x")) == {"a": "done"}
    assert arguments(tmp_path, "a") == overwritten


def test_what_another_study_made_is_shared_or_stays_beside(tmp_path):
    run(tmp_path, job("a"))
    [shared], states = survey(tmp_path, job("a"), study="other")
    assert (shared.output, states) == ("out/a", {"a": State.DONE})
    other = job("a", key="2222222")
    [beside], states = survey(tmp_path, other, study="other")
    assert (beside.output, states) == ("out/a-222222", {"a": State.MISSING})
    run(tmp_path, beside)
    assert survey(tmp_path, other, study="other")[1] == {"a": State.DONE}
    assert survey(tmp_path, job("a"))[1] == {"a": State.DONE}
    with pytest.raises(InputError, match=r"out/a and .*out/a-222222: were made by other flags than those of a"):
        survey(tmp_path, job("a", key="2222229"), study="third")


def test_an_output_lies_in_the_folder_that_the_other_job_got(tmp_path):
    run(tmp_path, job("a"))
    inner = Job("e", "fake", (WRITE,), {"model": "a"}, {}, "evaluations/b", inside="a", key="1")
    chosen, _ = survey(tmp_path, job("a", key="2222222"), inner)
    assert [each.output for each in chosen] == ["out/a-222222", "out/a-222222/evaluations/b"]


def make_old_stamp(tmp_path, *absent, **changes):
    """Turns the stamp of job a into one of an earlier scheme, without some entries."""
    path = tmp_path / "out" / ".a.job.json"
    stamp = json.loads(path.read_text()) | {"key": "old"} | changes
    path.write_text(json.dumps({name: value for name, value in stamp.items() if name not in absent}))


def resolve_flags(kind, arguments):
    """Flags that are as a flags.txt says, or those of `job`."""
    [flag, *_] = arguments
    given = pathlib.Path(flag.partition("=")[2]).read_text() if flag.startswith("--flagfile=") else "same"
    return Resolved({"flag": given}, (), {}, ())


@pytest.mark.parametrize("absent", [("scheme",), ("scheme", "numerics")])
@pytest.mark.parametrize(
    ("flags", "newest", "numerics", "taken_over"),
    [
        ("same", 0.0, 1, True),
        ("other", 0.0, 1, False),
        ("same", 9e9, 1, False),  # a file that it reads has changed since
        ("same", 0.0, 2, False),  # the program makes other numbers now
    ],
)
def test_what_has_an_old_key_is_taken_over_if_it_would_be_made_again_the_same(
    tmp_path, flags, newest, numerics, taken_over, absent
):
    run(tmp_path, job("a"))
    make_old_stamp(tmp_path, *absent)
    (tmp_path / "out" / "a" / "flags.txt").write_text(flags)
    now = dataclasses.replace(job("a", key="1111111"), newest=newest, numerics=numerics)
    [chosen], states = survey(tmp_path, now, resolve=resolve_flags)
    assert states == {"a": State.DONE if taken_over else State.MISSING}
    assert chosen.output == ("out/a" if taken_over else "out/a-111111")
    stamps = Stamps(tmp_path, "s")
    if taken_over:
        seconds = stamps.read(chosen).seconds
        stamps.adopt(chosen)
        assert stamps.state(chosen) == State.DONE
        assert (stamps.read(chosen).seconds, stamps.read(chosen).numerics) == (seconds, 1)


@pytest.mark.parametrize(("flags", "output"), [("same", "out/a"), ("other", "out/a-111111")])
def test_a_training_that_was_begun_with_an_old_key_goes_on(tmp_path, flags, output):
    begin = "import pathlib, sys; folder = pathlib.Path(sys.argv[1]); folder.mkdir(parents=True); sys.exit(1)"
    assert run(tmp_path, job("a", kind="train-x", code=begin)) == {"a": "failed"}
    make_old_stamp(tmp_path, "scheme")
    (tmp_path / "out" / "a" / "flags.txt").write_text(flags)
    [chosen], states = survey(tmp_path, job("a", kind="train-x", key="1111111"), resolve=resolve_flags)
    assert (chosen.output, states) == (output, {"a": State.MISSING})
    assert not Stamps(tmp_path, "s").must_overwrite(chosen)


def test_what_a_script_made_before_its_inputs_are_as_they_are_now_runs_again(tmp_path):
    run(tmp_path, job("a"))
    (tmp_path / "out" / ".a.job.json").unlink()
    (tmp_path / "out" / "a" / "flags.txt").write_text("same")
    [chosen], states = survey(tmp_path, dataclasses.replace(job("a"), newest=9e9), resolve=resolve_flags)
    assert (chosen.output, states) == ("out/a", {"a": State.CHANGED})
    assert run(tmp_path, chosen) == {"a": "done"}
    assert arguments(tmp_path, "a") == ["--overwrite"]
    assert survey(tmp_path, job("a"))[1] == {"a": State.DONE}


def test_an_output_that_has_its_former_name_is_found(tmp_path):
    run(tmp_path, dataclasses.replace(job("a"), output="out/old"))
    [chosen], states = survey(tmp_path, dataclasses.replace(job("a"), former_output="out/old"))
    assert (chosen.output, states) == ("out/old", {"a": State.DONE})


SCRIPT = """
import pathlib, sys
sys.path.insert(0, {root!r})
from flags import app
from tests.tfcxr.studies import test_running
from tfcxr.studies import running
folder = pathlib.Path(sys.argv[1])
(folder / "study").mkdir(exist_ok=True)
def main(fv):
    runner = test_running.make_runner(folder, test_running.job("a", code={code!r}), test_running.job("b"))
    with running.lock(folder / "study") as handle:
        runner.run(1, handle)
sys.exit(app.run(main, lambda fv: None, ["study"]))
"""
# Ends by itself after a while, so that a fault here leaves nothing behind.
PATIENT = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
def stop(number, _):
    time.sleep(0.5)
    (folder / "stopped").write_text(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
(folder / "started").touch()
time.sleep(60)
"""


def start_study(tmp_path):
    """A study in a process of its own whose first job runs."""
    text = SCRIPT.format(root=str(ROOT), code=PATIENT)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text), str(tmp_path)], stderr=subprocess.PIPE)
    wait_for(tmp_path / "out" / "a" / "started")
    return process


def wait_for(path: pathlib.Path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_are_passed_on_and_the_next_call_goes_on(tmp_path, number, code):
    process = start_study(tmp_path)
    process.send_signal(number)
    assert process.wait(30) == code
    assert process.stderr.read() == b"error: stopped by a signal; the same command goes on\n"
    assert (tmp_path / "out" / "a" / "stopped").read_text() == str(int(number))
    assert Stamps(tmp_path, "s").state(job("a")) == State.UNFINISHED
    assert not (tmp_path / "out" / "b").exists()
    assert run(tmp_path, job("a"), job("b")) == {"a": "done", "b": "done"}


HOLD = """
import fcntl, os, pathlib, signal, sys, time
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
child = os.fork()  # holds it, too, but is its parent's to stop
if not child:
    signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1] + ".child").touch())
def end(*_):
    os.kill(child, signal.SIGKILL)
    sys.exit()
if child:
    signal.signal(signal.SIGTERM, end)
    print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("if_running", "seconds"), [("stop", "100"), ("wait", "1")])
def test_who_runs_a_study_is_named_and_waited_for_or_stopped(tmp_path, capsys, if_running, seconds):
    path = tmp_path / files.LOCK_FILE
    command = [sys.executable, "-S", "-c", HOLD, str(path), seconds]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        refusal = rf"is still saving \(process {process.pid}: [^;]*\); --if_running=wait waits"
        with pytest.raises(InputError, match=refusal), running.lock(tmp_path):
            pass
        with running.lock(tmp_path, if_running):
            assert process.wait(10) == 0
    assert f" process {process.pid}: " in capsys.readouterr().out
    assert not (tmp_path / f"{path.name}.child").exists()


def test_jobs_of_a_study_that_is_killed_outright_stop_and_hold_its_folder_until_then(tmp_path):
    process = start_study(tmp_path)
    with pytest.raises(InputError, match="another call is running this study"), running.lock(tmp_path / "study"):
        pass
    process.kill()
    process.wait(30)
    # The job still saves.
    with pytest.raises(InputError, match="killed is still saving "), running.lock(tmp_path / "study"):
        pass
    wait_for(tmp_path / "out" / "a" / "stopped")
    end = time.monotonic() + 30
    while True:
        try:
            with running.lock(tmp_path / "study"):
                break
        except InputError:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert run(tmp_path, job("a"), job("b")) == {"a": "done", "b": "done"}


def test_seconds_add_up_over_calls(tmp_path, monkeypatch):
    Stamps(tmp_path, "s").write(job("a"), started=time.time(), seconds=100.0, finished=False)
    (tmp_path / "out" / "a").mkdir()
    runner = make_runner(tmp_path, job("a"))
    runner.run(1)
    assert 100 < runner.outcomes["a"].seconds < 130


def test_a_stop_while_nothing_runs_raises(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, job("a"))
    original = runner._next

    def stopping(waiting):
        os.kill(os.getpid(), signal.SIGINT)
        return None

    monkeypatch.setattr(runner, "_next", stopping)
    with pytest.raises(Interrupted):
        runner.run(1)
    assert original([job("a")]).id == "a"

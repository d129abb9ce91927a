"""Output that appears whole or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError

WRITER = """
import sys, time
from tfrecords_builder import files
with files.output_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_appears_at_the_end(tmp_path):
    out = tmp_path / "a" / "out"
    with files.output_folder(out) as folder:
        (folder / "flags.txt").write_text("x")
        assert not out.exists()
    assert [p.name for p in out.iterdir()] == ["flags.txt"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_nothing_is_left_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), files.output_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), files.atomic_path(tmp_path / "file") as path:
        path.write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_overwrites_only_what_tfcxr_wrote(tmp_path):
    ours, foreign = tmp_path / "ours", tmp_path / "foreign"
    for folder, name in ((ours, "flags.txt"), (foreign, "notes.txt")):
        folder.mkdir()
        (folder / name).write_text("old")
        with pytest.raises(InputError, match="not empty"), files.output_folder(folder):
            pass
    with files.output_folder(ours, overwrite=True) as folder:
        (folder / "new").write_text("x")
    assert [p.name for p in ours.iterdir()] == ["new"]
    with pytest.raises(InputError, match="did not write"), files.output_folder(foreign, overwrite=True):
        pass
    assert (foreign / "notes.txt").read_text() == "old"


def test_what_a_killed_program_left_is_removed_but_not_what_a_live_one_writes(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with files.output_folder(out) as folder:
            (folder / "flags.txt").write_text("x")
        assert len(list(tmp_path.glob(".out.*.tmp"))) == 1
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.05)
    assert len(list(tmp_path.glob(".out.*.tmp"))) == 1
    with files.output_folder(out, overwrite=True) as folder:
        (folder / "flags.txt").write_text("y")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    files.write_json(tmp_path / "a.json", {"x": 1})
    assert files.read_json(tmp_path / "a.json") == {"x": 1}
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        files.read_json(tmp_path / "none.json")


def _keep(folder):
    return (folder / "finished").exists()


def _resumable(path, **values):
    return files.resumable_folder(path, worth_keeping=_keep, **values)


def test_resumable_folder_keeps_what_is_worth_it(tmp_path):
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    with pytest.raises(RunError, match=r"^bad image$"), _resumable(out) as folder:
        (folder / "half").write_text("x")
        raise RunError("bad image")
    assert list(tmp_path.iterdir()) == []
    kept = pytest.raises(RunError, match=r"^bad image; what is finished is kept, the same command goes on from there$")
    with kept, _resumable(out) as folder:
        (folder / "finished").write_text("x")
        raise RunError("bad image")
    assert list(tmp_path.iterdir()) == [partial]
    with pytest.raises(KeyboardInterrupt), _resumable(out) as folder:
        assert (folder / "finished").read_text() == "x"
        raise KeyboardInterrupt
    with _resumable(out) as folder:
        (folder / "flags.txt").write_text("x")
    assert sorted(p.name for p in out.iterdir()) == ["finished", "flags.txt"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(InputError, match="not empty"), _resumable(out):
        pass
    with _resumable(out, overwrite=True) as folder:
        (folder / "flags.txt").write_text("y")
    assert [p.read_text() for p in out.iterdir()] == ["y"]


def test_two_programs_cannot_write_one_resumable_folder(tmp_path):
    refused = pytest.raises(InputError, match="another program is writing it")
    with _resumable(tmp_path / "out") as folder:
        with refused, _resumable(tmp_path / "out"):
            pass
        (folder / "flags.txt").write_text("x")
    assert (tmp_path / "out" / "flags.txt").exists()

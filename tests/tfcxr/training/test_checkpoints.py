"""Checkpoints: found without TensorFlow's list, fallback to the one before, full disks, leftovers."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf

from tfcxr.training import checkpoints
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError


class State(tf.train.Checkpoint):
    def __init__(self, value: float = 0.0):
        super().__init__(values=tf.Variable(tf.fill([4096], value)))

    def value(self) -> float:
        return float(self.values[0])


@pytest.fixture
def folder(tmp_path):
    """Checkpoints 5 and 10, which hold these numbers."""
    return write(tmp_path / "checkpoints", 5, 10)


def write(folder, *steps):
    state = State()
    writer = checkpoints.Writer(state, folder)
    for step in steps:
        state.values.assign(tf.fill([4096], float(step)))
        writer.save(step)
    return folder


def restored(folder):
    state = State(-1.0)
    path = checkpoints.restore_newest(folder, state, whole=True)
    return None if path is None else (pathlib.Path(path).name, state.value())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def cut(folder, step, size):
    path = folder / f"ckpt-{step}.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:size])


def flip(folder, step, position):
    path = folder / f"ckpt-{step}.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[position] ^= 255
    path.write_bytes(content)


def test_available_goes_by_number(folder):
    assert [pathlib.Path(path).name for path in checkpoints.available(folder)] == ["ckpt-10", "ckpt-5"]
    for name in ("ckpt-x.index", "ckpt-7.data-00000-of-00001", "other-9.index", "ckpt-3.index.tmp"):
        (folder / name).write_text("")
    assert len(checkpoints.available(folder)) == 2
    assert checkpoints.available(folder / "absent") == []


def test_the_newest_two_are_kept(folder):
    writer = checkpoints.Writer(State(1.0), folder)
    writer.save(15)
    assert names(folder) == ["checkpoint", *(f"ckpt-{n}.{end}" for n in (10, 15) for end in ENDS)]
    assert restored(folder) == ("ckpt-15", 1.0)
    checkpoints.Writer(State(2.0), folder, keep=1).save(20)
    assert restored(folder) == ("ckpt-20", 2.0)
    assert len(checkpoints.available(folder)) == 1


ENDS = ("data-00000-of-00001", "index")


@pytest.mark.parametrize("size", [0, 1000, -1])
def test_a_truncated_newest_gives_way_to_the_one_before(folder, size, caplog):
    cut(folder, 10, size)
    assert restored(folder) == ("ckpt-5", 5.0)
    assert len(caplog.records) == 1
    assert "ckpt-10 cannot be read (" in caplog.text
    assert "trying the one before" in caplog.text


def test_a_damaged_index_gives_way_to_the_one_before(folder, caplog):
    (folder / "ckpt-10.index").write_bytes(b"")
    assert restored(folder) == ("ckpt-5", 5.0)
    assert "ckpt-10 cannot be read" in caplog.text


def test_flipped_bytes_are_seen(folder):
    flip(folder, 10, 2000)
    assert restored(folder) == ("ckpt-5", 5.0)


def test_damaged_ones_of_later_steps_do_not_displace_what_is_saved(folder, caplog):
    write(folder, 12)
    write(folder, 5)
    for step in (10, 12):
        cut(folder, step, 100)
    assert restored(folder) == ("ckpt-5", 5.0)
    write(folder, 8)
    assert restored(folder) == ("ckpt-8", 8.0)
    write(folder, 10, 12)
    caplog.clear()
    assert restored(folder) == ("ckpt-12", 12.0)
    assert not caplog.records
    assert len(checkpoints.available(folder)) == 2


@pytest.mark.parametrize("content", [None, b"", b"no list", b"\xff\x00\xfe"])
def test_the_list_of_checkpoints_is_not_needed(folder, content):
    if content is None:
        (folder / "checkpoint").unlink()
    else:
        (folder / "checkpoint").write_bytes(content)
    assert restored(folder) == ("ckpt-10", 10.0)
    # A run that goes on leaves two, and a list that is whole again.
    write(folder, 15)
    assert [pathlib.Path(path).name for path in checkpoints.available(folder)] == ["ckpt-15", "ckpt-10"]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "ckpt-15")


def test_all_damaged_is_one_line(folder):
    for step in (5, 10):
        cut(folder, step, 100)
    with pytest.raises(InputError) as caught:
        restored(folder)
    assert str(caught.value).count("\n") == 0
    assert "ckpt-5: cannot be read (" in str(caught.value)
    assert "nor can one before it" in str(caught.value)


def test_one_that_must_be_whole_is_read_to_its_end(folder):
    for step in (5, 10):
        checkpoints.check(folder, step)
    flip(folder, 10, 2000)
    with pytest.raises(InputError, match=r"ckpt-10: is damaged \(.*hecksum"):
        checkpoints.check(folder, 10)
    cut(folder, 5, 0)
    with pytest.raises(InputError, match=r"ckpt-5: is damaged \("):
        checkpoints.check(folder, 5)
    with pytest.raises(InputError, match=r"ckpt-15: is gone$"):
        checkpoints.check(folder, 15)


def test_no_checkpoint_is_none(tmp_path):
    assert restored(tmp_path) is None


def test_a_checkpoint_of_something_else(folder):
    other = tf.train.Checkpoint(values=tf.Variable(tf.zeros([3])))
    with pytest.raises(InputError, match="cannot be read"):
        checkpoints.restore_newest(folder, other, whole=False)
    more = tf.train.Checkpoint(values=tf.Variable(tf.zeros([4096])), others=tf.Variable(0.0))
    with pytest.raises(InputError, match="cannot be read"):
        checkpoints.restore_newest(folder, more, whole=True)
    less = tf.train.Checkpoint()
    with pytest.raises(InputError, match="cannot be read"):
        checkpoints.restore_newest(folder, less, whole=True)
    assert checkpoints.restore_newest(folder, less, whole=False).endswith("ckpt-10")


def test_leftovers_of_a_killed_save_are_removed(folder):
    before = names(folder)
    (folder / "ckpt-15_temp").mkdir()
    (folder / "ckpt-15_temp/part-00000-of-00001.data-00000-of-00001").write_text("half")
    # Data are put in place before the index, and the list is replaced last.
    (folder / "ckpt-15.data-00000-of-00001").write_text("whole")
    shutil.copy(folder / "checkpoint", folder / "checkpoint.tmp0123456789abcdef")
    (folder / ".checkpoint.123.tmp").write_text("half")
    assert restored(folder) == ("ckpt-10", 10.0)
    checkpoints.Writer(State(), folder)
    assert names(folder) == before


def test_a_full_disk_leaves_the_checkpoints_before(folder):
    """A limit on the size of files stands for the disk."""
    before = names(folder)
    program = """
        import resource, sys
        import tensorflow as tf
        from tfcxr.training import checkpoints
        from tfrecords_builder.errors import RunError

        state = tf.train.Checkpoint(values=tf.Variable(tf.fill([4096], 15.0)))
        writer = checkpoints.Writer(state, sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        try:
            writer.save(15)
        except RunError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert "checkpoint 15 cannot be written (" in done.stdout
    assert "the one before is intact" in done.stdout
    assert names(folder) == before
    assert restored(folder) == ("ckpt-10", 10.0)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), tf.errors.ResourceExhaustedError])
def test_a_disk_that_fills_while_the_list_is_written(folder, monkeypatch, error):
    if isinstance(error, type):
        error = error(None, None, "No space left on device\nmore")
    state = State(15.0)
    writer = checkpoints.Writer(state, folder)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", fail)
        with pytest.raises(RunError, match=r"checkpoint 15 cannot be written \(.*No space left on device\)"):
            writer.save(15)
    assert restored(folder) == ("ckpt-10", 10.0)
    assert not list(folder.glob("ckpt-15*"))
    # With space again, the next call writes it.
    checkpoints.Writer(state, folder).save(15)
    assert restored(folder) == ("ckpt-15", 15.0)
    assert len(checkpoints.available(folder)) == 2


def test_a_checkpoint_is_on_the_disk_before_an_earlier_one_is_deleted(folder, monkeypatch):
    done, fsync, remove = [], os.fsync, checkpoints._remove

    def note_fsync(handle):
        done.append(("on the disk", pathlib.Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def note_remove(path):
        done.append(("deleted", path.name))
        remove(path)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(checkpoints, "_remove", note_remove)
    write(folder, 15)
    first = done.index(("deleted", f"ckpt-5.{ENDS[1]}"))
    written = [("on the disk", name) for name in (*(f"ckpt-15.{end}" for end in ENDS), "checkpoints")]
    assert set(written) <= set(done[: min(first, done.index(("deleted", f"ckpt-5.{ENDS[0]}")))])

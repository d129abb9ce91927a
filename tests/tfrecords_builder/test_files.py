"""Output that appears whole or not at all."""

import errno
import fcntl
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tfrecords_builder import csv_files, files
from tfrecords_builder.errors import InputError, RunError

WRITER = """
import sys, time
from tfrecords_builder import csv_files, files
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
    assert sorted(p.name for p in out.iterdir()) == [".tfcxr.json", "flags.txt"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_nothing_is_left_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), files.output_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), files.atomic_path(tmp_path / "file") as path:
        path.write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def write(path, **arguments):
    with files.output_folder(path, **arguments) as folder:
        (folder / "flags.txt").write_text("--seed=1\n")
        (folder / "tables").mkdir()


def test_overwrites_only_what_tfcxr_wrote(tmp_path):
    foreign, ours = tmp_path / "foreign", tmp_path / "ours"
    foreign.mkdir()
    (foreign / "flags.txt").write_text("red, white\n")
    with pytest.raises(InputError, match="not empty"):
        write(foreign)
    with pytest.raises(InputError, match=r"would delete flags\.txt, which tfcxr did not write"):
        write(foreign, overwrite=True)
    assert (foreign / "flags.txt").read_text() == "red, white\n"
    write(ours)
    (ours / ".DS_Store").write_text("seen by a desktop")
    write(ours, overwrite=True)
    (ours / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"would delete thesis\.tex, which"):
        write(ours, overwrite=True)
    assert (ours / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("name", ["set/thesis.docx", "tables/mine", "tables/deep/er/mine.csv", "new", ".git/HEAD"])
def test_overwrite_spares_what_others_put_into_folders_of_an_output(tmp_path, name):
    out = tmp_path / "out"
    for overwrite in (False, True):
        with files.output_folder(out, overwrite=overwrite) as folder:
            for ours in ("set/a.png", "tables/deep/b.csv", "flags.txt"):
                files.write_text(folder / ours, "ours")
    file = out / name
    file.parent.mkdir(parents=True, exist_ok=True)
    for put in (lambda: file.write_text("mine"), lambda: file.symlink_to("nowhere"), file.mkdir):
        put()
        with pytest.raises(InputError, match=f"would delete {name}, which tfcxr did not write"):
            write(out, overwrite=True)
        assert (out / "set" / "a.png").read_text() == "ours"
        file.rmdir() if file.is_dir() else file.unlink()


WRONG_LISTS = [{"schema_version": 2, "written": value} for value in (None, 5, [{}], {"flags.txt": 1})]


@pytest.mark.parametrize(
    "written", [None, {"schema_version": 1, "written": ["flags.txt"]}, {"schema_version": 2}, [], *WRONG_LISTS]
)
def test_overwrite_deletes_nothing_without_a_list_of_what_was_written(tmp_path, written):
    (tmp_path / "flags.txt").write_text(f"--output_dir={tmp_path}\n")
    if written is not None:
        files.write_json(tmp_path / ".tfcxr.json", written)
    with pytest.raises(InputError, match=r"would delete flags\.txt, which tfcxr did not write or did not list"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "flags.txt").exists()


def test_folders_beside_an_output_that_look_like_ours_are_spared(tmp_path):
    mine = tmp_path / ".keep.backup.tmp" / "thesis"
    files.write_text(mine, "mine")
    abandoned = tmp_path / ".keep.77.tmp"
    abandoned.mkdir()
    write(tmp_path / "keep")
    assert mine.read_text() == "mine"
    assert not abandoned.exists()
    files.write_text(tmp_path / ".other.partial" / "thesis", "mine")
    with (
        pytest.raises(InputError, match=r"other\.partial, where tfcxr would write, is not its own"),
        _resumable(tmp_path / "other"),
    ):
        pass
    assert (tmp_path / ".other.partial" / "thesis").read_text() == "mine"


def test_contents_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    synced = []

    def fsync(handle):
        path = pathlib.Path(f"/proc/self/fd/{handle}").readlink()
        synced.append((os.path.relpath(path, tmp_path), (tmp_path / "a.json").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "a.json", "{}")
    assert synced == [(f".a.json.{files.writer_name()}.tmp", False), (".", True)]
    synced.clear()
    with files.output_folder(tmp_path / "out") as folder:
        (folder / "tables").mkdir()
        (folder / "tables" / "t.csv").write_text("x")
    names = [name for name, _ in synced]
    temporary = f".out.{os.getpid()}.tmp"
    for name in (temporary, f"{temporary}/tables", f"{temporary}/tables/t.csv"):
        assert name in names
    assert names[-1] == "."


def test_temporary_names_hold_host_and_process(tmp_path, monkeypatch):
    """Two machines may have processes of one number; names of hosts may hold anything, and be long."""
    monkeypatch.setattr(files.socket, "gethostname", lambda: f"{'long' * 20}-pod_\xe4-7.example.org")
    with files.atomic_path(tmp_path / "a.json") as path:
        path.write_text("{}")
        assert path.name.endswith(f"-pod_--7-{os.getpid()}.tmp")
        assert len(path.name) < 70
        assert files.LEFTOVER.fullmatch(path.name)[1] == "a.json"
    assert files.LEFTOVER.fullmatch(".b.c.123.tmp.png")[1] == "b.c"  # of earlier versions
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "none" / "a", make_folder=False) as path:
        path.write_text("")
    assert not (tmp_path / "none").exists()


def test_a_folder_without_fsync_is_no_error(tmp_path, monkeypatch):
    def refuse(number):
        def fsync(_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    refuse(errno.EINVAL)
    files.write_text(tmp_path / "a", "x")
    refuse(errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        files.write_text(tmp_path / "a", "y")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["x"]


def test_one_program_at_a_time_holds_a_lock(tmp_path):
    path = tmp_path / ".lock"
    with files.lock(path), pytest.raises(files.InUse), files.lock(path):
        pass
    assert path.exists()
    with files.lock(path, temporary=True):
        pass
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_one_warning(tmp_path, monkeypatch, capsys, number):
    modes = []

    def flock(handle, _):
        modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        raise OSError(number, os.strerror(number))

    files._say_once.cache_clear()
    monkeypatch.setattr(fcntl, "flock", flock)
    abandoned = tmp_path / ".out.12345.tmp"
    abandoned.mkdir()
    with files.lock(tmp_path / ".lock"):
        write(tmp_path / "out")
        with files.resumable_folder(tmp_path / "records", worth_keeping=_keep) as folder:
            (folder / "flags.txt").write_text("x")
    # NFS gives a lock only of what was opened for writing.
    assert set(modes) == {os.O_RDWR}
    # Nobody can tell whether its writer lives.
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".out.12345.tmp", "out", "records"]
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert f"has no locks ({os.strerror(number)})" in warning


def test_a_lock_that_nfs_refuses_with_eacces_is_held(tmp_path, monkeypatch):
    def flock(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match="another program is writing it"), _resumable(tmp_path / "out"):
        pass


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
    assert sorted(p.name for p in out.iterdir()) == [".tfcxr.json", "finished", "flags.txt"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(InputError, match="not empty"), _resumable(out):
        pass
    with _resumable(out, overwrite=True) as folder:
        (folder / "flags.txt").write_text("y")
    assert sorted(p.name for p in out.iterdir()) == [".tfcxr.json", "flags.txt"]
    assert (out / "flags.txt").read_text() == "y"


def test_what_cannot_be_removed_is_known_by_the_next_call(tmp_path, monkeypatch):
    """As where too many files are open: the list by which a folder is known as ours goes last."""
    out, partial = tmp_path / "out", tmp_path / ".out.partial"

    def fail(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"^bad image$"), _resumable(out) as folder:
        (folder / "rows").mkdir()
        (folder / "rows/0").write_text("x")
        patch.setattr(shutil, "rmtree", fail)
        raise RunError("bad image")
    assert (partial / ".tfcxr.json").is_file()
    with _resumable(out) as folder:
        assert [path.name for path in folder.iterdir() if path.name != ".tfcxr.json"] == ["rows"]
    assert list(tmp_path.iterdir()) == [out]


def test_two_programs_cannot_write_one_resumable_folder(tmp_path):
    refused = pytest.raises(InputError, match="another program is writing it")
    with _resumable(tmp_path / "out") as folder:
        with refused, _resumable(tmp_path / "out"):
            pass
        (folder / "flags.txt").write_text("x")
    assert (tmp_path / "out" / "flags.txt").exists()


def test_pipes_and_devices_are_not_read(tmp_path):
    """Reading a pipe into which nobody writes would wait for ever."""
    os.mkfifo(tmp_path / "table.csv")
    for read in (files.read_json, csv_files.read_lines, lambda path: list(csv_files.read_numbered_lines(path))):
        for path in (tmp_path / "table.csv", pathlib.Path("/dev/full")):
            with pytest.raises(InputError, match=f"^{path}: is a pipe or a device; give a regular file$"):
                read(path)


def test_a_copy_that_fails_names_the_file_that_cannot_be_written(tmp_path):
    """A limit on the size of files stands for the disk."""
    (tmp_path / "weights").write_bytes(b"1" * 100)
    copy, limits = tmp_path / "copy", resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(RunError, match=rf"^--output_dir=out: {copy} cannot be read or written \(File too large\)$"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            with files.naming_failures(pathlib.Path("out"), "--output_dir"):
                shutil.copyfile(tmp_path / "weights", copy)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

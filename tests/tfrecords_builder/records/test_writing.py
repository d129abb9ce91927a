import csv
import functools
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from tests import fakes
from tfrecords_builder import labels, records
from tfrecords_builder.errors import RunError
from tfrecords_builder.records import writing

CALLS: list[str] = []


def _example(name, value, patient):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(stream, "PNG")
    return records.make_example(
        encoded=stream.getvalue(),
        image_id=f"{name}.png",
        resolution=8,
        vector=fakes.make_vector(("Pneumothorax",)),
        class_index=1,
        source="chestxray",
        patient_id=patient,
    )


def _shard(name, first=0, fail=False, skip=False):
    CALLS.append(name)
    for i in range(3):
        if fail and i == 1:
            raise RunError("broken")
        if skip and i == 1:
            yield writing.SkippedRow("table.csv", 7, f"{name}{i}", "bad image: is empty")
        else:
            yield _example(f"{name}{i}", first + i, patient=name)


def _write(folder, shards, keys=None, **values):
    CALLS.clear()
    folder.mkdir(exist_ok=True)
    values = {"name": "tiny", "dataset": "chestxray", "source": "chestxray", "resolution": 8, "seed": 0, **values}
    version = labels.get_label_version("v1_0s")
    return writing.write_record_set(folder, shards, keys=keys, label_version=version, report={}, **values)


def _shards(**second):
    train = [functools.partial(_shard, "a"), functools.partial(_shard, "b", 10, **second)]
    return {"train": train, "test": [functools.partial(_shard, "c", 20)]}


KEYS = {"train": ["1", "2"], "test": ["3"]}


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_set_goes_on_and_ends_the_same(tmp_path):
    _write(tmp_path / "whole", _shards(), KEYS)
    with pytest.raises(RunError, match="broken"):
        _write(tmp_path / "stopped", _shards(fail=True), KEYS)
    assert CALLS == ["a", "b"]
    assert writing.has_finished_shards(tmp_path / "stopped")
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == [
        ".work",
        "tiny-train.tfrecord-00000-of-00002",
    ]
    _write(tmp_path / "stopped", _shards(), KEYS)
    assert CALLS == ["b", "c"]
    assert _contents(tmp_path / "stopped") == _contents(tmp_path / "whole")
    assert set(_contents(tmp_path / "whole")) >= {"manifest.csv", "croissant.json", "DATASHEET.md", "build_report.json"}


@pytest.mark.parametrize("how", ["key", "no key", "size", "part", "shard"])
def test_only_whole_shards_of_the_same_key_are_taken_over(tmp_path, how):
    with pytest.raises(RunError):
        _write(tmp_path / "set", _shards(fail=True), None if how == "no key" else KEYS)
    shard = tmp_path / "set" / "tiny-train.tfrecord-00000-of-00002"
    part = tmp_path / "set" / ".work" / f"{shard.name}.json"
    if how == "size":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif how == "part":
        part.write_text('{"key": ')
    elif how == "shard":
        shard.unlink()
    keys = {"train": ["other", "2"], "test": ["3"]} if how == "key" else KEYS
    _write(tmp_path / "set", _shards(), None if how == "no key" else keys)
    assert CALLS == ["a", "b", "c"]
    _write(tmp_path / "whole", _shards(), KEYS)
    assert _contents(tmp_path / "set") == _contents(tmp_path / "whole")


def test_shards_of_other_names_do_not_stay(tmp_path):
    with pytest.raises(RunError):
        _write(tmp_path / "set", _shards(fail=True), KEYS)
    _write(tmp_path / "set", {"train": [functools.partial(_shard, "a")]}, {"train": ["1"]})
    assert [path.name for path in (tmp_path / "set").glob("*.tfrecord-*")] == ["tiny-train.tfrecord-00000-of-00001"]


def test_skipped_images_are_counted_and_named(tmp_path):
    (tmp_path / "set").mkdir()
    writing.append_skipped(tmp_path / "set", [writing.SkippedRow("table.csv", 2, "x.png", "no label")])
    info = _write(tmp_path / "set", _shards(skip=True), KEYS)
    assert info.split("train").shard_lengths == (3, 2)
    with (tmp_path / "set" / "skipped.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {"table": "table.csv", "line": "2", "id": "x.png", "reason": "no label"},
        {"table": "table.csv", "line": "7", "id": "b1", "reason": "bad image: is empty"},
    ]
    report = json.loads((tmp_path / "set" / "build_report.json").read_text())
    assert report["skipped"] == {"bad image": 1} and report["written"] == 8


def test_a_shard_that_left_images_out_is_not_taken_over_if_that_is_an_error(tmp_path):
    shards = _shards(skip=True)
    with pytest.raises(RunError):
        _write(tmp_path / "set", {**shards, "test": [functools.partial(_shard, "c", fail=True)]}, KEYS)
    with pytest.raises(RunError):
        _write(tmp_path / "set", {**_shards(fail=True)}, KEYS, allow_skipped=False)
    assert CALLS == ["b"]


def test_equal_pictures_are_reported(tmp_path):
    shards = {"train": [functools.partial(_shard, "a"), functools.partial(_shard, "b")]}
    shards["test"] = [functools.partial(_shard, "c", 2)]
    _write(tmp_path / "set", shards)
    report = json.loads((tmp_path / "set" / "build_report.json").read_text())
    # The grey values are 0, 1, 2 in a and b, and 2, 3, 4 in c.
    assert report["duplicates"] == {
        "images": 4,
        "across_patients": 3,
        "across_splits": 1,
        "examples": [["a2.png", "b2.png", "c0.png"]],
    }
    assert report["warnings"] == [
        "images that repeat the pixels of another: 4 (groups of them in several splits: 1, under several patients: 3), "
        "such as a2.png and b2.png"
    ]


def test_a_picture_that_is_repeated_throughout_is_counted_but_not_all_its_images_are_named(tmp_path):
    def same():
        yield from (_example(f"e{i:02d}", 7, patient="p") for i in range(30))

    _write(tmp_path / "set", {"train": [same]})
    duplicates = json.loads((tmp_path / "set" / "build_report.json").read_text())["duplicates"]
    names = [f"e{i:02d}.png" for i in range(20)]
    assert duplicates == {"images": 29, "across_patients": 0, "across_splits": 0, "examples": [names]}


def test_threads_give_the_same_set_and_the_first_failure_stops_them(tmp_path):
    _write(tmp_path / "one", _shards())
    _write(tmp_path / "three", _shards(), runner=writing.run_in_threads(3))
    assert _contents(tmp_path / "one") == _contents(tmp_path / "three")

    stop = threading.Event()

    def endless():
        i = 0
        while not stop.wait(0.01):
            yield _example(f"endless{i}", i % 256, "e")
            i += 1

    def failing():
        yield _example("f", 1, "f")
        raise RunError("broken")

    try:
        with pytest.raises(RunError, match="broken"):
            _write(tmp_path / "f", {"train": [endless, failing]}, runner=writing.run_in_threads(2))
    finally:
        stop.set()
    assert not list((tmp_path / "f").glob("*.tfrecord-*")) and not list((tmp_path / "f").glob(".*.tmp"))


def test_what_lost_writers_leave_is_swept_and_what_none_wrote_is_named(tmp_path):
    """A runner whose worker was killed amid a shard, and whose straggler writes after the set is finished."""
    jobs = []

    def runner(todo, total, initial):
        jobs.extend(todo)
        for job in todo:
            writing.write_shard(job)
        (tmp_path / "set" / f".{todo[0].name}.elsewhere-7.tmp").write_text("half")

    _write(tmp_path / "whole", _shards(), KEYS)
    _write(tmp_path / "set", _shards(), KEYS, runner=runner)
    assert _contents(tmp_path / "set") == _contents(tmp_path / "whole")
    (tmp_path / "set").rename(tmp_path / "finished")
    with pytest.raises(RunError, match="cannot be written"):
        writing.write_shard(jobs[0])
    assert not (tmp_path / "set").exists()
    with pytest.raises(RunError, match=r"tiny-test\.tfrecord-00000-of-00001: is not there, .* see this folder"):
        _write(
            tmp_path / "lost", _shards(), KEYS, runner=lambda todo, *_: [writing.write_shard(job) for job in todo[:2]]
        )


def test_a_job_that_is_given_twice_is_done_once(tmp_path):
    def runner(todo, *_):
        for job in (*todo, *todo):
            writing.write_shard(job)

    _write(tmp_path / "set", _shards(), KEYS, runner=runner)
    assert CALLS == ["a", "b", "c"]


def test_full_disk(tmp_path, monkeypatch):
    def full(self, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorflow.io.TFRecordWriter.write", full)
    with pytest.raises(RunError, match=r"tiny-train.tfrecord-00000-of-00002: cannot be written \(No space left"):
        _write(tmp_path / "set", _shards(), KEYS)
    assert [path.name for path in (tmp_path / "set").iterdir()] == [".work"]


def test_a_file_in_the_way_of_the_disk_limit(tmp_path):
    """A real failure of the C++ writer: files may not grow over 100 bytes."""
    resource = pytest.importorskip("resource")
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _write(tmp_path / "warm", _shards())
    (tmp_path / "set").mkdir()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(RunError) as caught:
            _write(tmp_path / "set", _shards(), KEYS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "tiny-train.tfrecord-00000-of-00002: cannot be written (" in str(caught.value)
    assert not list((tmp_path / "set").glob("*.tfrecord-*"))

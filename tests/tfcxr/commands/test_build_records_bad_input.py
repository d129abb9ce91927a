"""What careless and hostile users give build-records: one line each, no half-made set, nothing left behind."""

import os
import re
import shutil

import pytest

from flags import app
from tests import fakes
from tfcxr.commands import build_records, label_stats, verify_records
from tfrecords_builder import files, labels, records
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.records import writing


@pytest.fixture
def nih(tmp_path):
    return fakes.make_chestxray(tmp_path / "nih")


@pytest.fixture
def record_set(tmp_path, nih):
    """Two shards of train, which hold as many records."""
    assert _run(tmp_path / "set", nih, num_shards=2) == 0
    return tmp_path / "set"


def _run(folder, data_dir, **values):
    values = {"dataset": "chestxray", "label_version": "multilabel", "resolution": 16, **values}
    arguments = [f"--{name}={value}" for name, value in values.items()]
    arguments += [f"--data_dir={data_dir}", f"--output_dir={folder}"]
    return app.run(build_records.main, build_records.define_flags, ["build-records", *arguments])


def _error(capfd):
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith(("warning: ", "writing "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.mark.parametrize("make", [lambda p: p.symlink_to(p.name), lambda p: p.symlink_to("nowhere"), os.mkfifo])
def test_image_that_is_no_file(tmp_path, nih, capfd, make):
    """A link that leads nowhere or to itself, and a pipe, which would be waited for."""
    image = nih / "images" / "00000005_000.png"
    image.unlink()
    make(image)
    assert _run(tmp_path / "out", nih) == 1
    assert "00000005_000.png: cannot be used" in _error(capfd)
    shutil.rmtree(tmp_path / ".out.partial", ignore_errors=True)
    assert _run(tmp_path / "out", nih, bad_images="skip") == 0
    assert "00000005_000.png,bad image: " in (tmp_path / "out" / "skipped.csv").read_text()


def test_one_file_under_two_names(tmp_path, capfd):
    (tmp_path / "set" / "sub").mkdir(parents=True)
    fakes.make_folder_set(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "normal" / "p0_0.png", tmp_path / "set" / "sub" / "a.png")
    (tmp_path / "set" / "t.csv").write_text("path,patient,Edema\na.png,1,1\nsub/a.png,2,0\n")
    assert _run(tmp_path / "out", tmp_path / "set", dataset="folder") == 2
    line = _error(capfd)
    assert "a.png (line 2) and sub/a.png (line 3) are both" in line


def test_header_with_a_bare_carriage_return(tmp_path, nih, capfd):
    table = nih / "Data_Entry_2017.csv"
    table.write_bytes(table.read_bytes().replace(b"\r\n", b"\r", 1))
    assert _run(tmp_path / "out", nih) == 2
    assert "line 1: is no row of a table (a carriage return within a row; save the table" in _error(capfd)


def test_only_laterals(tmp_path, capfd):
    root = fakes.make_chexpert(tmp_path / "chexpert")
    table = root / "train.csv"
    table.write_text(table.read_text().replace("Frontal,A", "Lateral,A").replace("Frontal,P", "Lateral,P"))
    assert _run(tmp_path / "out", root, dataset="chexpert") == 2
    assert "all rows are lateral views" in _error(capfd)


@pytest.mark.parametrize(
    ("flag", "needed"),
    [
        ({"salt_file": "salt"}, "--hash_patient_ids"),
        ({"columns": "path:file"}, "--dataset=folder"),
        ({"no_finding": "no_positive"}, "--dataset=folder"),
        ({"agreement": "any"}, "--dataset=vindr_cxr"),
        ({"labelled_by": "physicians"}, "--dataset=padchest"),
        ({"fold": 1}, "--split_policy=kfold"),
        ({"beam_options": "--x=1"}, "--runner=beam"),
    ],
)
def test_flag_that_would_do_nothing(tmp_path, nih, capfd, monkeypatch, flag, needed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "salt").write_text("a secret of many bytes")
    assert _run(tmp_path / "out", nih, **flag) == 2
    line = _error(capfd)
    assert f"--{next(iter(flag))}" in line and needed in line


@pytest.mark.parametrize("options", ["'", "garbage", "garbage --direct_num_workers=2"])
def test_beam_options_that_are_none(tmp_path, nih, capfd, options):
    pytest.importorskip("apache_beam")
    assert _run(tmp_path / "out", nih, runner="beam", beam_options=options) == 2
    assert f"--beam_options={options}: " in _error(capfd)


@pytest.mark.parametrize("name", ["data_dir", "labels_csv", "split_lists", "output_dir"])
@pytest.mark.parametrize("value", ["x" * 5000, os.fsdecode(b"a\xff")])
def test_names_that_no_file_can_have(tmp_path, nih, capfd, name, value):
    values = {name: value} | ({"split_policy": "lists"} if name == "split_lists" else {})
    arguments = {
        "data_dir": nih,
        "output_dir": tmp_path / "out",
        "dataset": "chestxray",
        "label_version": "v2",
        **values,
    }
    argv = ["build-records", *(f"--{key}={value}" for key, value in arguments.items())]
    assert app.run(build_records.main, build_records.define_flags, argv) == 2
    _error(capfd)


def test_output_that_cannot_be_replaced(tmp_path, nih, capfd):
    """Known before the work, not after it."""
    (tmp_path / "real").mkdir()
    loops = "cannot be looked at (Too many levels of symbolic links)"
    cases = {"link": ("real", "is a link"), "dangling": ("nowhere", "is a link"), "loop": ("loop", loops)}
    for name, (target, said) in cases.items():
        (tmp_path / name).symlink_to(target)
        assert _run(tmp_path / name, nih) == 2
        assert said in _error(capfd)
    assert not list(tmp_path.glob(".*"))


def test_the_data_are_not_overwritten(tmp_path, nih, record_set, capfd):
    values = {"dataset": "records", "overwrite": "true"}
    assert _run(record_set, record_set, **values) == 2
    assert "holds --data_dir" in _error(capfd)
    arguments = ["--dataset=records", f"--data_dir={record_set}", f"--output_dir={record_set}", "--overwrite"]
    assert app.run(label_stats.main, label_stats.define_flags, ["label-stats", *arguments]) == 2
    assert "holds --data_dir" in _error(capfd)
    records.load_info(record_set)


def test_nothing_is_left_of_a_refused_call(tmp_path, nih, capfd):
    assert _run(tmp_path / "a" / "b" / "out", nih, label_version="nope") == 2
    assert not (tmp_path / "a").exists()


def test_full_disk(tmp_path, nih, capfd, monkeypatch):
    """While the rows, and while the manifest are written; then the same command goes on."""

    def fail(path, *_, **__):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", fail)
        assert _run(tmp_path / "out", nih) == 1
        assert "No space left on device" in _error(capfd)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_add_up", lambda *_: fail("manifest.csv"))
        assert _run(tmp_path / "out", nih) == 1
        line = _error(capfd)
        assert "No space left on device" in line and "the same command goes on" in line
    # A killed program leaves temporary files.
    (tmp_path / ".out.partial" / ".manifest.csv.1.tmp").write_text("half")
    assert not (tmp_path / "out").exists()
    assert _run(tmp_path / "out", nih) == 0
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".tfcxr.json"]
    assert not (tmp_path / ".out.partial").exists()


def test_files_that_appear_meanwhile_stay(tmp_path):
    with (
        pytest.raises(RunError, match="not empty"),
        files.resumable_folder(tmp_path / "out", worth_keeping=lambda _: False),
    ):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes").write_text("mine")
    assert (tmp_path / "out" / "notes").read_text() == "mine"


def test_records_that_are_not_those_of_the_manifest(tmp_path, nih, record_set, capfd):
    """Two shards that changed places would give every image the labels of another."""
    first, second = sorted(record_set.glob("*-train.tfrecord-*"))
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    salt = tmp_path / "salt"
    salt.write_text("a secret of many bytes")
    for more in ({}, {"hash_patient_ids": "true", "salt_file": salt}):
        assert _run(tmp_path / "out", record_set, dataset="records", **more) == 1
        assert "than the manifest says" in _error(capfd)
        shutil.rmtree(tmp_path / ".out.partial", ignore_errors=True)
    first.write_bytes(data[0])
    second.write_bytes(data[1])
    manifest = record_set / "manifest.csv"
    lines = manifest.read_text().splitlines()
    lines[1] = ",".join("10"[int(cell)] if cell in ("0", "1") else cell for cell in lines[1].split(","))
    manifest.write_text("\n".join([*lines, ""]))
    assert _run(tmp_path / "out", record_set, dataset="records") in (1, 2)
    _error(capfd)


@pytest.mark.parametrize("damage", ["field", "twice"])
def test_verify_a_damaged_manifest(record_set, capfd, damage):
    manifest = record_set / "manifest.csv"
    with manifest.open("a") as stream:
        stream.write('"' + "x" * 200_000 if damage == "field" else manifest.read_text().splitlines()[-1] + "\n")
    assert app.run(verify_records.main, verify_records.define_flags, ["verify-records", f"--records={record_set}"]) == 1
    out = capfd.readouterr()
    assert "manifest.csv: " in out.out + out.err and "Traceback" not in out.err


@pytest.mark.parametrize(("key", "value"), [("source", None), ("classes", None), ("label_version", {})])
def test_damaged_description(record_set, key, value):
    info = files.read_json(record_set / records.INFO_FILE)
    files.write_json(record_set / records.INFO_FILE, info | {key: value})
    with pytest.raises(InputError, match="is damaged"):
        records.load_info(record_set)


def test_split_lists_with_a_column_twice(tmp_path, nih, capfd):
    (tmp_path / "lists.csv").write_text("split,split,patient\ntrain,test,1\n")
    assert _run(tmp_path / "out", nih, split_policy="lists", split_lists=tmp_path / "lists.csv") == 2
    assert "two columns 'split'" in _error(capfd)


def test_a_benchmark_setting_is_not_called_unknown():
    with pytest.raises(InputError, match="classes-2: its classes are found in a label table"):
        labels.get_label_version("classes-2")


@pytest.mark.parametrize("place", ["deep/images", "deep", "deep/images_001/images", "deep/images_001"])
def test_images_that_lie_deeper_are_found_by_the_advice(tmp_path, nih, capfd, place):
    (nih / place).parent.mkdir(parents=True, exist_ok=True)
    (nih / "images").rename(nih / place)
    values = {"label_version": "multilabel"}
    assert _run(tmp_path / "out", nih, **values) == 2
    line = _error(capfd)
    assert f"{nih / place / '00000001_000.png'} has its name" in line and f"looked for in {nih}" in line
    advice = re.search(r"give --data_dir=(\S+), with --labels_csv=(\S+) if", line)
    assert _run(tmp_path / "out", advice[1], labels_csv=advice[2], **values) == 0


@pytest.mark.parametrize("moved", ["train", "."])
def test_chexpert_images_that_lie_deeper(tmp_path, capfd, moved):
    root = fakes.make_chexpert(tmp_path / "chexpert")
    (root / "deep").mkdir()
    if moved == "train":
        (root / "train").rename(root / "deep" / "train")
    else:
        (root / "deep" / root.name).mkdir()
        (root / "train").rename(root / "deep" / root.name / "train")
    assert _run(tmp_path / "out", root, dataset="chexpert") == 2
    line = _error(capfd)
    advice = re.search(r"give --data_dir=(\S+), with --labels_csv=(\S+) if", line)
    assert f"looked for in {root}/train/patient00001/study1" in line
    assert _run(tmp_path / "out", advice[1], labels_csv=advice[2], dataset="chexpert") == 0


def test_images_under_other_names(tmp_path, nih, capfd):
    """Another ending; another folder in a user's table; nothing at all."""
    (nih / "images" / "00000001_000.png").rename(nih / "images" / "00000001_000.jpg")
    assert _run(tmp_path / "out", nih) == 2
    line = _error(capfd)
    assert "the first is 00000001_000.png (line 2 of the table)" in line
    assert f"{nih}/images/00000001_000.jpg differs in its ending only" in line
    kids = fakes.make_folder_set(tmp_path / "kids")
    (kids / "table.csv").write_text("path,patient,Edema\nother/p0_0.png,1,1\n")
    assert _run(tmp_path / "out", kids, dataset="folder") == 2
    line = _error(capfd)
    assert f"all folders of {kids}" in line and "the end of its path, such as normal/p0_0.png" in line
    (kids / "table.csv").write_text("path,patient,Edema\nx.png,1,1\n")
    assert _run(tmp_path / "out", kids, dataset="folder") == 2
    line = _error(capfd)
    assert f"x.png (line 2 of the table), looked for in {kids}, all folders of {kids}; --missing_images=skip" in line

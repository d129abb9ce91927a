import csv
import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from flags import app
from tests import fakes
from tfcxr.commands import build_records as command
from tfrecords_builder import build_plan, build_records, labels, readers, records
from tfrecords_builder.images import pictures


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return fakes.make_chestxray(tmp_path_factory.mktemp("nih"))


@pytest.fixture
def nih_copy(tmp_path):
    return fakes.make_chestxray(tmp_path / "nih")


def _run(folder, data_dir, **values):
    values = {"dataset": "chestxray", "label_version": "v1_0s", "resolution": 16, **values}
    arguments = [f"--{name}={value}" for name, value in values.items()]
    return app.run(
        command.main,
        command.define_flags,
        ["build-records", f"--data_dir={data_dir}", f"--output_dir={folder}", *arguments],
    )


def _refused(capfd, folder, data_dir, message, code=2, **values):
    """The build fails with that code and one line, and leaves nothing but finished shards for the next try."""
    before = set(folder.parent.iterdir())
    capfd.readouterr()
    assert _run(folder, data_dir, **values) == code
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and message in line, line
    assert captured.out == ""
    left = set(folder.parent.iterdir()) - before
    assert left <= {folder.with_name(f".{folder.name}.partial")}
    assert all((path / ".work").is_dir() and code != 2 for path in left)


def _manifest(folder):
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_build_chestxray(tmp_path, nih, capfd):
    assert _run(tmp_path / "out", nih, split_policy="official") == 0
    info = records.load_info(tmp_path / "out")
    assert (info.name, info.source, info.classes) == ("chestxray", "chestxray", ("No Finding", "Pneumothorax"))
    assert info.split("test").class_counts == {"No Finding": 2, "Pneumothorax": 2}
    rows = _manifest(tmp_path / "out")
    assert len(rows) == 20 and {row["class"] for row in rows} == {"No Finding", "Pneumothorax"}
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["skipped"] == {"unmapped findings only": 1, "in no class of v1_0s": 30}
    assert (report["rows"], report["written"]) == (51, 20)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["digest"] == info.digest
    assert "--split_policy=official" in (tmp_path / "out" / "flags.txt").read_text()
    assert "20 of 51 rows written" in capfd.readouterr().out


def test_build_chexpert(tmp_path):
    root = fakes.make_chexpert(tmp_path / "chexpert")
    (root / "phantom.json").write_text('{"source": "phantom-a"}')
    assert _run(tmp_path / "out", root, dataset="chexpert", label_version="v3_0s", split_policy="official") == 0
    info = records.load_info(tmp_path / "out")
    assert info.source == "phantom-a" and info.split("test").num_patients == 4
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["skipped"] == {"lateral view": 6, "in no class of v3_0s": 10}
    row = _manifest(tmp_path / "out")[0]
    assert row["id"].startswith("CheXpert-v1.0-small/train/patient") and row["patient"] in row["id"]


def test_images_are_resized_to_the_pictures(tmp_path, nih):
    """Each label's bright region is where the fake data draw it, in the record of the right image."""
    options = build_plan.Options("chestxray", nih, "multilabel")
    build_records.build(_made(tmp_path / "out"), options, pictures.PictureOptions(16))
    info = records.load_info(tmp_path / "out")
    for record in map(records.parse_example, tf.data.TFRecordDataset(info.shard_paths("train"))):
        picture = record["image"].numpy()[..., 0].astype(float)
        original = np.asarray(Image.open(nih / "images" / record["image/id"].numpy().decode()), float)
        assert abs(picture.mean() - original.mean()) < 2
        for i, label in enumerate(labels.LABELS):
            if label in fakes.SIGNAL:
                y, x = (int(16 * part) for part in fakes.SIGNAL[label])
                assert (picture[y, x] > 150) == bool(record["label/vector"][i]) or label == "Support Devices"


def _made(folder):
    folder.mkdir()
    return folder


def test_byte_identical_whatever_the_workers(tmp_path, nih):
    for workers in (1, 4):
        assert (
            _run(tmp_path / str(workers), nih, label_version="multilabel", workers=workers, num_shards=3, seed=5) == 0
        )
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "4").iterdir())
    assert sum(".tfrecord-" in name for name in names) == 9
    for name in names:
        if name not in ("flags.txt", "result.json"):  # they hold the number of workers and the time
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes(), name


def test_no_patient_in_two_splits_and_the_same_split_in_every_version(tmp_path, nih):
    splits = {}
    for name, values in {
        "v1_xs": {},
        "multilabel": {},
        "v2": {"view": "PA", "resolution": 8},
        "v3_0s": {"limit": 20},
    }.items():
        assert _run(tmp_path / name, nih, label_version=name, seed=1, **values) == 0
        for row in _manifest(tmp_path / name):
            assert splits.setdefault(row["patient"], row["split"]) == row["split"]
    assert set(splits.values()) == {"train", "validation", "test"}


def test_image_policy_warns_and_records_it(tmp_path, nih, capfd):
    assert _run(tmp_path / "out", nih, split_policy="image") == 0
    assert "warning: --split_policy=image" in capfd.readouterr().err
    assert records.load_info(tmp_path / "out").split_policy == "image"
    assert "several splits" in (tmp_path / "out" / "build_report.json").read_text()


def test_limit_and_view(tmp_path, nih):
    assert _run(tmp_path / "out", nih, limit=9) == 0
    info = records.load_info(tmp_path / "out")
    assert sum(split.num_examples for split in info.splits.values()) == 9
    for name in info.classes:
        assert sum(split.class_counts[name] for split in info.splits.values()) >= 3
    assert json.loads((tmp_path / "out" / "build_report.json").read_text())["skipped"]["over --limit"] == 11


def test_missing_images(tmp_path, nih_copy, capfd):
    (nih_copy / "images" / "00000001_000.png").unlink()
    _refused(
        capfd, tmp_path / "out", nih_copy, "1 of the 20 images to be used are not there; the first is 00000001_000.png"
    )
    assert _run(tmp_path / "out", nih_copy, missing_images="skip") == 0
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["skipped"]["missing image"] == 1 and report["written"] == 19


@pytest.mark.parametrize("fault", ["truncated", "empty", "text"])
def test_bad_images(tmp_path, nih_copy, fault, capfd):
    path = nih_copy / "images" / "00000001_000.png"
    path.write_bytes({"truncated": path.read_bytes()[:200], "empty": b"", "text": b"no image"}[fault])
    _refused(capfd, tmp_path / "out", nih_copy, "00000001_000.png: cannot be used", code=1)
    assert _run(tmp_path / "out", nih_copy, bad_images="skip") == 0
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["skipped"]["bad image"] == 1 and report["written"] == 19


def test_too_many_open_files_make_no_image_bad(tmp_path, nih_copy, capfd, monkeypatch):
    def fail(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(readers, "read_image", fail)
    assert _run(tmp_path / "out", nih_copy, bad_images="skip") == 1
    message = r"^error: .*/images/\d+_\d+\.png: cannot be read \(Too many open files\); allow more with `ulimit -n`$"
    assert re.search(message, capfd.readouterr().err, re.MULTILINE)
    assert not (tmp_path / "out").exists()


def test_a_class_without_a_good_image(tmp_path, nih_copy, capfd):
    for row in csv.DictReader((nih_copy / "Data_Entry_2017.csv").open()):
        if row["Finding Labels"] == "Pneumothorax":
            (nih_copy / "images" / row["Image Index"]).write_bytes(b"")
    message = "class 'Pneumothorax' of v1_0s: no image of it could be decoded"
    capfd.readouterr()
    assert _run(tmp_path / "out", nih_copy, bad_images="skip") == 1
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_bad_tables(tmp_path, nih_copy, capfd):
    table, out = nih_copy / "Data_Entry_2017.csv", tmp_path / "out"
    original = table.read_text()
    for old, new, message in (
        ("Finding Labels", "Findings", "Data_Entry_2017.csv: has no column 'Finding Labels'"),
        (",Pneumothorax,", ",Pneumothorx,", "line 2, column Finding Labels: unknown finding 'Pneumothorx'"),
        ("00000001_000.png", "../00000001_000.png", "line 2, column Image Index"),
    ):
        _edit(table, old, new)
        _refused(capfd, out, nih_copy, message)
        table.write_text(original)
    (nih_copy / "test_list.txt").rename(nih_copy / "list.txt")
    _refused(capfd, out, nih_copy, "test_list.txt is not there", split_policy="official")
    _refused(capfd, out, nih_copy, "no train.csv", dataset="chexpert")


def test_empty_class_is_told_before_an_image_is_read(tmp_path, nih_copy, capfd):
    table = nih_copy / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(",Pneumonia,", ",Edema,"))
    for path in (nih_copy / "images").iterdir():
        path.write_bytes(b"")
    _refused(capfd, tmp_path / "out", nih_copy, "class 'Pneumonia' has no image", label_version="v3_0s")
    _refused(capfd, tmp_path / "out", nih_copy, "--label_version=v1_0s: no image is left", view="AP")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 48}, "resolution"),
        ({"label_version": "v9"}, "label_version"),
        ({"dataset": "nih"}, "dataset"),
        ({"data_dir": "nowhere"}, "data_dir"),
        ({"labels_csv": "nowhere.csv"}, "labels_csv"),
        ({"split_fractions": "0.5,0.1,0.1"}, "split_fractions"),
        ({"uncertain": "maybe"}, "uncertain"),
        ({"limit": -1}, "limit"),
        ({"runner": "spark"}, "runner"),
        ({"runner": "beam", "beam_options": "--nonsense=1"}, "Beam has no option --nonsense"),
        ({"aspect": "wide"}, "aspect"),
        ({"contrast": "more"}, "contrast"),
        ({"images_per_class": "5,5"}, "images_per_class"),
        ({"hash_patient_ids": "true"}, "--hash_patient_ids needs --salt_file"),
        ({"split_policy": "lists"}, "--split_policy=lists and --split_lists need each other"),
        ({"split_policy": "kfold", "fold": 5}, "--fold=5"),
        ({"dataset": "folder", "columns": "path"}, "--columns"),
        ({"label_versions_file": "nowhere.json"}, "label_versions_file"),
    ],
)
def test_bad_flags(tmp_path, nih, values, message, capfd):
    data_dir = values.pop("data_dir", nih) if "data_dir" in values else nih
    _refused(capfd, tmp_path / "out", data_dir, message, **values)


def test_overwrite(tmp_path, nih, capfd):
    assert _run(tmp_path / "out", nih) == 0
    _refused(capfd, tmp_path / "out", nih, "is not empty", resolution=8)
    assert records.load_info(tmp_path / "out").resolution == 16
    assert _run(tmp_path / "out", nih, resolution=8, overwrite="true") == 0
    assert records.load_info(tmp_path / "out").resolution == 8


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            tf.errors.ResourceExhaustedError(None, None, "No space left on device"),
            1,
            "cannot be written (No space left",
        ),
        (OSError(28, "No space left on device"), 1, "cannot be written (No space left on device)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_nothing_is_left_of_a_build_that_stops(tmp_path, nih, monkeypatch, capfd, error, code, message):
    def write(self, record):
        raise error

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", write)
    _refused(capfd, tmp_path / "out", nih, message, code=code)


def test_flags_replay(tmp_path, nih):
    assert _run(tmp_path / "out", nih, seed=4, split_fractions="0.8,0.2,0.0") == 0
    replay = ["build-records", f"--flagfile={tmp_path / 'out' / 'flags.txt'}", f"--output_dir={tmp_path / 'again'}"]
    assert app.run(command.main, command.define_flags, replay) == 0
    assert records.load_info(tmp_path / "again").digest == records.load_info(tmp_path / "out").digest
    assert set(records.load_info(tmp_path / "again").splits) == {"train", "validation"}


def test_help_does_not_import_tensorflow():
    code = "import sys; from flags import app; from tfcxr.commands import build_records, verify_records\n"
    code += "for b in (build_records, verify_records): assert app.run(b.main, b.define_flags, ['x', '--help']) == 0\n"
    code += "assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--label_version" in done.stdout


def test_real_images(tmp_path, shared_dir):
    """A few real radiographs through the binary, official split."""
    data_dir = shared_dir / "data" / "nih"
    assert _run(tmp_path / "out", data_dir, split_policy="official", missing_images="skip", limit=60) == 0
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["rows"] == 112120 and report["written"] == 60
    assert report["skipped"]["unmapped findings only"] == 20343
    assert set(report["splits"]) == {"train", "validation", "test"}

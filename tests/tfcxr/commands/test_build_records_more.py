"""build-records on every data set and policy, stopped, run twice at once, and through Beam."""

import collections
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from flags import app
from tests import fakes
from tfcxr.commands import build_records, label_stats, verify_records
from tfrecords_builder import records
from tfrecords_builder.records import overlap, writing


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return fakes.make_chestxray(tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def kids(tmp_path_factory):
    return fakes.make_folder_set(tmp_path_factory.mktemp("kids"), num_patients=15)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    path = tmp_path_factory.mktemp("versions") / "versions.json"
    rules = {
        "NORMAL": {"one": ["No Finding"], "zero": ["Pneumonia"]},
        "PNEUMONIA": {"one": ["Pneumonia"], "zero": ["No Finding"]},
    }
    with_tb = {**rules, "TB": {"one": ["Tuberculosis"], "zero": ["No Finding", "Pneumonia"]}}
    path.write_text(json.dumps({"normal_pneumonia": rules, "three": with_tb}))
    return path


KIDS = {
    "dataset": "folder",
    "columns": "path:file,patient:pid,class:finding,view:view,age:years,split:part",
    "class_values": "NORMAL:No Finding,PNEUMONIA:Pneumonia,TB:Tuberculosis",
}


def _run(folder, data_dir, **values):
    values = {"dataset": "chestxray", "label_version": "v1_0s", "resolution": 16, **values}
    arguments = [f"--{name}={value}" for name, value in values.items()]
    arguments += [f"--data_dir={data_dir}", f"--output_dir={folder}"]
    return app.run(build_records.main, build_records.define_flags, ["build-records", *arguments])


def _verify(folder):
    return app.run(verify_records.main, verify_records.define_flags, ["verify-records", f"--records={folder}"])


def _manifest(folder):
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _skipped(folder):
    with (folder / "skipped.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _same(first, second, but=("flags.txt", "result.json")):
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        if name not in but:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_folder_with_versions_of_ones_own(tmp_path, kids, versions):
    values = {**KIDS, "label_version": "three", "label_versions_file": versions, "split_policy": "official"}
    assert _run(tmp_path / "out", kids, **values) == 0
    info = records.load_info(tmp_path / "out")
    assert (info.dataset, info.source, info.split_policy) == ("folder", f"folder:{kids.name}", "official")
    assert info.classes == ("NORMAL", "PNEUMONIA", "TB")
    assert info.split("train").class_counts == {"NORMAL": 6, "PNEUMONIA": 6, "TB": 6}
    assert info.split("test").class_counts == {"NORMAL": 2, "PNEUMONIA": 2, "TB": 2}
    rows = _manifest(tmp_path / "out")
    (row,) = (row for row in rows if row["id"] == "tb/p2_0.png")
    assert (row["class"], row["extra"], row["patient"], row["age"], row["split"]) == (
        "TB",
        "Tuberculosis",
        "p2",
        "32",
        "train",
    )
    assert _verify(tmp_path / "out") == 0
    # The same version without the third class leaves those images out, and says so row by row.
    assert _run(tmp_path / "two", kids, **{**values, "label_version": "normal_pneumonia"}) == 0
    skipped = _skipped(tmp_path / "two")
    assert len(skipped) == 10 and {row["reason"] for row in skipped} == {"unmapped findings only"}
    assert skipped[0] == {"table": "table.csv", "line": "6", "id": "tb/p2_0.png", "reason": "unmapped findings only"}
    report = json.loads((tmp_path / "two" / "build_report.json").read_text())
    assert report["skipped"] == {"unmapped findings only": 10}


def test_a_name_that_nothing_has(tmp_path, kids, nih, versions, capfd):
    versions = tmp_path / "versions.json"
    versions.write_text('{"v": {"A": {"one": ["Pneumonai"]}, "B": {"one": ["No Finding"], "zero": ["Pneumonai"]}}}')
    assert _run(tmp_path / "out", nih, label_version="v", label_versions_file=versions) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "'Pneumonai'" in line and "Pneumonia" in line
    assert not (tmp_path / "out").exists()


def test_set_of_a_set(tmp_path, nih):
    """A multi-label record set, built again as v1_xs at half its size, holds the images that the data set gives."""
    assert _run(tmp_path / "all", nih, label_version="multilabel", resolution=32, split_policy="official") == 0
    official = {"split_policy": "official", "label_version": "v1_xs"}
    assert _run(tmp_path / "again", tmp_path / "all", dataset="records", **official) == 0
    assert _run(tmp_path / "direct", nih, **official) == 0
    columns = ("id", "patient", "split", "class", "view", "sex", "age", "Pneumothorax", "Pleural Effusion")
    rows = {
        name: sorted(tuple(row[c] for c in columns) for row in _manifest(tmp_path / name))
        for name in ("again", "direct")
    }
    assert rows["again"] == rows["direct"] and len(rows["again"]) == 30
    assert records.load_info(tmp_path / "again").source == "chestxray"
    assert _verify(tmp_path / "again") == 0


def test_set_of_a_synthetic_set(tmp_path):
    """Images without patients: each is its own, and the splits are those of the set."""
    fakes.make_records(tmp_path / "set", label_version="multilabel", with_patients=False, source="synthetic:gan")
    values = {"dataset": "records", "label_version": "v1_xs", "resolution": 8, "split_policy": "official"}
    assert _run(tmp_path / "out", tmp_path / "set", **values) == 0
    info = records.load_info(tmp_path / "out")
    assert info.source == "synthetic:gan" and info.split("train").num_patients is None
    before = {row["id"]: row for row in _manifest(tmp_path / "set")}
    assert all(row["split"] == before[row["id"]]["split"] for row in _manifest(tmp_path / "out"))
    # At the same size the pixels stay.
    read = records.parse_example
    old, new = (
        {
            record["image/id"].numpy(): record["image"].numpy()
            for record in map(read, tf.data.TFRecordDataset(records.load_info(folder).shard_paths("train")))
        }
        for folder in (tmp_path / "set", tmp_path / "out")
    )
    assert new and all((image == old[key]).all() for key, image in new.items())


def test_benchmark_setting(tmp_path, capfd):
    root = fakes.make_chexpert(tmp_path / "chexpert", num_patients=60, num_valid=0)
    values = {"dataset": "chexpert", "label_version": "classes-4"}
    assert _run(tmp_path / "out", root, **values) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "3900 are wanted" in line and "--images_per_class" in line
    assert _run(tmp_path / "out", root, **values, images_per_class="10,2,1") == 0
    info = records.load_info(tmp_path / "out")
    assert info.uncertain == "ones" and len(info.classes) == 4
    assert "Pneumothorax|Pleural Effusion" in info.classes
    assert {name: set(split.class_counts.values()) for name, split in info.splits.items()} == {
        "train": {10},
        "validation": {2},
        "test": {1},
    }
    assert _verify(tmp_path / "out") == 0
    assert collections.Counter(row["reason"] for row in _skipped(tmp_path / "out"))["over --images_per_class"] > 0


def test_uncertain_policy_per_label(tmp_path):
    root = fakes.make_chexpert(tmp_path / "chexpert")
    table = root / "train.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    for i, row in enumerate(rows):
        row["Edema"], row["Fracture"] = ("-1.0", "") if i % 2 else ("", "-1.0")
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    values = {"dataset": "chexpert", "label_version": "multilabel", "uncertain": "zeros,Edema:ones,Fracture:drop"}
    assert _run(tmp_path / "out", root, **values) == 0
    kept = _manifest(tmp_path / "out")
    assert {row["Edema"] for row in kept} == {"1"} and {row["Fracture"] for row in kept} == {"0"}
    reasons = collections.Counter(row["reason"] for row in _skipped(tmp_path / "out"))
    frontal = sum(row["Frontal/Lateral"] == "Frontal" for row in rows)
    assert reasons["uncertain label dropped"] + len(kept) == frontal and len(kept) > 10
    # Edema without Lung Opacity, its parent.
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["hierarchy"]["Edema without Lung Opacity"] == len(kept)


def test_kfold(tmp_path, nih):
    tested = collections.Counter()
    for fold in range(3):
        assert _run(tmp_path / str(fold), nih, split_policy="kfold", num_folds=3, fold=fold) == 0
        parts = collections.defaultdict(set)
        for row in _manifest(tmp_path / str(fold)):
            parts[row["split"]].add(row["patient"])
        assert not parts["train"] & parts["test"] and not parts["validation"] & parts["test"]
        tested.update(parts["test"])
    assert len(tested) == 10 and set(tested.values()) == {1}
    assert _run(tmp_path / "two", nih, split_policy="kfold", num_folds=2, kfold_test="false") == 0
    info = records.load_info(tmp_path / "two")
    assert set(info.splits) == {"train", "validation"}
    assert info.provenance["num_folds"] == 2 and info.provenance["fold"] == 0


def test_split_lists_of_a_manifest(tmp_path, nih):
    """Every patient of another set's manifest keeps the split; patients that it does not know are left out."""
    assert _run(tmp_path / "first", nih, seed=3) == 0
    lists = {"split_policy": "lists", "split_lists": tmp_path / "first"}
    assert _run(tmp_path / "second", nih, label_version="multilabel", **lists) == 0
    first = {row["patient"]: row["split"] for row in _manifest(tmp_path / "first")}
    second = {row["patient"]: row["split"] for row in _manifest(tmp_path / "second")}
    assert second == first
    reasons = collections.Counter(row["reason"] for row in _skipped(tmp_path / "second"))
    assert reasons == {"unmapped findings only": 1, "in no official list or split list": 30}


def test_hashed_patients(tmp_path, nih, capfd):
    (tmp_path / "salt").write_text("a secret of many bytes\n")
    hashed = {"hash_patient_ids": "true", "salt_file": tmp_path / "salt"}
    assert _run(tmp_path / "plain", nih, split_policy="official") == 0
    assert _run(tmp_path / "hashed", nih, split_policy="official", **hashed) == 0
    plain, rows = _manifest(tmp_path / "plain"), _manifest(tmp_path / "hashed")
    assert [row["split"] for row in plain] == [row["split"] for row in rows]
    assert len({row["patient"] for row in rows}) == len({row["patient"] for row in plain}) == 10
    for before, after in zip(plain, rows, strict=True):
        assert len(after["patient"]) == 16 and after["id"] == f"{after['patient']}{before['id'][8:]}"
    assert records.load_info(tmp_path / "hashed").hashed_patients
    everything = b"".join(path.read_bytes() for path in (tmp_path / "hashed").iterdir() if path.is_file())
    for row in plain:
        assert row["id"].encode() not in everything
    assert {row["id"] for row in _skipped(tmp_path / "hashed")} == {""}
    # The same secret finds the patients of a hashed manifest again.
    lists = {"split_policy": "lists", "split_lists": tmp_path / "hashed"}
    assert _run(tmp_path / "again", nih, **lists, **hashed) == 0
    assert {row["patient"] for row in _manifest(tmp_path / "again")} == {row["patient"] for row in rows}
    (tmp_path / "salt").write_text("short")
    assert _run(tmp_path / "out", nih, **hashed) == 2
    assert "holds 5 bytes" in capfd.readouterr().err


def test_aspect_and_contrast(tmp_path, kids):
    wide = tmp_path / "wide"
    wide.mkdir()
    (wide / "table.csv").write_text("path,Pneumothorax\na.png,1\nb.png,1\nc.png,1\n")
    picture = np.zeros((16, 32), np.uint8)
    picture[:, 16:] = 100
    for i, name in enumerate("abc"):
        Image.fromarray(picture + np.uint8(i)).save(wide / f"{name}.png")
    values = {"dataset": "folder", "label_version": "multilabel", "split_fractions": "1,0,0"}
    assert _run(tmp_path / "out", wide, **values, aspect="pad", contrast="max") == 0
    info = records.load_info(tmp_path / "out")
    assert (info.aspect, info.contrast) == ("pad", "max")
    pictures = {
        record["image/id"].numpy().decode(): record["image"].numpy()[..., 0]
        for record in map(records.parse_example, tf.data.TFRecordDataset(info.shard_paths("train")))
    }
    image = pictures["a.png"]
    assert (image[:4] == 0).all() and (image[12:] == 0).all() and (image[4:12, 10:] == 255).all()
    assert "--aspect=pad" in (tmp_path / "out" / "flags.txt").read_text()
    # A set made of this one has its aspect and contrast.
    again = {"dataset": "records", "label_version": "multilabel", "resolution": 8, "split_policy": "official"}
    assert _run(tmp_path / "again", tmp_path / "out", **again) == 0
    info = records.load_info(tmp_path / "again")
    assert (info.aspect, info.contrast) == ("pad", "max")


def test_read_by_tfds_with_classes_of_ones_own(tmp_path, kids, versions):
    values = {**KIDS, "label_version": "three", "label_versions_file": versions}
    assert _run(tmp_path / "out", kids, **values) == 0
    data = tfds.builder_from_directory(str(tmp_path / "out")).as_dataset()
    counts = collections.Counter(int(row["label/class"]) for split in data.values() for row in split)
    assert counts == {0: 10, 1: 10, 2: 10}


_SLOW = """
import sys, time
from flags import app
from tfcxr.commands import build_records
from tfrecords_builder import readers
read = readers.read_image
def slow(path, offset=-1):
    time.sleep(0.05)
    return read(path, offset)
readers.read_image = slow
sys.exit(app.run(build_records.main, build_records.define_flags, ["build-records", *sys.argv[1:]]))
"""


def _start(folder, nih):
    """A build of one image per shard, at 20 images/s, in a process of its own."""
    arguments = ["--dataset=chestxray", "--label_version=multilabel", "--resolution=16", "--num_shards=50"]
    arguments += [f"--data_dir={nih}", f"--output_dir={folder}", "--workers=1"]
    root = pathlib.Path(build_records.__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", _SLOW, *arguments], cwd=root, stderr=subprocess.PIPE, text=True)
    parts = folder.with_name(f".{folder.name}.partial") / writing.WORK_FOLDER
    while len(list(parts.glob("*.tfrecord-*.json"))) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process, parts


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_goes_on_and_ends_the_same(tmp_path, nih, number, capfd):
    process, parts = _start(tmp_path / "out", nih)
    process.send_signal(number)
    code = process.wait(30)
    assert code == (-9 if number == signal.SIGKILL else 143)
    assert not (tmp_path / "out").exists()
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("*.tfrecord-*.json")}
    assert 5 <= len(finished) < 45
    values = {"label_version": "multilabel", "num_shards": 50}
    taken = {}

    def keep(job, on_image=lambda: None):
        taken[job.name] = True
        return write(job, on_image)

    write, writing.write_shard = writing.write_shard, keep
    try:
        assert _run(tmp_path / "out", nih, **values) == 0
    finally:
        writing.write_shard = write
    assert len(taken) == 50 - len(finished)
    assert _run(tmp_path / "whole", nih, **values) == 0
    _same(tmp_path / "out", tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_two_builds_into_one_folder(tmp_path, nih, capfd):
    process, _ = _start(tmp_path / "out", nih)
    try:
        assert _run(tmp_path / "out", nih) == 2
        assert "another program is writing it" in capfd.readouterr().err
    finally:
        process.wait(60)
    assert process.returncode == 0
    assert _verify(tmp_path / "out") == 0


def test_a_changed_image_is_read_again(tmp_path, capfd):
    """An image that is replaced between stop and resume, in a shard that was finished."""
    nih = fakes.make_chestxray(tmp_path / "nih")
    bad = nih / "images" / "00000020_000.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    values = {"label_version": "multilabel", "num_shards": 10, "workers": 1, "split_fractions": "1,0,0"}
    assert _run(tmp_path / "out", nih, **values) == 1
    assert "what is finished is kept" in capfd.readouterr().err
    shards = list((tmp_path / ".out.partial").glob("*.tfrecord-*"))
    assert 0 < len(shards) < 10
    bad.write_bytes(good)
    row = next(tf.data.TFRecordDataset(str(shards[0])).as_numpy_iterator())
    changed = nih / "images" / records.read_example(row)["image/id"]
    Image.fromarray(np.full((24, 24), 7, np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    assert _run(tmp_path / "out", nih, **values) == 0
    assert _run(tmp_path / "whole", nih, **values) == 0
    _same(tmp_path / "out", tmp_path / "whole")


def test_beam_gives_the_same(tmp_path, nih, capfd):
    pytest.importorskip("apache_beam")
    values = {"label_version": "multilabel", "num_shards": 3}
    assert _run(tmp_path / "local", nih, **values) == 0
    assert _run(tmp_path / "beam", nih, **values, runner="beam") == 0
    _same(tmp_path / "local", tmp_path / "beam")
    options = "--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_threading"
    assert _run(tmp_path / "threads", nih, **values, runner="beam", beam_options=options) == 0
    _same(tmp_path / "local", tmp_path / "threads")


@pytest.mark.large
def test_beam_in_processes_gives_the_same(tmp_path, nih):
    pytest.importorskip("apache_beam")
    values = {"label_version": "multilabel", "num_shards": 3}
    assert _run(tmp_path / "local", nih, **values) == 0
    options = "--direct_num_workers=2 --direct_running_mode=multi_processing"
    assert _run(tmp_path / "beam", nih, **values, runner="beam", beam_options=options) == 0
    _same(tmp_path / "local", tmp_path / "beam")


def test_beam_failures_are_one_line(tmp_path, capfd):
    pytest.importorskip("apache_beam")
    nih = fakes.make_chestxray(tmp_path / "nih")
    (nih / "images" / "00000020_000.png").write_bytes(b"")
    assert _run(tmp_path / "out", nih, label_version="multilabel", runner="beam") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and "00000020_000.png: cannot be used: is empty" in line, line
    assert not (tmp_path / "out").exists()
    assert _run(tmp_path / "out", nih, label_version="multilabel", runner="beam", bad_images="skip") == 0
    assert [row["reason"] for row in _skipped(tmp_path / "out")][-1].startswith("bad image: is empty")


def test_duplicate_pictures_are_told(tmp_path, capfd):
    nih = fakes.make_chestxray(tmp_path / "nih")
    first, second = nih / "images" / "00000005_000.png", nih / "images" / "00000010_000.png"
    second.write_bytes(first.read_bytes())
    assert _run(tmp_path / "out", nih) == 0
    assert "images that repeat the pixels of another: 1 " in capfd.readouterr().err
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["duplicates"]["examples"] == [sorted([first.name, second.name])] or report["duplicates"][
        "examples"
    ] == [[second.name, first.name]]
    assert report["duplicates"]["across_patients"] == 1


def test_dicom(tmp_path):
    """A real radiograph (MONOCHROME1, 15 bits) becomes a record like any other file."""
    pytest.importorskip("pydicom")
    from pydicom import data

    path = data.get_testdata_file("RG1_UNCR.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    source = tmp_path / "source"
    source.mkdir()
    (source / "chest.dcm").write_bytes(pathlib.Path(path).read_bytes())
    (source / "table.csv").write_text("path,patient,Support Devices\nchest.dcm,7,1\n")
    values = {"dataset": "folder", "label_version": "multilabel", "split_fractions": "1,0,0"}
    assert _run(tmp_path / "out", source, **values, resolution=64, aspect="pad") == 0
    info = records.load_info(tmp_path / "out")
    (record,) = map(records.parse_example, tf.data.TFRecordDataset(info.shard_paths("train")))
    image = record["image"].numpy()[..., 0]
    assert image.shape == (64, 64) and image.min() < 10 and image.max() > 200
    # The spine is bright, the air beside the patient dark, as in a film that is not inverted.
    assert image[30:60, 30:34].mean() > image[2:12, 8:14].mean() + 40


def _overlap(first, second):
    found = overlap.find_overlap(records.load_info(first), "train", records.load_info(second), "train")
    return len(found.patients), len(found.images)


def test_two_folders_of_one_last_name_are_two_data_sets(tmp_path):
    """Their patients bear the same ids; a name given by hand says that two folders are of the same patients."""
    first = fakes.make_folder_set(tmp_path / "a" / "images", size=16)
    second = fakes.make_folder_set(tmp_path / "b" / "images", size=20)
    values = {**KIDS, "label_version": "multilabel", "split_fractions": "1,0,0"}
    for name, folder, more in (
        ("one", first, {}),
        ("again", first, {"resolution": 8}),
        ("two", second, {}),
        ("named", second, {"dataset_name": "clinic"}),
        ("same", first, {"dataset_name": "clinic", "resolution": 8}),
    ):
        assert _run(tmp_path / name, folder, **values, **more) == 0
    names = {name: records.load_info(tmp_path / name).dataset_name for name in ("one", "again", "two", "named")}
    assert names["one"] == names["again"] != names["two"] and names["one"].startswith("images-")
    assert names["named"] == "clinic"
    assert _overlap(tmp_path / "one", tmp_path / "two") == (0, 0)
    patients, images = _overlap(tmp_path / "one", tmp_path / "again")
    assert patients == 7 and images == 0
    assert _overlap(tmp_path / "named", tmp_path / "same") == (7, 0)
    # A set made of a set keeps the name, unless another one is given.
    for more, expected in (({}, "clinic"), ({"dataset_name": "other"}, "other")):
        values = {"dataset": "records", "label_version": "multilabel", "overwrite": "true", **more}
        assert _run(tmp_path / "derived", tmp_path / "named", **values) == 0
        assert records.load_info(tmp_path / "derived").dataset_name == expected
    assert "| data set name | other |" in (tmp_path / "derived" / "DATASHEET.md").read_text()


def test_the_same_data_under_two_names_share_their_images(tmp_path, nih):
    copy = shutil.copytree(nih, tmp_path / "copy")
    values = {"label_version": "multilabel", "split_fractions": "1,0,0"}
    assert _run(tmp_path / "one", nih, **values) == 0
    assert _run(tmp_path / "two", copy, dataset_name="elsewhere", **values) == 0
    assert _overlap(tmp_path / "one", tmp_path / "two") == (0, 50)


def test_phantoms_of_two_seeds_are_different_patients(tmp_path, nih):
    for seed in (1, 2):
        copy = shutil.copytree(nih, tmp_path / f"phantom{seed}")
        (copy / "phantom.json").write_text(json.dumps({"source": "phantom-b", "seed": seed}))
        assert _run(tmp_path / f"set{seed}", copy, label_version="multilabel") == 0
    infos = [records.load_info(tmp_path / f"set{seed}") for seed in (1, 2)]
    assert [info.dataset_name for info in infos] == ["phantom-b-seed-1", "phantom-b-seed-2"]
    assert [info.source for info in infos] == ["phantom-b"] * 2


def test_an_old_set_is_built_from_and_verified(tmp_path, nih):
    assert _run(tmp_path / "new", nih, label_version="multilabel", resolution=32) == 0
    old = fakes.make_old(tmp_path / "new")
    assert _verify(old) == 0
    assert _run(tmp_path / "out", old, dataset="records", resolution=32) == 0
    assert records.load_info(tmp_path / "out").dataset_name == ""
    assert _verify(tmp_path / "out") == 0


def test_a_folder_for_each_class_needs_no_table(tmp_path, kids, capfd):
    (tmp_path / "kids").mkdir()
    for name in ("normal", "pneumonia"):
        shutil.copytree(kids / name, tmp_path / "kids" / "train" / name.upper())
    (tmp_path / "kids" / "train" / "NORMAL" / "._p0_0.png").write_bytes(b"macOS")
    values = {
        "dataset": "imagefolder",
        "class_values": "NORMAL:No Finding,PNEUMONIA:Pneumonia",
        "patient_pattern": r"p\d+",
        "label_version": "v2",
    }
    assert _run(tmp_path / "out", tmp_path / "kids", **values) == 0
    info = records.load_info(tmp_path / "out")
    counts = [sum(split.class_counts[name] for split in info.splits.values()) for name in info.classes]
    assert (info.dataset, info.source, counts) == ("imagefolder", "folder:kids", [10, 10])
    assert sum(split.num_patients for split in info.splits.values()) == 10
    row = next(row for row in _manifest(tmp_path / "out") if row["id"] == "train/PNEUMONIA/p1_0.png")
    assert (row["class"], row["patient"], row["Pneumonia"]) == ("Finding", "p1", "1")
    assert _verify(tmp_path / "out") == 0
    stats = ["label-stats", f"--data_dir={tmp_path / 'kids'}", f"--output_dir={tmp_path / 'stats'}"]
    stats += [f"--{name}={values[name]}" for name in ("dataset", "class_values", "patient_pattern")]
    assert app.run(label_stats.main, label_stats.define_flags, stats) == 0
    assert json.loads((tmp_path / "stats" / "result.json").read_text())["rows"] == 20
    (tmp_path / "kids" / "train" / "NORMAL" / "p99.png").write_bytes(b"no image")
    capfd.readouterr()
    assert _run(tmp_path / "bad", tmp_path / "kids", **values) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert "NORMAL/p99.png: cannot be used: is no PNG, JPEG or DICOM file (it starts with b'no image'); --bad" in line
    assert _run(tmp_path / "x", tmp_path / "kids", dataset="chestxray", patient_pattern="p") == 2
    assert "--patient_pattern: does nothing without --dataset=folder or imagefolder" in capfd.readouterr().err


def test_images_of_16_bits_that_use_12(tmp_path, capfd):
    (tmp_path / "set").mkdir()
    rows = ["path,patient,No Finding,Edema"]
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 4096, (16, 16), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{i}.png")
        rows.append(f"{i}.png,{i},{i % 2},{1 - i % 2}")
    (tmp_path / "set" / "t.csv").write_text("\n".join(rows) + "\n")
    values = {"dataset": "folder", "label_version": "v2", "split_fractions": "1,0,0"}
    assert _run(tmp_path / "out", tmp_path / "set", **values) == 0
    assert "0.png has 16 bits and uses the lower 12 only, so that its picture is nearly black" in capfd.readouterr().err
    assert _run(tmp_path / "max", tmp_path / "set", contrast="max", **values) == 0
    assert "nearly black" not in capfd.readouterr().err

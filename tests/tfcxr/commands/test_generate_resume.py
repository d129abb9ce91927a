"""Synthetic sets that are stopped and go on, PNG files in CheXpert's layout, strips and truncation."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from flags import app
from tests import gan_runs
from tests.conftest import ROOT
from tfcxr import generation, read_records
from tfcxr.commands import build_records, generate
from tfcxr.gan import loading
from tfcxr.generation import pngs
from tfrecords_builder import labels
from tfrecords_builder.errors import RunError
from tfrecords_builder.records import writing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return gan_runs.make_gan_run(tmp_path_factory.mktemp("gan") / "run")


def call(*arguments):
    return app.run(generate.main, generate.define_flags, ["generate", *arguments])


def contents(folder):
    """Relative path -> bytes of all that a stop must not change; result.json has the speed, flags.txt the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("result.json", "flags.txt")
    }


def records(folder, splits=("train", "validation")):
    return {
        row["image/id"].decode(): (row["image"], row["label/vector"])
        for split in splits
        for row in read_records(folder, split).as_numpy_iterator()
    }


def test_a_killed_set_goes_on_and_ends_the_same(run, tmp_path):
    settings = [f"--run_dir={run}", "--label_version=v2", "--per_class=450", "--images_per_shard=20", "--also_png"]
    settings += ["--strips", "--batch_size=16", "--truncation=0.7"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call(*settings, f"--output_dir={whole}") == 0
    partial = tmp_path / ".broken.partial"
    command = [sys.executable, "-m", "tfcxr.commands.generate", *settings, f"--output_dir={broken}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while process.poll() is None and len(list((partial / writing.WORK_FOLDER).glob("*.json"))) < 3:
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    parts = list((partial / writing.WORK_FOLDER).glob("*.json"))
    finished = [partial / path.stem for path in parts]
    assert 3 <= len(finished) < 45
    assert not broken.exists()
    stamps = {path.name: path.stat().st_mtime_ns for path in finished}
    assert call(*settings, f"--output_dir={broken}") == 0
    assert not partial.exists()
    assert {name: (broken / name).stat().st_mtime_ns for name in stamps} == stamps
    assert json.loads((broken / "result.json").read_text())["taken_over"] == 20 * len(finished)
    assert contents(broken) == contents(whole)
    assert len(list(whole.glob("*.tfrecord*"))) == 45
    assert len(list(whole.rglob("view1_frontal.png"))) == 900


@pytest.mark.parametrize("change", ["seed", "weights", "labels", "nothing"])
def test_only_shards_of_the_same_images_are_taken_over(run, tmp_path, monkeypatch, change):
    generator, version = loading.load(run), labels.get_label_version("v1_0s")
    plan = generation.plan_balanced(generator, version, 30, seed=0)
    options = generation.Options(images_per_shard=8, also_png=True)
    write_image, count = pngs.write_image, 0

    def stop(*arguments):
        nonlocal count
        count += 1
        if count > 20:
            raise RunError("the disk is full")
        write_image(*arguments)

    with monkeypatch.context() as patched, pytest.raises(RunError, match="the disk is full"):
        patched.setattr(pngs, "write_image", stop)
        generation.write(generator, plan, tmp_path, options)
    if change == "weights":
        generator.model.weights[0].assign_add(tf.ones_like(generator.model.weights[0]))
    elif change == "labels":
        plan = generation.plan_vector(generator, version, "Pneumothorax", 60)
    elif change != "nothing":
        options = generation.Options(images_per_shard=8, also_png=True, seed=1)
    result = generation.write(generator, plan, tmp_path, options)
    assert result["taken_over"] == (16 if change == "nothing" else 0)
    shutil.copytree(tmp_path, tmp_path / "copy")
    (tmp_path / "fresh").mkdir()
    generation.write(generator, plan, tmp_path / "fresh", options)
    assert contents(tmp_path / "copy") == contents(tmp_path / "fresh")


def test_a_stopped_set_without_pngs_leaves_none_of_a_former_one(run, tmp_path, monkeypatch):
    generator = loading.load(run)
    plan = generation.plan_vector(generator, labels.get_label_version("v2"), "Edema", 20)

    def fail(*_):
        raise RunError("stopped")

    with monkeypatch.context() as patched, pytest.raises(RunError):
        patched.setattr(pngs, "write_image", fail)
        generation.write(generator, plan, tmp_path, generation.Options(also_png=True, strips=True))
    assert (tmp_path / pngs.FOLDER / "train.csv").exists()
    generation.write(generator, plan, tmp_path, generation.Options())
    assert not (tmp_path / pngs.FOLDER).exists()
    assert not (tmp_path / "interpolation_latents.png").exists()


def test_a_png_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / pngs.FOLDER).write_text("a file")
    with pytest.raises(RunError, match=r"patient0000003/study1/view1_frontal.png: cannot be written"):
        pngs.write_image(tmp_path, "train", 3, b"")


def test_a_full_disk_is_one_line_and_the_next_call_goes_on(run, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("Edema,count,split\n1,5,train\n1,900,validation\n")
    settings = [f"--run_dir={run}", "--label_version=v2", "--label_source=table", f"--label_table={table}"]
    settings.append("--allow_unseen_labels")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call(*settings, f"--output_dir={whole}") == 0
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # no file may be larger, which TensorFlow and Python see as they see a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        assert call(*settings, f"--output_dir={broken}") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(error) == 1
    assert "cannot be written" in error[0]
    assert "what is finished is kept, the same command goes on from there" in error[0]
    assert not broken.exists()
    assert call(*settings, f"--output_dir={broken}") == 0
    assert json.loads((broken / "result.json").read_text())["taken_over"] == 5
    assert contents(broken) == contents(whole)


def test_build_records_reads_the_pngs_back(run, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("Edema,Support Devices,No Finding,count,split\n1,1,0,7,train\n0,0,1,5,train\n1,0,0,4,validation\n")
    out = tmp_path / "out"
    arguments = [f"--run_dir={run}", "--label_version=multilabel", "--label_source=table", f"--label_table={table}"]
    arguments.append("--allow_unseen_labels")
    assert call(*arguments, "--also_png", f"--output_dir={out}") == 0
    expected = records(out)
    # CheXpert's valid.csv is its official test fold.
    arguments = ["--dataset=chexpert", f"--data_dir={out}", "--split_policy=official", "--label_version=multilabel"]
    arguments += ["--resolution=8", "--workers=1", f"--output_dir={tmp_path / 'again'}"]
    assert app.run(build_records.main, build_records.define_flags, ["build-records", *arguments]) == 0
    found = records(tmp_path / "again", ("train", "validation", "test"))
    assert len(found) == len(expected) == 16
    for name, (image, vector) in expected.items():
        folder = "valid" if int(name.removeprefix("synthetic-")) >= 12 else "train"
        path = f"{pngs.FOLDER}/{folder}/patient{int(name.removeprefix('synthetic-')):07d}/study1/view1_frontal.png"
        np.testing.assert_array_equal(found[path][0], image)
        np.testing.assert_array_equal(found[path][1], vector)
    info = json.loads((tmp_path / "again" / "tfcxr_info.json").read_text())
    assert info["source"] == "synthetic:run"  # not chexpert
    header, first, *_ = (out / pngs.FOLDER / "train.csv").read_text().splitlines()
    assert header.startswith("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,")
    assert first.startswith("CheXpert-synthetic/train/patient0000000/study1/view1_frontal.png,,,Frontal,,0.0,")


def test_strips_begin_and_end_with_images_of_the_set(run, tmp_path):
    out = tmp_path / "out"
    settings = [f"--run_dir={run}", "--label_version=v1_0s", "--per_class=4", "--strips"]
    assert call(*settings, f"--output_dir={out}") == 0
    found = records(out)

    def tile(name, row, column):
        picture = tf.io.decode_png((out / name).read_bytes()).numpy()
        tiles = picture[2 + 98 * row :, picture.shape[1] - (11 * 98 + 2) + 2 + 98 * column :]
        return tiles[:96:12, :96:12].astype(int)  # each pixel is repeated 12 times

    def image(number):
        return found[f"synthetic-{number:06d}"][0].astype(int)

    latent, label = "interpolation_latents.png", "interpolation_labels.png"
    for name, row, column, number in [
        ("samples.png", 0, 3, 3),
        ("samples.png", 1, 0, 4),
        (latent, 0, 0, 0),
        (latent, 0, 10, 1),
        (latent, 1, 0, 4),
        (latent, 1, 10, 5),
        (label, 0, 0, 0),
        (label, 3, 0, 3),
    ]:
        assert np.abs(tile(name, row, column) - image(number)).max() <= 1, (name, row, column)
    assert (tile("samples.png", 0, 4) == 255).all()
    changed = [np.abs(tile(label, 0, column) - image(0)).max() for column in (1, 10)]
    assert changed[1] > 0
    assert changed[0] <= changed[1]
    # One combination has no other to go to.
    one = [f"--run_dir={run}", "--label_version=v2", "--label_source=vector", "--labels=Edema", "--num_images=1"]
    assert call(*one, "--strips", f"--output_dir={tmp_path / 'one'}") == 0
    assert (tmp_path / "one" / latent).exists()
    assert not (tmp_path / "one" / label).exists()


def test_truncation_scales_the_latents_of_the_images(run, tmp_path):
    found = {}
    for name, extra in {
        "off": [],
        "one": ["--truncation=1"],
        "near": ["--truncation=0.25", "--batch_size=7", "--images_per_shard=9"],
    }.items():
        settings = [f"--run_dir={run}", "--label_version=v1_0s", "--per_class=20", *extra]
        assert call(*settings, f"--output_dir={tmp_path / name}") == 0
        found[name] = records(tmp_path / name)
    assert contents(tmp_path / "off") == contents(tmp_path / "one")
    generator = loading.load(run)
    size = generator.network.latent_size
    for number in (0, 19, 39):
        # As TensorFlow documents it, without our code: image i has the normal numbers of the seeds (--seed, i).
        latent = 0.25 * tf.random.stateless_normal([1, size], tf.constant([0, number], tf.int64))
        image, vector = found["near"][f"synthetic-{number:06d}"]
        expected = np.rint((generator.model([latent, vector[None]]).numpy()[0] + 1) / 2 * 255).clip(0, 255)
        assert np.abs(image - expected).max() <= 1
        assert np.abs(image - found["off"][f"synthetic-{number:06d}"][0].astype(int)).max() > 1
    provenance = json.loads((tmp_path / "near" / "tfcxr_info.json").read_text())["provenance"]
    assert provenance["truncation"] == 0.25

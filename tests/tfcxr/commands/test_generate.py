"""Synthetic record sets: the right labels, numbers, splits and latents, and errors that say what to do."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from flags import app
from tests import fakes, gan_runs
from tfcxr import data, read_records
from tfcxr.commands import export_model, generate, verify_records
from tfcxr.gan import loading
from tfrecords_builder import labels as labels_lib
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS

NO_FINDING, PNEUMOTHORAX = LABELS.index("No Finding"), LABELS.index("Pneumothorax")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return gan_runs.make_gan_run(tmp_path_factory.mktemp("gan") / "run")


def call(*arguments):
    return app.run(generate.main, generate.define_flags, ["generate", *arguments])


def rows(folder):
    return [row for split in ("train", "validation") for row in read_records(folder, split).as_numpy_iterator()]


def images(folder):
    return {row["image/id"]: row["image"].astype(int) for row in rows(folder)}


def test_a_balanced_exact_set(run, tmp_path):
    out = tmp_path / "out"
    assert call(f"--run_dir={run}", "--label_version=v1_0s", "--per_class=10", f"--output_dir={out}") == 0
    info = data.RecordSet(out, resolution=8, label_versions=["v1_0s"]).info
    assert (info.dataset, info.source) == ("synthetic", "synthetic:run")
    assert {name: split.num_examples for name, split in info.splits.items()} == {"train": 16, "validation": 4}
    assert info.splits["train"].num_patients is None
    found = rows(out)
    assert [row["image/id"] for row in sorted(found, key=lambda row: row["image/id"])] == [
        f"synthetic-{i:06d}".encode() for i in range(20)
    ]
    for row in found:
        expected = np.zeros(14)
        expected[NO_FINDING if row["label/class"] == 0 else PNEUMOTHORAX] = 1
        np.testing.assert_array_equal(row["label/vector"], expected)
    result = json.loads((out / "result.json").read_text())
    assert result["classes"] == {"No Finding": 10, "Pneumothorax": 10}
    assert {"flags.txt", "samples.png", "manifest.csv"} <= {path.name for path in out.iterdir()}
    assert app.run(verify_records.main, verify_records.define_flags, ["verify", f"--records={out}"]) == 0


def test_images_depend_on_the_seed_but_not_on_the_batch_nor_on_how_the_generator_was_loaded(run, tmp_path):
    common = ["--label_version=v1_xs", "--per_class=6"]
    exported = tmp_path / "export"
    arguments = ["export-model", f"--run_dir={run}", f"--output_dir={exported}"]
    assert app.run(export_model.main, export_model.define_flags, arguments) == 0
    variants = {
        "a": [f"--run_dir={run}"],
        "b": [f"--generator={exported}", "--batch_size=5"],
        "c": [f"--run_dir={run}", "--seed=1"],
    }
    found = {}
    for name, extra in variants.items():
        assert call(*common, *extra, f"--output_dir={tmp_path / name}") == 0
        found[name] = images(tmp_path / name)
    for number, image in found["a"].items():
        assert np.abs(image - found["b"][number]).max() <= 1
        assert np.abs(image - found["c"][number]).max() > 1


def test_batches_and_shards_change_no_label_and_no_pixel_by_more_than_a_rounding(run, tmp_path):
    # A convolution may add up in another order where the batch has another size, which moves a value that lies between
    # two grey levels: so one level, not bit for bit.
    found = []
    for name, extra in {
        "a": ["--batch_size=64"],
        "b": ["--batch_size=7", "--images_per_shard=5"],
        "c": ["--batch_size=64", "--images_per_shard=3"],
    }.items():
        out = tmp_path / name
        assert call(f"--run_dir={run}", "--label_version=v2", "--per_class=30", *extra, f"--output_dir={out}") == 0
        found.append({row["image/id"]: row for row in rows(out)})
    first, *others = found
    assert len(list((tmp_path / "c").glob("*.tfrecord*"))) == 20
    for other in others:
        assert other.keys() == first.keys()
        levels = np.stack([np.abs(first[key]["image"].astype(int) - other[key]["image"]) for key in first])
        assert levels.max() <= 1
        assert (levels > 0).mean() < 0.001
        for key, row in first.items():
            np.testing.assert_array_equal(row["label/vector"], other[key]["label/vector"])
            assert row["label/class"] == other[key]["label/class"]


def test_free_labels_are_told_apart_in_the_sheet(run):
    from tfcxr import generation
    from tfcxr.gan import loading
    from tfcxr.generation import sheets

    plan = generation.plan_balanced(loading.load(run), labels_lib.get_label_version("v2"), 200, seed=0)
    groups = sheets.choose_groups(plan)
    assert groups[0].title == "No Finding"
    assert {group.title for group in groups[1:]} == {
        f"Finding:|{labels}" for labels in ("Pneumothorax", "Pneumothorax|Support Devices", "Cardiomegaly|Edema")
    }
    assert [len(group.numbers) for group in groups] == [44, 11, 11, 11]
    for group in groups:
        np.testing.assert_array_equal(plan.vectors[group.numbers], np.tile(group.vector, [len(group.numbers), 1]))


@pytest.mark.parametrize("version", ["v1_xs", "v2", "v3_xs"])
def test_free_labels_are_drawn_from_the_training_fold_and_satisfy_the_class(run, tmp_path, version):
    records = fakes.make_records(tmp_path / "labels", label_version="multilabel", per_class=2)
    out = tmp_path / "out"
    arguments = [f"--run_dir={run}", f"--label_version={version}", "--per_class=8", f"--output_dir={out}"]
    if version == "v3_xs":
        # The training fold has no pneumonia; the given records have.
        assert call(*arguments) == 2
        arguments += [f"--label_records={records}", "--allow_unseen_labels"]
    assert call(*arguments) == 0
    table = [data.RecordSet(out).labels(split) for split in ("train", "validation")]
    vectors, classes = (np.concatenate([part[key] for part in table]) for key in ("vector", "class"))
    assert labels_lib.satisfies(labels_lib.get_label_version(version), classes, vectors).all()
    assert set(np.bincount(classes)) == {8}


def test_proportions_and_top_combinations(run, tmp_path):
    from tfcxr import generation
    from tfcxr.gan import loading

    generator = loading.load(run)
    version = labels_lib.get_label_version("v1_xs")
    plan = generation.plan_balanced(generator, version, 200, seed=0)
    devices = plan.vectors[plan.classes == 1][:, LABELS.index("Support Devices")]
    assert 70 <= devices.sum() <= 130  # 20 to 20 in the training fold
    again = generation.plan_balanced(generator, version, 200, seed=0)
    np.testing.assert_array_equal(plan.vectors, again.vectors)
    top = generation.plan_balanced(generator, version, 20, seed=0, top_combinations=1)
    assert len(np.unique(top.vectors[top.classes == 1], axis=0)) == 1


def test_replicating_the_training_fold(run, tmp_path):
    out = tmp_path / "out"
    assert call(f"--run_dir={run}", "--label_version=multilabel", "--label_source=records", f"--output_dir={out}") == 0
    found = rows(out)
    counts = collections.Counter(
        "|".join(name for name, value in zip(LABELS, row["label/vector"], strict=True) if value) for row in found
    )
    expected = {"|".join(sorted(names.split("|"), key=LABELS.index)): n for names, n in gan_runs.COMBINATIONS.items()}
    assert counts == expected
    assert {row["label/class"] for row in found} == {-1}
    assert data.RecordSet(out).num_examples("train") == 80


def test_a_gan_of_four_labels_refuses_other_classes(tmp_path, capsys):
    seen = tuple(LABELS.index(name) for name in ("No Finding", "Cardiomegaly"))
    run = gan_runs.make_gan_run(tmp_path / "run", condition_labels=seen)
    assert call(f"--run_dir={run}", "--label_version=v1_0s", "--per_class=2", f"--output_dir={tmp_path / 'a'}") == 2
    message = capsys.readouterr().err
    assert "class Pneumothorax needs the label Pneumothorax" in message
    assert "No Finding, Cardiomegaly only" in message
    # Of "Edema|Cardiomegaly" it knows the cardiomegaly: that is what it can be asked for, and what the record says.
    assert call(f"--run_dir={run}", "--label_version=v2", "--per_class=5", f"--output_dir={tmp_path / 'b'}") == 0
    for row in rows(tmp_path / "b"):
        assert row["label/vector"].sum() == 1


@pytest.mark.parametrize("how", ["run_dir", "generator"])
def test_an_untrained_gan_is_refused(tmp_path, capsys, how):
    """As Ctrl-C leaves it after 32 images: they were generated from without a word, and are noise."""
    run = folder = gan_runs.make_gan_run(tmp_path / "run", images_shown=32)
    export = ["export-model", f"--run_dir={run}", f"--output_dir={tmp_path / 'export'}"]
    assert app.run(export_model.main, export_model.define_flags, export) == 2
    words = f"--run_dir={run}: the generator is untrained: it has been shown 32 real images"
    assert words in capsys.readouterr().err
    assert not (tmp_path / "export").exists()
    if how == "generator":
        assert app.run(export_model.main, export_model.define_flags, [*export, "--allow_untrained"]) == 0
        folder = tmp_path / "export"
    arguments = [f"--{how}={folder}", "--label_version=v1_0s", "--per_class=2", f"--output_dir={tmp_path / 'out'}"]
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert f"--{how}={folder}: the generator is untrained" in error
    assert error.endswith("its images are noise; train it further, or give --allow_untrained\n")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert call(*arguments, "--allow_untrained") == 0
    assert data.RecordSet(tmp_path / "out").num_examples("train") == 4


def test_labels_that_the_gan_never_saw_are_named_and_refused(run, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--run_dir={run}", "--label_version=v3_0s", "--per_class=2", f"--output_dir={out}"]
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"--run_dir={run}: none of its training images has the labels that 4 of 8 images ask for" in error
    assert "Pneumonia (2)" in error
    assert "has seen are No Finding, Cardiomegaly, Edema, Pneumothorax, Support Devices" in error
    assert "--allow_unseen_labels" in error
    assert not out.exists()
    assert call(*arguments, "--allow_unseen_labels") == 0
    assert "warning: " in capsys.readouterr().out
    # Labels that were seen, but never together; named by a flag, they are wanted.
    arguments = [f"--run_dir={run}", "--label_version=multilabel", "--label_source=vector", "--num_images=2"]
    assert call(*arguments, "--labels=Edema,Pneumothorax", f"--output_dir={tmp_path / 'vector'}") == 0
    assert "warning: " in (told := capsys.readouterr().out)
    assert "2 of 2 images ask for: Edema + Pneumothorax (2)" in told
    assert call(*arguments, "--labels=Edema,Cardiomegaly", f"--output_dir={tmp_path / 'seen'}") == 0
    assert "warning" not in capsys.readouterr().out


def test_an_imported_gan_is_taken_as_it_is(tmp_path, capsys):
    run = gan_runs.make_gan_run(tmp_path / "run", images_shown=0)
    (run / "label_combinations.json").unlink()
    arguments = [f"--run_dir={run}", "--label_version=v3_0s", "--per_class=1", f"--output_dir={tmp_path / 'out'}"]
    assert call(*arguments) == 0
    assert "whether it has seen these labels is not checked" in capsys.readouterr().out


def test_a_gan_that_began_from_the_weights_of_another_is_trained(tmp_path):
    run = gan_runs.make_gan_run(tmp_path / "run", images_shown=32)
    config = json.loads((run / "config.json").read_text())
    del config["sha256"]
    config["config"]["warm_start"] = {"run": "other", "kimg": 100.0}
    (run / "config.json").write_text(json.dumps(config))
    arguments = [f"--run_dir={run}", "--label_version=v1_0s", "--per_class=1"]
    assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 0


def test_the_newest_snapshot_is_proposed_only_where_it_has_seen_more(tmp_path):
    for shown, words in ((2000, "train it further, try --snapshot=latest, or give"), (32, "train it further, or give")):
        run = gan_runs.make_gan_run(tmp_path / str(shown), images_shown=shown)
        best = dataclasses.replace(loading.load(run), kimg=0.0)
        with pytest.raises(InputError, match=f"x: the generator is untrained: .* {words} --allow_untrained"):
            loading.check_trained(best, "x", allow=False, run_dir=run)


def test_bad_calls_exit_2_in_one_line(run, tmp_path, capsys):
    out = f"--output_dir={tmp_path / 'out'}"
    version = "--label_version=v1_0s"
    for arguments, expected in [
        ([version, "--per_class=2"], "--run_dir or --generator"),
        ([version, f"--run_dir={run}"], "--per_class is required"),
        ([version, f"--run_dir={run}", "--num_images=9"], "--num_images=9: --label_source=balanced makes as many of"),
        ([version, f"--run_dir={run}", "--per_class=0"], "per_class"),
        ([version, f"--run_dir={run}", "--label_source=records", "--per_class=2"], "--per_class"),
        ([version, f"--run_dir={tmp_path}", "--per_class=2"], "is not a run folder"),
        ([version, f"--run_dir={run.parent}", "--per_class=2"], f"did you mean {run}?"),
        (["--label_version=v9", f"--run_dir={run}", "--per_class=2"], "label_version"),
    ]:
        assert call(*arguments, out) == 2, arguments
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message
    assert not (tmp_path / "out").exists()

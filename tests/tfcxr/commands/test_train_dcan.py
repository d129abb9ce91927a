"""train-dcan through its flags: files, criteria, exact resume, bad input."""

import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from flags import app
from tests import fakes, stopping
from tfcxr.commands import build_records, evaluate, train_dcan, verify_records

FLAGS = [
    "--backbone=resnet_tiny",
    "--image_size=16",
    "--batch_size=4",
    "--eval_every=4",
    "--steps=8",
    "--learning_rate=1e-3",
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Source, target (of another length) and a run to start from, whose head is trained on nothing."""
    folder = tmp_path_factory.mktemp("sets")
    source = fakes.make_records(folder / "source", resolution=16, per_class=10)  # as synthetic: of no aspect
    target = fakes.make_records(folder / "target", resolution=16, per_class=7, seed=3, aspect="crop", contrast="max")
    return source, target, make_baseline_run(folder / "baseline")


def make_baseline_run(path):
    import dataclasses

    from tfcxr.classifiers import loading
    from tfcxr.classifiers.networks import models
    from tfcxr.training import runs

    config = models.ModelConfig(("No Finding", "Pneumothorax"), "v1_0s", 16, 16, "resnet_tiny")
    with runs.RunFolder.open(path, kind="baseline", config=dataclasses.asdict(config), records_digests={}):
        models.save_weights(models.Classifier(config, seed=5), path / loading.WEIGHTS)
    return path


def arguments(sets, run_dir, *flags):
    source, target, baseline = sets
    named = [
        f"--source_records={source}",
        f"--target_records={target}",
        f"--run_dir={run_dir}",
        f"--init_from={baseline}",
    ]
    return ["train-dcan", *named, *FLAGS, *flags]


def train(sets, run_dir, *flags):
    return app.run(train_dcan.main, train_dcan.define_flags, arguments(sets, run_dir, *flags))


@pytest.fixture(scope="module")
def run_dir(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert train(sets, folder) == 0
    return folder


def weights_of(run_dir):
    import tensorflow as tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run_dir / "checkpoints")))
    names = [n for n in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in n and "save_counter" not in n]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_end(first, second):
    a, b = weights_of(first), weights_of(second)
    assert a.keys() == b.keys()
    assert any("optimizers/0/_variables" in name for name in a)
    for name, value in a.items():
        np.testing.assert_array_equal(b[name], value, err_msg=name)
    assert (first / "history.json").read_text() == (second / "history.json").read_text()


def assert_nearly_same_end(first, second):
    """As two runs of some methods end on one CPU, stopped or not.

    Sums come out otherwise by 1e-9 to 1e-7 now and then, with --deterministic more rarely. Where a unit's input is
    nearly zero its ReLU then opens in one run only, and with it a gradient of all that is before.
    """
    one, two = weights_of(first), weights_of(second)
    assert one.keys() == two.keys()
    for name, value in one.items():
        if value.dtype == np.float32:
            if not name.startswith("optimizers/"):
                np.testing.assert_allclose(two[name], value, atol=1e-3, err_msg=name)
            # Velocities are gradients: were a share or a batch wrong, most would be off, not a few.
            assert np.median(np.abs(two[name] - value)) <= 0.05 * np.median(np.abs(value)) + 1e-6, name
        else:
            np.testing.assert_array_equal(two[name], value, err_msg=name)


def test_a_run_reports_all_criteria_and_losses(run_dir):
    result = json.loads((run_dir / "result.json").read_text())
    assert [row["step"] for row in result["evaluations"]] == [4, 8]
    criteria = {"source", "entropy", "density", "infomax", "bnm", "balance", "target"}
    assert all(row.keys() == {"step", *criteria} for row in result["evaluations"])
    assert result["best_by"].keys() == criteria
    assert result["expected_target_shares"] == {"No Finding": 0.5, "Pneumothorax": 0.5}
    assert all(chosen in result["evaluations"] for chosen in result["best_by"].values())
    assert result["select"] == "source"
    assert not result["selected_on_target_labels"]
    last = result["last"]
    for name in ("total", "cls", "mmd_features", "mmd_probabilities", "reg", "entropy"):
        assert np.isfinite(last[f"train/{name}"])
    for name in (
        "mmd/before_correction",
        "mmd/after_correction",
        "feature_norm/target",
        "target/predicted/Pneumothorax",
        "target/marginal_distance",
        "attention/conv2/source/mean",
        "attention/conv4/target/spread",
    ):
        assert name in last
    expected = last["train/cls"] + 0.1 * last["train/entropy"]
    expected += 1.5 * (last["train/mmd_features"] + last["train/mmd_probabilities"] + last["train/reg"])
    assert last["train/total"] == pytest.approx(expected, rel=1e-4)
    assert last["learning_rate"] == pytest.approx(1e-3 * (1 + 7 / 8) ** -0.75, rel=1e-5)  # of the last of 8 steps
    assert json.loads((run_dir / "config.json").read_text())["config"]["alpha"] == 1.5


def test_a_run_leaves_pictures_and_events(run_dir):
    import tensorflow as tf

    assert sorted(path.name for path in (run_dir / "samples").iterdir()) == ["features_000008.png"]
    assert tf.io.decode_png((run_dir / "curves.png").read_bytes()).shape[1] > 800
    metadata = (run_dir / "tensorboard/metadata_000008.tsv").read_text().splitlines()
    assert len(metadata) == 1 + 20 + 14
    assert (run_dir / "tensorboard/projector_config.pbtxt").exists()
    tags = set()
    for path in (run_dir / "tensorboard").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {"train/reg", "mmd/after_correction", "attention/conv3/source/mean", "select/density", "features"} <= tags


def test_both_paths_load(run_dir):
    from tfcxr.classifiers import loading

    images = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    target = loading.load_classifier(run_dir)(images).numpy()
    source = loading.load_classifier(run_dir, which="source")(images).numpy()
    np.testing.assert_allclose(target.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(target - source).max() > 1e-6
    config = loading.load_classifier_config(run_dir)
    assert config["kind"] == "dcan"
    assert (config["aspect"], config["contrast"]) == ("crop", "max")  # the target's


def train_with_a_stop(sets, folder, monkeypatch, *flags):
    """Trains until a signal comes in the second call for steps, then to the end."""
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 2)
        assert train(sets, folder, *flags) == 143
    assert train(sets, folder, *flags) == 0


CDAN = ("--alignment=cdan", "--embeddings_every=0", "--steps=6", "--eval_every=3", "--ten_crop")


@pytest.fixture(scope="module")
def cdan_run(sets, tmp_path_factory):
    """A run with a domain discriminator."""
    folder = tmp_path_factory.mktemp("cdan") / "unbroken"
    assert train(sets, folder, *CDAN) == 0
    return folder


@pytest.mark.large
def test_a_stopped_run_goes_on_with_its_domain_discriminator(sets, cdan_run, tmp_path, monkeypatch):
    train_with_a_stop(sets, tmp_path / "stopped", monkeypatch, *CDAN)
    assert_nearly_same_end(cdan_run, tmp_path / "stopped")
    weights = weights_of(cdan_run)
    assert sum(value.shape == (512, 1024) for value in weights.values()) == 2  # of the discriminator; its velocity
    last = json.loads((cdan_run / "result.json").read_text())["last"]
    assert last["train/total"] == pytest.approx(last["train/cls"] + last["train/domain"], rel=1e-5)
    assert not any((cdan_run / "samples").iterdir())


# Both learn from their own predictions, of which a random network is certain from a low threshold on.
TEACHER = (
    "--alignment=mean_teacher", "--threshold=0.5", "--target_prior=estimate", "--train_batch_norm",
    "--embeddings_every=0", "--steps=6", "--eval_every=3",
)  # fmt: skip


def test_a_stopped_run_goes_on_with_its_mean_of_weights_and_estimated_shares(sets, tmp_path, monkeypatch, capsys):
    assert train(sets, tmp_path / "unbroken", *TEACHER) == 0
    assert "estimated class shares of the target, by confusion: " in capsys.readouterr().out
    train_with_a_stop(sets, tmp_path / "stopped", monkeypatch, *TEACHER)
    assert_same_end(tmp_path / "unbroken", tmp_path / "stopped")
    weights = weights_of(tmp_path / "unbroken")
    heads = [value for value in weights.values() if value.shape == (256, 2)]
    assert len(heads) == 3  # mean, trained weights, velocity
    assert all(np.abs(a - b).max() > 0 for a, b in itertools.combinations(heads, 2))
    result = json.loads((tmp_path / "unbroken/result.json").read_text())
    estimates = json.loads((tmp_path / "unbroken/target_shares.json").read_text())
    assert estimates.keys() == {"confusion", "likelihood"}
    assert result["expected_target_shares"] == estimates["confusion"]
    last = result["last"]
    assert 0 < last["train/certain"] <= 1
    assert last["train/total"] == pytest.approx(last["train/cls"] + 3 * last["train/consistency"], rel=1e-5)
    # A run on other shares is another run.
    assert train(sets, tmp_path / "unbroken", *TEACHER, "--target_prior=source", "--steps=7") == 2


@pytest.mark.large
def test_a_stopped_run_goes_on_teaching_itself(sets, tmp_path, monkeypatch):
    flags = ("--alignment=fixmatch", "--threshold=0.5", "--embeddings_every=0", "--steps=6", "--eval_every=3")
    assert train(sets, tmp_path / "unbroken", *flags) == 0
    train_with_a_stop(sets, tmp_path / "stopped", monkeypatch, *flags)
    assert_nearly_same_end(tmp_path / "unbroken", tmp_path / "stopped")


def test_adabn_changes_statistics_alone(sets, tmp_path):
    from tfcxr.classifiers import loading

    assert train(sets, tmp_path / "run", "--alignment=adabn", "--embeddings_every=0") == 0
    before, after = (loading.load_network(path) for path in (sets[2], tmp_path / "run"))
    for old, new in zip(before.trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_array_equal(new, old)
    moving = [w for w in after.weights if "moving" in w.name]
    assert len(moving) > 4
    changed = [np.abs(b - a).max() for a, b in zip(before.weights, after.weights, strict=True) if "moving" in a.name]
    assert min(changed) > 0


@pytest.mark.parametrize(("flags", "shares"), [(["--balanced"], [1, 1]), (["--target_prior="], [1, 3])])
def test_adabn_head_moves_the_head_alone_in_one_step(sets, tmp_path, flags, shares):
    from tfcxr import data
    from tfcxr.classifiers import inference, loading
    from tfcxr.classifiers.adaptation import methods
    from tfcxr.classifiers.adaptation.methods.method import Setting

    prior = tmp_path / "shares.json"
    prior.write_text('{"No Finding": 1, "Pneumothorax": 3}')
    flags = [f"{flag}{prior}" if flag.endswith("=") else flag for flag in flags]
    assert train(sets, tmp_path / "run", "--alignment=adabn_head", "--steps=50", *flags) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["steps"], len(result["evaluations"])) == (1, 1)

    before, after = (loading.load_network(path) for path in (sets[2], tmp_path / "run"))
    for old, new in zip(before.base.get_weights(), after.base.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    records = [data.RecordSet(path) for path in sets[:2]]
    features = [
        np.concatenate(
            [
                inference.compute_features(before, batch["image"] / 255, path="source")
                for batch in data.evaluation_batches(each, "train", 8)
            ]
        )
        for each in records
    ]
    classes = records[0].labels("train")["class"]
    weights = np.array(shares)[classes]  # of as many images of each class
    method = methods.make("adabn_head", Setting(num_classes=2, feature_width=before.width))
    moved = method.move_head(*before.head.get_weights(), *features, weights)
    for wanted, got in zip(moved, after.head.get_weights(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
        assert np.abs(got).max() > 0


def test_a_head_that_was_moved_before_a_stop_is_not_moved_again(sets):
    from tfcxr import data
    from tfcxr.classifiers.adaptation import train_dcan as library

    settings = {"image_size": 16, "batch_size": 4, "backbone": "resnet_tiny", "alignment": "adabn_head"}
    config = library.AdaptationConfig(init_from=str(sets[2]), **settings)
    run = library.Adaptation(config, *(data.RecordSet(path) for path in sets[:2]))
    heads = [run.classifier.head.get_weights()[0]]
    for _ in range(2):
        phase = run._phase()
        while phase.prepare():
            pass
        heads.append(run.classifier.head.get_weights()[0])
    assert np.abs(heads[1] - heads[0]).max() > 1e-4
    np.testing.assert_array_equal(heads[2], heads[1])


def test_the_source_is_drawn_in_the_shares_of_a_file(sets, tmp_path):
    from tfcxr import data
    from tfcxr.classifiers.adaptation import train_dcan as library

    path = tmp_path / "shares.json"
    path.write_text('{"No Finding": 1, "Pneumothorax": 3}')
    settings = {"image_size": 16, "batch_size": 40, "backbone": "resnet_tiny", "weights": "none", "alignment": "none"}
    config = library.AdaptationConfig(target_prior=str(path), train_batch_norm=True, **settings)
    run = library.Adaptation(config, *(data.RecordSet(path) for path in sets[:2]))
    run._use_shares(tmp_path)
    batch = next(iter(run._stream(0)))
    np.testing.assert_array_equal(np.bincount(batch["class"]), [10, 30])
    np.testing.assert_allclose(run.class_weights, [2.0, 2 / 3], rtol=1e-6)
    assert run.run_config()["target_prior"] == {"No Finding": 0.25, "Pneumothorax": 0.75}


# The command, with the network of these tests.
COMMAND = """
import sys
import tensorflow as tf
from flags import app
from tests import classifier_runs
from tfcxr.commands import train_dcan

classifier_runs.set_blocks_of_resnet_tiny(1)
"""
RUN = "sys.exit(app.run(train_dcan.main, train_dcan.define_flags, sys.argv))"
TWO_DEVICES = f"""
{COMMAND}
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
{RUN}
"""


@pytest.mark.large
def test_two_devices_end_as_one(sets, cdan_run, tmp_path):
    """Classification and domain loss are means over images: those of the shares make those of the batch."""
    flags = arguments(sets, tmp_path / "run", *CDAN, "--strategy=mirrored")[1:]
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    command = [sys.executable, "-c", TWO_DEVICES, *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_nearly_same_end(cdan_run, tmp_path / "run")
    rows = [json.loads((folder / "history.json").read_text())[-1] for folder in (cdan_run, tmp_path / "run")]
    for name in ("train/cls", "train/domain", "train/accuracy", "learning_rate", "source/loss"):
        assert rows[1][name] == pytest.approx(rows[0][name], abs=1e-5), name


def test_selection_on_target_labels_is_marked_and_none_is_a_plain_network(sets, tmp_path, capsys):
    from tfcxr.classifiers import loading

    assert train(sets, tmp_path / "run", "--alignment=none", "--select=target", "--steps=4") == 0
    assert (
        "note: --target_records: the labels of its 14 training images are ignored; those of its validation images only "
        "report and choose the weights (--select=target)"
    ) in capsys.readouterr().out
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["selected_on_target_labels"]
    network = loading.load_network(tmp_path / "run")
    assert not network.config.attention
    assert network.feature_correction is None


@pytest.mark.parametrize("flags, message", [
    (["--init_from=", "--weights=none"], "--train_batch_norm"),
    (["--batch_size=1"], "batch_size"),
    (["--backbone=densenet121", "--image_size=32"], "channel attention needs a residual network"),
    (["--backbone=resnet50", "--image_size=32"], "its backbone is resnet_tiny, not resnet50"),
    (["--alignment=mmd"], "alignment"),
    (["--init_from=", "--train_batch_norm", "--weights=none", "--target_prior=estimate"], "give one with --init_from"),
    (["--init_from=", "--weights=none", "--alignment=adabn"], "trains nothing; give a trained classifier"),
    (["--init_from=", "--weights=none", "--alignment=adabn_head"], "trains nothing; give a trained classifier"),
    (["--target_prior=nothing.json"], "there is no such file"),
])  # fmt: skip
def test_bad_input_is_one_line(sets, tmp_path, capsys, flags, message):
    assert train(sets, tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_domains_of_different_label_versions_are_refused(sets, tmp_path, capsys):
    other = fakes.make_records(tmp_path / "other", resolution=16, label_version="v2", per_class=2)
    assert train((sets[0], other, sets[2]), tmp_path / "run") == 2
    assert "is of label version v2" in capsys.readouterr().err


def test_domains_made_in_different_ways_are_refused(sets, tmp_path, capsys):
    ways = {"aspect": ("pad", "max"), "contrast": ("crop", "percentile")}
    for flag, (aspect, contrast) in ways.items():
        other = fakes.make_records(tmp_path / flag, resolution=16, per_class=2, aspect=aspect, contrast=contrast)
        assert train((other, sets[1], sets[2]), tmp_path / "run") == 2
        theirs, ours = {"aspect": ("crop", "pad"), "contrast": ("max", "percentile")}[flag]
        assert (
            f"--target_records={sets[1]}: was built with --{flag}={theirs}, --source_records={other} with "
            f"--{flag}={ours}; build both alike"
        ) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_empty_class_of_the_source_is_named(sets, tmp_path, capsys, monkeypatch):
    from tfcxr import data

    labels = {"vector": np.zeros([4, 14], np.float32), "class": np.zeros([4], np.int64)}
    monkeypatch.setattr(data.RecordSet, "labels", lambda self, split: labels)
    assert train(sets, tmp_path / "run") == 2
    assert "the train split has no image of class Pneumothorax" in capsys.readouterr().err


def test_batches_have_the_labels_of_the_source_only(sets):
    import types

    from tfcxr import data
    from tfcxr.classifiers.adaptation import train_dcan as train_dcan_lib

    source, target = (data.RecordSet(path) for path in sets[:2])
    config = train_dcan_lib.AdaptationConfig(image_size=16, batch_size=4, seed=5)
    run = types.SimpleNamespace(source=source, target=target, config=config, class_counts=None)
    batches = list(train_dcan_lib.Adaptation._stream(run, 2).take(6))
    assert batches[0].keys() == {"source", "class", "target", "number"}
    assert [int(batch["number"]) for batch in batches] == list(range(2, 8))
    expected = data.training_stream(source, "train", batch_size=4, seed=5, start=8).take(6)
    for batch, plain in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch["class"], plain["class"])
    later = next(iter(train_dcan_lib.Adaptation._stream(run, 5)))
    np.testing.assert_array_equal(later["target"], batches[3]["target"])
    np.testing.assert_array_equal(later["source"], batches[3]["source"])


@pytest.mark.large
def test_a_killed_run_ends_like_an_unbroken_one(sets, run_dir, tmp_path):
    flags = arguments(sets, tmp_path / "run", "--checkpoint_steps=1")[1:]
    command = [sys.executable, "-c", COMMAND + RUN, *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "run").glob("checkpoints/ckpt-[1-6].index")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "run/result.json").exists()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    unbroken = tmp_path / "unbroken"
    assert train(sets, unbroken, "--checkpoint_steps=1") == 0
    assert_same_end(unbroken, tmp_path / "run")


def test_a_target_without_labels(sets, tmp_path, capsys):
    """Built from a table of paths and patients; adapted to, by criteria that need no labels; nothing else takes it."""
    target, images = tmp_path / "target", fakes.make_folder_set(tmp_path / "images", num_patients=12)
    paths = sorted(path.relative_to(images) for path in images.rglob("*.png"))
    (images / "table.csv").write_text("path,patient\n" + "".join(f"{p},{p.stem[:-2]}\n" for p in paths))
    build = [f"--data_dir={images}", f"--output_dir={target}", "--dataset=folder", "--label_version=v1_0s"]
    build += ["--resolution=16", "--split_fractions=0.5,0.25,0.25"]
    assert app.run(build_records.main, build_records.define_flags, ["build-records", *build]) == 2
    assert "or --unlabelled_images=keep if there are no labels" in capsys.readouterr().err
    build += ["--unlabelled_images=keep", "--aspect=crop", "--contrast=max"]
    assert app.run(build_records.main, build_records.define_flags, ["build-records", *build]) == 0
    assert app.run(verify_records.main, verify_records.define_flags, ["verify-records", f"--records={target}"]) == 0
    assert "warning: 24 images have no label: the set is a target for train-dcan" in capsys.readouterr().err
    run = tmp_path / "run"
    paths = (sets[0], target, sets[2])
    assert train(paths, run, "--select=entropy", "--embeddings_every=1", "--target_prior=estimate", "--steps=4") == 0
    out = capsys.readouterr().out
    assert "warning: --target_records: no image of the validation split has a label; what needs them is left out" in out
    assert "target not known (no labels)" in out and "of the target no label is known. Run:" in out
    result = json.loads((run / "result.json").read_text())
    assert result["best"]["select/target"] is None and result["best_by"]["target"] is None
    assert result["best_by"]["density"]["step"] == 4 and result["best_by"]["density"]["target"] is None
    assert result["last"]["target/recall/Pneumothorax"] is None and result["last"]["source/recall/Pneumothorax"] >= 0
    metadata = (run / "tensorboard" / "metadata_000004.tsv").read_text()
    assert metadata.count("target\tno label\t") == target_size(target, "validation")
    assert train(paths, tmp_path / "x", "--select=target") == 2
    assert "--select=target: no validation image of --target_records=" in capsys.readouterr().err
    assert train((target, *paths[1:]), tmp_path / "x") == 2
    assert (
        "--source_records=" in (line := capsys.readouterr().err) and "have no label; build the records without" in line
    )
    arguments = [f"--model={run}", f"--records={target}", f"--output_dir={tmp_path / 'e'}"]
    assert app.run(evaluate.main, evaluate.define_flags, ["evaluate", *arguments]) == 2
    assert "images of the test split have no label; build the records" in capsys.readouterr().err


def target_size(target, split):
    from tfcxr import data

    return data.RecordSet(target).num_examples(split)

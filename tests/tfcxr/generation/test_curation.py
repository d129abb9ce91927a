"""Curation: what is kept has passed, what is refused is counted, a stop changes nothing; and the diversity measures."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import classifier_runs, fakes, gan_runs, stopping
from tfcxr import cli, data, generation
from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import models
from tfcxr.gan import loading as gan_loading
from tfcxr.generation import curation
from tfcxr.generation.generate import Renderer
from tfcxr.privacy import distance_filter
from tfrecords_builder import labels

SEVERAL = ("Pneumothorax", "Support Devices", "Edema")
SETTINGS = ["--label_version=v1_0s", "--per_class=30", "--batch_size=16"]


def call(*arguments):
    return cli.main(["generate", *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, a GAN of them, and a classifier that takes about half of the images of each class for one of it."""
    root = tmp_path_factory.mktemp("curation")
    real = fakes.make_records(root / "real", per_class=20)
    gan = gan_runs.make_gan_run(root / "gan")
    config = json.loads((gan / "config.json").read_text())
    del config["sha256"]
    config["records"] = {"records": data.RecordSet(real).info.digest}
    (gan / "config.json").write_text(json.dumps(config))
    run = classifier_runs.make_classifier_run(root / "classifier", real)
    assert call(f"--run_dir={gan}", *SETTINGS, f"--output_dir={root / 'plain'}") == 0
    network = loading.load_network(run)
    images = np.stack([row["image"] for row in rows(root / "plain")]) / np.float32(255)
    features = network.features(tf.image.resize(images, [32, 32]), path="target")
    logits = network.classify(features, path="target").numpy()
    kernel, bias = network.head.get_weights()
    bias[0] -= np.median(logits[:, 0] - logits[:, 1])
    network.head.set_weights([kernel, bias])
    models.save_weights(network, run / loading.WEIGHTS)
    return root


def rows(folder):
    found = [r for split in ("train", "validation") for r in data.read_records(folder, split).as_numpy_iterator()]
    return sorted(found, key=lambda row: row["image/id"])


def predict(made, folder):
    images = np.stack([row["image"] for row in rows(folder)]) / np.float32(255)
    return loading.load_classifier(made / "classifier").predict(images, verbose=0).argmax(axis=1)


def contents(folder):
    left_out = ("result.json", "flags.txt", ".tfcxr.json")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in left_out}


@pytest.fixture(scope="module")
def curated(made):
    out = made / "curated"
    arguments = [f"--curate={made / 'classifier'}", f"--curate_train={made / 'real'}"]
    assert call(f"--run_dir={made / 'gan'}", *SETTINGS, *arguments, f"--output_dir={out}") == 0
    return out


def test_what_is_kept_has_the_label_and_the_rest_is_counted(made, curated):
    found, plain = rows(curated), rows(made / "plain")
    classes = np.array([row["label/class"] for row in found])
    np.testing.assert_array_equal(np.bincount(classes), [30, 30])
    np.testing.assert_array_equal(predict(made, curated), classes)
    # An image that passed at once is that of the set without curation, and the others are not.
    passed = predict(made, made / "plain") == [row["label/class"] for row in plain]
    assert 0 < passed.sum() < 60
    for mine, other, same in zip(found, plain, passed, strict=True):
        assert (mine["image"] == other["image"]).all() == same
    result = json.loads((curated / "result.json").read_text())["curation"]
    assert result["kept"] == 60
    assert result["drawn"] == 60 + result["refused_by_label"] + result["refused_by_distance"]
    assert result["refused_by_label"] >= 60 - passed.sum()
    assert sum(30 / share for share in result["acceptance"].values()) == pytest.approx(result["drawn"])
    assert result["classifier_of_training_patients"]
    assert set(result["diversity"]["before"]) == {"vendi", "recall", "coverage"}
    info = data.RecordSet(curated).info
    assert info.provenance["curation"] == result
    datasheet = (curated / "DATASHEET.md").read_text()
    assert f"Curated: 60 of {result['drawn']} drawn images were kept" in datasheet
    assert "nearest 1% of held-out images (pixels)" in datasheet
    assert "an audit has to be of the curated set" in datasheet
    assert "Curated" not in (made / "plain/DATASHEET.md").read_text()


def test_a_stopped_curation_goes_on_and_ends_the_same(made, curated, tmp_path, monkeypatch):
    arguments = [f"--run_dir={made / 'gan'}", *SETTINGS, f"--curate={made / 'classifier'}"]
    arguments += [f"--curate_train={made / 'real'}", f"--output_dir={tmp_path / 'out'}"]
    monkeypatch.setattr(curation, "_SAVE_SECONDS", 0)
    save, saved, drawn = curation._State.save, [], []

    def stop(state, path, key):
        save(state, path, key)
        saved.append(int(state.drawn.sum()))
        if len(saved) == 2:
            raise stopping.KilledError

    with monkeypatch.context() as patch:
        patch.setattr(curation._State, "save", stop)
        with pytest.raises(stopping.KilledError):
            call(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(curation._State, "save", lambda s, *rest: (drawn.append(int(s.drawn.sum())), save(s, *rest)))
        assert call(*arguments) == 0
    assert saved == [16, 32]
    assert drawn[0] == 48
    assert contents(tmp_path / "out") == contents(curated)


def test_too_few_that_pass_are_an_error_from_which_it_goes_on(made, tmp_path, capsys):
    arguments = [f"--run_dir={made / 'gan'}", *SETTINGS, f"--curate={made / 'classifier'}"]
    arguments += [f"--output_dir={tmp_path / 'out'}"]
    capsys.readouterr()
    assert call(*arguments, "--max_draws=1") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "--max_draws=1: of class " in error
    assert "of 30 images passed, of 30 drawn (" in error
    assert not (tmp_path / "out").exists()
    assert call(*arguments, "--max_draws=50") == 0
    printed = capsys.readouterr().out
    assert "audit this set itself, after curation" in printed
    assert "distances to training images were not looked at" in printed
    assert "vendi (pixels_pca64): " in printed


@pytest.fixture(scope="module")
def several(made, tmp_path_factory):
    """A table of two label combinations, a classifier of three labels, and an evaluation with medians as thresholds."""
    root = tmp_path_factory.mktemp("several")
    (root / "table.csv").write_text("Pneumothorax,Support Devices,count\n1,0,20\n1,1,20\n")
    settings = ["--label_version=multilabel", "--label_source=table", f"--label_table={root / 'table.csv'}"]
    run = classifier_runs.make_classifier_run(root / "classifier", made / "real", labels=SEVERAL)
    assert call(f"--run_dir={made / 'gan'}", *settings, f"--output_dir={root / 'plain'}") == 0
    cuts = np.median(see(run, root / "plain"), axis=0)
    points = [
        {"class": name, "criterion": "Youden's J", "threshold": None if name == "Edema" else float(cut)}
        for name, cut in zip(SEVERAL, cuts, strict=True)
    ]
    result = {"model_digest": loading.weights_digest(run), "classes": SEVERAL, "split": "validation"}
    result |= {"records": {"digest": "0"}, "operating_points": {"rows": points, "chosen_on": {"path": None}}}
    (root / "evaluation").mkdir()
    (root / "evaluation/result.json").write_text(json.dumps(result))
    return root, [*settings, f"--curate={run}"], cuts


def see(run, folder):
    images = np.stack([row["image"] for row in rows(folder)]) / np.float32(255)
    return loading.load_classifier(run).predict(images, verbose=0)


@pytest.mark.parametrize("exactly", [False, True])
def test_labels_that_do_not_exclude_each_other(made, several, tmp_path, exactly, capsys):
    root, arguments, cuts = several
    arguments = [f"--run_dir={made / 'gan'}", *arguments, f"--curate_thresholds={root / 'evaluation'}"]
    out = tmp_path / "out"
    arguments += ["--curate_labels=exactly", "--max_draws=60"] if exactly else []
    assert call(*arguments, f"--output_dir={out}") == 0
    printed = capsys.readouterr().out
    seen = see(root / "classifier", out) >= cuts
    columns = [labels.LABELS.index(name) for name in SEVERAL]
    asked = np.array([row["label/vector"][columns] for row in rows(out)], bool)
    np.testing.assert_array_equal(asked.sum(axis=0), [40, 20, 0])
    assert seen[asked].all()
    if exactly:
        assert (seen[:, :2] == asked[:, :2]).all()
    else:
        assert seen[~asked[:, 1], 1].any()  # nobody asked for them, and they may be seen
    result = json.loads((out / "result.json").read_text())["curation"]
    assert result["drawn"] == 40 + result["refused_by_label"]
    assert result["labels_seen"] == ("exactly" if exactly else "asked")
    assert result["thresholds"]["Edema"] is result["disagreed"]["Edema"] is None
    assert set(result["acceptance"]) == {"Pneumothorax", "Pneumothorax|Support Devices"}
    assert sum(20 / share for share in result["acceptance"].values()) == pytest.approx(result["drawn"])
    # Each refusal is of one label at least.
    shares = [result["disagreed"][name] for name in SEVERAL[:2]]
    assert max(shares) * result["drawn"] <= result["refused_by_label"] + 1e-9 <= sum(shares) * result["drawn"] + 1e-6
    assert "nobody looked whether Edema can be seen" in printed
    assert f"Pneumothorax: not seen as asked for in {shares[0]:.1%}" in printed
    assert f"| Pneumothorax | {cuts[0]:.3g} | {100 * shares[0]:.1f}% |" in (out / "DATASHEET.md").read_text()


def test_thresholds_of_half_are_warned_of(made, several, tmp_path, capsys):
    _, arguments, _ = several
    code = call(f"--run_dir={made / 'gan'}", *arguments, "--max_draws=1", f"--output_dir={tmp_path / 'out'}")
    out, err = capsys.readouterr()
    assert "of combination Pneumothorax" in err if code else "a label counts as seen from a probability of 0.5" in out


def test_patients_of_the_classifier_that_the_generator_did_not_learn_from(made, tmp_path):
    generator = gan_loading.load(made / "gan")
    own = set(generator.records.values())
    gan, run = (tmp_path / name for name in ("gan", "run"))
    for folder in (gan, run):
        folder.mkdir()

    def tell(folder, record_set, kind):
        (folder / "flags.txt").write_text(f"--records={record_set}\n")
        digest = data.RecordSet(record_set).info.digest
        config = {"schema_version": 1, "kind": kind, "config": {}, "records": {"records": digest}}
        (folder / "config.json").write_text(json.dumps(config))
        return {digest}

    tell(gan, made / "real", "gan")  # 10 patients of each of two classes
    other = fakes.make_records(tmp_path / "other", resolution=16, label_version="v1_0s", per_class=30)
    digests = tell(run, other, "baseline")  # the same and 5 more of each
    assert curation._compare_patients(str(run), digests, generator, str(gan)) == {"learned": 30, "others": 10}
    assert curation._compare_patients(str(run), digests, generator, None)["others"] is None
    assert curation._compare_patients(str(run), own, generator, None)["others"] == 0
    strangers = fakes.make_records(tmp_path / "strangers", source="elsewhere")
    digests = tell(run, strangers, "baseline")
    assert curation._compare_patients(str(run), digests, generator, str(gan))["others"] is None


def test_images_near_to_training_are_refused(made):
    generator = gan_loading.load(made / "gan")
    far = distance_filter.make(
        made / "real", generator, holdout_split="test", feature_name="pixels", quantile=0.5, batch_size=16
    )
    record_set = data.RecordSet(made / "real")

    def read(split):
        return np.stack([row["image"] for row in record_set.dataset(split).as_numpy_iterator()])

    np.testing.assert_allclose(far.find(read("train")), 0, atol=1e-5)
    assert np.mean(far.find(read("test")) > far.least) == pytest.approx(0.5, abs=0.03)
    assert len(far.real) == 40
    # Through the curator, with a filter that refuses dark images.
    plan = generation.plan_balanced(generator, labels.get_label_version("v1_0s"), 20, seed=0)
    renderer = Renderer(generator, generation.Options())

    def render(numbers, vectors):
        return renderer.images(renderer.latents(numbers), vectors)

    def brightness(images):
        return images.mean(axis=(1, 2, 3))

    middle = float(np.median(brightness(render(np.arange(40), plan.vectors))))
    bright = curation.DistanceFilter(brightness, middle, far.real, {"features": "brightness"})
    curator = curation.Curator(str(made / "classifier"), generator, plan, far=bright, max_draws=200)
    selection = curator.select(render, made, "key", 16)
    assert (brightness(render(selection.numbers, plan.vectors)) > middle).all()
    np.testing.assert_array_equal(selection.numbers % 40, np.arange(40))
    assert selection.description["refused_by_distance"] > 0


def test_the_vendi_score_is_an_effective_number():
    axes = np.eye(5)
    assert curation.vendi(np.repeat(axes, 7, axis=0)) == pytest.approx(5)
    assert curation.vendi(np.ones([9, 4])) == pytest.approx(1)
    # Shares 3/4 and 1/4 of two directions: the exponential of their entropy.
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert curation.vendi(np.array([[2, 0], [1, 0], [5, 0], [0, 3]])) == pytest.approx(expected)


def test_bad_input_is_one_line(made, tmp_path, capsys):
    other = classifier_runs.make_classifier_run(tmp_path / "v2", classifier_runs.make_records(tmp_path / "records"))
    foreign = fakes.make_records(tmp_path / "foreign", seed=3)
    start, curate = [f"--run_dir={made / 'gan'}", *SETTINGS], f"--curate={made / 'classifier'}"
    cases = [
        ([f"--curate={other}"], ["--curate=", "classes are No Finding, Finding, the set's classes are No Finding"]),
        ([f"--curate_train={made / 'real'}"], ["--curate_train=", "give --curate as well"]),
        ([curate, f"--curate_train={foreign}"], ["--curate_train=", "learned from other records"]),
        ([curate, f"--curate_train={made / 'real'}", "--curate_quantile=1"], ["curate_quantile", "below 1"]),
        (
            [curate, f"--curate_train={made / 'real'}", "--curate_features=x"],
            ["--curate_features=x: must be pixels, ", "nothing is there"],
        ),
        ([curate, "--max_draws=0"], ["max_draws"]),
        ([curate, "--curate_labels=exactly"], ["--curate_labels=exactly: the classes of", "exclude each other"]),
        ([curate, f"--curate_thresholds={tmp_path}"], ["--curate_thresholds=", "exclude each other"]),
        ([f"--curate_thresholds={tmp_path}"], ["--curate_thresholds=", "give --curate as well"]),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*start, *arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()

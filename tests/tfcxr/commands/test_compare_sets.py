"""compare-sets through its flags: what it writes, what it prints, and bad input."""

import csv
import json

import numpy as np
import pytest

from tests import classifier_runs, fakes
from tfcxr import cli, data
from tfcxr.classifiers import loading
from tfcxr.fidelity import distances, features

MEASURES = ("fid", "kid", "kid_std", "precision", "recall", "density", "coverage")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {
        "real": fakes.make_records(root / "real", per_class=60),
        "like": fakes.make_records(root / "like", per_class=50, source="synthetic:fake", with_patients=False, seed=1),
        "copies": make_copies(root / "copies"),
        # Other findings than the reals have.
        "unlike": fakes.make_records(root / "unlike", label_version="v3_0s", per_class=25, seed=2),
        "large": fakes.make_records(root / "large", resolution=16),
        "few": fakes.make_records(root / "few", per_class=2),
        "no_train": fakes.make_records(root / "no_train", splits=("test",)),
    }


def make_copies(folder):
    """Sixty images of each class, but only four that differ."""
    with pytest.MonkeyPatch.context() as patch:
        draw = fakes.draw
        patch.setattr(fakes, "draw", lambda names, size, seed: draw(names, size, seed % 4))
        return fakes.make_records(folder, per_class=60, with_patients=False, source="synthetic:copies")


def call(*arguments):
    return cli.main(["compare-sets", *arguments])


def test_writes_figures_table_and_picture(sets, tmp_path, capsys):
    arguments = [f"--real={sets['real']}", f"--synthetic={sets['like']}", f"--holdout={sets['real']}"]
    out = tmp_path / "out"
    assert call(*arguments, f"--cache_dir={tmp_path / 'cache'}", f"--output_dir={out}") == 0
    result = json.loads((out / "result.json").read_text())
    assert result["num_images"] == 100  # the smallest set's
    assert result["features"] == {"name": "pixels_pca64", "width": 64}
    assert result["sets"]["holdout"]["split"] == "test"
    assert result["sets"]["synthetic"]["source"] == "synthetic:fake"
    for column in ("synthetic", "holdout"):
        assert list(result["metrics"][column]) == [f"{measure}/pixels_pca64" for measure in MEASURES]
    # The number by another way: plain pixels of the same images.
    extractor = features.PixelPca(8)
    chosen = {}
    for name, size in (("real", 120), ("like", 100)):
        record_set = data.RecordSet(sets[name])
        pictures = np.stack([r["image"] for r in record_set.dataset("train").as_numpy_iterator()])
        chosen[name] = pictures[features.choose(size, 100, seed=0)] / 127.5 - 1
    extractor.fit(chosen["real"])
    a, b = extractor(chosen["real"]), extractor(chosen["like"])
    expected = distances.frechet_distance(*distances.moments(a), *distances.moments(b))
    assert result["metrics"]["synthetic"]["fid/pixels_pca64"] == pytest.approx(expected, rel=1e-6)
    assert (out / "features.png").read_bytes().startswith(b"\x89PNG")
    assert "FID-infinity is extrapolated from 25 images on, for 64 features" in result["warnings"][0]
    printed = capsys.readouterr().out
    assert "| | synthetic | held-out real | better |" in printed
    assert f"| fid/pixels_pca64 | {expected:.4g} (" in printed
    assert "Warning: pixels_pca64 is fitted to 100 real images" in printed
    assert len(list((tmp_path / "cache").iterdir())) == 1
    # A replay gives the same figures, from the cache.
    stamp = next((tmp_path / "cache").iterdir()).stat().st_mtime_ns
    assert call(f"--flagfile={out / 'flags.txt'}", "--overwrite") == 0
    assert json.loads((out / "result.json").read_text()) == result
    assert next((tmp_path / "cache").iterdir()).stat().st_mtime_ns == stamp


def test_a_set_against_itself_is_perfect_and_a_poor_one_is_not(sets, tmp_path):
    real = sets["real"]
    assert call(f"--real={real}", f"--synthetic={real}", f"--output_dir={tmp_path / 'same'}") == 0
    same = json.loads((tmp_path / "same/result.json").read_text())["metrics"]["synthetic"]
    assert same["fid/pixels_pca64"] == pytest.approx(0, abs=1e-6)
    assert [same[f"{m}/pixels_pca64"] for m in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert same["density/pixels_pca64"] == pytest.approx(1.2)
    figures = {}
    for name in ("like", "unlike"):
        out = tmp_path / name
        assert call(f"--real={real}", f"--synthetic={sets[name]}", "--num_images=90", f"--output_dir={out}") == 0
        result = json.loads((out / "result.json").read_text())
        assert result["num_images"] == 90
        figures[name] = result["metrics"]["synthetic"]
    assert figures["like"]["fid/pixels_pca64"] < figures["unlike"]["fid/pixels_pca64"]


def test_the_report_has_intervals_extrapolation_classes_and_diversity(sets, tmp_path):
    out = tmp_path / "out"
    arguments = [f"--real={sets['real']}", f"--synthetic={sets['copies']}", f"--holdout={sets['real']}"]
    assert call(*arguments, "--features=texture", "--resamples=20", f"--output_dir={out}") == 0
    result = json.loads((out / "result.json").read_text())
    fid = result["metrics"]["synthetic"]["fid/texture"]
    for name in ("synthetic", "holdout"):
        low, high = result["intervals"][name]["fid/texture"]
        assert low < result["metrics"][name]["fid/texture"] < high
        by_number = result["fid_by_number"][name]
        assert by_number["numbers"][0] == 30
        assert by_number["numbers"][-1] == 120
        assert by_number["values"][-1] == pytest.approx(result["metrics"][name]["fid/texture"])
        assert by_number["infinity"] < result["metrics"][name]["fid/texture"]
    groups = {group["name"]: group for group in result["groups"]}
    assert list(groups) == ["No Finding", "Pneumothorax"]  # each of one label combination, which is not listed again
    # The set has four images of each class, and copies of them.
    for group in groups.values():
        assert group["num_images"] == 60
        assert group["near_duplicates"]["synthetic"] == 1
        assert group["near_duplicates"]["real"] < 0.1
        assert group["ms_ssim"]["synthetic"]["mean"] > group["ms_ssim"]["holdout"]["mean"] + 0.01
        assert group["metrics"]["synthetic"]["recall/texture"] < group["metrics"]["holdout"]["recall/texture"]
    assert result["ms_ssim_scales"] == 1
    report = (out / "report.md").read_text()
    assert f"{fid:.4g} (" in report
    assert "No Finding" in report
    assert "features texture" in report
    assert "There is no holdout" not in report
    assert (out / "report.html").is_file()
    with (out / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    shares = [float(r["value"]) for r in rows if (r["measure"], r["set"]) == ("near_duplicates", "synthetic")]
    assert shares == [1, 1]
    with (out / "figures.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if (row["measure"], row["set"]) == ("fid", "synthetic")]
    assert {row["num_images"] for row in rows} >= {"120", "30", "infinity"}
    for name in ("features", "fid_by_number", "classes"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_classes_with_few_images_are_left_out_and_said(sets, tmp_path):
    arguments = [f"--real={sets['real']}", f"--synthetic={sets['like']}", "--num_images=60", "--resamples=0"]
    assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert not result["groups"]
    assert [one["name"] for one in result["groups_left_out"]] == ["No Finding", "Pneumothorax"]
    assert sum(one["num_images"]["real"] for one in result["groups_left_out"]) == 60
    assert result["intervals"] == {"resamples": 0}
    report = (tmp_path / "out/report.md").read_text()
    assert "Left out, with too few images (real, synthetic): No Finding (" in report
    assert "There is no holdout" in report


def test_a_classifier_says_how_often_it_sees_the_label(sets, tmp_path):
    records = fakes.make_records(tmp_path / "small", per_class=4, resolution=16)
    run = classifier_runs.make_classifier_run(tmp_path / "run", records)
    real = sets["real"]
    arguments = [f"--real={real}", f"--synthetic={sets['like']}", f"--holdout={real}", f"--classifier={run}"]
    assert call(*arguments, "--num_images=20", "--resamples=0", f"--output_dir={tmp_path / 'out'}") == 0
    found = json.loads((tmp_path / "out/result.json").read_text())["label_agreement"]
    model = loading.load_classifier(run)
    for name, path, split in (("synthetic", sets["like"], "train"), ("holdout", real, "test")):
        rows = list(data.RecordSet(path).dataset(split).as_numpy_iterator())
        predicted = model.predict(np.stack([row["image"] for row in rows]) / np.float32(255), verbose=0).argmax(axis=1)
        labels = np.array([row["label/class"] for row in rows])
        for index, class_name in enumerate(("No Finding", "Pneumothorax")):
            mine = found[name]["classes"][class_name]
            assert mine["value"] == pytest.approx(np.mean(predicted[labels == index] == index))
            assert mine["num_images"] == np.sum(labels == index)
            assert mine["interval"][0] <= mine["value"] <= mine["interval"][1]
        assert found[name]["all"]["value"] == pytest.approx(np.mean(predicted == labels))
    assert "Percent of the images whose predicted class is their label" in (tmp_path / "out/report.md").read_text()


def test_features_of_a_classifier_are_named_after_it(sets, tmp_path):
    records = classifier_runs.make_records(tmp_path / "records")
    run = classifier_runs.make_classifier_run(tmp_path / "run", records)
    out = tmp_path / "out"
    arguments = [f"--real={sets['real']}", f"--synthetic={sets['like']}", f"--features={run}", "--num_images=8"]
    assert call(*arguments, f"--output_dir={out}") == 0
    result = json.loads((out / "result.json").read_text())
    name = result["features"]["name"]
    assert name.startswith("resnet_tiny-")
    assert f"fid/{name}" in result["metrics"]["synthetic"]
    assert not any("pixels" in metric for metric in result["metrics"]["synthetic"])
    assert "8 images for 256 features" in result["warnings"][0]


def test_bad_input_is_one_line_and_leaves_nothing(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    real, like = f"--real={sets['real']}", f"--synthetic={sets['like']}"
    other_classes = classifier_runs.make_classifier_run(
        tmp_path / "v2", classifier_runs.make_records(tmp_path / "v2_records")
    )
    cases = [
        ([real], ["--synthetic is required"]),
        ([real, f"--synthetic={sets['large']}"], ["--synthetic=", "images are 16 px, not 8"]),
        ([real, like, f"--holdout={sets['large']}"], ["--holdout=", "images are 16 px, not 8"]),
        ([real, f"--synthetic={sets['few']}"], ["--synthetic=", "train split has 4 images; at least 6"]),
        ([real, f"--synthetic={sets['no_train']}"], ["no_train", "split"]),
        ([real, like, "--num_images=101"], ["--synthetic=", "100 images, --num_images=101 asks for more"]),
        ([real, like, "--num_images=5"], ["num_images"]),
        ([real, like, f"--holdout={sets['real']}", "--holdout_split=train"], ["its train split is the real set"]),
        ([real, like, "--features=fid"], ["--features=fid: must be pixels_pca64, texture, inception"]),
        ([real, like, f"--features={sets['real']}"], ["--features=", "Keras cannot load it"]),
        ([real, like, "--features=inception"], ["--features_weights=imagenet: put https://"]),
        ([real, like, "--features_weights=imagenet"], ["is for --features=inception"]),
        ([real, like, f"--classifier={tmp_path / 'none'}"], ["--classifier=", "there is no such folder"]),
        (
            [real, like, f"--classifier={other_classes}"],
            ["--classifier=", "its classes are No Finding, Finding, those"],
        ),
        ([real, like, "--resamples=-1"], ["resamples"]),
        ([real, f"--synthetic={tmp_path}"], ["expected a record set"]),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_one_line_and_exit_1(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fakes, "_png", lambda picture: b"no picture")
    broken = fakes.make_records(tmp_path / "broken")
    arguments = [f"--real={sets['real']}", f"--synthetic={broken}", f"--output_dir={tmp_path / 'out'}"]
    capsys.readouterr()
    assert call(*arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "broken: damaged records" in errors[0]
    assert not (tmp_path / "out").exists()

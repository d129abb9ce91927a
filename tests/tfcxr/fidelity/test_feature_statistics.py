"""Statistics of record sets and their cache: found again, and never trusted when damaged or of something else."""

import json
import pathlib

import numpy as np
import pytest

from tests import fakes
from tfcxr import data
from tfcxr.fidelity import feature_networks, feature_statistics, features
from tfrecords_builder.errors import InputError


@pytest.fixture(scope="module")
def record_set(tmp_path_factory):
    return data.RecordSet(fakes.make_records(tmp_path_factory.mktemp("statistics") / "r", per_class=10))


def of_reals(record_set, cache, extractor=None, **arguments):
    extractor = extractor or features.PixelPca(8)
    arguments = {"split": "train", "num_images": 12, "seed": 0, **arguments}
    return feature_statistics.of_reals(extractor, record_set, cache_dir=cache, **arguments), extractor


def forbid_reading(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the images were read")

    monkeypatch.setattr(features, "read_images", fail)


def test_statistics_of_a_record_set(record_set):
    got, extractor = of_reals(record_set, None)
    images = np.concatenate(list(features.read_images(record_set, "train", features.choose(20, 12, seed=0))))
    np.testing.assert_allclose(got.features, extractor(images), atol=1e-12)
    np.testing.assert_allclose(got.mean, got.features.mean(axis=0))
    np.testing.assert_allclose(got.covariance, np.cov(got.features.T))
    # Fitted to these very images: their mean is the centre.
    np.testing.assert_allclose(got.mean, 0, atol=1e-9)
    with pytest.raises(InputError, match="the train split has 20 images, not 21"):
        of_reals(record_set, None, num_images=21)


def test_a_second_call_reads_the_cache_instead_of_the_images(record_set, tmp_path, monkeypatch):
    first, extractor = of_reals(record_set, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    assert path.name.startswith("pixels_pca64-12-")
    forbid_reading(monkeypatch)
    second, again = of_reals(record_set, tmp_path / "cache")
    for name in ("features", "mean", "covariance"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    # The fit comes back as well: other images get the same features.
    images = np.random.default_rng(0).uniform(-1, 1, [3, 8, 8, 1])
    np.testing.assert_array_equal(again(images), extractor(images))


def test_other_images_numbers_seeds_or_features_have_files_of_their_own(record_set, tmp_path):
    other = data.RecordSet(fakes.make_records(tmp_path / "other", per_class=10, seed=5))
    of_reals(record_set, tmp_path / "cache")
    of_reals(other, tmp_path / "cache")
    of_reals(record_set, tmp_path / "cache", split="test")
    of_reals(record_set, tmp_path / "cache", num_images=13)
    of_reals(record_set, tmp_path / "cache", seed=1)
    of_reals(record_set, tmp_path / "cache", feature_networks.NetworkFeatures("corner", 8, lambda x: x[:, 0, :2, 0]))
    assert len(list((tmp_path / "cache").iterdir())) == 6


def flip_a_byte(path, _):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path, _):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path, _):
    path.write_bytes(b"")


def text(path, _):
    path.write_text("no archive")


def foreign(path, other):
    """A sound file of other images under this name."""
    path.write_bytes(other.read_bytes())


def edited(path, _):
    """A sound archive whose values do not belong to its checksum."""
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["features"] = arrays["features"] + 1e-9
    np.savez(path, **arrays)


def headless(path, _):
    np.savez(path, features=np.zeros(3))


def pickled(path, _):
    np.savez(path, header=np.array([{"a": 1}], dtype=object))


def stateless(path, _):
    """Consistent in itself, but without the fit."""
    with np.load(path) as archive:
        arrays = {name: value for name, value in archive.items() if not name.startswith("state/")}
    key = json.loads(str(arrays.pop("header")))["key"]
    header = {"key": key, "sha256": feature_statistics._digest(arrays)}
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


@pytest.mark.parametrize("damage", [flip_a_byte, cut, empty, text, foreign, edited, headless, pickled, stateless])
def test_a_damaged_or_foreign_file_is_computed_again_and_replaced(record_set, tmp_path, monkeypatch, caplog, damage):
    expected, _ = of_reals(record_set, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    sound = path.read_bytes()
    of_reals(record_set, tmp_path / "others", seed=1)
    damage(path, next((tmp_path / "others").iterdir()))
    assert path.read_bytes() != sound
    got, _ = of_reals(record_set, tmp_path / "cache")
    np.testing.assert_array_equal(got.features, expected.features)
    assert "is damaged or of something else" in caplog.text
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [path.name]
    forbid_reading(monkeypatch)
    of_reals(record_set, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_costs_a_warning_only(record_set, tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    got, _ = of_reals(record_set, tmp_path / "file" / "cache")
    assert got.features.shape == (12, 11)  # twelve images differ in eleven directions
    assert "are not kept" in caplog.text
    assert pathlib.Path(tmp_path / "file").read_text() == "x"


def test_figures_are_named_and_other_features_are_refused():
    rng = np.random.default_rng(0)
    one = feature_statistics.Statistics.of("a", rng.normal(size=[30, 3]))
    got = feature_statistics.compare(one, one)
    assert list(got) == [f"{m}/a" for m in ("fid", "kid", "kid_std", "precision", "recall", "density", "coverage")]
    assert got["fid/a"] == pytest.approx(0, abs=1e-12)
    assert (got["precision/a"], got["recall/a"], got["coverage/a"]) == (1, 1, 1)
    with pytest.raises(ValueError, match="features a and b cannot be compared"):
        feature_statistics.compare(one, feature_statistics.Statistics.of("b", one.features))

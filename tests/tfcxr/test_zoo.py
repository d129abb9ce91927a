"""Generators that come with the package are found by name, load, and make radiographs."""

import numpy as np
import pytest

import tfcxr
from flags import app
from tfcxr import read_records, zoo
from tfcxr.commands import generate
from tfcxr.training import digests
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS


def test_a_name_is_found_where_there_is_no_such_path(tmp_path, monkeypatch):
    assert list(zoo.folders()) == ["nih_32"]
    assert (zoo.find("nih_32") / "assets" / "generator.json").is_file()
    assert zoo.find(tmp_path) == tmp_path
    with pytest.raises(InputError, match="nih_64: there is no such folder; generators that are found by name: nih_32"):
        zoo.find("nih_64")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nih_32").mkdir()
    assert zoo.find("nih_32").resolve() == tmp_path / "nih_32"


def test_what_is_shipped_is_what_was_exported():
    digests.check(zoo.find("nih_32"))
    assert (zoo.find("nih_32") / digests.FILE).is_file()


def test_what_is_shipped_is_small():
    assert sum(path.stat().st_size for path in zoo.find("nih_32").rglob("*")) < 3e6


def test_the_generator_makes_what_it_made_when_it_was_exported():
    labels = np.zeros([3, len(LABELS)], np.float32)
    labels[range(3), [LABELS.index(name) for name in ("No Finding", "Pneumothorax", "Pleural Effusion")]] = 1
    latents = np.random.default_rng(0).standard_normal([3, 48], np.float32)
    images = tfcxr.load_generator("nih_32")([latents, labels]).numpy()
    assert images.shape == (3, 32, 32, 1)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), [0.283377, 0.244990, -0.170031], atol=1e-4)
    np.testing.assert_allclose(images.std(axis=(1, 2, 3)), [0.381292, 0.445939, 0.556705], atol=1e-4)
    # A radiograph, not noise: neighbouring pixels go together, and lungs are darker than what lies below them.
    pixels = images[..., 0]
    assert np.corrcoef(pixels[:, :, :-1].ravel(), pixels[:, :, 1:].ravel())[0, 1] > 0.9
    assert pixels[:, 8:20].mean() < pixels[:, 24:, 8:24].mean()


def call(*arguments):
    return app.run(generate.main, generate.define_flags, ["generate", *arguments])


def test_generate_finds_it_by_name(tmp_path, capsys):
    arguments = ["--label_version=v1_0s", "--per_class=3", f"--output_dir={tmp_path / 'out'}"]
    assert call("--generator=nih_64", *arguments) == 2
    error = capsys.readouterr().err
    assert "--generator" in error and "generators that are found by name: nih_32" in error
    assert error.count("\n") == 1
    assert call("--generator=nih_32", *arguments) == 0
    assert len(list(read_records(tmp_path / "out", "train").as_numpy_iterator())) == 4

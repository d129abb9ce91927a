"""neighbours through its flags: a planted copy is found, the table is right, bad input is one line."""

import json

import numpy as np
import pandas as pd
import pytest

from tests import fakes
from tfcxr import cli, data


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {
        "real": fakes.make_records(root / "real", per_class=20),
        "other": fakes.make_records(root / "other", per_class=5, with_patients=False, seed=1),
        "large": fakes.make_records(root / "large", resolution=16),
    }


def call(*arguments):
    return cli.main(["neighbours", *arguments])


def test_the_table_holds_the_nearest_images(sets, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--synthetic={sets['other']}", f"--real={sets['real']}", "--neighbours=3", "--rows=4"]
    assert call(*arguments, f"--output_dir={out}") == 0
    assert "10 synthetic images against 40 real ones, features pixels." in capsys.readouterr().out
    table = pd.read_csv(out / "neighbours.csv")
    assert list(table["rank"]) == [1, 2, 3] * 10
    pixels, ids = {}, {}
    for name in ("other", "real"):
        rows = list(data.read_records(sets[name], "train").as_numpy_iterator())
        pixels[name] = np.stack([row["image"].ravel() for row in rows]) / 127.5 - 1
        ids[name] = [row["image/id"].decode() for row in rows]
    distances = np.linalg.norm(pixels["other"][:, None] - pixels["real"][None], axis=2)
    for number, image in enumerate(ids["other"]):
        rows = table[table.id == image]
        assert list(rows.neighbour) == [ids["real"][i] for i in np.argsort(distances[number])[:3]]
        assert list(rows.distance) == pytest.approx(sorted(distances[number])[:3], rel=1e-4)
    assert table.patient.str.startswith("train-").all()
    result = json.loads((out / "result.json").read_text())
    assert result["nearest_distance"]["quantiles"]["0"] == pytest.approx(distances.min(), rel=1e-5)
    assert result["identical_images"] == 0
    assert 0 < result["distinct_nearest"] <= 10
    for name in ("nearest", "drawn", "distances"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_copies_are_found(sets, tmp_path, capsys):
    arguments = [f"--synthetic={sets['real']}", f"--real={sets['real']}", "--num_images=6", "--rows=2"]
    assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 0
    assert "Warning: 6 synthetic images equal a real one" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out/neighbours.csv")
    first = table[table["rank"] == 1]
    assert (first.id == first.neighbour).all()
    assert (first.distance == 0).all()


def test_bad_input_is_one_line(sets, tmp_path, capsys):
    other, real = f"--synthetic={sets['other']}", f"--real={sets['real']}"
    cases = [
        ([real], ["--synthetic is required"]),
        ([other, f"--real={sets['large']}"], ["--real=", "images are 16 px, not 8"]),
        ([other, real, "--num_images=11"], ["train split has 10 images, --num_images=11 asks for more"]),
        ([other, real, "--neighbours=41"], ["--neighbours=41: the train split", "40 images"]),
        ([other, real, "--features=pixels_pca64"], ["--features=pixels_pca64: is fitted", "take pixels"]),
        ([other, real, "--features=nothing"], ["--features=nothing: must be pixels, inception"]),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()

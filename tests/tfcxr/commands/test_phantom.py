"""The phantom binary: layouts, tables, determinism, errors."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flags import app
from tfcxr.commands import build_records, phantom
from tfrecords_builder.labels import LABELS
from tfrecords_builder.records import load_info
from tfrecords_builder.simulator import hospital

NIH_NAMES = {"Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"}
NIH_NAMES |= {"Consolidation", "Edema", "Pleural_Thickening", "No Finding"}


def run(*arguments):
    return app.run(phantom.main, phantom.define_flags, ["phantom", *arguments])


def digests(folder):
    # result.json holds the time it took, flags.txt the folder and the number of workers.
    skipped = {"result.json", "flags.txt"}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in skipped)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    for name in "ab":
        assert run(f"--output_dir={root / name}", f"--hospital={name}", "--num_patients=24", "--resolution=32") == 0
    return root


def test_hospital_a_has_chexperts_layout(folders):
    train, valid = (pd.read_csv(folders / "a" / name) for name in ("train.csv", "valid.csv"))
    for table in (train, valid):
        assert tuple(table.columns) == ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
        assert set(table["Sex"]) <= {"Male", "Female"}
        assert table["Age"].between(18, 90).all()
        assert set(table["Frontal/Lateral"]) <= {"Frontal", "Lateral"}
        assert set(table.loc[table["Frontal/Lateral"] == "Frontal", "AP/PA"]) <= {"AP", "PA"}
        values = table[list(LABELS)].to_numpy()
        assert set(np.unique(values[~np.isnan(values)])) <= {-1.0, 0.0, 1.0}
    patients = [set(table["Path"].str.split("/").str[2]) for table in (train, valid)]
    assert patients[0].isdisjoint(patients[1])
    assert len(patients[0] | patients[1]) == 24
    paths = [path.removeprefix("CheXpert-v1.0-small/") for path in [*train["Path"], *valid["Path"]]]
    on_disk = {str(path.relative_to(folders / "a")) for path in (folders / "a").rglob("*.jpg")}
    assert set(paths) == on_disk
    assert len(paths) == len(set(paths))


def test_hospital_b_has_nihs_layout(folders):
    text = (folders / "b" / "Data_Entry_2017_v2020.csv").read_text()
    assert text.splitlines()[0].endswith("View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")
    table = pd.read_csv(folders / "b" / "Data_Entry_2017_v2020.csv")
    assert table.shape[1] == 11
    assert {name for names in table["Finding Labels"] for name in names.split("|")} <= NIH_NAMES
    lists = [(folders / "b" / f"{name}_list.txt").read_text().split() for name in ("train_val", "test")]
    assert sorted([*lists[0], *lists[1]]) == sorted(table["Image Index"])
    patients = [{name[:8] for name in names} for names in lists]
    assert patients[0].isdisjoint(patients[1])
    assert len(patients[1]) == 6  # a quarter
    on_disk = {path.name for path in (folders / "b" / "images").iterdir()}
    assert on_disk == set(table["Image Index"])


def test_images_are_grey_and_of_the_resolution(folders):
    for path in [*(folders / "a").rglob("*.jpg"), *(folders / "b").rglob("*.png")]:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (32, 32))
            assert np.asarray(image).std() > 20


def test_marker_and_result(folders):
    for name in "ab":
        marker = json.loads((folders / name / "phantom.json").read_text())
        expected = {"schema_version": 1, "source": f"phantom-{name}", "seed": 0, "num_patients": 24, "resolution": 32}
        assert marker == expected | {"version": hospital.VERSION}
        result = json.loads((folders / name / "result.json").read_text())
        images = list((folders / name).rglob("*.jpg")) + list((folders / name).rglob("*.png"))
        assert result["num_images"] == len(images)
        assert result["labels"]["No Finding"] > 0
        assert (folders / name / "flags.txt").exists()


def test_hospitals_look_different(folders):
    def darkest(pattern):
        return np.mean([np.asarray(Image.open(path))[:, -3:].mean() for path in folders.glob(pattern)])

    assert darkest("a/**/*frontal.jpg") != pytest.approx(darkest("b/images/*.png"), rel=0.05)


@pytest.mark.parametrize("name", ["a", "b"])
def test_bytes_do_not_depend_on_workers(folders, tmp_path, name):
    flags = [f"--hospital={name}", "--num_patients=24", "--resolution=32", "--workers=1"]
    assert run(f"--output_dir={tmp_path / 'x'}", *flags) == 0
    assert digests(tmp_path / "x") == digests(folders / name)


def test_a_patient_depends_on_seed_and_index_only(tmp_path):
    def images(seed, index):
        folder = tmp_path / f"{seed}-{index}"
        folder.mkdir(exist_ok=True)
        hospital.write_patient(folder, "b", index, resolution=16, seed=seed)
        return digests(folder)

    again = images(1, 7)
    assert again == images(1, 7)
    assert list(images(1, 8).values()) != list(again.values())
    assert list(images(2, 7).values()) != list(again.values())


def test_overwrite(tmp_path):
    flags = [f"--output_dir={tmp_path / 'out'}", "--num_patients=1", "--resolution=16", "--workers=1"]
    assert run(*flags) == 0
    assert run(*flags) == 2
    assert run(*flags, "--overwrite", "--seed=5") == 0
    assert json.loads((tmp_path / "out" / "phantom.json").read_text())["seed"] == 5


@pytest.mark.parametrize(
    "bad",
    [
        "--hospital=c",
        "--num_patients=0",
        "--resolution=100",
        "--resolution=4",
        "--seed=-1",
        "--workers=-1",
        "--colour=1",
    ],
)
def test_bad_flags_are_one_line_and_write_nothing(bad, tmp_path, capsys):
    assert run(f"--output_dir={tmp_path / 'out'}", "--num_patients=1", bad) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert bad.split("=")[0].lstrip("-") in error
    assert not (tmp_path / "out").exists()


def test_output_dir_is_required():
    assert run("--num_patients=1") == 2


def test_prevalence_serves_small_sets():
    from tfrecords_builder.simulator import cases

    rows = {"a": [], "b": []}
    for name, studies in rows.items():
        for index in range(1, 601):
            studies += cases.sample_studies(np.random.default_rng([0, index]), name)
    exact = [[label for label in LABELS if study.report.get(label) == 1] for study in rows["a"]]
    nih = [hospital.nih_labels(study) for study in rows["b"]]
    least = {"No Finding": 0.28, "Pneumothorax": 0.08, "Pneumonia": 0.04, "Cardiomegaly": 0.04}
    for combinations in (exact, nih):
        for label, share in least.items():
            assert combinations.count([label]) / len(combinations) > share
    assert 1.8 < len(exact) / 600 < 3


def test_heads_become_records_of_the_benchmarks_brain_half(tmp_path, capsys):
    pytest.importorskip("pydicom")
    data, records = tmp_path / "heads", tmp_path / "records"
    assert run(f"--output_dir={data}", "--body=head", "--num_patients=40", "--resolution=32") == 0
    arguments = ["--dataset=rsna_brain", f"--data_dir={data}", "--resolution=16", f"--output_dir={records}"]
    arguments += ["--label_set=brain_benchmark", "--label_version=classes-2", "--images_per_class=10,2,1"]
    assert app.run(build_records.main, build_records.define_flags, ["build-records", *arguments]) == 0
    info = load_info(records)
    assert (info.contrast, info.source) == ("brain", "phantom-head")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 20,
        "validation": 4,
        "test": 2,
    }
    assert "no finding" in info.classes
    assert "any" not in info.labels
    assert "CT slices of heads" in (records / "croissant.json").read_text()

"""build-records on the layouts of data sets, as tiny sets made here: exact counts, labels, views and patients."""

import csv
import json

import pytest

from flags import app
from tests import fake_data_sets
from tfcxr.commands import build_records, label_stats, verify_records
from tfrecords_builder import choices, records
from tfrecords_builder.records import sources


def _run(out, data_dir, **values):
    arguments = {"label_version": "v2", "resolution": 8, "data_dir": data_dir, "output_dir": out, **values}
    argv = ["build-records", *(f"--{name}={value}" for name, value in arguments.items())]
    return app.run(build_records.main, build_records.define_flags, argv)


def _manifest(folder):
    """id -> its row."""
    with (folder / "manifest.csv").open(newline="") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def test_no_finding_of_a_folder(tmp_path, capsys):
    for name in "abcd":
        fake_data_sets.write_image(tmp_path / "set" / f"{name}.png")
    (tmp_path / "set" / "t.csv").write_text(
        "path,patient,Effusion,Edema\na.png,1,1,0\nb.png,2,0,0\nc.png,3,0,\nd.png,4,0,0\n"
    )
    assert _run(tmp_path / "out", tmp_path / "set", dataset="folder", no_finding="all_negative") == 0
    assert "warning: --no_finding=all_negative: 2 of 4 images count as 'No Finding'" in capsys.readouterr().err
    rows = _manifest(tmp_path / "out")
    assert {image: row["class"] for image, row in rows.items()} == {
        "a.png": "Finding",
        "b.png": "No Finding",
        "d.png": "No Finding",
    }
    assert records.load_info(tmp_path / "out").provenance["no_finding"] == "all_negative"
    assert "all_negative" in (tmp_path / "out" / "DATASHEET.md").read_text()
    assert json.loads((tmp_path / "out" / "build_report.json").read_text())["skipped"] == {"no label": 1}
    assert _run(tmp_path / "no", tmp_path / "set", dataset="chexpert", no_finding="all_negative") == 2
    assert "--no_finding=all_negative: does nothing without --dataset=folder" in capsys.readouterr().err


def test_a_window_of_images_without_units_is_told(tmp_path, capsys):
    for name in ("a.png", "b.JPG"):
        fake_data_sets.write_image(tmp_path / "set" / name)
    fake_data_sets.write_dicom(tmp_path / "set" / "c.dcm")
    (tmp_path / "set" / "t.csv").write_text("path,patient,Effusion,Normal\na.png,1,1,0\nb.JPG,2,0,1\nc.dcm,3,0,1\n")
    assert _run(tmp_path / "out", tmp_path / "set", dataset="folder", window="bone") == 0
    expected = "--window=bone: 2 of 3 images are no DICOM files and have no Hounsfield units"
    assert f"warning: {expected}" in capsys.readouterr().err
    assert expected in (tmp_path / "out" / "DATASHEET.md").read_text()
    assert _run(tmp_path / "again", tmp_path / "out", dataset="records", window="bone") == 0
    assert "--window=bone: 3 of 3 images are no DICOM files" in capsys.readouterr().err
    assert _run(tmp_path / "plain", tmp_path / "set", dataset="folder") == 0
    assert "Hounsfield" not in capsys.readouterr().err


def test_imagefolder_with_metadata(tmp_path):
    rows = ["file_name,labels,patient"]
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            fake_data_sets.write_image(tmp_path / "set" / split / f"{i}.png")
            rows.append(f"{split}/{i}.png,{('Effusion|Mass', 'Normal')[i % 2]},{split}{i}")
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(rows))
    values = {"dataset": "imagefolder", "split_policy": "official", "class_values": "Mass:Mass"}
    assert _run(tmp_path / "out", tmp_path / "set", **values) == 0
    info = records.load_info(tmp_path / "out")
    assert info.splits["train"].class_counts == {"No Finding": 2, "Finding": 2}
    assert info.splits["test"].class_counts == {"No Finding": 1, "Finding": 1}
    rows = _manifest(tmp_path / "out")
    assert rows["test/0.png"]["patient"] == "test0" and rows["test/0.png"]["split"] == "test"


PNEUMOTHORAX = {"ptx": {"none": {"zero": ["Pneumothorax"]}, "ptx": {"one": ["Pneumothorax"]}}}
# Data set -> flags; id -> split, class, patient, view of every image of the record set; left out, and why.
DATA_SETS = {
    "chexlocalize": (
        {"split_policy": "official"},
        {
            "test/patient64741/study1/view1_frontal.jpg": ("test", "Finding", "patient64741", ""),
            "test/patient64742/study1/view1_frontal.jpg": ("test", "No Finding", "patient64742", ""),
            "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg": ("validation", "Finding", "patient64541", ""),
        },
        {"lateral view": 1},
    ),
    "mimic_cxr": (
        {"split_policy": "official", "nofrontal_only": None},
        {
            "files/p10/p10000032/s50414267/02aa804e.jpg": ("train", "No Finding", "10000032", "PA"),
            "files/p10/p10000032/s50414267/174413ec.jpg": ("train", "No Finding", "10000032", "LL"),
            "files/p10/p10000032/s53189527/2a2277a9.jpg": ("train", "Finding", "10000032", "AP"),
            "files/p10/p10000764/s57375967/68b5c4b1.jpg": ("validation", "Finding", "10000764", "AP"),
            "files/p11/p11000011/s51029426/fffabebf.jpg": ("test", "Finding", "11000011", ""),
        },
        {"no label": 1},
    ),
    "chexpert_plus": (
        {"split_policy": "official", "uncertain": "ones", "split_fractions": "1,0,0"},
        {
            "train/patient42142/study5/view1_frontal": (None, "Finding", "patient42142", "AP"),
            "train/patient00007/study1/view1_frontal": (None, "No Finding", "patient00007", "PA"),
            "valid/patient64541/study1/view1_frontal": ("test", "Finding", "patient64541", "AP"),
        },
        {"lateral view": 1},
    ),
    "rsna_pneumonia": (
        {"split_fractions": "1,0,0"},
        {
            "00436515": ("train", "Finding", "00436515", "AP"),
            "00704310": ("train", "Finding", "00704310", "AP"),
            "003d8fa0": ("train", "No Finding", "003d8fa0", "AP"),
        },
        {"another row of the same image": 1, "unmapped findings only": 1},
    ),
    "vindr_cxr": (
        {"split_policy": "official"},
        {
            "000434": (None, "Finding", "", ""),
            "00053190": (None, "No Finding", "", ""),
            "002a34c5": ("test", "Finding", "", ""),
        },
        {"another row of the same image": 6, "unmapped findings only": 1},
    ),
    "padchest": (
        {"split_fractions": "1,0,0", "contrast": "max"},
        {"0/a1.png": ("train", "No Finding", "P1", "PA"), "1/b1.png": ("train", "Finding", "P2", "AP")},
        {"lateral view": 1, "projection COSTAL": 1, "labelled suboptimal study": 1, "no label": 2},
    ),
    "siim_acr": (
        {"split_fractions": "1,0,0", "label_version": "ptx", "label_versions_file": "ptx.json"},
        {
            "1.2.276.0.7230010.3.1.4.8323329.300.15178751300.300": ("train", "ptx", "p0", "PA"),
            "1.2.276.0.7230010.3.1.4.8323329.301.15178751301.301": ("train", "none", "p0", "PA"),
            "1.2.276.0.7230010.3.1.4.8323329.302.15178751302.302": ("train", "none", "p1", "PA"),
        },
        {"another row of the same image": 1},
    ),
}


TESTED_ELSEWHERE = {"chexpert", "chestxray", "folder", "imagefolder", "records", "rsna_brain"}


def test_every_data_set_is_tested_and_has_its_terms():
    assert set(DATA_SETS) == set(choices.DATASETS) - TESTED_ELSEWHERE
    for name in DATA_SETS:
        assert sources.lookup(name).url and sources.lookup(name).labelling, name


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_data_set(tmp_path, monkeypatch, dataset, capsys):
    pytest.importorskip("pydicom")
    monkeypatch.chdir(tmp_path)
    flags, expected, skipped = DATA_SETS[dataset]
    (tmp_path / "ptx.json").write_text(json.dumps(PNEUMOTHORAX))
    getattr(fake_data_sets, f"make_{dataset}")(tmp_path / "set")
    arguments = {"label_version": "v2", "resolution": 8, "output_dir": "out", **flags}
    argv = [f"--{name}" if value is None else f"--{name}={value}" for name, value in arguments.items()]
    argv = ["build-records", f"--dataset={dataset}", "--data_dir=set", *argv]
    assert app.run(build_records.main, build_records.define_flags, argv) == 0, capsys.readouterr().err
    rows = _manifest(tmp_path / "out")
    found = {
        image: (row["split"] if expected.get(image, [""])[0] else None, row["class"], row["patient"], row["view"])
        for image, row in rows.items()
    }
    assert found == expected
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["skipped"] == skipped and report["rows"] == len(expected) + sum(skipped.values())
    assert {row["split"] for row in rows.values()} <= {"train", "validation", "test"}
    assert app.run(verify_records.main, verify_records.define_flags, ["verify-records", "--records=out"]) == 0
    assert sources.lookup(dataset).name in (tmp_path / "out" / "DATASHEET.md").read_text()


def test_agreement_of_radiologists(tmp_path):
    pytest.importorskip("pydicom")
    root = fake_data_sets.make_vindr_cxr(tmp_path / "set")
    flags = {"label_version": "multilabel", "agreement": "any", "split_fractions": "1,0,0"}
    assert _run(tmp_path / "out", root, dataset="vindr_cxr", **flags) == 0
    assert _manifest(tmp_path / "out")["000434"]["Fracture"] == "1"
    assert records.load_info(tmp_path / "out").provenance["agreement"] == "any"


def test_labels_of_physicians_only(tmp_path):
    root = fake_data_sets.make_padchest(tmp_path / "set")
    flags = {"label_version": "multilabel", "labelled_by": "physicians", "split_fractions": "1,0,0"}
    assert _run(tmp_path / "out", root, dataset="padchest", **flags) == 0
    assert list(_manifest(tmp_path / "out")) == ["0/a1.png"]
    assert records.load_info(tmp_path / "out").provenance["labelled_by"] == "physicians"


def test_statistics_of_a_data_set(tmp_path):
    root = fake_data_sets.make_mimic_cxr(tmp_path / "set")
    out = tmp_path / "stats"
    argv = ["label-stats", "--dataset=mimic_cxr", f"--data_dir={root}", f"--output_dir={out}"]
    assert app.run(label_stats.main, label_stats.define_flags, argv) == 0
    assert json.loads((out / "result.json").read_text())["dataset"] == "mimic_cxr"

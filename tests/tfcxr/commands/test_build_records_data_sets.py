"""build-records on the layouts of data sets, as tiny sets made here: exact counts, labels, views and patients."""

import csv
import json
import pathlib

from PIL import Image

from flags import app
from tfcxr.commands import build_records
from tfrecords_builder import records


def _image(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 100).save(path)


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
        _image(tmp_path / "set" / f"{name}.png")
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


def test_imagefolder_with_metadata(tmp_path):
    rows = ["file_name,labels,patient"]
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            _image(tmp_path / "set" / split / f"{i}.png")
            rows.append(f"{split}/{i}.png,{('Effusion|Mass', 'Normal')[i % 2]},{split}{i}")
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(rows))
    values = {"dataset": "imagefolder", "split_policy": "official", "class_values": "Mass:Mass"}
    assert _run(tmp_path / "out", tmp_path / "set", **values) == 0
    info = records.load_info(tmp_path / "out")
    assert info.splits["train"].class_counts == {"No Finding": 2, "Finding": 2}
    assert info.splits["test"].class_counts == {"No Finding": 1, "Finding": 1}
    rows = _manifest(tmp_path / "out")
    assert rows["test/0.png"]["patient"] == "test0" and rows["test/0.png"]["split"] == "test"

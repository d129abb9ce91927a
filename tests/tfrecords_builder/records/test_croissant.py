import csv
import hashlib
import json

import pytest

from tests.described_sets import DIGEST, make_info
from tfrecords_builder import records
from tfrecords_builder.labels import LABELS
from tfrecords_builder.records import croissant, sources

FILES = {"manifest.csv": "ab" * 32, "features.json": "cd" * 32, "DATASHEET.md": "ef" * 32}


def _row(image_id, split, class_name, **values):
    row = {"id": image_id, "patient": "patient1", "split": split, "class": class_name, "view": "PA", "sex": "Female"}
    row |= {"age": 58, **{label: int(label == "Edema") for label in LABELS}, "extra": "", "image_digest": "a1" * 8}
    row |= {"shard": f"chexpert-{split}.tfrecord-00000-of-00001", "position": 0, **values}
    return {column: row[column] for column in records.manifest_columns(LABELS)}


def _save(folder, info, rows):
    """Writes manifest.csv and croissant.json as a record set has them."""
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, records.manifest_columns(LABELS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    digest = hashlib.sha256((folder / "manifest.csv").read_bytes()).hexdigest()
    described = croissant.describe(info, files={"manifest.csv": digest})
    (folder / "croissant.json").write_text(json.dumps(described))
    return described


def _by_id(nodes):
    return {node["@id"]: node for node in nodes}


def test_says_what_the_set_is():
    described = croissant.describe(make_info(), files=FILES)
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert described["name"] == "chexpert-v1_xs-64"
    assert described["version"] == f"{records.SCHEMA_VERSION}.0.0"
    assert DIGEST in described["identifier"] and DIGEST in described["description"]
    assert "4 chest radiographs (3 train, 1 test) of 64 x 64 pixels" in described["description"]
    assert "Research Use Agreement" in described["license"]
    assert "Non-commercial" in described["usageInfo"] and "passing on" in described["usageInfo"]
    assert "Irvin" in described["citeAs"] and described["url"].startswith("https://aimi.stanford.edu/")


def test_lists_small_files_and_shards():
    files = _by_id(croissant.describe(make_info(), files=FILES)["distribution"])
    assert list(files) == ["DATASHEET.md", "features.json", "manifest.csv", "shards-train", "shards-test"]
    manifest = files["manifest.csv"]
    assert (manifest["@type"], manifest["encodingFormat"]) == ("cr:FileObject", "text/csv")
    assert (manifest["sha256"], manifest["contentUrl"]) == ("ab" * 32, "manifest.csv")
    assert files["features.json"]["encodingFormat"] == "application/json"
    shards = files["shards-train"]
    assert (shards["@type"], shards["includes"]) == ("cr:FileSet", "chexpert-train.tfrecord-*")


def test_describes_every_column_and_enumeration():
    sets = _by_id(croissant.describe(make_info(), files=FILES)["recordSet"])
    fields = sets["images"]["field"]
    assert tuple(field["source"]["extract"]["column"] for field in fields) == records.manifest_columns(LABELS)
    assert len({field["@id"] for field in fields}) == len(fields)
    types = {field["name"]: field["dataType"] for field in fields}
    assert types["id"] == "sc:Text" and types["age"] == "sc:Integer" and types["Edema"] == ["sc:Integer", "cr:Label"]
    assert sets["splits"]["dataType"] == "cr:Split"
    assert sets["splits"]["data"] == [
        {"splits/name": "train", "splits/url": "cr:TrainingSplit", "splits/images": 3},
        {"splits/name": "test", "splits/url": "cr:TestSplit", "splits/images": 1},
    ]
    assert [row["labels/name"] for row in sets["labels"]["data"]] == list(LABELS)
    assert {row["labels/name"]: row["labels/images"] for row in sets["labels"]["data"]}["Edema"] == 4
    first, second = sets["classes"]["data"]
    assert (first["classes/name"], first["classes/images"], second["classes/images"]) == ("No Finding", 3, 1)
    assert first["classes/definition"].startswith("No Finding present; Pneumothorax absent; any value")


def test_multilabel_sets_have_no_classes():
    sets = _by_id(croissant.describe(make_info("multilabel"), files=FILES)["recordSet"])
    assert list(sets) == ["splits", "labels", "images"]
    assert "references" not in _by_id(sets["images"]["field"])["images/class"]


def test_equal_sets_give_equal_bytes():
    first = json.dumps(croissant.describe(make_info(), files=FILES))
    assert first == json.dumps(croissant.describe(make_info(), files=dict(reversed(FILES.items()))))
    assert first != json.dumps(croissant.describe(make_info(digest="ff" * 32), files=FILES))


def test_what_a_source_does_not_have_is_left_out():
    described = croissant.describe(make_info(source="folder:mine"), files=FILES)
    assert not {"url", "citeAs", "creator", "datePublished"} & set(described)
    assert described["name"] == "folder-mine-v1_xs-64" and "ask the owner" in described["license"]


def test_needs_the_manifest():
    with pytest.raises(ValueError, match=r"manifest\.csv is missing"):
        croissant.describe(make_info(), files={"features.json": "00"})


@pytest.mark.parametrize(
    ("source", "name", "licence"),
    [
        ("chexpert", "CheXpert", "Research Use Agreement"),
        ("chestxray", "NIH ChestX-ray14 (ChestX-ray8)", "No restriction"),
        ("phantom-b", "Simulated hospital b", "No restriction"),
        ("synthetic:gan", "Synthetic images of the run gan", "terms of the data"),
        ("folder:a:b", "Images of a folder: a:b", "Unknown"),
        ("folder:", "Images of a folder: unnamed", "Unknown"),
        ("other", "Images of a folder: other", "Unknown"),
    ],
)
def test_sources(source, name, licence):
    facts = sources.lookup(source)
    assert facts.name == name and licence in facts.license


@pytest.mark.parametrize("source", ["chexpert", "chestxray"])
def test_mlcroissant_reads_it(tmp_path, source):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed (extra `test`)")
    rows = [_row("train/patient1/a.jpg", "train", "No Finding"), _row("train/patient1/b.jpg", "test", "Pneumothorax")]
    described = _save(tmp_path, make_info(source=source), rows)
    issues = mlcroissant.Dataset(jsonld=described).metadata.ctx.issues
    assert not issues.errors and not issues.warnings
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    first, second = dataset.records("images")
    expected = {f"images/{column.lower().replace(' ', '_')}": value for column, value in rows[0].items()}
    # It gives text as bytes, and None for an empty cell.
    assert first == {k: (v.encode() or None) if isinstance(v, str) else v for k, v in expected.items()}
    assert second["images/id"] == b"train/patient1/b.jpg" and second["images/class"] == b"Pneumothorax"
    assert [row["splits/name"] for row in dataset.records("splits")] == ["train", "test"]
    assert len(list(dataset.records("classes"))) == 2


@pytest.mark.parametrize("source", ["synthetic:gan", "phantom-a", "folder:mine"])
def test_mlcroissant_reads_sets_without_papers(tmp_path, source):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed (extra `test`)")
    rows = [_row("synthetic-000000", "train", "", patient="", view="", sex="", age=-1)]
    described = _save(tmp_path, make_info("multilabel", source=source), rows)
    assert not mlcroissant.Dataset(jsonld=described).metadata.ctx.issues.errors
    (record,) = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json")).records("images")
    assert record["images/id"] == b"synthetic-000000"
    assert (record["images/class"], record["images/age"], record["images/edema"]) == (None, -1, 1)


def test_mlcroissant_notices_another_manifest(tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed (extra `test`)")
    _save(tmp_path, make_info(), [_row("a.jpg", "train", "No Finding")])
    with (tmp_path / "manifest.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(Exception, match=r"Download\(manifest\.csv\)") as caught:
        next(iter(mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json")).records("images")))
    assert "is not identical with the reference" in str(caught.value.__cause__)

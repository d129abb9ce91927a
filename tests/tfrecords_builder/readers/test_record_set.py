import csv
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError


@pytest.fixture
def record_set(tmp_path):
    return fakes.make_records(tmp_path / "set", label_version="multilabel", num_shards=2, source="synthetic:run")


def _edit_manifest(folder, function):
    path = folder / "manifest.csv"
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = function(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_read(record_set):
    table = readers.read("records", record_set)
    frame = table.frame
    assert (table.source, table.num_rows, len(table.skipped), table.findings) == ("synthetic:run", 120, 0, ())
    assert table.labelled == ("No Finding", "Cardiomegaly", "Pneumonia", "Pneumothorax", "Pleural Effusion")
    assert frame["fold"].value_counts().to_dict() == {"train": 40, "validation": 40, "test": 40}
    assert frame["Pneumothorax"].sum() == 48 and frame["Pneumothorax"].dtype == np.float32
    assert (frame["view"] == "PA").all() and (frame["age"] == -1).all()
    assert readers.locate(table).tolist() == frame["path"].tolist()
    assert (frame["offset"] >= 0).all() and frame["line"].tolist() == list(range(2, 122))


def test_offsets_point_at_the_rows(record_set):
    frame = readers.read("records", record_set).frame
    expected = {}
    for path in record_set.glob("*.tfrecord-*"):
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(serialized).features.feature
            image_id = feature["image/id"].bytes_list.value[0].decode()
            expected[image_id] = feature["image/encoded"].bytes_list.value[0]
    assert len(expected) == 120
    for row in frame.to_dict("records"):
        assert readers.read_image(row["path"], row["offset"]) == expected[row["id"]]


def test_extra_findings_are_those_that_occur(record_set):
    def edit(rows):
        rows[0]["extra"], rows[1]["extra"] = "Mass|Hernia", "Mass"
        return rows

    _edit_manifest(record_set, edit)
    assert readers.read("records", record_set).findings == ("Hernia", "Mass")


def test_manifest_and_shards_must_match(record_set):
    _edit_manifest(record_set, lambda rows: rows[:-1])
    with pytest.raises(InputError, match=r"names 19 records of fake-test\.tfrecord-00001-of-00002, which holds 20"):
        readers.read("records", record_set)


def test_manifest_with_an_unknown_shard(record_set):
    _edit_manifest(record_set, lambda rows: [{**rows[0], "shard": "../x"}, *rows[1:]])
    with pytest.raises(InputError, match=r"manifest\.csv: line 2, column shard: unknown value '\.\./x'"):
        readers.read("records", record_set)


def test_bad_record_sets(record_set, tmp_path):
    with pytest.raises(InputError, match=r"--labels_csv: a record set has its own table"):
        readers.read("records", record_set, labels_csv=tmp_path / "x.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no tfcxr_info\.json"):
        readers.read("records", tmp_path / "empty")
    (record_set / "manifest.csv").unlink()
    with pytest.raises(InputError, match=r"manifest\.csv: cannot be read"):
        readers.read("records", record_set)


def test_index_shard(tmp_path):
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for length in (0, 5, 1000):
            writer.write(b"x" * length)
    assert readers.index_shard(path).tolist() == [0, 16, 37] and readers.index_shard(path).dtype == np.int64
    data = path.read_bytes()
    for size in (len(data) - 1, 40, 37 + 12):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=f"is cut off or damaged at byte 37 of {size}"):
            readers.index_shard(path)
    path.write_bytes(b"")
    assert readers.index_shard(path).tolist() == []
    with pytest.raises(InputError, match="cannot be read"):
        readers.index_shard(tmp_path / "absent")


@pytest.mark.parametrize(
    ("place", "message"),
    [(3, "its length is damaged"), (9, "its length is damaged"), (40, "wrong CRC"), (-1, "wrong CRC")],
)
def test_damaged_record(record_set, place, message):
    path = sorted(record_set.glob("*.tfrecord-*"))[0]
    offsets = readers.index_shard(path)
    data = bytearray(path.read_bytes())
    data[offsets[1] + place if place >= 0 else offsets[2] + place] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"record at byte {offsets[1]}: .*{message}"):
        readers.read_image(path, int(offsets[1]))
    assert readers.read_image(path, int(offsets[2])).startswith(b"\x89PNG")


def test_what_is_no_record(tmp_path):
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"no example")
    with pytest.raises(ValueError, match="record at byte 0"):
        readers.read_image(path, 0)
    with pytest.raises(ValueError, match="its length is damaged"):
        readers.read_image(path, 10**6)
    with pytest.raises(OSError, match="absent"):
        readers.read_image(tmp_path / "absent", 0)


def test_whole_file(tmp_path):
    pathlib.Path(tmp_path / "a.png").write_bytes(b"image")
    assert readers.read_image(tmp_path / "a.png") == b"image"

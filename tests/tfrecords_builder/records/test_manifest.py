"""Rows of a record set: those of the manifest are those of the shards, or nothing is read at all."""

import pandas as pd
import pytest
import tensorflow as tf

from tests import fakes
from tfrecords_builder import labels, records
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.records import manifest

COLUMNS = list(records.manifest_columns(labels.LABELS))


@pytest.fixture
def folder(tmp_path):
    """6 + 6 images in each split, in 3 shards each."""
    return fakes.make_records(tmp_path / "set", per_class=6, num_shards=3)


def _read(folder, columns=COLUMNS, split="train"):
    return manifest.read_rows(records.load_info(folder), split, columns)


def _lines(folder):
    return (folder / "manifest.csv").read_text().splitlines()


def _write(folder, lines):
    (folder / "manifest.csv").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("label_version", ["v1_0s", "multilabel"])
def test_the_manifest_says_what_the_shards_hold(tmp_path, label_version):
    folder = fakes.make_records(tmp_path / "set", per_class=6, num_shards=3, label_version=label_version)
    rows = _read(folder, split="test")
    assert rows["id"].tolist() == [
        record["image/id"]
        for path in records.load_info(folder).shard_paths("test")
        for record in map(records.read_example, tf.data.TFRecordDataset(path).as_numpy_iterator())
    ]
    (folder / "manifest.csv").unlink()
    pd.testing.assert_frame_equal(_read(folder, split="test"), rows)


def test_rows_in_any_order_are_put_in_that_of_the_records(folder):
    rows = _read(folder)
    header, *lines = _lines(folder)
    _write(folder, [header, *lines[::-1]])
    pd.testing.assert_frame_equal(_read(folder), rows)


def test_an_old_set_is_read(folder):
    rows = _read(folder)
    fakes.make_old(folder)
    assert "image_digest" not in _lines(folder)[0]
    pd.testing.assert_frame_equal(_read(folder), rows)
    old = [column for column in COLUMNS if column != "image_digest"]
    pd.testing.assert_frame_equal(_read(folder, old), rows[old])


def test_a_text_that_looks_like_a_missing_value_stays_a_text(folder):
    _write(folder, [line.replace("train-0-0", "NA").replace("train-1-0", "007") for line in _lines(folder)])
    assert {"NA", "007"} <= set(_read(folder)["patient"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "does not name each record of the test split once"),
        (lambda lines: [*lines, lines[-1]], "does not name each record of the test split once"),
        (lambda lines: [line.replace(",test,No Finding", ",test,Pneumothorax") for line in lines], "counts other"),
        (lambda lines: lines[:1], "does not name each record"),
        (lambda lines: [lines[0].replace("Edema", "Oedema"), *lines[1:]], "cannot be read"),
        (lambda lines: [*lines[:-1], f"{lines[-1]}x"], "cannot be read"),
        (lambda lines: [*lines, '"open'], "cannot be read|does not name"),
        (lambda lines: [], "cannot be read"),
    ],
)
def test_a_manifest_of_other_records_is_refused(folder, damage, message):
    _write(folder, damage(_lines(folder)))
    with pytest.raises(InputError, match=rf"manifest\.csv: ({message})") as caught:
        _read(folder, ["id"], "test")
    assert "\n" not in str(caught.value) and "delete the file" in str(caught.value)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_shards_cut_off_are_told_at_once(folder, with_manifest):
    shard = folder / records.load_info(folder).split("train").shards[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    if not with_manifest:
        (folder / "manifest.csv").unlink()
    with pytest.raises(RunError, match=r"damaged records .*; see verify-records"):
        _read(folder)


def test_a_flipped_byte_of_a_set_without_manifest(folder):
    (folder / "manifest.csv").unlink()
    shard = folder / records.load_info(folder).split("train").shards[1]
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RunError, match=f"{shard.name}: damaged records"):
        _read(folder)

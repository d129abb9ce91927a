import dataclasses
import json

import pytest
import tensorflow as tf

from flags import app
from tests import fakes
from tfcxr.commands import verify_records as command
from tfrecords_builder import labels, records
from tfrecords_builder.errors import InputError
from tfrecords_builder.records import verify_records, writing


@pytest.fixture
def folder(tmp_path):
    return fakes.make_records(tmp_path / "set", per_class=4, num_shards=2)


def _run(folder, *arguments):
    return app.run(command.main, command.define_flags, ["verify-records", f"--records={folder}", *arguments])


def _shard(folder, split="train"):
    return folder / records.load_info(folder, check_shards=False).split(split).shards[1]


def _faults(folder):
    return "\n".join(verify_records.verify(folder).faults)


def _rewrite(folder, **changes):
    """Writes the set again with every record's features changed; all descriptions agree with the records."""
    shards = {}
    info = records.load_info(folder)
    for split in info.splits:
        changed = []
        for raw in tf.data.TFRecordDataset(info.shard_paths(split)).as_numpy_iterator():
            example = tf.train.Example.FromString(raw)
            for key, value in changes.items():
                example.features.feature[key].CopyFrom(value)
            changed.append(example.SerializeToString(deterministic=True))
        shards[split] = [lambda changed=changed: changed]
    for path in folder.iterdir():
        path.unlink()
    version = labels.get_label_version(info.label_version)
    same = {name: getattr(info, name) for name in ("name", "dataset", "source", "resolution", "seed")}
    writing.write_record_set(folder, shards, label_version=version, **same)


def _text(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


@pytest.mark.parametrize("label_version", ["v1_0s", "v2", "v3_xs", "multilabel"])
def test_sound(tmp_path, label_version, capsys):
    folder = fakes.make_records(tmp_path / "set", per_class=4, label_version=label_version)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert _run(folder) == 0
    assert (
        f"sound, {sum(s.num_examples for s in records.load_info(folder).splits.values())} images"
        in capsys.readouterr().out
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_flipped_byte(folder, capsys):
    data = bytearray(_shard(folder).read_bytes())
    data[300] ^= 1
    _shard(folder).write_bytes(data)
    assert _run(folder) == 1
    captured = capsys.readouterr()
    assert f"{_shard(folder).name}: is damaged" in captured.out
    assert captured.err.splitlines()[-1].startswith("error: ") and "faults" in captured.err


@pytest.mark.parametrize("cut", [1, 20, 400])
def test_truncated_shard(folder, cut):
    _shard(folder).write_bytes(_shard(folder).read_bytes()[:-cut])
    assert "is damaged (truncated record" in _faults(folder)


def test_shard_that_ends_early_between_records(folder):
    path = _shard(folder)
    raws = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for raw in raws[:-1]:
            writer.write(raw)
    assert "holds 3 readable records, 4 are described" in _faults(folder)


def test_removed_and_added_shards(folder):
    path = _shard(folder)
    path.rename(path.with_name("fake-train.tfrecord-00007-of-00009"))
    assert f"{path.name}: is missing" in _faults(folder)
    assert "fake-train.tfrecord-00007-of-00009: lies in the folder but is not described" in _faults(folder)


def test_wrong_counts(folder):
    info = records.load_info(folder)
    train = dataclasses.replace(info.split("train"), num_examples=9, class_counts={"No Finding": 5, "Pneumothorax": 4})
    records.write_info(dataclasses.replace(info, splits={**info.splits, "train": train}))
    assert _faults(folder).splitlines() == [
        "train: num_examples is 8, described as 9",
        "train: class_counts is {'No Finding': 4}, described as {'No Finding': 5}",
    ]


def test_exchanged_record(folder):
    """A sound record of another set in the place of one: only digest and manifest can tell."""
    other = fakes.make_records(folder.parent / "other", per_class=4, num_shards=2, seed=1)
    _shard(folder).write_bytes(_shard(other).read_bytes())
    assert "digest is" in _faults(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "manifest.csv: cannot be read (No columns to parse from file)"),
        ("id,split\na,train\n", "manifest.csv: has no columns split, shard and position"),
        ("id,split,shard,position\na,train,x,0\nb,train,x,0\n", "manifest.csv: names 1 records more than once"),
    ],
)
def test_a_manifest_that_is_none(folder, text, message):
    (folder / "manifest.csv").write_text(text)
    assert message in _faults(folder)


def test_wrong_description(folder):
    (folder / "manifest.csv").write_text(
        (folder / "manifest.csv").read_text().replace("No Finding,PA", "Pneumonia,PA", 1)
    )
    value = json.loads((folder / "dataset_info.json").read_text())
    value["splits"][0]["shardLengths"] = ["8"]
    (folder / "dataset_info.json").write_text(json.dumps(value))
    (folder / "features.json").unlink()
    faults = _faults(folder).splitlines()
    assert len(faults) == 3 and all(map(str.startswith, faults, ("fake-train", "dataset_info.json", "features.json")))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label/class", tf.train.Feature(int64_list=tf.train.Int64List(value=[0])), "is not what v1_0s gives"),
        ("patient/id", _text(b"same"), "1 patients are in several splits, such as same in train and"),
        ("image/encoded", _text(b"no image"), "is no 8-bit grey PNG"),
        ("image/encoded", _text(tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()), "is no 8-bit grey PNG"),
        ("image/encoded", _text(tf.io.encode_png(tf.zeros([8, 4, 1], tf.uint8)).numpy()), "has 4x8 pixels, not 8x8"),
        ("image/height", tf.train.Feature(int64_list=tf.train.Int64List(value=[16])), "image/height and image/width"),
        ("source", _text(b"other"), "source is 'other'"),
    ],
)
def test_wrong_records(folder, key, value, message):
    _rewrite(folder, **{key: value})
    assert message in _faults(folder)


def test_damaged_png(folder):
    png = tf.io.encode_png(tf.zeros([8, 8, 1], tf.uint8)).numpy()
    _rewrite(folder, **{"image/encoded": _text(png[:40])})
    assert "does not decode" in _faults(folder)


def test_output_dir(folder, tmp_path):
    assert _run(folder, f"--output_dir={tmp_path / 'out'}") == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["num_examples"] == 24 and result["faults"] == []


def test_not_a_record_set(tmp_path):
    with pytest.raises(InputError, match=r"has no tfcxr_info\.json"):
        verify_records.verify(tmp_path)
    assert _run(tmp_path) == 2

import dataclasses
import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfrecords_builder import labels, records
from tfrecords_builder.errors import InputError
from tfrecords_builder.records import writing

PICTURE = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)


def _example(image_id="a.png", class_index=1, names=("Pneumothorax",), **values):
    values = {"patient_id": "7", "view": "PA", "sex": "F", "age": 58, "extra": ["Mass", "Hernia"], **values}
    return records.make_example(
        encoded=tf.io.encode_png(PICTURE).numpy(),
        image_id=image_id,
        resolution=8,
        vector=fakes.make_vector(names),
        class_index=class_index,
        source="chestxray",
        **values,
    )


def _write(folder, shards, **values):
    folder.mkdir(exist_ok=True)
    values = {"dataset": "chestxray", "source": "chestxray", "name": "tiny", "resolution": 8, "seed": 0, **values}
    return writing.write_record_set(folder, shards, label_version=labels.get_label_version("v1_0s"), **values)


def test_round_trip():
    parsed = {key: value.numpy() for key, value in records.parse_example(_example()).items()}
    assert set(parsed) == {*records.features(14), "image"}
    np.testing.assert_array_equal(parsed["image"], PICTURE)
    assert parsed["image"].dtype == np.uint8
    np.testing.assert_array_equal(parsed["label/vector"], fakes.make_vector(("Pneumothorax",)))
    assert parsed["label/class"] == 1 and parsed["label/class"].dtype == np.int64
    assert (parsed["image/id"], parsed["patient/id"], parsed["source"]) == (b"a.png", b"7", b"chestxray")
    assert (parsed["image/height"], parsed["image/width"], parsed["patient/age"]) == (8, 8, 58)
    assert (parsed["image/view"], parsed["patient/sex"], parsed["label/extra"]) == (b"PA", b"F", b"Mass|Hernia")
    assert "image" not in records.parse_example(_example(), decode=False)


def test_read_example_agrees_with_parse_example():
    parsed = records.parse_example(_example(), decode=False)
    for key, value in records.read_example(_example()).items():
        value = value.encode() if isinstance(value, str) else value
        np.testing.assert_array_equal(parsed[key].numpy(), value)


@pytest.mark.parametrize("serialized", [b"\xff\xff", b"", tf.train.Example().SerializeToString()])
def test_read_example_refuses_other_bytes(serialized):
    with pytest.raises(ValueError):
        records.read_example(serialized)


def test_make_example_refuses_other_vectors():
    with pytest.raises(ValueError, match="values in"):
        records.make_example(encoded=b"", image_id="", resolution=8, vector=[-1] * 14, class_index=0, source="")


def test_write_and_load(tmp_path):
    def shard(first, count):
        for i in range(first, first + count):
            pneumothorax = i % 2
            names = ("Pneumothorax",) if pneumothorax else ("No Finding",)
            yield _example(f"{i}.png", pneumothorax, names, patient_id=str(i // 2))

    shards = {
        "train": [functools.partial(shard, 0, 3), functools.partial(shard, 3, 3)],
        "validation": [],
        "test": [lambda: shard(6, 2)],
    }
    info = _write(tmp_path / "set", shards, provenance={"why": "test"}, report={"rows": 9})
    loaded = records.load_info(tmp_path / "set")
    assert loaded == info
    assert list(loaded.splits) == ["train", "test"]
    train = loaded.split("train")
    assert (train.num_examples, train.num_patients, train.shard_lengths) == (6, 3, (3, 3))
    assert train.class_counts == {"No Finding": 3, "Pneumothorax": 3}
    assert train.label_counts["Pneumothorax"] == 3 and train.label_counts["Edema"] == 0
    assert [path.rsplit("/", 1)[1] for path in loaded.shard_paths("train")] == [
        "tiny-train.tfrecord-00000-of-00002",
        "tiny-train.tfrecord-00001-of-00002",
    ]
    manifest = (tmp_path / "set" / "manifest.csv").read_text().splitlines()
    assert len(manifest) == 9
    assert manifest[5].startswith("4.png,2,train,No Finding,PA,F,58,1,0,") and manifest[5].endswith("00002,1")
    report = json.loads((tmp_path / "set" / "build_report.json").read_text())
    assert (report["rows"], report["written"], report["splits"]["test"]["num_examples"]) == (9, 8, 2)
    with pytest.raises(InputError, match="has no split 'validation'; it has train, test"):
        loaded.shard_paths("validation")


def test_digest_ignores_order_and_shards_but_not_content_or_split(tmp_path):
    a, b, c = _example("a"), _example("b"), _example("c")
    digests = [
        _write(tmp_path / str(i), shards).digest
        for i, shards in enumerate(
            [
                {"train": [lambda: [a, b, c]]},
                {"train": [lambda: [c], lambda: [b, a]]},
                {"train": [lambda: [a, b]]},
                {"train": [lambda: [a, b, b]]},
                {"train": [lambda: [a, b]], "test": [lambda: [c]]},
            ]
        )
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 4 and len(digests[0]) == 64


def test_tfds_reads_it(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed (extra test; not on Python 3.10)")
    fakes.make_records(tmp_path / "set", resolution=8, per_class=3, num_shards=2)
    builder = tfds.builder_from_directory(tmp_path / "set")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 6,
        "validation": 6,
        "test": 6,
    }
    ours = tf.data.TFRecordDataset(records.load_info(tmp_path / "set").shard_paths("train"))
    ours = {p["image/id"].numpy(): p for p in map(records.parse_example, ours)}
    dataset = builder.as_dataset(split="train")
    assert set(dataset.element_spec) == set(records.features(14))
    theirs = list(dataset)
    assert len(theirs) == 6
    for record in theirs:
        expected = ours[record["image/id"].numpy()]
        np.testing.assert_array_equal(record["image/encoded"], expected["image"])
        np.testing.assert_array_equal(record["label/vector"], expected["label/vector"])
        assert record["label/class"] == expected["label/class"]


def test_synthetic_images_have_no_patients(tmp_path):
    fakes.make_records(tmp_path / "set", per_class=2, with_patients=False, source="synthetic:run")
    assert records.load_info(tmp_path / "set").split("train").num_patients is None


def test_load_info_refuses(tmp_path):
    folder = fakes.make_records(tmp_path / "set", per_class=1)
    with pytest.raises(InputError, match="nowhere: is not there"):
        records.load_info(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no tfcxr_info\.json"):
        records.load_info(tmp_path)
    info = records.load_info(folder)
    shard = folder / info.split("test").shards[0]
    shard.rename(tmp_path / "away")
    with pytest.raises(InputError, match=f"{shard.name} is missing"):
        records.load_info(folder)
    assert records.load_info(folder, check_shards=False).digest == info.digest
    records.write_info(dataclasses.replace(info, schema_version=99))
    with pytest.raises(InputError, match="schema version 99"):
        records.load_info(folder)
    records.write_info(info)
    written = json.loads((folder / records.INFO_FILE).read_text())
    written["labels"] = written["labels"][::-1]
    (folder / records.INFO_FILE).write_text(json.dumps(written))
    with pytest.raises(InputError, match="labels are not those of chexpert14"):
        records.load_info(folder)
    for key, value in (
        ("label_definition", {"a": "text"}),
        ("classes", "text"),
        ("classes", list(info.classes[::-1])),  # those of the label definition, in another order
        ("seed", True),
        ("resolution", "8"),
        ("provenance", []),
        ("digest", None),
    ):
        (folder / records.INFO_FILE).write_text(json.dumps(written | {"labels": list(info.labels), key: value}))
        with pytest.raises(InputError, match=rf"is damaged \(its {key}\)"):
            records.load_info(folder)
    for text, message in (("{", "not valid JSON"), ('{"schema_version": 2, "splits": {}}', "is damaged")):
        (folder / records.INFO_FILE).write_text(text)
        with pytest.raises(InputError, match=message):
            records.load_info(folder)

"""What the records say of images, the split to report on, and predictions.csv: written, read, damaged."""

import numpy as np
import pytest

from tests import fakes
from tfcxr import data
from tfcxr.evaluation import predictions
from tfrecords_builder import labels, records
from tfrecords_builder.errors import InputError
from tfrecords_builder.records import writing

CLASSES = ["No Finding", "Finding"]


def make_predictions():
    positive = np.array([0.1, 1 / 3, 0.5, 0.9], np.float32)
    return predictions.Predictions(
        ids=["a,1.png", "b", "007", "d"],
        patients=["p", "p", "", "NA"],
        labels=np.array([0, 0, 1, 1]),
        probabilities=np.stack([1 - positive, positive], axis=1).astype(np.float64),  # of a float32 network
    )


def test_records_say_who_the_patients_are(tmp_path):
    patients = [("train-1", "M", 39, "PA", 1), ("é", "Female", -1, "", 0)]

    def shard():
        for patient, sex, age, view, index in patients:
            yield records.make_example(
                encoded=b"", image_id=f"image of {patient}", resolution=8,
                vector=fakes.make_vector(("Edema",) if index else ()),
                class_index=index, source="fake", patient_id=patient, view=view, sex=sex, age=age,
            )  # fmt: skip

    version = labels.get_label_version("v2")
    arguments = {"name": "n", "dataset": "d", "source": "s", "label_version": version, "resolution": 8, "seed": 0}
    writing.write_record_set(tmp_path, {"test": [shard]}, **arguments)
    record_set = data.RecordSet(tmp_path)
    table = predictions.read_images(record_set, "test")
    for name in labels.LABELS:
        assert table.pop(name).tolist() == [name == "Edema", False]
    assert table.to_dict("list") == {
        "id": ["image of train-1", "image of é"],
        "patient": ["train-1", "é"],
        "view": ["PA", ""],
        "sex": ["M", "Female"],
        "age": [39, -1],
        "class": [1, 0],
    }
    assert predictions.choose_split(record_set, None) == "test"
    with pytest.raises(InputError, match=r"--split=validation: .* has no image in it; it has test"):
        predictions.choose_split(record_set, "validation")


def test_what_is_written_is_read_again_exactly(tmp_path):
    before = make_predictions()
    predictions.write(tmp_path / "p.csv", before, CLASSES, "test")
    after, classes = predictions.read(tmp_path / "p.csv")
    assert classes == CLASSES
    assert (after.ids, after.patients) == (before.ids, before.patients)
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.probabilities.astype(np.float32), before.probabilities.astype(np.float32))
    np.testing.assert_array_equal(after.predicted, [0, 0, 0, 1])
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "id,patient,split,label,prediction,probability No Finding,probability Finding"
    assert lines[1] == '"a,1.png",p,test,No Finding,No Finding,0.899999976,0.100000001'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b,p,test,No Finding", "b,p,test,Pneumonia", "'Pneumonia' is not in list"),
        ("b,p,test,No Finding,No Finding", "b,p,test,No Finding,Finding", "line 3: the prediction is not"),
        ("0.899999976", "nan", "a probability is not in 0..1"),
        ("0.899999976", "", "could not convert string to float"),
        ("0.899999976", "1.5", "a probability is not in 0..1"),
        ("0.899999976", "0.9,0.1,0.1", "is damaged"),
        ("0.5\n", "0.5,0.5\n", "cannot be read (Error tokenizing data. C error: Expected 7 fields in line 4, saw 8)"),
        ("id,patient", "name,patient", "no column 'id'"),
        ("probability ", "p ", "holds no predictions"),
    ],
)
def test_damaged_predictions_are_refused_by_name(tmp_path, old, new, words):
    path = tmp_path / "p.csv"
    predictions.write(path, make_predictions(), CLASSES, "test")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        predictions.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_table_at_all_is_refused(tmp_path):
    for name, content in [("empty", b""), ("binary", b"\xff\xfe\x00\x80"), ("header", b"id,patient\n")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            predictions.read(tmp_path / name)
    with pytest.raises(InputError, match="No such file"):
        predictions.read(tmp_path / "none")

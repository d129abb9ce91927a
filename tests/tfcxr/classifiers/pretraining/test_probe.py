"""The linear probe: it finds what is there, says which labels it has, and takes a part of the images."""

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfcxr import data
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.pretraining import probe


class Means(models.Encoder):
    """Features: means of the quarters of an image."""

    def __init__(self):
        tf.keras.Model.__init__(self)
        self.config = models.ModelConfig((), "v1_0s", 16, 16, "resnet_tiny")

    def features(self, images, path="target", training=False):
        return tf.reshape(tf.nn.avg_pool2d(images, 8, 8, "VALID"), [-1, 4])


def test_labels_of_two_classes_are_one(tmp_path):
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r", resolution=16, per_class=12, num_shards=2))
    tested = probe.LinearProbe(Means(), record_set, 20)
    assert tested.names == ("Pneumothorax",)
    assert tested() == {"probe/auc": 1.0, "probe/auc/Pneumothorax": 1.0}
    assert {split: int(rows.sum()) for split, rows in tested._rows.items()} == {"train": 20, "validation": 20}
    # Features and labels are of the same images: shuffled ones know nothing.
    tested._truths["validation"] = np.random.default_rng(0).permutation(tested._truths["validation"])
    assert tested()["probe/auc"] < 0.9


def test_labels_of_a_multilabel_set_that_are_frequent_enough(tmp_path):
    records = fakes.make_records(tmp_path / "r", resolution=16, per_class=6, label_version="multilabel")
    found = probe.LinearProbe(Means(), data.RecordSet(records), 1000)()
    names = {"No Finding", "Pneumothorax", "Pneumonia", "Cardiomegaly", "Pleural Effusion"}
    assert {name.removeprefix("probe/auc/") for name in found if name != "probe/auc"} == names
    assert found["probe/auc"] == pytest.approx(np.mean([found[f"probe/auc/{name}"] for name in names]))
    assert found["probe/auc/Cardiomegaly"] > 0.95


def test_records_without_enough_labels_have_no_probe(tmp_path):
    few = data.RecordSet(fakes.make_records(tmp_path / "few", per_class=3))
    no_fold = data.RecordSet(fakes.make_records(tmp_path / "no_fold", per_class=12, splits=("train", "test")))
    assert probe.LinearProbe(Means(), few, 100).names == ()
    assert probe.LinearProbe(Means(), no_fold, 100).names == ()

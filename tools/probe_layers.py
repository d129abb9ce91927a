"""What layers of EfficientNet-Lite0 know of each label: linear probes, between training patients and on the test fold.

The difference of the two says how far the test fold is from the training fold for any such probe.

Example: python -m tools.probe_layers --records=workspace/records/nih/multilabel/128 --output=probe_layers.json
"""

import sys
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flags import app, common
from tfcxr import data
from tfcxr.classifiers import choices
from tfcxr.classifiers.networks import backbones, efficientnet_lite0, preprocessing
from tfcxr.evaluation import bootstrap, multilabel
from tfcxr.evaluation.predictions import Predictions
from tfrecords_builder import files
from tfrecords_builder.images import image_ops, pixel_ranges

# Ends of the stages of 80, 112 and 192 channels; the last layer has 1280.
LAYERS = {"head": ("head_relu6",), "middle": efficientnet_lite0.MIDDLE}
_SIZE, _BATCH, _FOLDS, _FEWEST = 224, 32, 4, 30
_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the tool."""
    common.define_records(fv)
    flags.DEFINE_string("output", None, "JSON to write", flag_values=fv)
    common.define_required(fv, "output", "the JSON to write")


def compute_features(record_set: data.RecordSet, split: str) -> dict[str, np.ndarray]:
    """Mean over the places of each channel: name of LAYERS -> float32 [N, F]."""
    path = choices.find_lite0("tools.probe_layers", "another machine")
    network = backbones.build(choices.EFFICIENTNET_LITE0)
    efficientnet_lite0.load(network, path)
    normalise = preprocessing.Normalise(choices.BACKBONES[choices.EFFICIENTNET_LITE0].normalisation)
    names = [name for group in LAYERS.values() for name in group]
    cut = tf.keras.Model(network.input, [network.get_layer(name).output for name in names])

    @tf.function
    def compute(images: tf.Tensor) -> list[tf.Tensor]:
        unit = pixel_ranges.uint8_to_unit(images)
        seen = cut(normalise(image_ops.resize(unit, _SIZE, _SIZE)), training=False)
        return [tf.reduce_mean(each, axis=[1, 2]) for each in seen]

    found = [
        [each.numpy() for each in compute(batch["image"])]
        for batch in data.evaluation_batches(record_set, split, _BATCH)
    ]
    by_layer = dict(zip(names, map(np.concatenate, zip(*found, strict=True)), strict=True))
    return {group: np.concatenate([by_layer[name] for name in layers], axis=1) for group, layers in LAYERS.items()}


def probe(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of each label for training images, by probes of other patients, and for test images.

    Args:
        train, test: features float32 [N, F], [M, F].
        labels: bool [N, K] of the training images.
        patients: [N], of these.
    """
    folds = GroupKFold(_FOLDS)
    between, tested = [], []
    for column in labels.T:
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
        strengths = {"logisticregression__C": list(_STRENGTHS)}
        search = GridSearchCV(model, strengths, scoring="roc_auc", cv=list(folds.split(train, groups=patients)))
        best = search.fit(train, column).best_estimator_
        between.append(cross_val_predict(best, train, column, groups=patients, cv=folds, method="decision_function"))
        tested.append(best.decision_function(test))
    return np.stack(between, axis=1), np.stack(tested, axis=1)


def main(fv: flags.FlagValues) -> None:
    """Computes, probes, writes."""
    record_set = data.RecordSet(fv.records)
    held = {split: record_set.labels(split)["vector"] > 0.5 for split in ("train", "test")}
    patients = {split: record_set.patients(split) for split in held}
    chosen = [k for k in range(held["test"].shape[1]) if held["test"][:, k].sum() >= _FEWEST]
    names = [record_set.info.label_set.labels[k] for k in chosen]
    features = {split: compute_features(record_set, split) for split in held}
    scores: dict[str, dict[str, Predictions]] = {"train": {}, "test": {}}
    for group in LAYERS:
        found = probe(features["train"][group], features["test"][group], held["train"][:, chosen], patients["train"])
        for split, values in zip(scores, found, strict=True):
            ids = [str(i) for i in range(len(values))]
            scores[split][group] = Predictions(ids, list(patients[split]), held[split][:, chosen], values)
    result: dict[str, Any] = {"layers": LAYERS, "labels": names, "roc_auc": {}}
    for split, title in (("train", "between_training_patients"), ("test", "test")):
        sampled = multilabel.sample_means({group: [each] for group, each in scores[split].items()}, names)
        assert sampled is not None
        result["roc_auc"][title] = {
            group: {
                "mean": one.value,
                "ci95": bootstrap.interval(one.sampled, 2),
                "by_label": {n: p.value for n, p in one.parts.items()},
            }
            for group, one in sampled.items()
        }
        gain = sampled["middle"].sampled - sampled["head"].sampled
        result["roc_auc"][title]["middle_minus_head"] = {
            "mean": sampled["middle"].value - sampled["head"].value,
            "ci95": bootstrap.interval(gain, 2),
        }
    files.write_json(fv.output, result)
    print(files.read_json(fv.output)["roc_auc"])


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

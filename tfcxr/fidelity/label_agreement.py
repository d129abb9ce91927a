"""Whether a classifier sees in synthetic images the labels that were asked for, beside the same of real images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from tfcxr import data, metrics
from tfcxr.classifiers import inference, loading
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import label_sets

_BATCH = 64


class Agreement:
    """A classifier, checked to be of the labels of some record sets.

    Attributes:
        path: as given.
        config: see loading.load_classifier_config.
        digest: of its weights.
    """

    def __init__(self, path: str, like: data.RecordSet):
        """Loads it.

        Args:
            path: run folder or export of a classifier.
            like: record set whose labels it must have.

        Raises:
            InputError: no such classifier, or of other labels.
        """
        self.path, self.config = path, loading.load_classifier_config(path)
        like.refuse_other_labels(label_sets.of_settings(self.config), f"--classifier={path}")
        self.refuse_other_classes(like, "--real")
        self.digest = loading.weights_digest(path, "--classifier")
        self._network = loading.load_network(path)

    def refuse_other_classes(self, record_set: data.RecordSet, flag: str) -> None:
        """Raises InputError if a record set, named by `flag`, has other classes than the classifier."""
        if not self.config["multilabel"] and tuple(self.config["classes"]) != record_set.info.classes:
            raise InputError(
                f"--classifier={self.path}: its classes are {', '.join(self.config['classes'])}, those of "
                f"{flag}={record_set.path} are {', '.join(record_set.info.classes) or 'none'}; give a classifier of "
                "that label version"
            )

    def measure(self, record_set: data.RecordSet, split: str) -> dict[str, Any]:
        """Agreement on all images of a split.

        Returns:
            Of classes {"measure": "share", "classes": {name: {"value", "interval", "num_images"}}, "all": the same of
            all images}, `interval` the exact binomial one of 95%; of labels that do not exclude each other {"measure":
            "roc_auc", "classes": {name: {"value": or None, "num_images": with the label}}, "all": their mean}.

        Raises:
            RunError: damaged records, or outputs that are not finite.
        """
        runner = inference.SplitRunner(self._network, record_set, split, path="target", batch_size=_BATCH)
        probabilities, _ = runner.probabilities(f"classes of {record_set.path}", f"--classifier={self.path}")
        names, labels = list(self.config["classes"]), record_set.labels(split)
        if self.config["multilabel"]:
            columns = [record_set.info.label_set.index[name] for name in names]
            return _of_labels(labels["vector"][:, columns] > 0.5, probabilities, names)
        return of_classes(labels["class"], probabilities.argmax(axis=1), names)

    def warn(self, sets: Mapping[str, tuple[data.RecordSet, str]]) -> list[str]:
        """Warnings about sets that the classifier was itself trained on; sentences without a full stop."""
        learned = self.config["records"].values()
        return [
            f"the classifier was trained on the records of the {name} set, so that its agreement there is too good"
            for name, (record_set, split) in sets.items()
            if record_set.info.digest in learned and split != "test"
        ]


def of_classes(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Share of the images of each class whose predicted class it is; see Agreement.measure. int64 [N] both."""
    right = labels == predicted
    return {
        "measure": "share",
        "classes": {name: _share(right[labels == index]) for index, name in enumerate(names)},
        "all": _share(right[labels >= 0]),
    }


def _share(right: np.ndarray) -> dict[str, Any]:
    if not len(right):
        return {"value": None, "interval": None, "num_images": 0}
    exact = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="exact")
    return {"value": float(right.mean()), "interval": [float(exact.low), float(exact.high)], "num_images": len(right)}


def _of_labels(members: np.ndarray, probabilities: np.ndarray, names: list[str]) -> dict[str, Any]:
    areas = [metrics.finite(area) for area in metrics.roc_auc(members, probabilities)]
    known = [area for area in areas if area is not None]
    return {
        "measure": "roc_auc",
        "classes": {
            name: {"value": area, "interval": None, "num_images": int(count)}
            for name, area, count in zip(names, areas, members.sum(axis=0), strict=True)
        },
        "all": {"value": float(np.mean(known)) if known else None, "interval": None, "num_images": len(members)},
    }

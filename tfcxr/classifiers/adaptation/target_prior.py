"""What --target_prior stands for: the class shares that an adaptation expects of its target."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfcxr import data
from tfcxr.classifiers import inference, loading
from tfcxr.classifiers.adaptation import class_shares
from tfrecords_builder import files
from tfrecords_builder.errors import InputError

SOURCE, ESTIMATE = "source", "estimate"
FILE = "target_shares.json"  # in the run folder: what was estimated, for the run that goes on
_USED = "confusion"
_ROUNDING = 1e-3  # of the sum of the shares that were kept


class Prior:
    """The value of --target_prior, of which a file has been read.

    Attributes:
        is_source: whether the shares are taken to be those of the source.
    """

    def __init__(self, value: str, classes: Sequence[str]):
        """Reads a file. Raises InputError if it cannot be used."""
        self._classes, self._estimates = classes, value == ESTIMATE
        self.is_source = value == SOURCE
        self._shares = None
        if value not in (SOURCE, ESTIMATE):
            self._shares = class_shares.read(value, classes, "--target_prior")

    @property
    def setting(self) -> str | dict[str, float]:
        """What decides the result: estimate, source, or the shares that a file had."""
        if self._shares is not None:
            return class_shares.describe(self._shares, self._classes)
        return ESTIMATE if self._estimates else SOURCE

    def find(self, folder: pathlib.Path, estimate: Callable[[], Mapping[str, np.ndarray]]) -> np.ndarray | None:
        """The shares float64 [K]; None for those of the source.

        Args:
            folder: of the run; estimates are made once, and kept there.
            estimate: makes them, see `estimate`.

        Raises InputError if what was kept is damaged.
        """
        if not self._estimates:
            return self._shares
        path = folder / FILE
        if not path.exists():
            found = {name: class_shares.describe(shares, self._classes) for name, shares in estimate().items()}
            files.write_json(path, found)
            for name, shares in found.items():
                shown = ", ".join(f"{label} {share:.3f}" for label, share in shares.items())
                print(f"estimated class shares of the target, by {name}: {shown}", flush=True)
        try:
            table = files.read_json(path)[_USED]
            kept = np.array([table[name] for name in self._classes], np.float64)
            sound = bool((kept >= 0).all()) and abs(float(kept.sum()) - 1) < _ROUNDING
        except (InputError, KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise InputError(f"{path}: is damaged; delete it, and the same command estimates the shares again")
        return kept


def estimate(
    run_dir: str, source: data.RecordSet, target: data.RecordSet, source_shares: np.ndarray, *, batch_size: int
) -> dict[str, np.ndarray]:
    """The target's class shares, from its unlabelled training images and the source's validation images.

    Args:
        run_dir: of a classifier of the source.
        source: on whose validation images its errors are counted.
        target: record set.
        source_shares: float [K], of the source's training images.
        batch_size: images at once.

    Returns:
        {"confusion": of class_shares.estimate_by_confusion, "likelihood": of class_shares.estimate_by_likelihood}.

    Raises:
        InputError: the classifier has other classes.
    """
    network, config = loading.load_network(run_dir), loading.load_classifier_config(run_dir)
    classes = source.info.classes
    if tuple(config["classes"]) != tuple(classes):
        raise InputError(
            f"--target_prior=estimate: --init_from={run_dir} has the classes {', '.join(config['classes'])}, "
            f"the records {', '.join(classes)}"
        )
    known = inference.SplitRunner(network, source, "validation", path="source", batch_size=batch_size)()
    unknown = inference.SplitRunner(network, target, "train", path="source", batch_size=batch_size)()
    even = config.get("balanced") or config.get("class_weights")
    trained = np.full(len(classes), 1 / len(classes)) if even else source_shares
    return {
        "confusion": class_shares.estimate_by_confusion(
            known.labels, known.predictions, unknown.predictions, len(classes)
        ),
        "likelihood": class_shares.estimate_by_likelihood(unknown.probabilities, trained),
    }

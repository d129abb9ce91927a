"""Measures of each class, and of each frequent label combination, that has enough images in all sets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfcxr.fidelity import diversity, feature_statistics
from tfrecords_builder.labels import combinations

LEAST_IMAGES = 50
MAX_COMBINATIONS = 20
CLASS, LABELS = "class", "labels"

_OPTIONAL = "holdout"  # left out of a group rather than the group for it


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """Measured images of a set, in one order.

    Attributes:
        statistics: their features.
        positions: in their split, int64 [N].
        classes: int64 [N], negative for none.
        codes: label combinations, int [N].
        patients: numbers, int64 [N].
    """

    statistics: feature_statistics.Statistics
    positions: np.ndarray
    classes: np.ndarray
    codes: np.ndarray
    patients: np.ndarray


@dataclasses.dataclass(frozen=True)
class Group:
    """Images of one class or label combination, as many of each set.

    Attributes:
        kind: CLASS or LABELS.
        name: of the class, or the labels as text.
        rows: set -> which of its images, int64 [n].
    """

    kind: str
    name: str
    rows: dict[str, np.ndarray]

    @property
    def num_images(self) -> int:
        """Images of each set."""
        return len(self.rows["real"])


def find_groups(
    sets: Mapping[str, LabelledSet], class_names: tuple[str, ...], labels: tuple[str, ...], seed: int
) -> tuple[list[Group], list[dict[str, Any]]]:
    """Groups of at least LEAST_IMAGES real and synthetic images; and those left out.

    Of a group, each set is cut to one number of images at random. The holdout is left out of those of which it has too
    few. At most the 20 combinations that are most frequent among the reals; one that makes up a whole class is not
    listed twice.

    Args:
        sets: "real" and others.
        class_names: of the classes; none if there are no classes.
        labels: names of the labels.
        seed: of the draws.

    Returns:
        The groups, and {"kind", "name", "num_images": {set: images}} of those left out.
    """
    rng = np.random.default_rng(seed)
    real = sets["real"]
    wanted = [
        (CLASS, name, {n: one.classes == index for n, one in sets.items()}) for index, name in enumerate(class_names)
    ]
    whole = {members["real"].tobytes() for _, _, members in wanted}
    ranked = combinations.rank(combinations.count(real.codes, len(labels)))[:MAX_COMBINATIONS]
    for code in ranked:
        members = {name: one.codes == code for name, one in sets.items()}
        if members["real"].tobytes() not in whole:
            wanted.append((LABELS, combinations.format_code(int(code), labels), members))
    groups, left_out = [], []
    for kind, name, members in wanted:
        counts = {n: int(rows.sum()) for n, rows in members.items()}
        used = [n for n, count in counts.items() if n != _OPTIONAL or count >= LEAST_IMAGES]
        number = min(counts[n] for n in used)
        if number < LEAST_IMAGES:
            left_out.append({"kind": kind, "name": name, "num_images": counts})
            continue
        rows = {n: np.sort(rng.choice(np.flatnonzero(members[n]), number, replace=False)) for n in used}
        groups.append(Group(kind, name, rows))
    return groups, left_out


def measure(group: Group, sets: Mapping[str, LabelledSet], seed: int) -> dict[str, Any]:
    """{"kind", "name", "num_images", "metrics": {set: as feature_statistics.compare}, "near_duplicates"} of a group."""
    chosen = {
        name: (sets[name].statistics.features[rows], sets[name].patients[rows]) for name, rows in group.rows.items()
    }
    name = sets["real"].statistics.name
    statistics = {n: feature_statistics.Statistics.of(name, features) for n, (features, _) in chosen.items()}
    others = {n: one for n, one in chosen.items() if n != "real"}
    duplicates = diversity.find_near_duplicates(*chosen["real"], others)
    return {
        "kind": group.kind,
        "name": group.name,
        "num_images": group.num_images,
        "metrics": {n: feature_statistics.compare(statistics["real"], statistics[n], seed=seed) for n in others},
        "near_duplicates": {
            "threshold": duplicates["real"].threshold,
            **{n: one.share for n, one in duplicates.items()},
        },
    }

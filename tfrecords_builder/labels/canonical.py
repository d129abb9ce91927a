"""The names that all modules agree on: the 14 canonical labels, in their order and hierarchy, and the splits.

Source of the labels: Irvin et al. 2019 (CheXpert, https://arxiv.org/abs/1901.07031).
"""

from collections.abc import Collection

import numpy as np

NO_FINDING = "No Finding"
LABELS: tuple[str, ...] = (
    NO_FINDING,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
SPLITS: tuple[str, ...] = ("train", "validation", "test")
# What joins a row's findings outside the 14 labels.
EXTRA_SEPARATOR = "|"
# Child -> its parents, which it implies.
PARENTS: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": ("Enlarged Cardiomediastinum",),
    "Lung Lesion": ("Lung Opacity",),
    "Edema": ("Lung Opacity",),
    "Consolidation": ("Lung Opacity",),
    "Pneumonia": ("Lung Opacity", "Consolidation"),
    "Atelectasis": ("Lung Opacity",),
}
INDEX: dict[str, int] = {label: i for i, label in enumerate(LABELS)}


def count_orphans(vectors: np.ndarray, labelled: Collection[str] = LABELS) -> dict[str, int]:
    """Counts the rows in which a label is 1 while one of its PARENTS is 0.

    Args:
        vectors: [N, 14] in {0, 1}.
        labelled: the canonical labels that the data set knows at all; the other ones are not looked at.

    Returns:
        {"Pneumonia without Consolidation": 12, ...}: those that occur, in label order.
    """
    positive = np.asarray(vectors) > 0.5
    pairs = [(c, p) for c in LABELS for p in PARENTS.get(c, ()) if c in labelled and p in labelled]
    counts = {f"{c} without {p}": int((positive[:, INDEX[c]] & ~positive[:, INDEX[p]]).sum()) for c, p in pairs}
    return {name: count for name, count in counts.items() if count}

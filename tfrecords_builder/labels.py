"""The 14 canonical labels, the uncertain policies, and the label versions, which are data.

A label version turns a row's 14 labels into a class. Its classes are declared in one table by three lists of labels:
`one` (must be 1), `zero` (must be 0) and `any` (at least one of them must be 1); the word "others" stands for every
label that the class does not name otherwise; a label in no list is free (X).

Sources: label order and values, Irvin et al. 2019 (CheXpert, https://arxiv.org/abs/1901.07031); label versions,
chapter 3 of the thesis that this project reproduces.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfrecords_builder.errors import InputError

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
UNCERTAIN_POLICIES: tuple[str, ...] = ("zeros", "ones", "drop")
NO_CLASS = -1

_OTHERS = "others"
_INDEX = {label: i for i, label in enumerate(LABELS)}

_TABLE: dict[str, dict[str, dict[str, Sequence[str] | str]]] = {
    "v1_0s": {
        "No Finding": {"one": ["No Finding"], "zero": _OTHERS},
        "Pneumothorax": {"one": ["Pneumothorax"], "zero": _OTHERS},
    },
    "v1_xs": {
        "No Finding": {"one": ["No Finding"], "zero": ["Pneumothorax"]},
        "Pneumothorax": {"one": ["Pneumothorax"], "zero": ["No Finding"]},
    },
    "v2": {
        "No Finding": {"one": ["No Finding"], "zero": _OTHERS},
        "Finding": {"zero": ["No Finding"], "any": _OTHERS},
    },
    # The thesis's printed v2 counts: rows with support devices left out, rows without any label kept as findings.
    "v2_thesis": {
        "No Finding": {"one": ["No Finding"], "zero": _OTHERS},
        "Finding": {"zero": ["No Finding", "Support Devices"]},
    },
    "v3_0s": {
        "No Finding": {"one": ["No Finding"], "zero": _OTHERS},
        "Pneumothorax": {"one": ["Pneumothorax"], "zero": _OTHERS},
        "Pneumonia": {"one": ["Pneumonia"], "zero": _OTHERS},
        "Cardiomegaly": {"one": ["Cardiomegaly"], "zero": _OTHERS},
    },
    "v3_xs": {
        "No Finding": {"one": ["No Finding"], "zero": ["Pneumothorax", "Pneumonia", "Cardiomegaly"]},
        "Pneumothorax": {"one": ["Pneumothorax"], "zero": ["No Finding", "Pneumonia", "Cardiomegaly"]},
        "Pneumonia": {"one": ["Pneumonia"], "zero": ["No Finding", "Pneumothorax", "Cardiomegaly"]},
        "Cardiomegaly": {"one": ["Cardiomegaly"], "zero": ["No Finding", "Pneumothorax", "Pneumonia"]},
    },
    "multilabel": {},
}


@dataclasses.dataclass(frozen=True)
class LabelClass:
    """One class of a label version: the labels that must be 1, must be 0, and of which at least one must be 1."""

    name: str
    one: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()
    any: tuple[str, ...] = ()

    @property
    def constrained(self) -> frozenset[str]:
        """The labels whose value decides membership."""
        return frozenset(self.one + self.zero + self.any)

    @property
    def forbids_extra(self) -> bool:
        """Whether findings outside the 14 labels exclude a row: they are findings, and a 0s class allows no other."""
        return NO_FINDING in self.one or len(set(self.one + self.zero)) == len(LABELS)

    def contains(self, vectors: np.ndarray) -> np.ndarray:
        """Membership bool[N] of label vectors [N, 14] in {0, 1}."""
        positive = np.asarray(vectors) > 0.5
        inside = positive[:, _indices(self.one)].all(axis=1) & ~positive[:, _indices(self.zero)].any(axis=1)
        return inside & positive[:, _indices(self.any)].any(axis=1) if self.any else inside


@dataclasses.dataclass(frozen=True)
class LabelVersion:
    """Named classes that exclude each other. No classes at all means multi-label: the vector itself is the label."""

    name: str
    classes: tuple[LabelClass, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class indices."""
        return tuple(label_class.name for label_class in self.classes)

    @property
    def multilabel(self) -> bool:
        """Whether there are no classes."""
        return not self.classes

    @property
    def constrained(self) -> frozenset[str]:
        """The labels that some class constrains; all 14 if multi-label."""
        if self.multilabel:
            return frozenset(LABELS)
        return frozenset().union(*(label_class.constrained for label_class in self.classes))


def make_label_version(name: str, table: Mapping[str, Mapping[str, Sequence[str] | str]]) -> LabelVersion:
    """Makes and validates a version from `{class name: {"one": labels, "zero": labels, "any": labels}}`.

    Raises:
        InputError: an unknown key or label, a class that nothing can satisfy, or two classes that do not exclude
            each other; the message names version and classes.
    """
    version = LabelVersion(name, tuple(_make_class(name, class_name, rule) for class_name, rule in table.items()))
    for i, first in enumerate(version.classes):
        if not _can_hold([first]):
            raise InputError(f"label version {name}: no row can be in class {first.name!r}")
        for second in version.classes[:i]:
            if _can_hold([first, second]):
                raise InputError(
                    f"label version {name}: classes {second.name!r} and {first.name!r} do not exclude each other"
                )
    return version


def get_label_version(name: str) -> LabelVersion:
    """Returns the version called `name`. Raises InputError listing the known names otherwise."""
    if name not in LABEL_VERSIONS:
        raise InputError(f"--label_version={name}: unknown; choose one of {', '.join(LABEL_VERSIONS)}")
    return LABEL_VERSIONS[name]


def apply_uncertain(version: LabelVersion, values: np.ndarray, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """Turns table values into label vectors.

    Args:
        version: decides which labels `drop` looks at.
        values: float[N, 14] of 1 (positive), 0 (negative), -1 (uncertain) and NaN (blank, which becomes 0).
        policy: `zeros` or `ones` replaces uncertain values; `drop` removes a row in which a label that the version
            constrains is uncertain (multi-label: any label); where such a label is free it becomes 0.

    Returns:
        vectors float32[N, 14] in {0, 1}, and kept bool[N].
    """
    if policy not in UNCERTAIN_POLICIES:
        raise InputError(f"--uncertain={policy}: unknown; choose one of {', '.join(UNCERTAIN_POLICIES)}")
    uncertain = values == -1
    vectors = (values == 1).astype(np.float32)
    kept = np.ones(len(values), bool)
    if policy == "ones":
        vectors[uncertain] = 1
    elif policy == "drop":
        kept = ~uncertain[:, _indices(sorted(version.constrained))].any(axis=1)
    return vectors, kept


def assign(version: LabelVersion, vectors: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
    """Returns the class index int64[N] of each row; NO_CLASS (-1) where no class holds, and always if multi-label.

    Args:
        version: the label version.
        vectors: [N, 14] in {0, 1}.
        extra: bool[N], whether the row has findings outside the 14 labels (None: no row has).
    """
    extra = np.zeros(len(vectors), bool) if extra is None else np.asarray(extra, bool)
    index = np.full(len(vectors), NO_CLASS, np.int64)
    for i, label_class in enumerate(version.classes):
        inside = label_class.contains(vectors)
        index[inside & ~extra if label_class.forbids_extra else inside] = i
    return index


def select(version: LabelVersion, vectors: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
    """Returns bool[N]: the rows a version uses. Those with a class; if multi-label, those with at least one label."""
    if version.multilabel:
        return (np.asarray(vectors) > 0.5).any(axis=1)
    return assign(version, vectors, extra) != NO_CLASS


def satisfies(version: LabelVersion, class_index: int | np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns bool[N]: whether vectors [N, 14] meet the definition of the requested class (an int, or int[N]).

    If multi-label, `class_index` must be -1 and a vector satisfies it with at least one label.
    """
    vectors = np.asarray(vectors)
    requested = np.broadcast_to(np.asarray(class_index, np.int64), (len(vectors),))
    if version.multilabel:
        return (requested == NO_CLASS) & select(version, vectors)
    return (requested != NO_CLASS) & (assign(version, vectors) == requested)


def _indices(names: Sequence[str]) -> list[int]:
    return [_INDEX[name] for name in names]


def _make_class(version: str, name: str, rule: Mapping[str, Sequence[str] | str]) -> LabelClass:
    unknown = set(rule) - {"one", "zero", "any"}
    if unknown:
        raise InputError(f"label version {version}: class {name!r} has the unknown key {sorted(unknown)[0]!r}")
    named = [label for labels in rule.values() if labels != _OTHERS for label in labels]
    for label in named:
        if label not in _INDEX:
            raise InputError(f"label version {version}: class {name!r} names the unknown label {label!r}")
    others = tuple(label for label in LABELS if label not in named)
    lists = {key: others if labels == _OTHERS else tuple(labels) for key, labels in rule.items()}
    return LabelClass(name, **lists)


def _can_hold(classes: Sequence[LabelClass]) -> bool:
    """Whether some label vector is in all `classes`: setting every label to 1 that none requires to be 0 decides it."""
    zero = set().union(*(label_class.zero for label_class in classes))
    return all(not zero & set(c.one) and (not c.any or set(c.any) - zero) for c in classes)


LABEL_VERSIONS: dict[str, LabelVersion] = {name: make_label_version(name, table) for name, table in _TABLE.items()}

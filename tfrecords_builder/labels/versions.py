"""Label versions: what turns a row's labels into a class. They are data.

The classes of a version are declared in one table by three lists of labels: `one` (must be 1), `zero` (must be 0) and
`any` (at least one of them must be 1); the word "others" stands for every label of the label set that the class
does not name otherwise; a label in no list is free (X).

A data set may know findings outside its label set (NIH's Hernia, the Tuberculosis of a folder set). A row has them as
one text, joined by "|": its extra findings. The versions of this module name none of them; a user's may (labels.py).

Source: chapter 3 of the thesis that this project reproduces.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import DEFAULT, EXTRA_SEPARATOR, LabelSet

NO_CLASS = -1

_OTHERS = "others"
_KEYS = ("one", "zero", "any")

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
    """One class of a label version: the labels that must be 1, must be 0, and of which at least one must be 1.

    The lists hold labels of `label_set` and extra findings.
    """

    name: str
    one: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    label_set: LabelSet = DEFAULT

    @property
    def constrained(self) -> frozenset[str]:
        """The labels whose value decides membership."""
        return frozenset(name for name in self.one + self.zero + self.any if name in self.label_set.index)

    @property
    def extra_findings(self) -> frozenset[str]:
        """The names outside the label set."""
        return frozenset(self.one + self.zero + self.any) - frozenset(self.label_set.labels)

    @property
    def fixes_all(self) -> bool:
        """Whether each label must be 1 or must be 0: one label vector only can be in the class."""
        return set(self.label_set.labels) <= {*self.one, *self.zero}

    @property
    def forbids_extra(self) -> bool:
        """Whether extra findings that the class does not itself ask for exclude a row.

        They are findings, which the label for "nothing found" denies; and a 0s class allows no other.
        """
        return self.label_set.no_finding in self.one or self.fixes_all

    def contains(self, vectors: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
        """Membership bool[N] of label vectors [N, L] in {0, 1} with extra findings object[N] of str (None: none)."""
        return self._contains(np.asarray(vectors) > 0.5, *_factorize(extra, len(vectors)))

    def _contains(self, positive: np.ndarray, sets: Sequence[frozenset[str]], codes: np.ndarray) -> np.ndarray:
        """Membership, with the distinct sets of extra findings and each row's index into them."""
        allowed = np.array([self._allows(findings) for findings in sets], bool)[codes]
        inside = positive[:, self._columns(self.one)].all(axis=1) & ~positive[:, self._columns(self.zero)].any(axis=1)
        inside &= allowed
        if self.any:
            named = np.array([not findings.isdisjoint(self.any) for findings in sets], bool)[codes]
            inside &= positive[:, self._columns(self.any)].any(axis=1) | named
        return inside

    def _columns(self, names: Sequence[str]) -> list[int]:
        return [self.label_set.index[name] for name in names if name in self.label_set.index]

    def _allows(self, findings: frozenset[str]) -> bool:
        if not {name for name in self.one if name not in self.label_set.index} <= findings or not findings.isdisjoint(
            self.zero
        ):
            return False
        return not self.forbids_extra or findings <= {*self.one, *self.any}


@dataclasses.dataclass(frozen=True)
class LabelVersion:
    """Named classes that exclude each other. No classes at all means multi-label: the vector itself is the label."""

    name: str
    classes: tuple[LabelClass, ...]
    label_set: LabelSet = DEFAULT

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
        """The labels that some class constrains; all if multi-label."""
        if self.multilabel:
            return frozenset(self.label_set.labels)
        return frozenset().union(*(label_class.constrained for label_class in self.classes))

    @property
    def extra_findings(self) -> tuple[str, ...]:
        """The names outside the label set that some class lists, in alphabetical order."""
        return tuple(sorted(frozenset().union(*(label_class.extra_findings for label_class in self.classes))))

    def definition(self) -> dict[str, dict[str, list[str]]]:
        """The table that `make_label_version` makes this version from, without "others"; can be written as JSON."""
        return {c.name: {key: list(getattr(c, key)) for key in _KEYS if getattr(c, key)} for c in self.classes}


def make_label_version(
    name: str, table: Mapping[str, Mapping[str, Sequence[str] | str]], label_set: LabelSet = DEFAULT
) -> LabelVersion:
    """Makes and validates a version from `{class name: {"one": labels, "zero": labels, "any": labels}}`.

    A list holds labels of `label_set` and extra findings, or is the word "others". Whether a data set has the extra
    findings is for `check_vocabulary` to say.

    Raises:
        InputError: an unknown key, a value that is no list of names, a class that nothing can satisfy, or two classes
            that do not exclude each other; the message names version, classes and key.
    """
    classes = tuple(_make_class(name, class_name, rule, label_set) for class_name, rule in table.items())
    version = LabelVersion(name, classes, label_set)
    for i, first in enumerate(version.classes):
        if not _can_hold([first]):
            both = sorted(set(first.one) & set(first.zero))
            reason = f"{both[0]!r} is in its one and in its zero" if both else "all of its any are in its zero"
            raise InputError(f"label version {name}: no row can be in class {first.name!r}: {reason}")
        for second in version.classes[:i]:
            if _can_hold([first, second]):
                raise InputError(
                    f"label version {name}: classes {second.name!r} and {first.name!r} do not exclude each other"
                )
    return version


def assign(version: LabelVersion, vectors: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
    """Returns the class index int64[N] of each row; NO_CLASS (-1) where no class holds, and always if multi-label.

    Args:
        version: the label version.
        vectors: [N, L] in {0, 1}.
        extra: object[N] of str, each row's findings outside the label set, joined by "|" (None: no row has any).
    """
    positive, (sets, codes) = np.asarray(vectors) > 0.5, _factorize(extra, len(vectors))
    index = np.full(len(vectors), NO_CLASS, np.int64)
    for i, label_class in enumerate(version.classes):
        index[label_class._contains(positive, sets, codes)] = i
    return index


def select(version: LabelVersion, vectors: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
    """Returns bool[N]: the rows a version uses. Those with a class; if multi-label, those with at least one label."""
    if version.multilabel:
        return np.any(np.asarray(vectors) > 0.5, axis=1)
    return assign(version, vectors, extra) != NO_CLASS


def satisfies(version: LabelVersion, class_index: int | np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns bool[N]: whether vectors [N, L] meet the definition of the requested class (an int, or int[N]).

    If multi-label, `class_index` must be -1 and a vector satisfies it with at least one label.
    """
    vectors = np.asarray(vectors)
    requested = np.broadcast_to(np.asarray(class_index, np.int64), (len(vectors),))
    if version.multilabel:
        return (requested == NO_CLASS) & select(version, vectors)
    return (requested != NO_CLASS) & (assign(version, vectors) == requested)


def describe_rule(rule: Mapping[str, Sequence[str]], label_set: LabelSet = DEFAULT) -> str:
    """Says in words which images belong to a class.

    Args:
        rule: the labels that must be 1 ("one"), must be 0 ("zero"), and of which at least one must be 1 ("any"), as
            in `RecordSetInfo.label_definition`; a key may be missing. They may name findings outside the labels.
        label_set: the labels that there are.
    """
    one, zero, some = (list(rule.get(key, ())) for key in ("one", "zero", "any"))
    known = set(label_set.labels)
    parts = [f"{_join(one)} present"] if one else []
    if len(zero) > 1 and known - set(one) <= set(zero):
        zero = ["all other labels", *(name for name in zero if name not in known)]
    if zero:
        parts.append(f"{_join(zero)} absent")
    if some:
        others = len(some) > 1 and set(some) == known - {*one, *zero}
        parts.append(f"at least one of {'the other labels' if others else _join(some)} present")
    fixed = "all other labels" in zero
    if not fixed and known - {*one, *zero, *some}:
        parts.append("any value of the other labels")
    if fixed or label_set.no_finding in one:  # LabelClass.forbids_extra
        other = "other " if {*one, *some} - known else ""
        parts.append(f"no {other}finding outside the {len(known)} labels")
    return "; ".join(parts)


def _join(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _factorize(extra: np.ndarray | None, count: int) -> tuple[list[frozenset[str]], np.ndarray]:
    """Returns the distinct sets of extra findings and the index int64[N] of each row's; there are few of them."""
    if extra is None:
        return [frozenset()], np.zeros(count, np.int64)
    distinct: dict[str, int] = {}
    codes = np.fromiter((distinct.setdefault(text, len(distinct)) for text in extra), np.int64, count)
    return [frozenset(filter(None, text.split(EXTRA_SEPARATOR))) for text in distinct], codes


def _make_class(version: str, name: str, rule: Mapping[str, Sequence[str] | str], label_set: LabelSet) -> LabelClass:
    where = f"label version {version}: class {name!r}"
    if not isinstance(rule, Mapping):
        raise InputError(f"{where} must be an object with the keys {', '.join(_KEYS)}, not {rule!r}")
    unknown = set(rule) - set(_KEYS)
    if unknown:
        raise InputError(f"{where} has the unknown key {sorted(unknown)[0]!r}; the keys are {', '.join(_KEYS)}")
    for key, names in rule.items():
        if names != _OTHERS and not _are_names(names):
            raise InputError(f'{where}: {key} must be a list of different labels or "{_OTHERS}", not {names!r}')
    named = [label for names in rule.values() if names != _OTHERS for label in names]
    others = tuple(label for label in label_set.labels if label not in named)
    lists = {key: others if names == _OTHERS else tuple(names) for key, names in rule.items()}
    return LabelClass(name, **lists, label_set=label_set)


def _are_names(value: Any) -> bool:
    """Whether `value` is a list of distinct strings that the text of a row's extra findings could hold."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return False
    plain = all(name and name == name.strip() and EXTRA_SEPARATOR not in name for name in value)
    return plain and len(set(value)) == len(value)


def _can_hold(classes: Sequence[LabelClass]) -> bool:
    """Whether some row is in all `classes`: setting every label to 1 that none requires to be 0 decides it."""
    extras = frozenset().union(*(c.extra_findings for c in classes))
    zero = set().union(*(c.zero for c in classes))
    zero.update(*(extras - {*c.one, *c.any} for c in classes if c.forbids_extra))
    return all(not zero & set(c.one) and (not c.any or set(c.any) - zero) for c in classes)


@functools.cache
def built_in_versions(label_set: LabelSet) -> dict[str, LabelVersion]:
    """The versions of this module all of whose labels are in the set; `multilabel` always."""
    named = {
        name: {label for rule in table.values() for names in rule.values() if names != _OTHERS for label in names}
        for name, table in _TABLE.items()
    }
    fitting = [name for name in _TABLE if named[name] <= set(label_set.labels)]
    return {name: make_label_version(name, _TABLE[name], label_set) for name in fitting}


LABEL_VERSIONS: dict[str, LabelVersion] = built_in_versions(DEFAULT)

"""Label sets: which labels images can have, in which order. They are data.

Everything that deals with labels takes them from a label set: of a data set that is read, of records, of a GAN. The
order is that of label vectors. A set may name a label that stands for "nothing found", which excludes findings, and
says which labels are kinds of others.

Built in are CheXpert's 14 labels (the default), NIH's 14 findings with No Finding, and the six of the RSNA's brain
haemorrhages, also as the benchmark uses them. Others come from a user's file; docs/guides/data.md describes it.

Sources: Irvin et al. 2019 (CheXpert, https://arxiv.org/abs/1901.07031); Wang et al. 2017 (ChestX-ray14,
https://arxiv.org/abs/1705.02315); Flanders et al. 2020 (https://doi.org/10.1148/ryai.2020190211).
"""

import dataclasses
import functools
import json
import pathlib
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tfrecords_builder.errors import InputError

# What joins a row's findings outside the label set; no label holds it.
EXTRA_SEPARATOR = "|"
# Counts of all combinations of labels are one array of 2^N numbers.
MAX_LABELS = 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS = ("name", "labels", "no_finding", "parents", "synonyms", "images")
_IMAGES = "chest radiographs"


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """Names and order of labels.

    Attributes:
        name: letters, digits, "_", "-" and ".".
        labels: their names, in the order of label vectors.
        no_finding: the label that says that nothing was found; empty: the set has none.
        parents: label -> the labels that it implies.
        synonyms: other word -> label. Case and what is no letter or digit do not matter. They are for reading tables:
            sets that differ in them alone are equal.
        images: what they are labels of, in descriptions of record sets.
    """

    name: str
    labels: tuple[str, ...]
    no_finding: str = ""
    parents: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
    images: str = _IMAGES

    def __hash__(self) -> int:
        return hash((self.name, self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Label -> its place in label vectors."""
        return {label: i for i, label in enumerate(self.labels)}

    def match(self, word: str) -> str | None:
        """The label that a column or a word means: by its name or a synonym, `Pleural_Effusion` and `edema` as well."""
        return self._words.get(fold_word(word))

    @functools.cached_property
    def _words(self) -> dict[str, str]:
        return {fold_word(word): label for word, label in self.synonyms.items()} | {
            fold_word(name): name for name in self.labels
        }

    def to_dict(self) -> dict[str, Any]:
        """What `make_label_set` makes this set from; can be written as JSON."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "no_finding": self.no_finding,
            "parents": {child: list(parents) for child, parents in self.parents.items()},
            "synonyms": dict(self.synonyms),
            **({} if self.images == _IMAGES else {"images": self.images}),
        }

    def same_labels(self, other: "LabelSet") -> bool:
        """Whether label vectors mean the same in both."""
        return self.labels == other.labels and self.no_finding == other.no_finding

    def count_orphans(self, vectors: np.ndarray, labelled: Collection[str] | None = None) -> dict[str, int]:
        """Counts the rows in which a label is 1 while one of its parents is 0.

        Args:
            vectors: [N, L] in {0, 1}.
            labelled: the labels that the data set knows at all (None: all); the other ones are not looked at.

        Returns:
            {"Pneumonia without Consolidation": 12, ...}: those that occur, in label order.
        """
        known = self.labels if labelled is None else labelled
        positive = np.asarray(vectors) > 0.5
        pairs = [(c, p) for c in self.labels for p in self.parents.get(c, ()) if c in known and p in known]
        column = self.index
        counts = {f"{c} without {p}": int((positive[:, column[c]] & ~positive[:, column[p]]).sum()) for c, p in pairs}
        return {name: count for name, count in counts.items() if count}


def make_label_set(table: Any) -> LabelSet:
    """Makes and validates a label set of an object as `LabelSet.to_dict` returns; only name and labels must be there.

    Raises:
        InputError: an unknown key, a wrong type, a label given twice or of which parents or synonyms know nothing, too
            many labels; one line.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"a label set must be an object with the keys {', '.join(_KEYS)}")
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise InputError(f"the label set has the unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}")
    name, given = table.get("name"), table.get("labels")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"name is {name!r}; give letters, digits, _, - and ., the first a letter or digit")
    if not isinstance(given, list | tuple) or not given:
        raise InputError("labels must be a list of names, in their order")
    labels = tuple(given)
    for label in labels:
        if not _is_name(label):
            raise InputError(
                f"labels: {label!r} is no name of a label; give a printable text without {EXTRA_SEPARATOR!r}"
            )
    folded = [fold_word(label) for label in labels]
    twice = [label for i, label in enumerate(labels) if folded[i] in folded[:i]]
    if twice:
        raise InputError(f"labels: {twice[0]!r} is given twice (case and signs do not count); give each label once")
    if len(labels) > MAX_LABELS:
        raise InputError(
            f"labels: gives {len(labels)} of them; at most {MAX_LABELS} can be counted in all combinations"
        )
    no_finding = table.get("no_finding") or ""
    if no_finding and no_finding not in labels:
        raise InputError(f"no_finding: {no_finding!r} is none of the labels")
    parents = {}
    for child, above in _mapping(table, "parents").items():
        above = [above] if isinstance(above, str) else above
        for label in (child, *(above if isinstance(above, list | tuple) else [above])):
            if label not in labels:
                raise InputError(f"parents: {label!r} is none of the labels")
        if child in above:
            raise InputError(f"parents: {child!r} is its own parent")
        parents[child] = tuple(above)
    synonyms = _mapping(table, "synonyms")
    for word, label in synonyms.items():
        if label not in labels:
            raise InputError(f"synonyms: {label!r}, which {word!r} stands for, is none of the labels")
        if fold_word(word) in folded and labels[folded.index(fold_word(word))] != label:
            raise InputError(f"synonyms: {word!r} is a label itself and cannot stand for {label!r}")
    images = table.get("images", _IMAGES)
    if not isinstance(images, str) or not images.isprintable():
        raise InputError(f"images must be a text such as {_IMAGES!r}, not {images!r}")
    return LabelSet(name, labels, no_finding, parents, dict(synonyms), images)


def get_label_set(text: str) -> LabelSet:
    """The built-in label set of that name, or the one of a JSON file.

    Raises:
        InputError: no such name or file, or what `make_label_set` refuses; one line that names --label_set.
    """
    if text in LABEL_SETS:
        return LABEL_SETS[text]
    path = pathlib.Path(text)
    if not path.is_file():
        known = ", ".join(LABEL_SETS)
        raise InputError(f"--label_set={text}: is neither a file nor one of {known}")
    try:
        label_set = make_label_set(_read(path))
    except InputError as error:
        raise InputError(f"--label_set={text}: {error}") from error
    built_in = LABEL_SETS.get(label_set.name)
    if built_in and built_in != label_set:
        raise InputError(
            f"--label_set={text}: the name {label_set.name} is taken by a built-in one; choose another name"
        )
    return label_set


def to_settings(label_set: LabelSet) -> dict[str, Any]:
    """What the settings of a run or an export say of its labels; those of the default set say nothing."""
    return {} if label_set == DEFAULT else {"label_set": label_set.to_dict()}


def of_settings(settings: Mapping[str, Any]) -> LabelSet:
    """The label set of what `to_settings` was part of. Raises InputError if it is damaged."""
    return make_label_set(settings["label_set"]) if "label_set" in settings else DEFAULT


def refuse_other(label_set: LabelSet, other: LabelSet, *, of: str, other_of: str) -> None:
    """Raises InputError if label vectors of the two mean different things.

    Args:
        label_set: of what `of` names.
        other: of what `other_of` names.
        of: a flag with its value, or the like.
        other_of: as `of`.
    """
    if not label_set.same_labels(other):
        raise InputError(
            f"{other_of}: has the labels of {_tell(other, label_set)}, {of} those of {_tell(label_set, other)}; give "
            "both of one label set (build-records --label_set, --label_map)"
        )


def _tell(label_set: LabelSet, other: LabelSet) -> str:
    same = "" if label_set.name != other.name else f" ({', '.join(label_set.labels)})"
    return f"{label_set.name}{same}"


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON ({error})") from error


def _mapping(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key) or {}
    if not isinstance(value, Mapping):
        raise InputError(f"{key} must be an object, not {value!r}")
    return value


def _is_name(label: Any) -> bool:
    return (
        isinstance(label, str)
        and bool(fold_word(label))
        and label == label.strip()
        and label.isprintable()
        and (EXTRA_SEPARATOR not in label)
    )


def fold_word(word: str) -> str:
    """Without case and without what is no letter or digit: `Pleural_Effusion ` and `PleuralEffusion` are one word."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", str(word))).casefold()


CHEXPERT14 = make_label_set(
    {
        "name": "chexpert14",
        "labels": [
            "No Finding",
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
        ],
        "no_finding": "No Finding",
        "parents": {
            "Cardiomegaly": ["Enlarged Cardiomediastinum"],
            "Lung Lesion": ["Lung Opacity"],
            "Edema": ["Lung Opacity"],
            "Consolidation": ["Lung Opacity"],
            "Pneumonia": ["Lung Opacity", "Consolidation"],
            "Atelectasis": ["Lung Opacity"],
        },
        "synonyms": {
            "Normal": "No Finding",
            "No Findings": "No Finding",
            "Airspace Opacity": "Lung Opacity",
            "Lung Opacities": "Lung Opacity",
            "Lung Lesions": "Lung Lesion",
            "Effusion": "Pleural Effusion",
            "Pleural Effusions": "Pleural Effusion",
            "Enlarged Cardiom.": "Enlarged Cardiomediastinum",
            "Fractures": "Fracture",
            "Oedema": "Edema",
            "Pulmonary Edema": "Edema",
            "Pulmonary Oedema": "Edema",
            "Atelectases": "Atelectasis",
            "Consolidations": "Consolidation",
            "Support Device": "Support Devices",
        },
    }
)
NIH14 = make_label_set(
    {
        "name": "nih14",
        "labels": [
            "No Finding",
            "Atelectasis",
            "Cardiomegaly",
            "Effusion",
            "Infiltration",
            "Mass",
            "Nodule",
            "Pneumonia",
            "Pneumothorax",
            "Consolidation",
            "Edema",
            "Emphysema",
            "Fibrosis",
            "Pleural Thickening",
            "Hernia",
        ],
        "no_finding": "No Finding",
        "synonyms": {
            "Normal": "No Finding",
            "No Findings": "No Finding",
            "Pleural Effusion": "Effusion",
            "Pleural Effusions": "Effusion",
            "Infiltrate": "Infiltration",
            "Infiltrates": "Infiltration",
            "Oedema": "Edema",
            "Pulmonary Edema": "Edema",
            "Pulmonary Oedema": "Edema",
            "Pulmonary Emphysema": "Emphysema",
            "Pulmonary Fibrosis": "Fibrosis",
            "Pulmonary Mass": "Mass",
            "Pulmonary Nodule": "Nodule",
            "Atelectases": "Atelectasis",
            "Consolidations": "Consolidation",
            "Hiatal Hernia": "Hernia",
        },
    }
)
_BLEEDS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
BRAIN6 = make_label_set(
    {
        "name": "brain6",
        "labels": ["any", *_BLEEDS],
        "parents": {bleed: ["any"] for bleed in _BLEEDS},
        "images": "CT slices of heads",
    }
)
# The labels of synthetic-medical-benchmark's brain CTs: "no finding" where none of the five is there, and not `any`.
BRAIN_BENCHMARK = make_label_set(
    {
        "name": "brain_benchmark",
        "labels": [*_BLEEDS, "no finding"],
        "no_finding": "no finding",
        "images": "CT slices of heads",
    }
)
_ALL = (CHEXPERT14, NIH14, BRAIN6, BRAIN_BENCHMARK)
LABEL_SETS: dict[str, LabelSet] = {label_set.name: label_set for label_set in _ALL}
DEFAULT = CHEXPERT14

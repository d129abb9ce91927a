"""Which columns of a user's own table mean what, and the flags that say so."""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from tfrecords_builder import choices
from tfrecords_builder.csv_files import shorten
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import DEFAULT, EXTRA_SEPARATOR, LabelSet

# The class that is no column: the folder in which an image lies.
FOLDER_CLASS = "class"
_RESERVED = {"path": "path", "patient": "patient", "class": "class_column"} | {
    name: name for name in ("view", "sex", "age", "split")
}


@dataclasses.dataclass(frozen=True)
class FolderColumns:
    """The columns of a `folder` data set's table; None: there is no such column.

    Attributes:
        path: of the images, from the folder of the data set.
        patient: None: the column `patient` if there is one, else every image is its own patient.
        labels: label or extra finding -> column of 1, 0, -1 or blank. Empty, and no class column: the columns
            whose names mean a label (`LabelSet.match`).
        class_column: a column that names the finding; either this or `labels`.
        class_values: value of the class column, composed (NFC) -> labels or extra findings; none: the row has no label.
            A value that is not here is a word for a label (`LabelSet.match`). A cell holds one value, or several
            joined by "|".
        view: PA, AP, lateral (or LL), ...
        sex: any text.
        age: years, or NIH's 058Y, 011M.
        split: train, val, valid, validation or test.
        patient_pattern: where there is no column of patients: the patient is what this regular expression finds in the
            name of an image's file (its first group, or all if it has none), else in its path.
        unlabelled: whether there need be no labels at all.
        no_finding: one of `choices.NO_FINDING`: by what an image counts as one in which nothing was found.
        label_set: the labels that there are.
    """

    path: str = "path"
    patient: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_column: str | None = None
    class_values: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    view: str | None = None
    sex: str | None = None
    age: str | None = None
    split: str | None = None
    patient_pattern: re.Pattern[str] | None = None
    unlabelled: bool = False
    no_finding: str = "column"
    label_set: LabelSet = DEFAULT

    def __post_init__(self):
        if self.class_column and self.labels:
            raise InputError("--columns: gives a class column and label columns; give one or the other")
        if self.class_values and not self.class_column:
            raise InputError("--class_values: there is no class column; give --columns=class:COLUMN")
        if self.no_finding != "column" and not self.label_set.no_finding:
            raise InputError(
                f"--no_finding={self.no_finding}: the label set {self.label_set.name} has no label which says that "
                "nothing was found; leave the flag out"
            )
        if self.patient and self.patient_pattern:
            raise InputError("--patient_pattern: --columns names a column of patients; give one or the other")

    def find_patient(self, image: str) -> str:
        """The patient of an image by `patient_pattern`. Raises ValueError if it finds none."""
        pattern = re.compile("") if self.patient_pattern is None else self.patient_pattern
        match = pattern.search(image.rpartition("/")[2]) or pattern.search(image)
        patient = match[1 if pattern.groups else 0] if match else ""
        if not patient:
            group = (
                " in its first group; put all that stands for a patient into one pair of parentheses" if match else ""
            )
            raise ValueError(f"--patient_pattern={pattern.pattern} finds no patient in {shorten(image)}{group}")
        return patient


def choose_columns(
    dataset: str,
    items: Sequence[str],
    class_values: Sequence[str],
    patient_pattern: str,
    unlabelled: bool = False,
    label_set: LabelSet | None = None,
    no_finding: str = "column",
) -> FolderColumns | None:
    """What `parse_columns` makes of the flags; None for a data set that they are not for."""
    if dataset not in choices.FOLDERS:
        return None
    keys = {item.partition(":")[0].strip().casefold() for item in items}
    if dataset == "imagefolder" and keys <= set(_RESERVED) - {"class"}:
        items = [*items, f"class:{FOLDER_CLASS}"]
    parsed = parse_columns(items, class_values, patient_pattern, label_set or DEFAULT)
    return dataclasses.replace(parsed, unlabelled=unlabelled, no_finding=no_finding)


def parse_columns(
    items: Sequence[str],
    class_values: Sequence[str] = (),
    patient_pattern: str = "",
    label_set: LabelSet = DEFAULT,
) -> FolderColumns:
    """Returns what `--columns`, `--class_values` and `--patient_pattern` say.

    Args:
        items: `key:column`; the key is path, patient, class, view, sex, age, split, or else a word for a label, or an
            extra finding.
        class_values: see `parse_class_values`.
        patient_pattern: see `FolderColumns`; empty: none.
        label_set: the labels that there are.

    Raises:
        InputError: a bad item; the message names flag and item.
    """
    fields: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for item in items:
        key, colon, column = (part.strip() for part in unicodedata.normalize("NFC", item).partition(":"))
        if not (colon and key and column):
            raise InputError(f"--columns={item}: expected key:column, such as path:file or Pneumonia:pneu_flag")
        known = _RESERVED.get(key.casefold())
        place, name = (fields, known) if known else (labels, _to_finding(key, f"--columns={item}", label_set))
        if name in place:
            raise InputError(f"--columns={item}: {key!r} is given twice")
        place[name] = column
    return FolderColumns(
        **fields,
        labels=labels,
        class_values=parse_class_values(class_values, label_set),
        patient_pattern=parse_patient_pattern(patient_pattern),
        label_set=label_set,
    )


def parse_patient_pattern(text: str) -> re.Pattern[str] | None:
    """The regular expression; None if it is empty. Raises InputError if it is none."""
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise InputError(f"--patient_pattern={text}: is no regular expression ({error})") from error


def parse_class_values(items: Sequence[str], label_set: LabelSet = DEFAULT) -> dict[str, tuple[str, ...]]:
    """Returns value of the class column -> its findings.

    Args:
        items: `value:finding` or `value:finding+finding`, words for labels, or extra findings; `value:` stands for no
            label.
        label_set: the labels that there are.

    Raises:
        InputError: a bad item; the message names flag and item.
    """
    values: dict[str, tuple[str, ...]] = {}
    for item in items:
        value, colon, findings = (part.strip() for part in unicodedata.normalize("NFC", item).rpartition(":"))
        if not (colon and value):
            raise InputError(f"--class_values={item}: expected value:finding, such as NORMAL:No Finding")
        if value in values:
            raise InputError(f"--class_values={item}: {value!r} is given twice")
        names = [
            _to_finding(name.strip(), f"--class_values={item}", label_set) for name in findings.split("+") if findings
        ]
        values[value] = tuple(dict.fromkeys(names))
    return values


def _to_finding(name: str, flag: str, label_set: LabelSet) -> str:
    if not name or EXTRA_SEPARATOR in name:
        raise InputError(f"{flag}: {name!r} is no name of a finding")
    return label_set.match(name) or name

"""Maps the labels of a table to another label set, by an explicit table of the user's: `--label_map`."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import CHEXPERT14, EXTRA_SEPARATOR, LabelSet
from tfrecords_builder.readers import table

# Data sets that have their labels, whatever --label_set says; records are the other ones.
OWN_LABELS: dict[str, LabelSet] = dict.fromkeys(("chexpert", "chexlocalize", "chexpert_plus", "mimic_cxr"), CHEXPERT14)


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """What labels of one set mean in another.

    Attributes:
        path: the file.
        source: the label set that is mapped.
        target: the one it is mapped to.
        labels: label of `source`, or finding outside it -> labels of `target`; none: it stays a finding outside.
    """

    path: pathlib.Path
    source: LabelSet
    target: LabelSet
    labels: Mapping[str, tuple[str, ...]]


def load(path: pathlib.Path, source: LabelSet, target: LabelSet) -> LabelMap:
    """Reads a map: `{"Lung Opacity": "Infiltration", "Fracture": null, "Hernia": ["Hernia"]}`.

    A label that the file does not name is the one that the other set knows by its name or as a synonym.

    Raises:
        InputError: the file cannot be read, names an unknown label of the other set, or does not name one of `source`
            that `target` does not know; one line that names --label_map.
    """
    where = f"--label_map={path}"
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not valid JSON ({error})") from error
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: must be an object, label -> label, list of labels or null")
    found: dict[str, tuple[str, ...]] = {}
    for name, value in given.items():
        names = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(label, str) for label in names):
            raise InputError(f"{where}: {name!r}: must be a label, a list of labels or null, not {value!r}")
        for label in names:
            if label not in target.index:
                meant = csv_files.did_you_mean(label, target.labels) or f"; its labels are {', '.join(target.labels)}"
                raise InputError(f"{where}: {name!r}: {label!r} is no label of {target.name}{meant}")
        known = source.match(name) or name  # a finding outside the labels is one of the data, which are not read yet
        if known in found:
            raise InputError(f"{where}: {name!r} is given twice, as {known!r} is the same label")
        found[known] = tuple(dict.fromkeys(names))
    absent = [label for label in source.labels if label not in found and not _match(label, target)]
    if absent:
        raise InputError(
            f"{where}: does not say what {', '.join(map(repr, absent))} of {source.name} is in {target.name}; give a "
            "label, a list of labels, or null for a finding outside the labels"
        )
    return LabelMap(path, source, target, {label: _match(label, target) for label in source.labels} | found)


def apply(made: table.Table, label_map: LabelMap) -> table.Table:
    """Returns the table with the labels of the map's target.

    A label that stands for several is positive where one of them is, else uncertain where one is, else blank where one
    is, else negative. Labels for which nothing stands are blank.

    Raises:
        InputError: the map names a finding that the data do not have.
    """
    frame, target = made.frame.copy(), label_map.target
    present = {name for text in frame["extra"].unique() for name in text.split(EXTRA_SEPARATOR) if name}
    known = dict.fromkeys([*made.findings, *sorted(present)])
    strange = [name for name in label_map.labels if name not in label_map.source.index and name not in known]
    if strange:
        meant = csv_files.did_you_mean(strange[0], [*label_map.source.labels, *known])
        raise InputError(
            f"--label_map={label_map.path}: {strange[0]!r} is no label of {label_map.source.name} and no finding of "
            f"{made.origin}{meant}"
        )
    mapping = {**{name: _match(name, target) for name in known}, **label_map.labels}
    values = {label: frame[label].to_numpy() for label in label_map.source.labels}
    for name in known:
        values[name] = _has(frame["extra"].to_numpy(object), name)
    labelled = {label for name in (*made.labelled, *known) for label in mapping[name]}
    extra = [""] * len(frame)
    others = [name for name in (*made.labelled, *known) if not mapping[name]]
    for name in others:
        for row in np.flatnonzero(values[name] == 1):
            extra[row] += f"{EXTRA_SEPARATOR}{name}" if extra[row] else name
    frame = frame.drop(columns=list(label_map.source.labels))
    for label in target.labels:
        parts = [values[name] for name, labels in mapping.items() if label in labels]
        frame[label] = _join(np.stack(parts)) if parts else np.full(len(frame), np.nan, np.float32)
    frame["extra"] = table.to_texts(np.array(extra, object), len(frame))
    return dataclasses.replace(
        made,
        frame=frame,
        paths=(*made.paths, label_map.path),
        findings=tuple(others),
        labelled=tuple(label for label in target.labels if label in labelled),
        label_set=target,
    )


def _match(name: str, target: LabelSet) -> tuple[str, ...]:
    label = target.match(name)
    return (label,) if label else ()


def _has(extra: np.ndarray, name: str) -> np.ndarray:
    """float32 [N]: 1 where a finding is among those joined in a cell, else 0."""
    return np.array([name in text.split(EXTRA_SEPARATOR) if text else False for text in extra], np.float32)


def _join(values: np.ndarray) -> np.ndarray:
    """float32 [N] of the values [K, N] of the labels that are one in the other set."""
    joined = np.where(np.isnan(values).any(axis=0), np.nan, 0)
    joined = np.where((values == -1).any(axis=0), -1, joined)
    return np.where((values == 1).any(axis=0), 1, joined).astype(np.float32)

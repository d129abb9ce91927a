"""PadChest's table. Source: Bustos et al. 2020, https://doi.org/10.1016/j.media.2020.101797."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrecords_builder import csv_files
from tfrecords_builder.choices import LABELLED_BY
from tfrecords_builder.labels.label_sets import DEFAULT, EXTRA_SEPARATOR, LabelSet
from tfrecords_builder.readers import table
from tfrecords_builder.readers.folder_columns import FolderColumns

_TABLES = tuple(
    f"PADCHEST_chest_x_ray_images_labels_160K{date}.csv{packed}" for date in ("_01.02.19", "") for packed in ("", ".gz")
)
_REQUIRED = ("ImageID", "ImageDir", "PatientID", "Projection", "Labels")
_OTHERS = ("PatientSex_DICOM", "PatientBirth", "StudyDate_DICOM")
_METHOD = "MethodLabel"  # who labelled the report
_METHODS = {"Physician": True, "RNN_model": False}  # whether physicians did
_NORMAL = "normal"
_NO_FINDINGS = frozenset({_NORMAL, "unchanged", ""})
_UNUSABLE = ("exclude", "suboptimal study")
_EFFUSION = ("Pleural Effusion",)
_DEVICE = ("Support Devices",)
# Findings that label sets have, and what PadChest's tree of findings calls kinds of them.
_KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("atelectasis", "cardiomegaly", "consolidation", "emphysema", "fracture", "hiatal hernia"), ()),
    **dict.fromkeys(("infiltrates", "mass", "nodule", "pleural effusion", "pleural thickening", "pneumonia"), ()),
    **dict.fromkeys(("pneumothorax", "pulmonary edema", "pulmonary fibrosis", "pulmonary mass"), ()),
    _NORMAL: ("No Finding",),
    **{f"{kind} atelectasis": ("Atelectasis",) for kind in ("total", "lobar", "segmental", "laminar", "round")},
    "atelectasis basal": ("Atelectasis",),
    **{f"{bone} fracture": ("Fracture",) for bone in ("clavicle", "humeral", "vertebral", "rib", "callus rib")},
    "air bronchogram": ("Consolidation",),
    "atypical pneumonia": ("Pneumonia",),
    "loculated pleural effusion": _EFFUSION,
    "loculated fissural effusion": _EFFUSION,
    "empyema": _EFFUSION,
    "hemothorax": _EFFUSION,
    "hydropneumothorax": ("Pleural Effusion", "Pneumothorax"),
    "mediastinal enlargement": ("Enlarged Cardiomediastinum",),
    "superior mediastinal enlargement": ("Enlarged Cardiomediastinum",),
    "multiple nodules": ("Nodule",),
    "apical pleural thickening": ("Pleural Thickening",),
    "calcified pleural thickening": ("Pleural Thickening",),
    "electrical device": _DEVICE,
    "dual chamber device": _DEVICE,
    "single chamber device": _DEVICE,
    "pacemaker": _DEVICE,
    "artificial heart valve": _DEVICE,
    "artificial mitral heart valve": _DEVICE,
    "artificial aortic heart valve": _DEVICE,
    "catheter": _DEVICE,
    "central venous catheter": _DEVICE,
    "central venous catheter via subclavian vein": _DEVICE,
    "central venous catheter via jugular vein": _DEVICE,
    "central venous catheter via umbilical vein": _DEVICE,
    "reservoir central venous catheter": _DEVICE,
    "nsg tube": _DEVICE,
    "endotracheal tube": _DEVICE,
    "tracheostomy tube": _DEVICE,
    "chest drain tube": _DEVICE,
    "ventriculoperitoneal drain tube": _DEVICE,
    "gastrostomy tube": _DEVICE,
    "nephrostomy tube": _DEVICE,
    "double j stent": _DEVICE,
}
_VIEWS = {"L": table.LATERAL, "AP_HORIZONTAL": "AP"}
# Projections that are no radiograph of the whole chest: of ribs, and what is to be left out.
_NO_CHEST = frozenset({"COSTAL", "EXCLUDE"})


def read(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
    *,
    labelled_by: str = LABELLED_BY[0],
) -> table.Table:
    """Reads PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv, plain or gzipped.

    Labels of physicians and of the network that labelled most reports count alike, unless only the former are asked
    for; images of the network's are left out then. Findings that neither the label set
    nor PadChest's tree maps to a label stay findings outside it. Left out are images that the reports call unusable
    (`exclude`, `suboptimal study`), and the projections COSTAL and EXCLUDE; an image without labels has none.

    Args:
        data_dir: the folder of the table. Images lie in folders 0 to 54, as `ImageDir` says, or all in one.
        labels_csv: instead of the table.
        official: must be false.
        label_set: the labels.
        labelled_by: one of `choices.LABELLED_BY`.
    """
    path = _find_table(data_dir, labels_csv, official)
    by_physicians = labelled_by == "physicians"
    if by_physicians:
        table.check_columns(path, csv_files.read_header(path), (_METHOD,), "padchest")
    raw = csv_files.read_table(path, (*_REQUIRED, *_OTHERS, *([_METHOD] if by_physicians else [])))
    frame = table.make_frame(raw, id_column="ImageID", view="Projection", sex="PatientSex_DICOM", age="")
    frame["view"] = frame["view"].replace(_VIEWS)
    folders = raw.convert("ImageDir", lambda text: text.removesuffix(".0"))
    ids = [f"{folder}/{name}" if folder else name for folder, name in zip(folders, frame["id"], strict=True)]
    frame["id"] = table.to_texts(np.array(ids, object), len(frame))
    frame["patient"] = table.to_texts(raw.convert("PatientID", str), len(frame))
    born = raw.convert("PatientBirth", table.to_year, np.int64)
    age = raw.convert("StudyDate_DICOM", table.to_year, np.int64) - born
    frame["age"] = np.where((born > 0) & (age >= 0) & (age <= table.MAX_AGE), age, -1)

    raw.convert("Labels", _to_findings)  # refuses what is no list
    lists = {text: _to_findings(text) for text in raw.texts["Labels"]}
    names = sorted({name for found in lists.values() for name in found})
    mapping = table.map_words("padchest", {**_KINDS, **{name: _KINDS.get(name, ()) for name in names}}, label_set)
    labels = {text: {label for name in found for label in mapping[name]} for text, found in lists.items()}
    of_all = {label for found in mapping.values() for label in found}
    for label in label_set.labels:
        blank = {text: np.nan if label not in of_all or not lists[text] else 0.0 for text in lists}
        values = {text: 1.0 if label in labels[text] else blank[text] for text in lists}
        frame[label] = raw.convert("Labels", functools.partial(_look_up, values), np.float32)
    others = {
        text: EXTRA_SEPARATOR.join(name for name in found if not mapping[name] and name not in _NO_FINDINGS)
        for text, found in lists.items()
    }
    frame["extra"] = table.to_texts(raw.convert("Labels", functools.partial(_look_up, others)), len(frame))

    reason = np.where(frame["view"].isin(_NO_CHEST), "projection " + frame["view"], "").astype(object)
    for word in _UNUSABLE:
        named = raw.convert("Labels", functools.partial(_look_up, {text: word in lists[text] for text in lists}), bool)
        reason[(reason == "") & named] = f"labelled {word}"
    if by_physicians:
        reason[(reason == "") & ~raw.choose(_METHOD, _METHODS, bool)] = "labelled by a network"
    kept = reason == ""
    skipped = frame.loc[~kept, ["table", "line", "id"]].assign(reason=reason[~kept]).reset_index(drop=True)
    root = path.parent
    bases = [base for base in dict.fromkeys((root, data_dir, *sorted(data_dir.glob("images*")))) if base.is_dir()]
    return table.Table(
        dataset="padchest",
        source="padchest",
        dataset_name="padchest",
        frame=frame[kept].reset_index(drop=True),
        skipped=skipped if len(skipped) else table.no_rows(),
        paths=(path,),
        bases=tuple((base, drop) for base in bases for drop in (0, 1)),
        findings=tuple(name for name in names if not mapping[name] and name not in (*_NO_FINDINGS, *_UNUSABLE)),
        labelled=tuple(label for label in label_set.labels if label in of_all),
        warnings=tuple(table.suspect_spreadsheet(raw, "PatientID")),
        label_set=label_set,
    )


def check_header(
    data_dir: pathlib.Path,
    labels_csv: pathlib.Path | None,
    official: bool,
    _: FolderColumns | None = None,
    label_set: LabelSet = DEFAULT,
) -> None:
    """Raises InputError, as `read`, for a table that is absent or lacks a column; looks at its first line only."""
    table.map_words("padchest", _KINDS, label_set)
    _find_table(data_dir, labels_csv, official)


def _find_table(data_dir: pathlib.Path, labels_csv: pathlib.Path | None, official: bool) -> pathlib.Path:
    return table.require_table("padchest", data_dir, labels_csv, official, _TABLES, _REQUIRED)


def _to_findings(text: str) -> tuple[str, ...]:
    """Findings in small letters, each once, without blanks around them: some have them in the table."""
    if text in ("nan", "NaN"):
        return ()
    names = (" ".join(name.casefold().split()) for name in table.to_list(text))
    return tuple(dict.fromkeys(name.replace(EXTRA_SEPARATOR, "/") for name in names if name))


def _look_up(values: Mapping[str, Any], text: str) -> Any:
    return values[text]

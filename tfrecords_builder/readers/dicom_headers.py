"""What the headers of DICOM images say of patients and views, for data sets whose tables do not."""

import concurrent.futures
import dataclasses
import pathlib
import re

import numpy as np

from tfrecords_builder.images import dicom
from tfrecords_builder.readers import table
from tfrecords_builder.readers.locating import locate

_PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_THREADS = 8  # they wait for the disk
# What programs that take patients' names out of headers leave there.
_NAMELESS = re.compile(
    r"(de-?identified|anonym(ous|ized|ised|ize|ise)?|anon|unknown|unnamed|removed|none|null|nan|n/?a|patient|no ?name"
    r"|[x0?*#-]+)([ _-]?(patient|id|name))?",
    re.IGNORECASE,
)


def fill(made: table.Table, *, patients: bool) -> table.Table:
    """Returns the table with sex, age and view, and `patients` if it is asked for, of the images that are DICOM.

    An image whose header names no patient is its own, which a warning says; so is each of images that name the same one
    all, or a word such as Anonymous. Whole images are not read.

    Args:
        made: its patients, sexes, ages and views are replaced.
        patients: whether the headers say whose the images are.
    """
    paths = locate(made)
    distinct, codes = np.unique(paths, return_inverse=True)
    wanted = [path for path in distinct.tolist() if path and pathlib.Path(path).suffix.lower() not in _PICTURES]
    headers: dict[str, dict[str, str]] = {}
    installed = not wanted or dicom.is_installed()
    if installed:
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            headers = dict(zip(wanted, pool.map(dicom.read_header, wanted), strict=True))

    def pick(name: str) -> np.ndarray:
        return np.array([headers.get(path, {}).get(name, "") for path in distinct], object)[codes]

    frame, count = made.frame, len(made.frame)
    frame["sex"] = table.to_texts(pick("PatientSex"), count)
    frame["age"] = np.array([table.to_age(text) for text in pick("PatientAge")], np.int64)
    frame["view"] = table.to_texts(np.array([table.to_view(text) for text in pick("ViewPosition")], object), count)
    warnings = [] if installed else ["DICOM headers are not read: pip install tfcxr[dicom]"]
    if patients:
        named = np.array([headers.get(path, {}).get("PatientID", "") for path in distinct], object)
        trusted, doubts = trust(named)
        frame["patient"] = table.to_texts(trusted[codes], count)
        warnings += doubts
        unknown = int((named[codes] == "").sum())
        if unknown:
            which = "nothing says" if unknown == count else f"of {unknown} rows nothing says"
            warnings.append(
                f"{which} which patient an image is of, neither the table nor a DICOM header: each image counts as its "
                "own patient; if some are of the same one, they are in several splits and scores will be too good"
            )
    return dataclasses.replace(made, warnings=(*made.warnings, *warnings))


def trust(names: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Takes from the patients that headers name those that name nobody.

    Args:
        names: PatientID of each image, object [N] of str; "" where there is none.

    Returns:
        The names, "" where one is a word such as Anonymous, or where all images have the same; and a warning of it.
    """
    distinct = sorted(set(names.tolist()) - {""})
    nobody = [name for name in distinct if _NAMELESS.fullmatch(name)]
    if len(distinct) == 1 and (names != "").sum() > 1:
        nobody = distinct
    if not nobody:
        return names, []
    doubted = np.isin(names, nobody)
    return np.where(doubted, "", names), [
        f"{int(doubted.sum())} DICOM headers call their patient {' or '.join(map(repr, nobody[:3]))}, which tells no "
        "patients apart: each image counts as its own patient; if some are of the same one, they are in several splits "
        "and scores will be too good: give a table with a column of patients by --dataset=folder"
    ]

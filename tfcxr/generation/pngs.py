"""A synthetic set as PNG files and tables in CheXpert's layout, which other tools read.

    CheXpert-synthetic/train.csv, valid.csv, test.csv         the tables of the splits that have images
    CheXpert-synthetic/train/patient0000012/study1/view1_frontal.png

Synthetic images belong to no patient; each has a patient of its own here, named by the image's number, because the
layout has no other place for it. Sex, age and projection (AP/PA) are blank, labels are 1.0 or 0.0.
"""

import csv
import pathlib

import numpy as np

from tfcxr.generation import plans
from tfrecords_builder import files
from tfrecords_builder.errors import RunError
from tfrecords_builder.labels import combinations
from tfrecords_builder.labels.canonical import SPLITS
from tfrecords_builder.readers import PHANTOM_MARKER

# The reader finds a folder CheXpert* in --data_dir.
FOLDER = "CheXpert-synthetic"
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")  # and the labels

_TABLES = dict(zip(SPLITS, ("train", "valid", "test"), strict=True))
_ROWS_AT_ONCE = 65536


def image_path(split: str, number: int) -> str:
    """Path of an image, as the table has it: relative to the set's folder."""
    return f"{FOLDER}/{_TABLES[split]}/patient{number:07d}/study1/view1_frontal.png"


def write_image(folder: pathlib.Path, split: str, number: int, png: bytes) -> None:
    """Writes one image. Raises RunError if it cannot be written."""
    path = folder / image_path(split, number)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error


def write_tables(folder: pathlib.Path, plan: plans.Plan, source: str) -> None:
    """Writes the table of each split that has images, and the marker by which build-records knows their `source`."""
    labels = plan.version.label_set.labels
    (folder / FOLDER).mkdir(exist_ok=True)
    files.write_json(folder / FOLDER / PHANTOM_MARKER, {"source": source})
    for index, split in enumerate(SPLITS):
        numbers = np.flatnonzero(plan.splits == index)
        if not len(numbers):
            continue
        with (
            files.atomic_path(folder / FOLDER / f"{_TABLES[split]}.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*COLUMNS, *labels])
            for start in range(0, len(numbers), _ROWS_AT_ONCE):
                part = numbers[start : start + _ROWS_AT_ONCE]
                vectors = combinations.decode(plan.codes[part], len(labels)).tolist()
                for number, vector in zip(part.tolist(), vectors, strict=True):
                    writer.writerow([image_path(split, number), "", "", "Frontal", "", *vector])

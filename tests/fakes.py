"""Tiny data sets for tests: drawn images whose labels can be seen, in the layouts of CheXpert and NIH, and records.

Every label of `SIGNAL` brightens a region of its own; an image without findings is an even grey ramp with noise.
"""

import csv
import functools
import io
import json
import pathlib

import numpy as np
from PIL import Image

from tfrecords_builder import labels

# Label -> centre (row, column) of its bright disc, as fractions of the image's side.
SIGNAL = {
    "Pneumothorax": (0.3, 0.25),
    "Pneumonia": (0.7, 0.25),
    "Cardiomegaly": (0.7, 0.7),
    "Pleural Effusion": (0.3, 0.7),
    "Support Devices": (0.1, 0.5),
}
# The label sets that the fake patients go through in turn.
CASES = (("No Finding",), ("Pneumothorax",), ("Pneumonia",), ("Cardiomegaly",), ("Pneumothorax", "Pleural Effusion"))
NIH_NAMES = {"Pleural Effusion": "Effusion"}


def draw(names: tuple[str, ...], size: int, seed: int) -> np.ndarray:
    """Returns uint8 [size, size]: the picture of an image with these labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / max(size - 1, 1)
    picture = 60 + 40 * y + rng.normal(0, 6, (size, size))
    for name in names:
        if name in SIGNAL:
            row, column = SIGNAL[name]
            picture += 120 * ((y - row) ** 2 + (x - column) ** 2 < 0.2**2)
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_vector(names: tuple[str, ...]) -> np.ndarray:
    """Returns float32 [14] with 1 at the named labels."""
    return np.array([label in names for label in labels.LABELS], np.float32)


def make_chexpert(
    folder: pathlib.Path, *, num_patients: int = 20, images_per_patient: int = 2, num_valid: int = 5, size: int = 24
) -> pathlib.Path:
    """Writes `folder`/CheXpert-v1.0-small with train.csv, valid.csv and grey JPEGs; returns that folder.

    The patients go through CASES in turn; every fourth patient also has a lateral view; views alternate AP and PA.
    """
    root = pathlib.Path(folder) / "CheXpert-v1.0-small"
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels.LABELS]
    first = 1
    for part, count in (("train", num_patients), ("valid", num_valid)):
        rows = []
        for patient in range(first, first + count):
            names = CASES[patient % len(CASES)]
            values = ["1.0" if label in names else "" for label in labels.LABELS]
            for image in range(1, images_per_patient + 1):
                path = f"CheXpert-v1.0-small/{part}/patient{patient:05d}/study{image}/view1_frontal.jpg"
                _save(root.parent / path, draw(names, size, 100 * patient + image))
                rows.append([path, "Female", 40 + patient % 40, "Frontal", "AP" if patient % 2 else "PA", *values])
            if patient % 4 == 0:
                path = f"CheXpert-v1.0-small/{part}/patient{patient:05d}/study1/view2_lateral.jpg"
                rows.append([path, "Female", 40 + patient % 40, "Lateral", "", *values])
        first += count
        _write_table(root / f"{part}.csv", header, rows)
    return root


def make_chestxray(
    folder: pathlib.Path, *, num_patients: int = 25, images_per_patient: int = 2, size: int = 24
) -> pathlib.Path:
    """Writes NIH's layout: Data_Entry_2017.csv, images/*.png (grey) and the official lists; returns `folder`.

    The patients go through CASES in turn; the last fifth is the official test list. The first patient has one more
    image with an unmapped finding only (Hernia).
    """
    root = pathlib.Path(folder)
    header = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
    header += ["View Position", "OriginalImage[Width", "Height]"]
    rows = []
    for patient in range(1, num_patients + 1):
        names = CASES[patient % len(CASES)]
        for image in range(images_per_patient + (patient == 1)):
            unmapped = image == images_per_patient
            index = f"{patient:08d}_{image:03d}.png"
            finding = "Hernia" if unmapped else "|".join(NIH_NAMES.get(name, name) for name in names)
            _save(root / "images" / index, draw(() if unmapped else names, size, 100 * patient + image))
            rows.append([index, finding, image, patient, f"{40 + patient % 40:03d}Y", "F", "PA", size, size])
    _write_table(root / "Data_Entry_2017.csv", header, rows)
    test = max(1, num_patients // 5)
    lists = {"train_val_list.txt": [], "test_list.txt": []}
    for row in rows:
        lists["test_list.txt" if row[3] > num_patients - test else "train_val_list.txt"].append(row[0])
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def make_folder_set(
    folder: pathlib.Path, *, num_patients: int = 10, images_per_patient: int = 2, size: int = 24
) -> pathlib.Path:
    """Writes a user's own data set: table.csv and grey PNGs in a folder per finding; returns `folder`.

    Columns: file, pid, finding (NORMAL, PNEUMONIA, TB in turn), view (AP, PA), years, part (train, val, test). Images
    of TB show nothing of `SIGNAL`.
    """
    root = pathlib.Path(folder)
    findings = (("NORMAL", ("No Finding",)), ("PNEUMONIA", ("Pneumonia",)), ("TB", ()))
    rows = []
    for patient in range(num_patients):
        finding, names = findings[patient % len(findings)]
        part = ("train", "train", "train", "val", "test")[patient // len(findings) % 5]
        for image in range(images_per_patient):
            path = f"{finding.lower()}/p{patient}_{image}.png"
            _save(root / path, draw(names, size, 100 * patient + image))
            rows.append([path, f"p{patient}", finding, "AP" if image % 2 else "PA", 30 + patient, part])
    _write_table(root / "table.csv", ["file", "pid", "finding", "view", "years", "part"], rows)
    return root


def make_kermany(folder: pathlib.Path, *, num_patients: int = 15, size: int = 24) -> pathlib.Path:
    """Writes a folder for each class, with names as Kermany's; so many patients of each; returns `folder`."""
    root = pathlib.Path(folder)
    for patient in range(num_patients):
        _save(root / f"NORMAL/IM-{patient:04}-0001.png", draw(("No Finding",), size, patient))
        _save(root / f"PNEUMONIA/person{patient}_virus_1.png", draw(("Pneumonia",), size, 100 + patient))
    return root


def make_records(
    folder: pathlib.Path,
    *,
    resolution: int = 8,
    label_version: str = "v1_0s",
    per_class: int = 8,
    splits: tuple[str, ...] = ("train", "validation", "test"),
    num_shards: int = 1,
    source: str = "fake",
    with_patients: bool = True,
    seed: int = 0,
    aspect: str = "",
    contrast: str = "",
    dataset_name: str = "",
    sexes: tuple[str, ...] = ("",),
) -> pathlib.Path:
    """Writes a record set with `per_class` images of each class (multilabel: of each of CASES) in each split.

    Each patient has two images; the patients of a class have the `sexes` in turn. `aspect` and `contrast` are only said
    of the images. Returns `folder`.
    """
    from tfrecords_builder import records
    from tfrecords_builder.records import writing

    version = labels.get_label_version(label_version)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = [(labels.NO_CLASS, names) for names in CASES] if version.multilabel else []
    for i, label_class in enumerate(version.classes):
        cases.append((i, label_class.one or ("Pneumothorax",)))

    def shard(split: str, part: int):
        for number in range(part, per_class * len(cases), num_shards):
            class_index, names = cases[number % len(cases)]
            drawn = draw(names, resolution, seed * 10**6 + splits.index(split) * 10**5 + number)
            yield records.make_example(
                encoded=_png(drawn),
                image_id=f"{split}-{number:06d}",
                resolution=resolution,
                vector=make_vector(names),
                class_index=class_index,
                source=source,
                patient_id=f"{split}-{number // (2 * len(cases))}-{number % len(cases)}" if with_patients else "",
                view="PA",
                sex=sexes[number // (2 * len(cases)) % len(sexes)],
            )

    writing.write_record_set(
        folder,
        {split: [functools.partial(shard, split, part) for part in range(num_shards)] for split in splits},
        name="fake",
        dataset="chexpert",
        source=source,
        label_version=version,
        resolution=resolution,
        uncertain="zeros",
        split_policy="patient",
        view="any",
        seed=seed,
        aspect=aspect,
        contrast=contrast,
        dataset_name=dataset_name,
        report={"skipped": {}},
        total=per_class * len(cases) * len(splits),
    )
    return folder


def write_images(folder: pathlib.Path, images: np.ndarray, *, source: str = "synthetic:fake") -> pathlib.Path:
    """Writes a multilabel record set of images uint8 [N, R, R] without patients, in a train split; returns `folder`."""
    from tfrecords_builder import records
    from tfrecords_builder.records import writing

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def shard():
        for number, image in enumerate(images):
            yield records.make_example(
                encoded=_png(image),
                image_id=f"synthetic-{number:06d}",
                resolution=images.shape[1],
                vector=make_vector(("No Finding",)),
                class_index=labels.NO_CLASS,
                source=source,
                patient_id="",
                view="PA",
            )

    writing.write_record_set(
        folder,
        {"train": [shard]},
        name="fake",
        dataset="synthetic",
        source=source,
        label_version=labels.get_label_version("multilabel"),
        resolution=images.shape[1],
        seed=0,
        report={"skipped": {}},
        total=len(images),
    )
    return folder


def make_old(folder: pathlib.Path) -> pathlib.Path:
    """Turns a record set into what the first release of schema 2 wrote, without names of data sets and digests."""
    info = json.loads((folder / "tfcxr_info.json").read_text())
    del info["dataset_name"], info["label_set"]
    info["schema_version"] = 2
    (folder / "tfcxr_info.json").write_text(json.dumps(info))
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    _write_table(
        folder / "manifest.csv",
        [column for column in rows[0] if column != "image_digest"],
        [[value for column, value in row.items() if column != "image_digest"] for row in rows],
    )
    return folder


def _save(path: pathlib.Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=95)


def _png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def _write_table(path: pathlib.Path, header: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)

"""The two hospitals: how they take and show pictures, and the tables they keep (CheXpert's layout, NIH's layout)."""

import dataclasses
import math
import pathlib

import numpy as np
from PIL import Image

from tfrecords_builder import choices, files
from tfrecords_builder.labels import LABELS
from tfrecords_builder.simulator import cases, findings, projection, scene
from tfrecords_builder.simulator.anatomy import Anatomy, Chest, sample_anatomy
from tfrecords_builder.simulator.findings import Finding
from tfrecords_builder.simulator.geometry import Canvas, View

VERSION = 1  # of the simulator: changes when the same seed gives other pictures
MARKER = "phantom.json"

CHEXPERT_ROOT = "CheXpert-v1.0-small"
CHEXPERT_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
NIH_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width,Height]",
    "OriginalImagePixelSpacing[x,y]",
)

# NIH's names; what is absent here has none, and a Lung Lesion is a Nodule or a Mass.
_NIH_NAMES = {
    findings.ATELECTASIS: "Atelectasis",
    findings.CARDIOMEGALY: "Cardiomegaly",
    findings.CONSOLIDATION: "Consolidation",
    findings.EDEMA: "Edema",
    findings.EFFUSION: "Effusion",
    findings.OPACITY: "Infiltration",
    findings.PLEURAL: "Pleural_Thickening",
    findings.PNEUMONIA: "Pneumonia",
    findings.PNEUMOTHORAX: "Pneumothorax",
}

# The least side that is simulated: a coarser picture is the mean of these pixels, as on a coarser detector.
_LEAST_SIDE = 128
_HELD_OUT = {"a": 10, "b": 4}  # one patient in so many is in valid.csv, or in test_list.txt


@dataclasses.dataclass(frozen=True)
class Shot:
    """One picture to take: who, what is there, how it is taken and shown."""

    anatomy: Anatomy
    findings: tuple[Finding, ...]
    view: View
    inspiration: float
    exposure: projection.Exposure


def simulate(shot: Shot, rng: np.random.Generator) -> tuple[np.ndarray, scene.Scene]:
    """Takes one picture: (line integral of attenuation float32 [n, n], the scene with its path lengths)."""
    present = list(shot.findings)
    # Fluid takes lung away, so it is drawn before what fills lung.
    present.sort(key=lambda finding: finding.name != findings.EFFUSION)
    chest = Chest(shot.anatomy, findings.plan(present, shot.anatomy), shot.inspiration, arms_up=abs(shot.view.yaw) > 1)
    made = scene.Scene(chest, Canvas(shot.view), rng)
    findings.draw(made, present)
    scene.draw_normal(made)
    return made.attenuation(), made


def picture(shot: Shot, rng: np.random.Generator, resolution: int) -> np.ndarray:
    """Takes one picture at this resolution: uint8 [resolution, resolution], bone white."""
    attenuation, _ = simulate(shot, rng)
    grey = projection.expose(attenuation, shot.exposure, shot.view.pitch, rng)
    return projection.to_bytes(projection.average(grey, shot.view.resolution // resolution))


def _side(resolution):
    return max(resolution, _LEAST_SIDE)


def sample_shot(
    rng: np.random.Generator,
    hospital: str,
    anatomy: Anatomy,
    study: cases.Study,
    resolution: int,
    *,
    lateral: bool = False,
) -> Shot:
    """Draws pose and exposure. Hospital a takes more bedside pictures (AP, shallow breath, rotated), b more PA."""
    ill = len(study.findings) > 1 or any(finding.name == findings.DEVICES for finding in study.findings)
    front = rng.random() < {"a": 0.75 if ill else 0.45, "b": 0.45 if ill else 0.15}[hospital] and not lateral
    loose = 1.5 if front else 1.0
    field = {"a": rng.normal(35.0, 1.4), "b": rng.normal(36.0, 1.6)}[hospital] * anatomy.size
    view = View(
        resolution=_side(resolution),
        field_cm=float(np.clip(field, 29, 42)),
        centre_x=float(rng.normal(0, 0.6 * loose)),
        centre_y=float(rng.normal(0.4, 0.6 * loose)),
        yaw=float(rng.normal(0, 0.045 * loose) + (math.pi / 2 if lateral else 0)),
        roll=float(rng.normal(0, 0.022 * loose)),
        source_cm=110.0 if front else 170.0,
        from_front=bool(front),
    )
    low, high = (0.55, 0.95) if front else (0.8, 1.1)
    exposure = (_exposure_a if hospital == "a" else _exposure_b)(rng, front)
    return Shot(anatomy, study.findings, view, float(rng.uniform(low, high)), exposure)


def _exposure_a(rng, front):
    """Computed radiography without a grid at the bedside, partly equalised as CheXpert's pictures are."""
    texts = ["", "L", "PORTABLE" if front else "L", "R"]
    return projection.Exposure(
        photons=float(np.exp(rng.normal(10.3, 0.4))),
        scatter=float(rng.uniform(0.6, 1.1) if front else rng.uniform(0.4, 0.8)),
        blur=float(rng.uniform(0.4, 0.8)),
        low=float(rng.uniform(0.2, 2.5)),
        high=float(rng.uniform(99.3, 99.95)),
        contrast=float(rng.uniform(0.8, 1.8)),
        gamma=float(rng.uniform(0.7, 0.95)),
        equalise=float(rng.uniform(0.3, 0.65)),
        marker=texts[rng.integers(len(texts))],
        marker_place=(round(float(rng.uniform(0.84, 0.94)), 2), round(float(rng.uniform(0.05, 0.15)), 2)),
    )


def _exposure_b(rng, front):
    """Digital radiography with a grid: less scatter, less noise, a steeper curve, collimated borders."""
    collimated = rng.random() < 0.45
    margins = tuple(float(m) for m in rng.uniform(0, 0.07, 4) * (rng.random(4) < 0.6)) if collimated else (0.0,) * 4
    return projection.Exposure(
        photons=float(np.exp(rng.normal(11.3, 0.35))),
        scatter=float(rng.uniform(0.2, 0.6) + 0.2 * front),
        blur=float(rng.uniform(0.25, 0.5)),
        low=float(rng.uniform(0.0, 1.0)),
        high=float(rng.uniform(99.8, 100)),
        contrast=float(rng.uniform(1.4, 2.8)),
        gamma=float(rng.uniform(0.6, 0.9)),
        collimation=margins,
        marker=["L", "L", ""][rng.integers(3)],
        marker_place=(round(float(rng.uniform(0.86, 0.94)), 2), round(float(rng.uniform(0.08, 0.2)), 2)),
    )


def write_patient(folder: pathlib.Path, hospital: str, index: int, *, resolution: int, seed: int) -> list[dict]:
    """Simulates patient `index` (from 1) and writes the images below `folder`.

    Everything depends on (seed, hospital, index) only. Returns the rows of the hospital's table, with a key "held_out".
    """
    rng = np.random.default_rng([seed, choices.HOSPITALS.index(hospital), index])
    anatomy = sample_anatomy(rng)
    studies = cases.sample_studies(rng, hospital)
    held_out = index % _HELD_OUT[hospital] == 0
    rows = []
    for number, study in enumerate(studies):
        # A generator of its own for each study: the number of studies does not change the pictures.
        study_rng = np.random.default_rng([seed, choices.HOSPITALS.index(hospital), index, number])
        shots = [sample_shot(study_rng, hospital, anatomy, study, resolution)]
        if hospital == "a" and study_rng.random() < 0.05:
            shots.append(sample_shot(study_rng, hospital, anatomy, study, resolution, lateral=True))
        for view, shot in enumerate(shots, 1):
            write = _write_a if hospital == "a" else _write_b
            image = picture(shot, study_rng, resolution)
            rows.append({**write(folder, index, number, view, shot, study, image, held_out), "held_out": held_out})
    return rows


def _write_a(folder, index, number, view, shot, study, image, held_out):
    lateral = view == 2
    name = f"view{view}_{'lateral' if lateral else 'frontal'}.jpg"
    path = f"{'valid' if held_out else 'train'}/patient{index:05d}/study{number + 1}/{name}"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / path, quality=95)
    row = {"Path": f"{CHEXPERT_ROOT}/{path}", "Sex": shot.anatomy.sex, "Age": shot.anatomy.age}
    row |= {"Frontal/Lateral": "Lateral" if lateral else "Frontal"}
    row |= {"AP/PA": "" if lateral else "AP" if shot.view.from_front else "PA"}
    return row | study.report


def _write_b(folder, index, number, view, shot, study, image, held_out):
    name = f"{index:08d}_{number:03d}.png"
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "images" / name, compress_level=3)
    spacing = round(10 * shot.view.field_cm / image.shape[0], 3)
    values = (name, "|".join(nih_labels(study)), number, index, shot.anatomy.age, shot.anatomy.sex[0])
    position = "AP" if shot.view.from_front else "PA"
    return dict(
        zip(NIH_COLUMNS, (*values, position, f"{image.shape[1]},{image.shape[0]}", f"{spacing},{spacing}"), strict=True)
    )


def nih_labels(study: cases.Study) -> list[str]:
    """What an NIH table says of a study: no doubt, no parents, neither devices nor fractures."""
    names = set()
    marked = {name for name, value in study.report.items() if value == 1}
    for finding in study.findings:
        if finding.name not in marked:
            continue
        if finding.name == findings.LESION:
            names.add("Mass" if findings.lesion_radius(finding) > 1.5 else "Nodule")
        elif finding.name in _NIH_NAMES:
            names.add(_NIH_NAMES[finding.name])
    return sorted(names) or [findings.NO_FINDING]


def write_tables(folder: pathlib.Path, hospital: str, rows: list[dict]) -> None:
    """Writes the hospital's tables and split lists; rows as `write_patient` returns them, in order of patient."""
    if hospital == "a":
        for name, held_out in (("train.csv", False), ("valid.csv", True)):
            lines = [",".join(CHEXPERT_COLUMNS)]
            part = [row for row in rows if row["held_out"] == held_out]
            lines += [",".join(str(row.get(column, "")) for column in CHEXPERT_COLUMNS) for row in part]
            files.write_text(folder / name, "\n".join(lines) + "\n")
        return
    # NIH's two header cells that hold a comma of their own are two columns each, unquoted.
    lines = [",".join(NIH_COLUMNS)]
    lines += [",".join(str(row[column]) for column in NIH_COLUMNS) for row in rows]
    files.write_text(folder / "Data_Entry_2017_v2020.csv", "\n".join(lines) + "\n")
    for name, held_out in (("train_val_list.txt", False), ("test_list.txt", True)):
        images = [row["Image Index"] for row in rows if row["held_out"] == held_out]
        files.write_text(folder / name, "".join(f"{image}\n" for image in images))


def count_labels(hospital: str, rows: list[dict]) -> dict[str, dict[str, int]]:
    """Counts of the frontal rows: {"labels": {label: images}, "combinations": {labels joined by |: images}}."""
    singles: dict[str, int] = {}
    combinations: dict[str, int] = {}
    for row in rows:
        if hospital == "a":
            if row["Frontal/Lateral"] != "Frontal":
                continue
            names = [label for label in LABELS if row.get(label) == 1]
        else:
            names = row["Finding Labels"].split("|")
        for name in names:
            singles[name] = singles.get(name, 0) + 1
        key = "|".join(names)
        combinations[key] = combinations.get(key, 0) + 1

    def by_count(counts):
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    return {"labels": by_count(singles), "combinations": by_count(combinations)}

"""A phantom head: axial CT slices in Hounsfield units, with the five kinds of haemorrhage where they belong.

A slice is drawn on its pixel grid from ellipses and angles in coordinates of the skull, whose inner side is the unit
circle: `r` is the distance from its centre, `angle` 0 at the forehead and growing to the patient's left. Heights run
from 0, the base of the brain, to 1, the vertex. What each bleed looks like:

- epidural: a lens between skull and dura, on a short piece of the skull, bulging inwards;
- subdural: a thin crescent along half of the skull;
- intraparenchymal: a blob in the brain with a dark rim of oedema;
- intraventricular: a level in the back of the ventricles, the head lying on it;
- subarachnoid: bright grooves between the gyri of one region, and bright cisterns at the base.

Values are those of Hounsfield's scale: air -1000, fat -80, cerebrospinal fluid 8, white matter 28, grey matter 37,
fresh blood 55 to 75, bone 600 to 1200.
"""

import dataclasses
import hashlib
import io
import pathlib
import time

import numpy as np
from scipy import ndimage

from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import BRAIN6
from tfrecords_builder.progress import progress

VERSION = 1
TABLE = "stage_2_train.csv"
IMAGES = "stage_2_train"
MARKER = "phantom.json"
SOURCE = "phantom-head"
KINDS = tuple(label for label in BRAIN6.labels if label != "any")

_FIELD = 1.25  # half of the picture's side, in halves of the head's length
_SLICES = (4, 8)  # of a patient, fewest and most
_SHARE_HEALTHY = 0.35  # of patients
_SHARE_SECOND = 0.3  # of the others: two kinds
_LEAST_PIXELS = 0.002  # of the head: what is smaller is not labelled
_NOISE = 3.5  # standard deviation in Hounsfield units at a smoothing of 0.6 pixels
_AIR, _SCALP, _FAT, _FLUID, _WHITE, _GREY = -1000.0, 35.0, -80.0, 8.0, 28.0, 37.0


@dataclasses.dataclass(frozen=True)
class Bleed:
    """One haemorrhage of a patient.

    Attributes:
        kind: one of KINDS.
        height: of its middle, 0 to 1.
        extent: half of its length in height.
        angle: of its middle.
        size: 0 (small) to 1.
        density: in Hounsfield units.
    """

    kind: str
    height: float
    extent: float
    angle: float
    size: float
    density: float

    def strength(self, height: float) -> float:
        """How much of it a slice at a height shows, 0 to 1."""
        return float(np.sqrt(max(0.0, 1 - ((height - self.height) / self.extent) ** 2)))


@dataclasses.dataclass(frozen=True)
class Head:
    """One patient: shape and position of the head, size of the ventricles, and bleeds."""

    width: float  # to length
    turn: float
    shift: tuple[float, float]
    bone: float  # thickness of the skull
    atrophy: float  # 0 to 1: wider ventricles and grooves
    bleeds: tuple[Bleed, ...]


def make_head(rng: np.random.Generator) -> Head:
    """Draws a patient."""
    number = 0 if rng.random() < _SHARE_HEALTHY else 1 + (rng.random() < _SHARE_SECOND)
    kinds = rng.choice(KINDS, number, replace=False)
    return Head(
        width=rng.uniform(0.74, 0.84),
        turn=rng.normal(0, 0.08),
        shift=(rng.normal(0, 0.04), rng.normal(0, 0.04)),
        bone=rng.uniform(0.06, 0.09),
        atrophy=rng.beta(2, 3),
        bleeds=tuple(_make_bleed(str(kind), rng) for kind in kinds),
    )


def _make_bleed(kind: str, rng: np.random.Generator) -> Bleed:
    side = rng.choice([-1, 1])
    height = {"intraventricular": 0.55, "subarachnoid": 0.35}.get(kind, rng.uniform(0.35, 0.7))
    return Bleed(
        kind=kind,
        height=height,
        extent=rng.uniform(0.25, 0.45),
        angle=side * rng.uniform(0.8, 2.2),
        size=rng.uniform(0.2, 1),
        density=rng.uniform(55, 75),
    )


def draw_slice(head: Head, height: float, resolution: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """One slice.

    Args:
        head: the patient.
        height: of the slice, 0 to 1.
        resolution: side of the picture in pixels.
        rng: of folds of the cortex and noise.

    Returns:
        float32 [R, R] in Hounsfield units, and the kinds of bleeds that it shows.
    """
    x, y = _grid(head, resolution)
    level = 0.72 + 0.28 * np.sqrt(max(0.0, 1 - (1.35 * (height - 0.4)) ** 2))  # the head is widest in the middle
    x, y = x / (head.width * level), y / level
    scale = 1 + head.bone  # of the inner side of the skull, the unit circle
    r, angle = np.hypot(x, y) * scale, np.arctan2(x, -y)
    folds = _smooth_noise(rng, resolution, 0.045)
    image = np.full(r.shape, _AIR, np.float32)
    image[r < scale + 0.1] = _FAT
    image[r < scale + 0.06] = _SCALP
    bone = (r < scale + 0.02) & (r >= 1)
    image[bone] = 900 + 250 * _smooth_noise(rng, resolution, 0.02)[bone]
    inside = r < 1
    brain = r < 0.965 - 0.03 * head.atrophy
    # Grooves reach from the surface inwards.
    grooves = brain & (r > 0.72) & (np.abs(folds) < 0.1 + 0.25 * head.atrophy)
    midline = inside & (np.abs(x) < 0.012)
    image[inside] = _FLUID
    image[brain] = _WHITE
    image[brain & (r > 0.8 + 0.05 * folds)] = _GREY
    nuclei = (((np.abs(x) - 0.3) / 0.14) ** 2 + ((y + 0.02) / 0.24) ** 2 < 1) & (abs(height - 0.5) < 0.2)
    image[nuclei] = _GREY
    image[grooves] = _FLUID
    image[midline & brain] = _GREY + 8
    ventricles = brain & _ventricles(x, y, height, head.atrophy)
    cisterns = brain & _cisterns(x, y, height)
    image[ventricles | cisterns] = _FLUID
    shown = []
    for bleed in head.bleeds:
        strength = bleed.strength(height)
        if not strength:
            continue
        if bleed.kind == "intraparenchymal":
            rim, blood = _blob(bleed, strength, x, y, folds)
            image[rim & brain & ~ventricles] = 18
            blood &= brain & ~ventricles
        elif bleed.kind == "intraventricular":
            blood = ventricles & (y > 0.35 - 0.55 * bleed.size * strength)
        elif bleed.kind == "subarachnoid":
            near = np.cos(angle - bleed.angle) > 1 - 0.9 * (0.3 + bleed.size) * strength
            blood = ((grooves | (inside & ~brain)) & near) | cisterns
        else:
            blood = inside & _at_skull(bleed, strength, r, angle)
        if blood.sum() >= _LEAST_PIXELS * (r < scale).sum():
            image[blood] = bleed.density + 4 * folds[blood]
            shown.append(bleed.kind)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, image.shape), 0.6)
    image += (noise * _NOISE / noise.std()).astype(np.float32)
    return ndimage.gaussian_filter(image, 0.003 * resolution), shown


def _grid(head: Head, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """x to the patient's left and y to the back, turned and shifted, float64 [R, R]."""
    steps = (np.arange(resolution) + 0.5) / resolution * 2 * _FIELD - _FIELD
    x, y = np.meshgrid(steps - head.shift[0], steps - head.shift[1])
    cosine, sine = np.cos(head.turn), np.sin(head.turn)
    return cosine * x + sine * y, cosine * y - sine * x


def _smooth_noise(rng: np.random.Generator, resolution: int, width: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (resolution, resolution)), width * resolution / (2 * _FIELD))
    return noise / max(noise.std(), 1e-9)


def _ventricles(x: np.ndarray, y: np.ndarray, height: float, atrophy: float) -> np.ndarray:
    """Two horns that part to front and back; below them the third ventricle."""
    wide = 0.05 + 0.06 * atrophy
    if abs(height - 0.58) < 0.22:
        bow = 0.07 + 0.45 * np.square(y - 0.05)
        horn = (np.abs(np.abs(x) - bow - wide / 2) < wide * np.sqrt(np.clip(1 - (y / 0.5) ** 2, 0, 1))) & (
            np.abs(y) < 0.5
        )
        return horn
    return (np.abs(x) < wide / 2) & (np.abs(y - 0.02) < 0.16) if abs(height - 0.33) < 0.06 else np.zeros(x.shape, bool)


def _cisterns(x: np.ndarray, y: np.ndarray, height: float) -> np.ndarray:
    """A star of five rays around the brain stem, at the base."""
    if height > 0.3:
        return np.zeros(x.shape, bool)
    r, angle = np.hypot(x, y + 0.05), np.arctan2(x, -(y + 0.05))
    return (r > 0.1) & (r < 0.2 + 0.17 * np.cos(5 * angle))


def _at_skull(bleed: Bleed, strength: float, r: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Lens (epidural) or crescent (subdural) along the inner side of the skull."""
    epidural = bleed.kind == "epidural"
    half = (0.3 + 0.25 * bleed.size) if epidural else (1.0 + 0.5 * bleed.size)
    depth = (0.16 + 0.22 * bleed.size if epidural else 0.06 + 0.09 * bleed.size) * strength
    away = (angle - bleed.angle + np.pi) % (2 * np.pi) - np.pi
    share = np.clip(1 - (away / (half * strength)) ** 2, 0, 1)
    return r > 1 - depth * (share if epidural else share**0.3) - 1e-9 * (share <= 0)


def _blob(
    bleed: Bleed, strength: float, x: np.ndarray, y: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A rim of oedema and the blood in it."""
    radius = (0.1 + 0.16 * bleed.size) * strength
    place = 0.45 * np.sin(bleed.angle), -0.45 * np.cos(bleed.angle)
    distance = np.hypot(x - place[0], y - place[1]) * (1 + 0.08 * folds)
    return distance < radius * 1.35, distance < radius


def simulate_heads(folder: pathlib.Path, *, num_patients: int, resolution: int, seed: int) -> dict:
    """Writes patients in the RSNA's layout into an existing empty folder: DICOM slices, table and marker file.

    The bytes depend on the arguments alone. Returns what result.json holds.

    Raises InputError if pydicom is not installed.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise InputError("--body=head: writes DICOM; install the extra: pip install tfcxr[dicom]") from error
    start = time.monotonic()
    (folder / IMAGES).mkdir()
    lines, counts, number = ["ID,Label"], dict.fromkeys((*KINDS, "none"), 0), 0
    with progress(num_patients, "heads", "patients") as bar:
        for patient in range(1, num_patients + 1):
            rng = np.random.default_rng([seed, patient])
            head = make_head(rng)
            heights = np.linspace(0.15, 0.85, int(rng.integers(*_SLICES, endpoint=True)))
            for index, height in enumerate(heights):
                image, shown = draw_slice(head, float(height), resolution, rng)
                name = f"ID_{hashlib.sha256(f'{seed} {patient} {index}'.encode()).hexdigest()[:9]}"
                data = _encode(image, name, f"ID_{seed:04d}{patient:05d}", index)
                (folder / IMAGES / f"{name}.dcm").write_bytes(data)
                lines += [f"{name}_{kind},{int(kind in shown)}" for kind in KINDS]
                lines.append(f"{name}_any,{int(bool(shown))}")
                for kind in shown or ["none"]:
                    counts[kind] += 1
                number += 1
            bar.update(1)
    files.write_text(folder / TABLE, "\n".join(lines) + "\n")
    marker = {"schema_version": 1, "source": SOURCE, "seed": seed, "num_patients": num_patients}
    files.write_json(folder / MARKER, {**marker, "resolution": resolution, "version": VERSION})
    seconds = time.monotonic() - start
    return {
        **marker,
        "resolution": resolution,
        "num_images": number,
        "labels": counts,
        "seconds": round(seconds, 3),
        "images_per_second": round(number / max(seconds, 1e-9), 1),
    }


def _encode(image: np.ndarray, name: str, patient: str, index: int) -> bytes:
    """A DICOM file of a slice, 16 bits with an intercept of -1024, as scanners write them."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"2.25.{int(name[3:], 16)}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.InstanceNumber = "CT", patient, index + 1
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 30, 80
    dataset.PixelData = (np.rint(image) + 1024).astype("<i2").tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()

"""Tiny data sets in the layouts that their owners document, of a few images that show nothing."""

import csv
import gzip
import json
import pathlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tfrecords_builder.labels.canonical import LABELS

SIZE = 8
MIMIC_STUDIES = {  # patient, study -> labels
    ("10000032", "50414267"): {"No Finding": "1.0"},
    ("10000032", "53189527"): {"Edema": "1.0", "Pneumonia": "-1.0"},
    ("10000764", "57375967"): {"Pleural Effusion": "1.0", "Edema": "0.0"},
    ("11000011", "51029426"): {"Pneumothorax": "1.0"},
}
VINDR_COLUMNS = (
    "Aortic enlargement",
    "Atelectasis",
    "Pleural effusion",
    "Rib fracture",
    "Other diseases",
    "No finding",
)


def write_image(path: pathlib.Path, level: int = 100) -> None:
    """A grey square, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (SIZE, SIZE), level).save(path)


def write_dicom(path: pathlib.Path, **tags: str) -> None:
    """A grey square with these elements in its header."""
    import pydicom

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Rows = dataset.Columns = SIZE
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.arange(SIZE * SIZE, dtype=np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ages such as 51, which the challenges' files have
        for name, value in tags.items():
            setattr(dataset, name, value)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def write_table(path: pathlib.Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file, gzipped if it is called so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def _values(labels: Mapping[str, str]) -> list[str]:
    return [labels.get(label, "") for label in LABELS]


def make_chexlocalize(folder: pathlib.Path) -> pathlib.Path:
    """CheXpert/test_labels.csv with 3 images of 2 patients, one lateral, and CheXpert/val_labels.csv with 1 image."""
    tables = {
        "test_labels.csv": [
            ("test/patient64741/study1/view1_frontal.jpg", {"Edema": "1", "Lung Opacity": "1"}),
            ("test/patient64741/study1/view2_lateral.jpg", {"Edema": "1", "Lung Opacity": "1"}),
            ("test/patient64742/study1/view1_frontal.jpg", {"No Finding": "1"}),
        ],
        "val_labels.csv": [("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", {"Cardiomegaly": "1"})],
    }
    for name, images in tables.items():
        rows = [[path, *(labels.get(label, "0") for label in LABELS)] for path, labels in images]
        write_table(folder / "CheXpert" / name, ["Path", *LABELS], rows)
        for path, _ in images:
            write_image(folder / "CheXpert" / path.replace("CheXpert-v1.0/valid", "val"))
    return folder


def make_mimic_cxr(folder: pathlib.Path) -> pathlib.Path:
    """The gzipped tables of MIMIC-CXR-JPG and 6 images of 4 patients: one lateral, one of a study without labels."""
    images = [
        ("02aa804e", "10000032", "50414267", "PA", "train"),
        ("174413ec", "10000032", "50414267", "LATERAL", "train"),
        ("2a2277a9", "10000032", "53189527", "AP", "train"),
        ("68b5c4b1", "10000764", "57375967", "AP AXIAL", "validate"),
        ("fffabebf", "11000011", "51029426", "", "test"),
        ("aaaaaaaa", "12000012", "59999999", "PA", "train"),
    ]
    header = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"]
    dates = {"50414267": "21800506", "53189527": "21810626", "57375967": "21331015.0"}
    rows = [
        [name, patient, study, "CHEST", view, SIZE, dates.get(study, "")] for name, patient, study, view, _ in images
    ]
    write_table(folder / "mimic-cxr-2.0.0-metadata.csv.gz", [*header, "StudyDate"], rows)
    rows = [[patient, study, *_values(labels)] for (patient, study), labels in MIMIC_STUDIES.items()]
    write_table(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", ["subject_id", "study_id", *LABELS], rows)
    rows = [[name, study, patient, split] for name, patient, study, _, split in images]
    write_table(folder / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], rows)
    for name, patient, study, *_ in images:
        write_image(folder / f"files/p{patient[:2]}/p{patient}/s{study}/{name}.jpg")
    return folder


def make_chexpert_plus(folder: pathlib.Path) -> pathlib.Path:
    """df_chexpert_plus_240401.csv, chexbert_labels/impression_fixed.json and 4 images of 3 patients, as PNG."""
    images = [
        ("train/patient42142/study5/view1_frontal.jpg", "Frontal", "AP", "patient42142", "train", {"Edema": 1.0}),
        ("train/patient42142/study5/view2_lateral.jpg", "Lateral", "", "patient42142", "train", {"Edema": 1.0}),
        ("train/patient00007/study1/view1_frontal.jpg", "Frontal", "PA", "patient00007", "train", {"No Finding": 1.0}),
        ("valid/patient64541/study1/view1_frontal.jpg", "Frontal", "AP", "patient64541", "valid", {"Pneumonia": -1.0}),
    ]
    header = [
        "path_to_image",
        "path_to_dcm",
        "frontal_lateral",
        "ap_pa",
        "deid_patient_id",
        "report",
        "sex",
        "age",
        "split",
    ]
    rows = [
        [path, path.replace(".jpg", ".dcm"), side, view, patient, "FINDINGS:\nnone, so far", "Female", "76.0", split]
        for path, side, view, patient, split, _ in images
    ]
    write_table(folder / "df_chexpert_plus_240401.csv", header, rows)
    lines = [{"path_to_image": path, **dict.fromkeys(LABELS), **labels} for path, *_, labels in images]
    (folder / "chexbert_labels").mkdir(exist_ok=True)
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "chexbert_labels" / "impression_fixed.json").write_text(text)
    for path, *_ in images:
        write_image(folder / "PNG" / path.replace(".jpg", ".png"))
    return folder


def make_rsna_pneumonia(folder: pathlib.Path, *, mappings: bool = False) -> pathlib.Path:
    """The tables of stage 2 and 4 DICOM files: a pneumonia with two boxes and one with one, a normal one, another."""
    rows = [
        ["0004cfab", "", "", "", "", 0],
        ["00436515", 264, 152, 213, 379, 1],
        ["00436515", 562, 152, 256, 453, 1],
        ["00704310", 323, 577, 160, 104, 1],
        ["003d8fa0", "", "", "", "", 0],
    ]
    write_table(folder / "stage_2_train_labels.csv", ["patientId", "x", "y", "width", "height", "Target"], rows)
    kinds = {"0004cfab": "No Lung Opacity / Not Normal", "003d8fa0": "Normal"}
    rows = [[row[0], kinds.get(str(row[0]), "Lung Opacity")] for row in rows]
    write_table(folder / "stage_2_detailed_class_info.csv", ["patientId", "class"], rows)
    names = ("0004cfab", "00436515", "00704310", "003d8fa0")
    for i, name in enumerate(names):
        tags = {"PatientID": name, "PatientSex": "FM"[i % 2], "PatientAge": f"{40 + i}", "ViewPosition": "AP"}
        write_dicom(folder / "stage_2_train_images" / f"{name}.dcm", **tags)
    if mappings:
        rows = [{"subset_img_id": name, "img_id": f"{13 + i // 2:08d}_{i:03d}.png"} for i, name in enumerate(names)]
        (folder / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(rows))
    return folder


def make_siim_acr(folder: pathlib.Path, *, patients: bool = True) -> pathlib.Path:
    """train-rle.csv with 3 images of 2 patients, one of which has two masks, and their DICOM files, in deep folders."""
    names = [f"1.2.276.0.7230010.3.1.4.8323329.{i}.15178751{i}.{i}" for i in (300, 301, 302)]
    rows = [[names[0], " 387620 23 996"], [names[0], " 1 2 9 3"], [names[1], " -1"], [names[2], "-1"]]
    write_table(folder / "train-rle.csv", ["ImageId", " EncodedPixels"], rows)
    for i, name in enumerate(names):
        tags = {"PatientID": f"p{i // 2}"} if patients else {}
        tags |= {"PatientSex": "M", "PatientAge": "51", "ViewPosition": "PA"}
        write_dicom(folder / "dicom-images-train" / f"study{i}" / f"series{i}" / f"{name}.dcm", **tags)
    return folder


def make_vindr_cxr(folder: pathlib.Path) -> pathlib.Path:
    """PhysioNet's layout: 3 training images, each read by 3 radiologists, and 1 test image; no patients, some ages."""
    rows = []
    for image, readings in {
        "000434": [("R10", "Pleural effusion"), ("R8", "Pleural effusion Rib_fracture"), ("R9", "No_finding")],
        "00053190": [("R10", "No_finding"), ("R8", "No_finding"), ("R9", "Other_diseases")],
        "0005e8e3": [("R1", "Other_diseases"), ("R2", "Other_diseases"), ("R3", "Other_diseases")],
    }.items():
        for reader, said in readings:
            names = said.replace("Pleural effusion", "Pleural_effusion").replace("_", " ")
            rows.append([image, reader, *(int(name in names) for name in VINDR_COLUMNS)])
    write_table(folder / "annotations" / "image_labels_train.csv", ["image_id", "rad_id", *VINDR_COLUMNS], rows)
    header = ["image_id", *(name.replace("diseases", "disease") for name in VINDR_COLUMNS)]
    write_table(folder / "annotations" / "image_labels_test.csv", header, [["002a34c5", 0, 1, 0, 0, 0, 0]])
    for part, names in (("train", ("000434", "00053190", "0005e8e3")), ("test", ("002a34c5",))):
        for name in names:
            write_dicom(folder / part / f"{name}.dicom", PatientSex="F", PatientAge="061Y" if part == "train" else "")
    return folder


def make_padchest(folder: pathlib.Path) -> pathlib.Path:
    """The gzipped table, and 16-bit PNGs in the folders 0 and 1: 4 images to use of 3 patients, and 3 to leave out."""
    rows = [
        ["a1.png", "0", "20140915", "S1", "P1", "1930.0", "F", "POSTEROANTERIOR", "PA", "['normal']", "Physician"],
        ["a2.png", "0", "20140915", "S1", "P1", "1930.0", "F", "LATERAL", "L", "['normal']", "Physician"],
        ["b1.png", "1", "20100101", "S2", "P2", "1950.0", "M", "", "AP_horizontal",
         "['laminar atelectasis ', 'hydropneumothorax', 'COPD signs', 'COPD signs']", "RNN_model"],
        ["c1.png", "1", "20100101", "S3", "P3", "", "M", "", "AP", "['unchanged']", "RNN_model"],
        ["d1.png", "1", "20100101", "S4", "P3", "2011.0", "M", "", "PA", "", "RNN_model"],
        ["e1.png", "1", "20100101", "S5", "P4", "1950.0", "M", "", "COSTAL", "['rib fracture']", "RNN_model"],
        ["f1.png", "1", "20100101", "S6", "P5", "1950.0", "M", "", "PA", "['pneumonia', 'suboptimal study']",
         "RNN_model"],
    ]  # fmt: skip
    header = ["ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"]
    header += ["ViewPosition_DICOM", "Projection", "Labels", "MethodLabel"]
    write_table(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", header, rows)
    for name, place, *_ in rows:
        path = folder / place / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((SIZE, SIZE), 3000, np.uint16)).save(path)
    return folder

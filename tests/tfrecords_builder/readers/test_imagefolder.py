import os

import pytest
from PIL import Image

from tfrecords_builder import readers
from tfrecords_builder.errors import InputError

VALUES = ("NORMAL:No Finding", "PNEUMONIA:Pneumonia")
KERMANY = r"(person\d+|(NORMAL2-)?IM-\d+)"


def _make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(name)).save(path, "JPEG")
    return root


def _read(root, class_values=VALUES, pattern="", **options):
    columns = readers.choose_columns("imagefolder", [], class_values, pattern)
    readers.check_header("imagefolder", root, columns=columns, official=options.get("official", False))
    return readers.read("imagefolder", root, columns=columns, **options)


def _rows(table, *columns):
    return table.frame[list(columns)].to_numpy().tolist()


def test_splits_classes_and_patients_come_from_names(tmp_path):
    names = ("train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_virus_6.jpeg")
    names += ("test/NORMAL/NORMAL2-IM-0012-0001.jpeg", "Val/PNEUMONIA/deep/person12_bacteria_1.JPG")
    table = _read(_make(tmp_path / "chest_xray", *names), pattern=KERMANY, official=True)
    assert _rows(table, "id", "patient", "fold", "Pneumonia", "No Finding") == [
        ["Val/PNEUMONIA/deep/person12_bacteria_1.JPG", "person12", "validation", 1, 0],
        ["test/NORMAL/NORMAL2-IM-0012-0001.jpeg", "NORMAL2-IM-0012", "test", 0, 1],
        ["train/NORMAL/IM-0115-0001.jpeg", "IM-0115", "train", 0, 1],
        ["train/PNEUMONIA/person1_virus_6.jpeg", "person1", "train", 1, 0],
    ]
    assert (table.dataset, table.source, table.warnings) == ("imagefolder", "folder:chest_xray", ())
    assert table.labelled == ("No Finding", "Pneumonia") and table.frame["Edema"].isna().all()
    assert [path[len(str(tmp_path)) + 1 :] for path in readers.locate(table)] == [
        f"chest_xray/{image}" for image in table.frame["id"]
    ]


def test_without_splits_and_patients(tmp_path):
    """And with the split below the class; class names that are labels need no --class_values."""
    table = _read(_make(tmp_path, "NORMAL/a.png", "NORMAL/b", "PNEUMONIA/c.dcm"))
    assert _rows(table, "id", "fold", "patient") == [["NORMAL/a.png", "", ""], ["PNEUMONIA/c.dcm", "", ""]]
    (warning,) = table.warnings
    assert warning.startswith("nothing says which patient an image is of (--patient_pattern)")
    with pytest.raises(InputError, match=r"official: .* has no folders train, val or test; choose"):
        _read(tmp_path, official=True)
    below = _read(_make(tmp_path / "below", "edema/train/a.png", "no finding/test/b.png"), ())
    assert _rows(below, "Edema", "fold") == [[1, "train"], [0, "test"]]


def test_what_systems_and_archives_leave(tmp_path):
    """Kaggle's zip holds everything twice, and macOS its own files."""
    names = [
        "train/NORMAL/a.png",
        "test/PNEUMONIA/b.png",
        "chest_xray/train/NORMAL/a.png",
        "__MACOSX/train/NORMAL/a.png",
    ]
    names += [
        "train/NORMAL/._a.png",
        "train/NORMAL/.DS_Store",
        "train/NORMAL/Thumbs.db",
        "train/.ipynb_checkpoints/x.png",
    ]
    names += ["train/NORMAL/@eaDir/a.png", "train/NORMAL/masks/a.png"]
    table = _read(_make(tmp_path / "data" / "chest_xray" / "chest_xray", *names), pattern=".*")
    assert table.frame["id"].tolist() == ["test/PNEUMONIA/b.png", "train/NORMAL/a.png"]
    assert table.warnings == (
        "1 images in folders of masks are left out",
        "1 images beside the folders of splits are left out: in chest_xray",
    )
    # Folders that hold nothing but one folder are passed over, and do not change the names of the images.
    assert _read(tmp_path / "data", pattern=".*").frame["id"].tolist() == ["test/PNEUMONIA/b.png", "train/NORMAL/a.png"]


def test_links_are_followed_once(tmp_path):
    _make(tmp_path / "elsewhere", "a.png")
    root = _make(tmp_path / "set", "PNEUMONIA/b.png")
    (root / "NORMAL").symlink_to(tmp_path / "elsewhere")
    (root / "PNEUMONIA" / "loop").symlink_to(root)
    assert _read(root).frame["id"].tolist() == ["NORMAL/a.png", "PNEUMONIA/b.png"]


def test_patterns(tmp_path):
    root = _make(tmp_path, "NORMAL/p7/image_1.png", "PNEUMONIA/p8/image_1.png")
    assert _read(root, pattern=r"p(\d+)").frame["patient"].tolist() == ["7", "8"]  # in the path
    assert _read(root, pattern=r"image_\d").frame["patient"].tolist() == ["image_1", "image_1"]  # in the name first
    for pattern, message in (
        (r"p7", r"PNEUMONIA/p8/image_1.png: --patient_pattern=p7 finds no patient in 'PNEUMONIA/p8/image_1.png'"),
        (r"p\d|(q)", r"finds no patient in '.*' in its first group; put all that stands for a patient into one pair"),
        ("(", r"--patient_pattern=\(: is no regular expression"),
    ):
        with pytest.raises(InputError, match=message):
            _read(root, pattern=pattern)


def test_folders_that_are_no_classes(tmp_path):
    root = _make(tmp_path, "train/BAC/a.png", "train/VIR/b.png", "train/NORMAL/c.png")
    with pytest.raises(
        InputError, match=r"none of the 14 labels: 'BAC, VIR'; say .* beside NORMAL, PNEUMONIA: --class"
    ):
        _read(root)
    with pytest.raises(
        InputError, match=r"--class_values=PNEUMONIA: no folder of .* is called so; there are BAC, NORMAL"
    ):
        _read(root, (*VALUES, "BAC:Pneumonia", "VIR:Pneumonia"))
    _make(root, "train/d.png")
    with pytest.raises(InputError, match=r"train/d.png: lies in no folder of a class, such as .*/train/NORMAL/d.png"):
        _read(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no PNG, JPEG or DICOM file in a folder of a class"):
        _read(tmp_path / "empty")
    with pytest.raises(InputError, match=r"t\.csv: cannot be read"):
        readers.read("imagefolder", root, labels_csv=tmp_path / "t.csv")
    with pytest.raises(InputError, match="where each class has a folder, --dataset=imagefolder needs none"):
        readers.read("folder", root)


def test_name_that_is_no_text(tmp_path):
    root = _make(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png")
    try:
        (root / "NORMAL" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(InputError, match=r"\\xff.png': this name is no UTF-8 text; rename the file"):
        _read(root)


def test_kermany(shared_dir):
    table = _read(shared_dir / "data" / "kermany", pattern=KERMANY)
    assert table.frame["No Finding"].sum() == 768 and table.frame["Pneumonia"].sum() == 2185
    assert table.frame["patient"].nunique() == 1527 and table.warnings == ()


def test_pattern_instead_of_a_column(tmp_path):
    (tmp_path / "t.csv").write_text("path,patient,Edema\nx/p1_0.png,9,1\nx/p2_0.png,9,0\n")
    columns = readers.parse_columns([], (), r"p\d")
    assert readers.read("folder", tmp_path, columns=columns).frame["patient"].tolist() == ["p1", "p2"]
    with pytest.raises(InputError, match="--patient_pattern: --columns names a column of patients; give one or the"):
        readers.parse_columns(["patient:patient"], (), "p")

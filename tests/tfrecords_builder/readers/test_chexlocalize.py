import numpy as np
import pytest

from tests import fake_data_sets
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError


@pytest.mark.parametrize("below", ["", "CheXpert"])
def test_rows(tmp_path, below):
    root = fake_data_sets.make_chexlocalize(tmp_path) / below
    readers.check_header("chexlocalize", root)
    table = readers.read("chexlocalize", root, official=True, frontal_only=False)
    assert table.frame[["id", "patient", "view", "fold"]].to_numpy().tolist() == [
        ["test/patient64741/study1/view1_frontal.jpg", "patient64741", "", "test"],
        ["test/patient64741/study1/view2_lateral.jpg", "patient64741", "LL", "test"],
        ["test/patient64742/study1/view1_frontal.jpg", "patient64742", "", "test"],
        ["CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "patient64541", "", "validation"],
    ]
    np.testing.assert_array_equal(table.frame["Edema"], [1, 1, 0, 0])
    assert table.frame["age"].tolist() == [-1] * 4 and table.dataset_name == "chexpert"
    assert [path.removeprefix(f"{tmp_path}/CheXpert/") for path in readers.locate(table)] == [
        "test/patient64741/study1/view1_frontal.jpg",
        "test/patient64741/study1/view2_lateral.jpg",
        "test/patient64742/study1/view1_frontal.jpg",
        "val/patient64541/study1/view1_frontal.jpg",
    ]
    assert len(readers.read("chexlocalize", root).frame) == 3


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no test_labels\.csv; give it by --labels_csv"):
        readers.read("chexlocalize", tmp_path)
    root = fake_data_sets.make_chexlocalize(tmp_path)
    path = root / "CheXpert" / "test_labels.csv"
    text = path.read_text()
    path.write_text(text.replace("Edema", "Oedema"))
    for look in (readers.read, readers.check_header):
        with pytest.raises(InputError, match=r"test_labels\.csv: has no column 'Edema'; .*did you mean 'Oedema'"):
            look("chexlocalize", root)
    path.write_text(text + text.splitlines()[1].replace(",1", ",0") + "\n")
    with pytest.raises(
        InputError, match=r"line 5: test/patient64741/study1/view1_frontal.jpg is listed more than once"
    ):
        readers.read("chexlocalize", root)
    path.write_text(text.replace("patient64742", "p64742"))
    with pytest.raises(InputError, match=r"line 4, column Path: no patient folder in 'test/p64742/"):
        readers.read("chexlocalize", root)
    with pytest.raises(InputError, match="--label_set=nih14: --dataset=chexlocalize has the labels of chexpert14"):
        readers.read("chexlocalize", root, label_set=labels.get_label_set("nih14"))

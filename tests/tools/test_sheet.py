"""The sheet of a record set."""

import numpy as np
from PIL import Image

from flags import app
from tests import fakes
from tfrecords_builder.labels import LABELS
from tools import sheet


def call(*arguments):
    return app.run(sheet.main, sheet.define_flags, ["sheet", *arguments])


def test_rows_are_classes_or_labels():
    vectors = np.zeros([4, 14])
    vectors[0, 0] = vectors[1, [7, 9]] = vectors[2, 9] = vectors[3, 9] = 1
    assert sheet.choose_rows(vectors, np.array([0, -1, 1, 1]), ["No Finding", "Pneumothorax"], 1, LABELS) == {
        "No Finding": [0],
        "Pneumothorax": [2],
    }
    # Alone before with others.
    assert sheet.choose_rows(vectors, np.full(4, -1), [], 2, LABELS) == {
        "No Finding": [0],
        "Pneumonia": [1],
        "Pneumothorax": [2, 3],
    }


def test_writes_a_picture(tmp_path, capsys):
    records = fakes.make_records(tmp_path / "records", label_version="multilabel")
    assert call(f"--records={records}", f"--output={tmp_path / 'sheet.png'}", "--columns=3") == 0
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    assert picture.std() > 20
    assert call(f"--records={records}", f"--output={tmp_path / 'none.png'}", "--split=holdout") == 2
    assert not (tmp_path / "none.png").exists()

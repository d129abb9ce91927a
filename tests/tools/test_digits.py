"""Two domains of digits: what differs between them, and shares of classes on demand."""

import csv
import json

import numpy as np

from flags import app
from tools import digits


def make(folder, *flags):
    return app.run(digits.main, digits.define_flags, ["digits", f"--output_dir={folder}", *flags])


def test_domains_share_no_digit_and_look_different():
    domains = digits.make_domains(0)
    (source, source_labels), (target, target_labels) = domains["source"], domains["target"]
    assert source.shape == (898, 32, 32)
    assert target.shape == (899, 32, 32)
    assert source.dtype == target.dtype == np.uint8
    assert set(source_labels) == set(target_labels) == set(range(10))
    assert source.min(axis=(1, 2)).max() == 0  # strokes on black
    assert np.mean(target < 13) < 0.3  # on a texture
    np.testing.assert_array_equal(digits.make_domains(0)["target"][0], target)
    assert (digits.make_domains(1)["target"][0] != target).any()


def test_shares_are_of_the_digit_that_keeps_most():
    labels = np.concatenate([np.repeat([0, 1, 2], [10, 20, 30]), range(3, 10)])
    kept = digits.thin_out(labels, [1, 0.5, 1, 0, 0, 0, 0, 0, 0, 0])
    assert np.bincount(labels[kept]).tolist() == [10, 5, 10]


def test_folders_have_tables_and_a_label_version(tmp_path, capsys):
    assert make(tmp_path / "d", "--target_shares=1,1,1,1,1,0.1,0.1,0.1,0.1,0.1") == 0
    with (tmp_path / "d/target/table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    counts = [sum(row["class"] == str(k) for row in rows) for k in range(10)]
    assert len(set(counts[:5])) == 1
    assert all(abs(count - counts[0] / 10) <= 0.5 for count in counts[5:])
    assert all((tmp_path / "d/target" / row["path"]).is_file() for row in rows)
    assert len({row["patient"] for row in rows}) == len(rows)
    version = json.loads((tmp_path / "d/versions.json").read_text())["digits"]
    assert version["3"]["one"] == ["3"]
    assert len(version["3"]["zero"]) == 9
    assert make(tmp_path / "e", "--target_shares=1,2") == 2
    assert "must be ten numbers" in capsys.readouterr().err

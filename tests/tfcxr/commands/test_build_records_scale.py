"""A build's memory, on tables of the size of CheXpert's; slow."""

import csv
import os
import subprocess
import sys

import pytest

from tests import fakes
from tfrecords_builder import labels, records

_DISTINCT = 50


def _make_large_chexpert(folder, num_rows):
    """CheXpert's layout with `num_rows` images, links to a few, three a patient."""
    root = folder / "CheXpert-v1.0-small"
    small = fakes.make_chexpert(folder / "small", num_patients=_DISTINCT, images_per_patient=1, num_valid=1, size=8)
    images = sorted(small.glob("train/*/*/view1_frontal.jpg"))[:_DISTINCT]
    root.mkdir(parents=True)
    with (root / "train.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels.LABELS])
        for i in range(num_rows):
            path = root / "train" / f"patient{i // 3:05d}" / f"study{i % 3}" / "view1_frontal.jpg"
            path.parent.mkdir(parents=True)
            os.link(images[i % _DISTINCT], path)
            values = ["1.0" if (i // 3) % 14 == k else "" for k in range(14)]
            table.writerow([path.relative_to(folder), "Male", 50, "Frontal", "AP", *values])
    return root


def _build(data_dir, output):
    """Runs a build in a process of its own; returns its peak memory in MiB."""
    command = [sys.executable, "-m", "tfcxr.cli", "build-records", "--dataset=chexpert", f"--data_dir={data_dir}"]
    command += ["--label_version=multilabel", "--resolution=8", f"--output_dir={output}", "--workers=2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


@pytest.mark.large
def test_memory_hardly_grows_with_the_number_of_images(tmp_path):
    peaks = {}
    for count in (20_000, 200_000):
        root = _make_large_chexpert(tmp_path / str(count), count)
        peaks[count] = _build(root, tmp_path / f"out-{count}")
        info = records.load_info(tmp_path / f"out-{count}")
        assert sum(split.num_examples for split in info.splits.values()) == count
        assert len(info.split("train").shards) == -(-info.split("train").num_examples // 1024)
    print(peaks)
    # What grows is the table: about 1 KiB a row while the shards are planned. The images of 180,000 rows, kept as the
    # reference does, would be more than that at 32 px and 9 GiB at 224.
    assert peaks[200_000] - peaks[20_000] < 350

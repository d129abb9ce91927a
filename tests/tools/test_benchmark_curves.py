import json

import pytest

from flags import app
from tests.tfcxr.studies.test_multilabel_cells import LABELS, add
from tools import benchmark_curves


def make_study(workspace, name, rows):
    """Rows of (label version, source, numbers of wrong images)."""
    cells, jobs = [], []
    for version, source, wrong in rows:
        cell, own = add(workspace, f"{name}-{version}-{source}", LABELS[:2], wrong=wrong)
        cells.append(cell | {"label_version": version, "source": source})
        jobs += own
    folder = workspace / "studies" / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({"cells": cells, "jobs": jobs}))


def test_the_gap_is_that_between_images_of_one_number(tmp_path):
    make_study(
        tmp_path,
        "benchmark_classes",
        [
            *(("classes-2", "real", (10, 0)), ("classes-2", "synthetic", (30, 0))),
            *(("classes-10", "real", (20, 0)), ("classes-10", "synthetic", (40, 40))),
        ],
    )
    rows = [
        ("samples-200", f"{kind}{n}", (wrong, 0)) for n in (50, 800) for kind, wrong in (("n", 20), ("synthetic", 50))
    ]
    make_study(tmp_path, "benchmark_samples", rows)
    flags = ["tool", f"--workspace={tmp_path}", f"--output={tmp_path / 'curves.png'}"]
    assert app.run(benchmark_curves.main, benchmark_curves.define_flags, flags) == 0
    found = json.loads((tmp_path / "curves.json").read_text())
    # Of 100 images with a label each wrong one loses all its pairs; means are over two labels.
    gaps = {name: [row["difference"]["mean"] for row in curve.values()] for name, curve in found.items()}
    assert gaps["benchmark_classes"] == pytest.approx([-0.1, -0.3])
    assert gaps["benchmark_samples"] == pytest.approx([-0.15, -0.15])
    assert list(found["benchmark_classes"]) == ["2", "10"]
    assert list(found["benchmark_samples"]) == ["50", "800"]
    low, high = found["benchmark_classes"]["2"]["difference"]["ci95"]
    assert low < -0.1 < high < 0
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_cell_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="no number"):
        benchmark_curves.find_number("samples-200", "real")

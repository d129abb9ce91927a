"""Tables and pictures of four classes, one without an image: what is null stays empty, names with bars fit a table."""

import csv

import numpy as np
import pandas as pd
import pytest

from tfcxr.evaluation import (
    metric_figures,
    metric_tables,
    operating_points,
    paired_test,
    predictions,
    subgroups,
    summary,
)

CLASSES = ["No Finding", "Pneumothorax|Edema", "Cardiomegaly", "Fracture"]


@pytest.fixture(scope="module")
def made():
    """(result, predictions) of 60 images of 30 patients; none is of class Fracture, no man has a Cardiomegaly."""
    labels = np.arange(60) % 3
    images = pd.DataFrame({"sex": np.where(labels == 2, "F", "M"), "age": [30] * 60, "view": [""] * 60})
    scores = np.random.default_rng(0).random((60, 4)) + np.eye(4)[labels]
    patients = [str(i // 2) for i in range(60)]
    model = predictions.Predictions(patients, patients, labels, scores / scores.sum(axis=1, keepdims=True))
    other = predictions.Predictions(patients, patients, labels, np.full((60, 4), 0.25))
    result = {
        **summary.summarise(model, CLASSES, resamples=50),
        "operating_points": {
            "chosen_on": {"path": None},
            "optimistic": True,
            "rows": operating_points.apply_thresholds(
                operating_points.choose_thresholds(model, CLASSES), model, CLASSES
            ),
        },
        "subgroups": subgroups.evaluate_subgroups(images, model, CLASSES, resamples=50),
        "comparison": {"with": "other", **paired_test.compare(model, other, CLASSES, resamples=50)},
        "split": "validation",
        "selection_fold": True,
        "ten_crop": False,
        "model": "run",
        "records": {"source": "fake"},
    }
    return result, model


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_confusion_matrix_shows_counts_and_shares(made):
    result, model = made
    (axes,) = metric_figures.draw_confusion(result).axes
    right = int((model.predicted[model.labels == 0] == 0).sum())
    assert texts(axes)[0] == f"{right}\n{100 * right / 20:.0f}%"
    assert texts(axes)[12:] == ["0"] * 4  # a class without an image has no shares
    assert [label.get_text() for label in axes.get_yticklabels()][2:] == ["Cardiomegaly\nn = 20", "Fracture\nn = 0"]


def test_curves_leave_out_the_class_without_an_image_and_name_the_others(made):
    result, model = made
    for draw, metric, short in [
        (metric_figures.draw_roc, "roc_auc", "AUC"),
        (metric_figures.draw_precision_recall, "average_precision", "AP"),
    ]:
        (axes,) = draw(result, model).axes
        names = [line.get_label() for line in axes.lines if "n = " in line.get_label()]
        assert [name.split(" (")[0] for name in names] == CLASSES[:3]
        assert f"(n = 20): {short} {result[metric]['per_class']['Cardiomegaly']:.2f} [" in names[2]


def test_reliability_counts_every_image(made):
    result, _ = made
    upper, lower = metric_figures.draw_reliability(result).axes
    assert sum(int(text) for text in texts(lower)) == 60
    drawn = upper.lines[1].get_ydata()
    np.testing.assert_allclose(drawn, [row["accuracy"] for row in result["reliability"] if row["count"]])


def test_groups_that_lack_a_class_say_so(made):
    result, _ = made
    figure = metric_figures.draw_subgroups(result)
    assert texts(figure.axes[0]) == ["  images are lacking"] * 4  # all, two sexes, one age
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["all  (n = 60)", "sex female  (n = 20)", "sex male  (n = 40)", "age 0-39  (n = 60)"]
    assert "validation fold (chose the weights), n = 60 images of 30 patients" in figure.get_suptitle()


def test_pictures_are_the_same_bytes_again(made, tmp_path):
    result, model = made
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths = metric_figures.draw_all(tmp_path / folder, result, model)
    assert [path.stem for path in paths] == [
        "confusion_matrix",
        "roc",
        "precision_recall",
        "reliability",
        "subgroups",
        "comparison",
    ]
    for path in paths:
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_markdown_has_dashes_for_nulls_and_whole_rows(made):
    result, _ = made
    text = metric_tables.to_markdown(result)
    assert "| balanced accuracy | – | – | 60 |" in text
    assert "| recall Fracture | – | – | 0 |" in text
    assert "Warning: class Fracture has no image." in text
    assert "60 images of 30 patients, validation fold (by which the weights were chosen)" in text
    rows = [line for line in text.replace("\\|", "/").splitlines() if line.startswith("| sex ") or " female" in line]
    assert len(rows) == 2
    assert all(row.count("|") == 6 + len(CLASSES) for row in rows)
    assert "recall Pneumothorax\\|Edema" in text


def test_empty_cells_stand_for_nulls(made, tmp_path):
    result, _ = made
    metric_tables.write_csv(tmp_path, result)
    with (tmp_path / "metrics.csv").open() as stream:
        rows = {(row["metric"], row["class"]): row for row in csv.DictReader(stream)}
    empty = rows["recall", "Fracture"]
    assert (empty["value"], empty["lo"], empty["hi"], empty["n"]) == ("", "", "", "0")
    assert float(rows["f1", "Cardiomegaly"]["value"]) == result["f1"]["per_class"]["Cardiomegaly"]
    groups = pd.read_csv(tmp_path / "subgroups.csv")
    assert groups.loc[groups["metric"] == "balanced_accuracy", "value"].isna().all()
    compared = pd.read_csv(tmp_path / "comparison.csv").set_index(["metric", "class"])
    # The other model calls everything No Finding.
    assert compared.loc[("recall", "No Finding"), "other"] == 1

"""Rows of a study against each other: gains, gaps and what is left out, by hand; and what is said of them."""

import numpy as np
import pytest

from tfcxr.evaluation import predictions
from tfcxr.studies import answer, differences, results, study_figures, study_report
from tfcxr.studies.definition import Cell
from tfcxr.studies.results import Filled

CLASSES = ["No Finding", "Pneumothorax"]
LABELS = np.repeat([0, 1], 500)


def make_cell(source, method="none", seed=0, variant="sched"):
    return Cell("v2", source, "b", method, variant if method == "none" else None, seed)


def add(workspace, cell, errors, labels=LABELS):
    """An evaluation with so many wrong images of each class; returns the filled cell."""
    predicted = labels.copy()
    for k in (0, 1):
        predicted[np.flatnonzero(labels == k)[: errors[k]]] = 1 - k
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.75, 0.25)
    ids = [str(i) for i in range(len(labels))]
    name = f"{cell.source}-{cell.method}-{cell.variant}-{cell.seed}"
    (workspace / name).mkdir(parents=True)
    path = workspace / name / predictions.FILE
    predictions.write(path, predictions.Predictions(ids, ids, labels, probabilities), CLASSES, "test")
    accuracy = 1 - np.mean([errors[k] / (labels == k).sum() for k in (0, 1)])
    result = {"balanced_accuracy": {"value": float(accuracy), "ci95": None}, "classes": CLASSES}
    return Filled(cell, result, "done", name)


@pytest.fixture
def rows(tmp_path):
    """a -> b 70%, dann 80% and 82% (two seeds), dcan 60%, b -> b 90%; worse models err where better ones do too."""
    filled = [
        add(tmp_path, make_cell("b"), (50, 50)),
        add(tmp_path, make_cell("a"), (150, 150)),
        add(tmp_path, make_cell("a", "dann", 0), (100, 100)),
        add(tmp_path, make_cell("a", "dann", 1), (90, 90)),
        add(tmp_path, make_cell("a", "dcan"), (200, 200)),
        Filled(make_cell("a", "dcan_noreg"), None, "failed: disk full", None),
    ]
    return results.group(filled)


def test_gain_lead_and_closed_gap_by_hand(rows, tmp_path):
    found, notes = differences.compare(rows, tmp_path, resamples=400)
    assert not notes
    assert make_cell("a", "dcan_noreg") not in found
    home, plain, dann, dcan = (found[make_cell(*name)] for name in (("b",), ("a",), ("a", "dann"), ("a", "dcan")))
    assert home.accuracy.value == pytest.approx(0.9)
    assert (home.gain, home.lead, home.closed) == (None, None, None)
    assert plain.gain is None
    assert plain.closed is None
    assert plain.lead.value == pytest.approx(-0.2)
    assert plain.lead.shown
    assert dann.accuracy.value == pytest.approx(0.81)
    assert dann.gain.value == pytest.approx(0.11)
    assert dann.closed.value == pytest.approx(0.55)
    # Binomial: sqrt(0.81 x 0.19 / 1000) is 0.0124, but the two seeds err on the same images mostly.
    low, high = dann.accuracy.ci95
    assert 0.035 < high - low < 0.06
    # 110 of 1,000 images differ, all the same way: sqrt(0.11 x 0.89 / 1000) is 0.0099.
    low, high = dann.gain.ci95
    assert high - low == pytest.approx(2 * 1.96 * 0.0099, rel=0.2)
    assert dcan.gain.value == pytest.approx(-0.1)
    assert dcan.closed.value == pytest.approx(-0.5)


def test_the_answer_says_what_the_numbers_show_and_no_more(rows, tmp_path):
    compared, _ = differences.compare(rows, tmp_path, resamples=400)
    said = answer.tell(rows, compared, {make_cell("a", "dann"): 0.8, make_cell("a", "dcan"): 0.9})
    assert said[0] == (
        "In short: the classifier trained otherwise is worse than the one trained on the target's own images, by "
        "more than chance explains."
    )
    assert said[1] == (
        "In short: of the 2 adapted classifiers, 1 is better than the one without adaptation and 1 worse, by more than "
        "chance explains; for 0 the difference may be chance."
    )
    start = "v2, tested on b: "
    assert said[2].startswith(
        f"{start}the classifier trained on the target's own images has a balanced accuracy of 90.0% ("
    )
    assert said[3].startswith(f"{start}the classifier trained on images of a has a balanced accuracy of 70.0% (95% int")
    assert "; that is 20.0 points less than the one trained on the target's own images (interval of the diff" in said[3]
    assert said[4].startswith(f"{start}adapted from a by dann, the classifier has 81.0% (95% interval 7")
    assert "the best of 2 methods" in said[4]
    assert "; that is 11.0 points more than without adaptation (interval of the difference: " in said[4]
    assert "closes 55% of the gap" in said[4]
    assert said[4].endswith("worse than without adaptation, by more than chance explains: dcan.")
    assert said[5] == "1 row of the table has no result; nothing is said of it."
    assert said[6] == (
        "Of the 2 published figures, 1 lies in the 95% interval of this study; on average this study is 14.5 "
        "points lower."
    )
    assert len(said) == 7


def test_a_difference_within_its_interval_is_not_called_one(tmp_path):
    filled = [add(tmp_path, make_cell("a"), (10, 10)), add(tmp_path, make_cell("a", "dann"), (11, 10))]
    rows = results.group(filled)
    compared, _ = differences.compare(rows, tmp_path, resamples=400)
    said = answer.tell(rows, compared, {})
    assert said[0] == (
        "In short: the difference between the adapted classifier and the one without adaptation may be chance."
    )
    assert "that is 0.1 points less than without adaptation" in said[-1]
    assert said[-1].endswith(", which may be chance.")
    assert compared[make_cell("a", "dann")].closed is None


def test_no_gap_is_closed_where_the_unadapted_is_not_shown_to_be_behind(tmp_path):
    filled = [
        add(tmp_path, make_cell("b"), (10, 10)),
        add(tmp_path, make_cell("a"), (11, 10)),
        add(tmp_path, make_cell("a", "dann"), (10, 10)),
    ]
    compared, _ = differences.compare(results.group(filled), tmp_path, resamples=400)
    assert compared[make_cell("a", "dann")].closed is None


def test_models_of_other_images_are_not_compared(tmp_path):
    filled = [
        add(tmp_path, make_cell("b"), (10, 10)),
        add(tmp_path, make_cell("a"), (11, 10), labels=np.repeat([0, 1], 100)),
    ]
    found, [note] = differences.compare(results.group(filled), tmp_path, resamples=20)
    assert found == {}
    assert note.startswith("v2, b: the models cannot be compared: ")
    assert "was evaluated on other images" in note


def test_lost_predictions_are_said(rows, tmp_path):
    (tmp_path / "a-none-sched-0" / predictions.FILE).unlink()
    found, [note] = differences.compare(rows, tmp_path, resamples=20)
    assert found == {}
    assert "predictions.csv: cannot be read" in note


def test_gains_are_measured_from_the_control_where_there_is_one(tmp_path):
    filled = [
        add(tmp_path, make_cell("a"), (150, 150)),
        add(tmp_path, make_cell("a", "continued"), (120, 120)),
        add(tmp_path, make_cell("a", "dann"), (100, 100)),
    ]
    rows = results.group(filled)
    found, _ = differences.compare(rows, tmp_path, resamples=200)
    gains = {cell.method: row.gain and row.gain.value for cell, row in found.items()}
    assert gains == {"none": None, "continued": pytest.approx(0.06), "dann": pytest.approx(0.04)}
    said = answer.tell(rows, found, {})
    assert said[0].startswith("In short: the adapted classifier is better than the one without adaptation")
    assert "adapted from a by dann, the classifier has 80.0%" in said[-1]


def test_what_a_start_or_a_mix_adds_is_measured_from_the_last_sets_images_alone(tmp_path):
    sources = {"b": 50, "b@10%": 200, "a>b@10%": 120, "imagenet>b@10%": 220, "b+a": 60}
    rows = results.group([add(tmp_path, make_cell(name), (wrong, wrong)) for name, wrong in sources.items()])
    found, _ = differences.compare(rows, tmp_path, resamples=200)
    gains = {name: found[make_cell(name)].gain for name in sources}
    assert gains["b"] is gains["b@10%"] is None
    assert gains["a>b@10%"].value == pytest.approx(0.16)
    assert gains["imagenet>b@10%"].value == pytest.approx(-0.04)
    assert gains["b+a"].value == pytest.approx(-0.02)
    assert found[make_cell("a>b@10%")].closed.value == pytest.approx(0.16 / 0.3)
    said = answer.tell(rows, found, {})
    assert said[1] == (
        "In short: of the 3 pretrained or mixed classifiers, 1 is better than the one of the last set's images alone "
        "and 2 worse, by more than chance explains; for 0 the difference may be chance."
    )
    assert "16.0 points more than the one of the last set's images alone" in " ".join(said)


def worth_rows(tmp_path, synthetic):
    """b, a quarter and a hundredth of it: 90%, 80%, 60%; and synthetic images with so many errors of each class."""
    return results.group(
        [
            add(tmp_path, make_cell("b"), (50, 50)),
            add(tmp_path, make_cell("b@25%"), (100, 100)),
            add(tmp_path, make_cell("b@1%"), (200, 200)),
            add(tmp_path, make_cell("a>b@25%"), (70, 70)),
            add(tmp_path, make_cell("a"), (synthetic, synthetic)),
        ]
    )


def test_what_a_row_is_worth_in_labels_by_hand(tmp_path):
    rows = worth_rows(tmp_path, 75)  # 85%: halfway between a quarter and all, by logarithm a half
    found, _ = differences.compare(rows, tmp_path, resamples=400)
    worth = found[make_cell("a")].worth
    assert worth.value == pytest.approx(0.5)
    assert worth.least == 0.01
    assert 0.25 < worth.ci95[0] < 0.5 < worth.ci95[1] < 1
    assert found[make_cell("b@25%")].worth is None
    assert found[make_cell("a>b@25%")].worth is None  # it learned labels of b
    said = answer.tell(rows, found, {})
    assert any("worth those of 50.0% of the target's patients with their labels (interval " in text for text in said)


@pytest.mark.parametrize(
    ("errors", "value", "words"),
    [(25, 1.0, "at least 100.0% of the target's patients"), (240, 0.01, "at most 1.0% of the target's patients")],
)
def test_what_lies_beyond_the_curve_is_said_to(tmp_path, errors, value, words):
    rows = worth_rows(tmp_path, errors)
    found, _ = differences.compare(rows, tmp_path, resamples=400)
    assert found[make_cell("a")].worth.value == pytest.approx(value)
    assert any(words in text for text in answer.tell(rows, found, {}))


def test_a_curve_that_falls_is_taken_as_flat(tmp_path):
    filled = [add(tmp_path, make_cell("b"), (50, 50)), add(tmp_path, make_cell("b@10%"), (40, 40))]
    rows = results.group([*filled, add(tmp_path, make_cell("a"), (60, 60))])
    found, _ = differences.compare(rows, tmp_path, resamples=400)
    assert found[make_cell("a")].worth.value == pytest.approx(0.1)
    assert differences.find_curve("b", rows) == {0.1: make_cell("b@10%"), 1.0: make_cell("b")}


def test_without_parts_of_the_target_nothing_is_worth_anything(rows, tmp_path):
    found, _ = differences.compare(rows, tmp_path, resamples=400)
    assert all(row.worth is None for row in found.values())


def test_the_picture_and_the_cell_of_what_a_row_is_worth(tmp_path):
    found, _ = differences.compare(worth_rows(tmp_path, 75), tmp_path, resamples=400)
    axes = study_figures.draw_worth("b", found, "balanced accuracy").axes[0]
    [marks] = [line for line in axes.lines if line.get_marker() == "D"]
    assert (marks.get_xdata()[0], marks.get_ydata()[0]) == (pytest.approx(50), pytest.approx(85))
    [curve] = [line for line in axes.lines if line.get_marker() == "o"]
    assert curve.get_xdata().tolist() == pytest.approx([1, 25, 100])
    assert curve.get_ydata().tolist() == pytest.approx([60, 80, 90])
    worth = differences.Worth(0.5, (0.01, 1.0), 0.01)
    assert study_report.describe_worth(worth) == "50.0% (≤ 1.0–≥ 100.0)"
    assert study_report.describe_worth(None) == "–"

"""What a model card says of how the weights were chosen and how good they are."""

import pytest

from tfcxr.serving import model_cards

CONFIG = {
    "kind": "dcan",
    "alignment": "dcan_noreg",
    "classes": ["A", "B"],
    "multilabel": False,
    "label_version": "v",
    "backbone": "resnet50",
    "image_size": 224,
    "resolution": 256,
    "aspect": "pad",
    "contrast": "max",
    "records": {"source_records": "s" * 64, "target_records": "t" * 64},
}


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("source", "source validation images: 80.0% (chosen on them, so optimistic). "),
        ("target", "This used labels of the target domain."),
        ("entropy", "source validation images: 80.0%. "),
    ],
)
def test_selection(select, words):
    best = {"step": 7, "source/balanced_accuracy": 0.8, "target/balanced_accuracy": None}
    result = {"best": best, "select": select, "selected_on_target_labels": select == "target"}
    card = model_cards.classifier_card(CONFIG, {**result, "best": {**best, "target/balanced_accuracy": 0.614}})
    assert f"Weights of step 7, chosen by: {select}." in card
    assert words in card
    assert "target validation images: 61.4%" in card
    assert ("used labels of the target" in card) == (select == "target")
    assert "target validation images" not in model_cards.classifier_card(CONFIG, result)
    assert "without its regulariser" in card and "s" * 64 in card


def test_a_baseline_names_its_one_validation_fold():
    result = {"best": {"step": 7, "validation/balanced_accuracy": 0.9}, "select": "source"}
    card = model_cards.classifier_card({**CONFIG, "kind": "baseline"}, result)
    assert "Balanced accuracy there on validation images: 90.0% (chosen on them, so optimistic)." in card
    assert "trained on labelled images." in card


def test_numbers_that_an_evaluation_lacks_are_dashes():
    evaluation = {
        "records": {"source": "chexpert"},
        "split": "test",
        "num_images": 20,
        "num_patients": None,
        "balanced_accuracy": {"value": None, "ci95": None},
        "recall": {"A": {"value": 0.25, "ci95": None}, "B": {"value": None, "ci95": None}},
    }
    assert "| chexpert | test | 20 | – | – | 25.0 | – |" in model_cards.classifier_card(CONFIG, {}, [evaluation])


def test_of_labels_each_has_its_score():
    config = {**CONFIG, "kind": "baseline", "multilabel": True}
    evaluation = {
        "records": {"source": "chexpert"},
        "split": "test",
        "num_images": 20,
        "num_patients": 9,
        "mean_of": ["A"],
        "roc_auc": {
            "macro": 0.75, "macro_ci95": [0.7, 0.8],
            "per_class": {"A": 0.75, "B": None}, "per_class_ci95": {"A": [0.7, 0.8], "B": None},
        },
    }  # fmt: skip
    best = {"step": 7, "validation/roc_auc": 0.9}
    card = model_cards.classifier_card(config, {"best": best, "select": "source"}, [evaluation])
    assert "Probabilities of labels that do not exclude each other" in card
    assert "Mean ROC-AUC there on validation images: 90.0% (chosen on them, so optimistic)." in card
    assert "| chexpert | test | 20 | 9 | 75.0 (70.0–80.0) (1) | 75.0 (70.0–80.0) | – |" in card


def test_unknown_pictures_are_a_guess():
    guess = "--aspect=stretch and --contrast=none are a guess"
    assert guess not in model_cards.classifier_card(CONFIG, {})
    assert guess in model_cards.classifier_card({**CONFIG, "aspect": "", "contrast": ""}, {})

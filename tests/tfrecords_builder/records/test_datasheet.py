import dataclasses

import pytest

from tests.described_sets import DIGEST, make_info
from tfrecords_builder.records import datasheet

REPORT = {
    "tables": {"train.csv": "ab" * 32},
    "rows": 9,
    "skipped": {"no label": 3, "in no class of a|b": 2},
    "warnings": ["the test split has no image of class 'Pneumothorax'"],
    "hierarchy": {"Edema without Lung Opacity": 4},
    "duplicates": {"images": 2, "across_patients": 1, "across_splits": 0, "examples": [["a.jpg", "b.jpg"]]},
    "written": 4,
    "splits": {},
}


def _synthetic(**values):
    values = {"source": "synthetic:gan", "dataset": "synthetic", "split_policy": "index", **values}
    return make_info(uncertain="", view="", aspect="", contrast="", **values)


def _section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_counts():
    text = _section(datasheet.render(make_info(), REPORT), "Composition")
    assert "|  | train | test | all |\n|---|---:|---:|---:|\n| images | 3 | 1 | 4 |\n| patients | 2 | 1 | 3 |\n" in text
    assert "| No Finding | 2 | 1 | 3 |\n| Pneumothorax | 1 | 0 | 1 |\n" in text
    assert "| Edema | 3 | 1 | 4 |\n" in text and "| Fracture | 0 | 0 | 0 |\n" in text


def test_labels():
    text = _section(datasheet.render(make_info(), REPORT), "Labels")
    assert "extracted from the text of the radiology reports" in text
    assert "| Pneumothorax | Pneumothorax present; No Finding absent; any value of the other labels |" in text
    assert "policy `zeros`: an uncertain label counts as absent (0)" in text
    assert "| Edema without Lung Opacity | 4 |" in text
    text = _section(datasheet.render(make_info("multilabel", uncertain="zeros,Edema:ones"), {}), "Labels")
    assert "there are no classes" in text and "other policies for single labels: Edema:ones. A label" in text
    assert "| class |" not in text and "hierarchy" not in text


def test_images():
    text = _section(datasheet.render(make_info(aspect="crop", contrast="percentile"), {}), "Images")
    for words in ("BT.601", "64 x 64 pixels, bilinear", "antialiased", "8-bit grey PNG", "`crop`", "`percentile`"):
        assert words in text


@pytest.mark.parametrize(
    ("policy", "words", "total"),
    [
        ("patient", "all images of a patient are in one split", "3"),
        ("official", "those that the data set declares itself", "3"),
        ("kfold", "folds of whole patients", "3"),
        ("image", "**Images of one patient may be in several splits, so scores", "–"),
        ("lists", "as given by split lists", "3"),
        ("another", "Policy `another`. How many", "3"),
    ],
)
def test_splits(policy, words, total):
    text = datasheet.render(make_info(split_policy=policy), REPORT)
    assert words in _section(text, "Splits")
    # The patients of the splits are added up only where none is counted twice.
    assert f"| patients | 2 | 1 | {total} |" in text
    assert "| split fractions | 0.8, 0.0, 0.2 |" in text and "| seed | 3 |" in text and "| limit | 0 |" in text


def test_what_was_left_out():
    text = _section(datasheet.render(make_info(), REPORT), "What was left out, and what to know")
    assert "have 9 rows; the record set has 4 images" in text
    assert "| no label | 3 |\n| in no class of a\\|b | 2 |\n" in text and "skipped.csv names" in text
    assert "| images that repeat the pixels of another | 2 |" in text
    assert "- the test split has no image of class 'Pneumothorax'\n" in text
    clean = {"skipped": {}, "warnings": [], "duplicates": {"images": 0, "across_patients": 0, "across_splits": 0}}
    text = _section(datasheet.render(make_info(), clean), "What was left out, and what to know")
    assert text.strip() == "Nothing was left out.\n\nNo two images have the same pixels."


def test_privacy():
    plain = _section(datasheet.render(make_info(), {}), "Privacy")
    assert "ids are those of the source's table" in plain and "salted" not in plain
    hashed = _section(datasheet.render(make_info(hashed_patients=True), {}), "Privacy")
    assert "salted hashes" in hashed and "--hash_patient_ids" not in hashed
    phantom = _section(datasheet.render(make_info(source="phantom-a"), {}), "Privacy")
    assert phantom.strip() == "The images show no real patients."


@pytest.mark.parametrize(
    ("source", "words", "limits"),
    [
        ("chexpert", ["non-commercial research", "forbids passing on", "aimi.stanford.edu", "Irvin"], "label noise"),
        ("chestxray", ["https://nihcc.app.box.com/v/ChestXray-NIHCC", "acknowledge", "Wang"], "label noise"),
        ("phantom-a", ["Apache-2.0"], "stand-in"),
        ("synthetic:gan", ["inherit the terms"], "may not show what its label says"),
        ("folder:mine", ["ask the owner"], "owner of the data"),
        ("fake", ["ask the owner"], "owner of the data"),
    ],
)
def test_terms_citation_and_limits(source, words, limits):
    text = datasheet.render(make_info(source=source), REPORT)
    terms = _section(text, "Distribution: terms of use and how to cite")
    assert all(word.lower() in terms.lower() for word in words)
    assert ("```bibtex\n@inproceedings" in terms) == (source in ("chexpert", "chestxray"))
    assert limits in _section(text, "Known limits")
    assert "medical device" in text


def test_synthetic():
    info = _synthetic(provenance={"generator": "gan", "kimg": 12.5, "trained_on": {"records": DIGEST}})
    info = dataclasses.replace(
        info, splits={k: dataclasses.replace(s, num_patients=None) for k, s in info.splits.items()}
    )
    text = datasheet.render(info, {"label_source": "balanced", "skipped": {}})
    assert text.startswith("# Datasheet: Synthetic images of the run gan, v1_xs, 64 px\n")
    assert "| patients | – | – | – |" in text
    assert f"- records: {DIGEST}" in _section(text, "Images") and "BT.601" not in text
    assert "| generator | gan |\n| kimg | 12.5 |" in text
    assert "condition that the GAN was given" in text and "Uncertain" not in text
    assert "can repeat its training images" in _section(text, "Privacy")
    assert "| trained on |" not in text and "skipped.csv" not in text


def test_reading():
    text = _section(datasheet.render(make_info(), REPORT), "How to read it")
    for words in ('read_records(".", "train")', 'builder_from_directory(".")', "verify-records --records=."):
        assert words in text


def test_markup_from_outside_is_text():
    text = datasheet.render(make_info(source="folder:<b>*x*"), {"warnings": ["a\n# b | `c` [d](e)"]})
    assert "# Datasheet: Images of a folder: \\<b>\\*x\\*, v1_xs" in text
    assert "- a # b \\| \\`c\\` \\[d](e)\n" in text


def test_equal_sets_give_equal_text():
    text = datasheet.render(make_info(), REPORT)
    assert text == datasheet.render(make_info(), REPORT)
    assert text.endswith("\n") and "\n\n\n" not in text and DIGEST in text
    assert "{{" not in text.replace("{{CheXpert}", "") and "{%" not in text


def test_policies_of_single_labels():
    text = datasheet.render(make_info(uncertain="Edema:drop"), {})
    assert "an uncertain label counts as absent (0); other policies for single labels: Edema:drop" in text

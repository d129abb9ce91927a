"""Label sets: the built-in ones, those of files, and that nobody else knows them."""

import json
import pathlib
import re

import numpy as np
import pytest

from tfrecords_builder import labels
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations, label_sets

ROOT = pathlib.Path(__file__).parents[3]
PADCHEST = {
    "name": "tb",
    "labels": ["normal", "tuberculosis", "cavitation"],
    "no_finding": "normal",
    "parents": {"cavitation": "tuberculosis"},
    "synonyms": {"TB": "tuberculosis"},
}


def test_built_in_sets():
    assert {name: len(label_set) for name, label_set in labels.LABEL_SETS.items()} == {
        "chexpert14": 14,
        "nih14": 15,
        "brain6": 6,
        "brain_benchmark": 6,
    }
    assert labels.get_label_set("brain6").no_finding == ""
    assert labels.get_label_set("brain6").parents["subdural"] == ("any",)
    nih, chexpert = labels.get_label_set("nih14"), labels.DEFAULT
    assert nih.match("Pleural_Thickening") == "Pleural Thickening" and chexpert.match("Pleural_Thickening") is None
    assert chexpert.match("effusion") == "Pleural Effusion" and nih.match("pleural effusion") == "Effusion"
    for word in ("PleuralEffusion", "pleural-effusion ", "PLEURAL_EFFUSION", "Pleural  Effusions"):
        assert chexpert.match(word) == "Pleural Effusion", word
    assert chexpert.match("Mass") is None and nih.match("Pulmonary fibrosis") == "Fibrosis"


def test_sets_that_differ_in_words_alone_are_equal():
    """Records hold the words of their time."""
    earlier = labels.make_label_set({**labels.DEFAULT.to_dict(), "synonyms": {}})
    assert earlier == labels.DEFAULT and label_sets.to_settings(earlier) == {}


def test_a_file_is_read(tmp_path):
    path = tmp_path / "tb.json"
    path.write_text(json.dumps(PADCHEST))
    label_set = labels.get_label_set(str(path))
    assert label_set.labels == ("normal", "tuberculosis", "cavitation") and label_set.match("tb") == "tuberculosis"
    assert label_set.count_orphans(np.array([[0, 0, 1], [0, 1, 1]])) == {"cavitation without tuberculosis": 1}
    assert labels.make_label_set(label_set.to_dict()) == label_set
    assert list(labels.built_in_versions(label_set)) == ["multilabel"]
    (version,) = labels.load_label_versions(_write_version(tmp_path), label_set).values()
    assert labels.assign(version, np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]])).tolist() == [0, 1, 1]
    assert labels.assign(version, np.eye(3)[:1], np.array(["scoliosis"], object)).tolist() == [-1]


def _write_version(folder):
    path = folder / "versions.json"
    rules = {"normal": {"one": ["normal"], "zero": "others"}, "TB": {"one": ["tuberculosis"], "zero": ["normal"]}}
    path.write_text(json.dumps({"tb": rules}))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 1}, "unknown key 'label'"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"labels": []}, "labels must be a list"),
        ({"labels": ["a", "A"]}, "'A' is given twice"),
        ({"labels": ["a|b"]}, "no name of a label"),
        ({"labels": [str(i) for i in range(21)]}, "gives 21 of them; at most 20"),
        ({"no_finding": "healthy"}, "no_finding: 'healthy' is none of the labels"),
        ({"parents": {"cavitation": "lung"}}, "parents: 'lung' is none of the labels"),
        ({"synonyms": {"x": "y"}}, "synonyms: 'y', which 'x' stands for, is none"),
        ({"synonyms": {"Normal": "tuberculosis"}}, "'Normal' is a label itself"),
        ({"name": "nih14"}, "the name nih14 is taken"),
    ],
)
def test_faults_of_a_file(tmp_path, change, message):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(PADCHEST | change))
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        labels.get_label_set(str(path))
    assert str(raised.value).startswith(f"--label_set={path}: ") and "\n" not in str(raised.value)


def test_faults_of_a_name(tmp_path):
    with pytest.raises(InputError, match="neither a file nor one of chexpert14, nih14, brain6"):
        labels.get_label_set("nih15")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        labels.get_label_set(str(tmp_path / "a.json"))
    with pytest.raises(InputError, match="needs labels that the label set brain6 has not"):
        labels.get_label_version("v1_0s", label_set=labels.get_label_set("brain6"))


def test_versions_of_nih14_leave_out_rows_with_its_other_findings():
    nih = labels.get_label_set("nih14")
    version = labels.get_label_version("v1_0s", label_set=nih)
    vectors = np.zeros([2, len(nih)])
    vectors[:, nih.index["Pneumothorax"]] = 1
    vectors[1, nih.index["Hernia"]] = 1
    assert labels.assign(version, vectors).tolist() == [1, -1]


def test_codes_of_more_than_16_labels():
    names = [f"l{i}" for i in range(20)]
    codes = combinations.encode(np.eye(20))
    assert codes.dtype == np.uint32 and combinations.names(codes[0], names) == ["l0"]
    counts = combinations.count(codes[:2], 20)
    assert combinations.rank(counts).tolist() == [2**19, 2**18] and len(counts) == 2**20


def test_settings_of_runs_before_there_were_label_sets():
    assert label_sets.to_settings(labels.DEFAULT) == {} and label_sets.of_settings({}) == labels.DEFAULT
    nih = labels.get_label_set("nih14")
    assert label_sets.of_settings(json.loads(json.dumps(label_sets.to_settings(nih)))) == nih


def test_no_other_module_counts_the_labels():
    """The number of labels stands nowhere but in label sets: neither in code nor in words that users read."""
    found = []
    phrase = re.compile(r"\b14 (canonical )?(labels|CheXpert)|\[\w+, 14\]|num_labels\D{0,8}\b14\b|2\^14|all 14\b")
    for package in ("tfcxr", "tfrecords_builder", "flags", "tools"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "label_sets.py":
                lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                found += [f"{path.relative_to(ROOT)}:{number}: {line}" for number, line in lines if phrase.search(line)]
    assert not found, "\n".join(found)

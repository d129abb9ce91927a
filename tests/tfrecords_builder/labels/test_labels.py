import json

import numpy as np
import pytest

from tests import fakes
from tfrecords_builder import labels
from tfrecords_builder.errors import InputError

# Label sets, and the class that each version gives them (in the order of the columns below).
VERSIONS = ("v1_0s", "v1_xs", "v2", "v2_thesis", "v3_0s", "v3_xs")
CASES = [
    (("No Finding",), ("No Finding",) * 6),
    (("No Finding", "Support Devices"), (None, "No Finding", None, None, None, "No Finding")),
    (("Pneumothorax",), ("Pneumothorax", "Pneumothorax", "Finding", "Finding", "Pneumothorax", "Pneumothorax")),
    (("Pneumothorax", "Support Devices"), (None, "Pneumothorax", "Finding", None, None, "Pneumothorax")),
    (("Pneumothorax", "Pneumonia"), (None, "Pneumothorax", "Finding", "Finding", None, None)),
    (("Pneumonia",), (None, None, "Finding", "Finding", "Pneumonia", "Pneumonia")),
    (("Cardiomegaly", "Edema"), (None, None, "Finding", "Finding", None, "Cardiomegaly")),
    (("Cardiomegaly",), (None, None, "Finding", "Finding", "Cardiomegaly", "Cardiomegaly")),
    (("Support Devices",), (None, None, "Finding", None, None, None)),
    ((), (None, None, None, "Finding", None, None)),
]
VECTORS = np.stack([fakes.make_vector(names) for names, _ in CASES])


def _names(version, index):
    return [version.class_names[i] if i >= 0 else None for i in index]


@pytest.mark.parametrize("name", VERSIONS)
def test_assign_every_version(name):
    version = labels.get_label_version(name)
    expected = [classes[VERSIONS.index(name)] for _, classes in CASES]
    index = labels.assign(version, VECTORS)
    assert index.dtype == np.int64
    assert _names(version, index) == expected
    assert labels.select(version, VECTORS).tolist() == [c is not None for c in expected]


@pytest.mark.parametrize(
    ("name", "labels_", "expected"),
    [
        ("v1_0s", ("No Finding",), None),
        ("v1_0s", ("Pneumothorax",), None),
        ("v1_xs", ("No Finding",), None),
        ("v1_xs", ("Pneumothorax",), "Pneumothorax"),
        ("v2", ("Edema",), "Finding"),
        ("v2", (), None),
        ("v3_0s", ("Cardiomegaly",), None),
        ("v3_xs", ("Cardiomegaly",), "Cardiomegaly"),
    ],
)
def test_findings_outside_the_14_exclude_no_finding_and_0s_classes(name, labels_, expected):
    version = labels.get_label_version(name)
    index = labels.assign(version, fakes.make_vector(labels_)[None], np.array(["Hernia|Mass"], object))
    assert _names(version, index) == [expected]


def test_multilabel_selects_rows_with_a_label():
    version = labels.get_label_version("multilabel")
    assert version.multilabel and version.class_names == ()
    assert (labels.assign(version, VECTORS) == -1).all()
    assert labels.select(version, VECTORS).tolist() == [bool(names) for names, _ in CASES]


def test_uncertain_policies():
    values = np.full((3, 14), np.nan)
    values[:, labels.LABELS.index("Pneumothorax")] = 1
    values[0, labels.LABELS.index("Edema")] = -1
    values[1, labels.LABELS.index("No Finding")] = -1
    values[2, labels.LABELS.index("Fracture")] = 0
    edema = labels.LABELS.index("Edema")
    xs = labels.get_label_version("v1_xs")
    vectors, kept = labels.apply_uncertain(xs, values, "zeros")
    assert vectors.dtype == np.float32 and vectors.sum(axis=1).tolist() == [1, 1, 1] and kept.all()
    vectors, kept = labels.apply_uncertain(xs, values, "ones")
    assert vectors.sum(axis=1).tolist() == [2, 2, 1] and vectors[0, edema] == 1 and kept.all()
    # v1_xs looks at No Finding and Pneumothorax only; v1_0s and multilabel at all 14.
    vectors, kept = labels.apply_uncertain(xs, values, "drop")
    assert kept.tolist() == [True, False, True] and vectors[0, edema] == 0
    for name in ("v1_0s", "multilabel"):
        _, kept = labels.apply_uncertain(labels.get_label_version(name), values, "drop")
        assert kept.tolist() == [False, False, True]
    with pytest.raises(InputError, match="--uncertain=maybe"):
        labels.apply_uncertain(xs, values, "maybe")


def test_satisfies():
    version = labels.get_label_version("v1_xs")
    vectors = np.stack([fakes.make_vector(("Pneumothorax", "Edema")), fakes.make_vector(("No Finding",))])
    assert labels.satisfies(version, 1, vectors).tolist() == [True, False]
    assert labels.satisfies(version, np.array([1, 0]), vectors).tolist() == [True, True]
    assert labels.satisfies(version, -1, vectors).tolist() == [False, False]
    multilabel = labels.get_label_version("multilabel")
    assert labels.satisfies(multilabel, -1, np.array([[0] * 14, [1] * 14])).tolist() == [False, True]


@pytest.mark.parametrize("version", labels.LABEL_VERSIONS.values(), ids=labels.LABEL_VERSIONS)
def test_classes_exclude_each_other(version):
    vectors = np.random.default_rng(0).integers(0, 2, (4000, 14))
    vectors = np.concatenate([vectors, np.eye(14, dtype=vectors.dtype), VECTORS])
    members = np.array([label_class.contains(vectors) for label_class in version.classes]).reshape(-1, len(vectors))
    assert members.sum(axis=0).max(initial=0) <= 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"A": {"one": ["Edema"]}, "B": {"one": ["Fracture"]}}, "'A' and 'B' do not exclude"),
        ({"A": {"any": ["Edema", "Fracture"]}, "B": {"zero": ["Edema"]}}, "'A' and 'B' do not exclude"),
        ({"A": {"two": ["Edema"]}}, "unknown key 'two'"),
        (
            {"A": {"one": ["Edema"], "zero": ["Edema"]}},
            "no row can be in class 'A': 'Edema' is in its one and in its zero",
        ),
        ({"A": {"one": ["Tuberculosis"]}, "B": {"one": ["Edema"]}}, "'A' and 'B' do not exclude"),
        ({"A": {"one": "Edema"}}, "class 'A': one must be a list"),
        ({"A": {"one": ["Edema", 3]}}, "class 'A': one must be a list"),
        ({"A": {"any": ["Edema", "Edema"]}}, "class 'A': any must be a list of different labels"),
        ({"A": {"zero": ["Mass|Nodule"]}}, "class 'A': zero must be a list"),
        ({"A": {"zero": None}}, "class 'A': zero must be a list"),
        ({"A": ["Edema"]}, "class 'A' must be an object"),
        ({"A": {"zero": ["Edema"], "any": ["Edema"]}}, "no row can be in class 'A'"),
    ],
)
def test_bad_version(table, message):
    with pytest.raises(InputError, match=message):
        labels.make_label_version("mine", table)


def test_exclusion_by_any_is_understood():
    labels.make_label_version("mine", {"A": {"any": ["Edema", "Fracture"]}, "B": {"zero": ["Edema", "Fracture"]}})


def test_unknown_version_lists_the_known():
    with pytest.raises(InputError, match="v1_0s"):
        labels.get_label_version("v9")


# A folder set that knows Tuberculosis and Mass beside the 14 labels.
TB = {
    "Normal": {"one": ["No Finding"]},
    "Tuberculosis": {"one": ["Tuberculosis"], "zero": "others"},
    "Other": {"zero": ["No Finding", "Tuberculosis"], "any": ["Mass", "Pneumonia"]},
}


@pytest.mark.parametrize(
    ("names", "extra", "expected"),
    [
        (("No Finding",), "", "Normal"),
        (("No Finding", "Support Devices"), "", "Normal"),
        (("No Finding",), "Mass", None),  # No Finding forbids findings that it does not name
        ((), "Tuberculosis", "Tuberculosis"),
        ((), "Mass|Tuberculosis", None),  # alone means alone
        (("Edema",), "Tuberculosis", None),
        ((), "Mass", "Other"),
        ((), "Mass|Hernia", "Other"),
        (("Pneumonia",), "Hernia", "Other"),
        (("Pneumonia",), "Tuberculosis|Mass", None),
        ((), "Hernia", None),
    ],
)
def test_versions_that_name_extra_findings(names, extra, expected):
    version = labels.make_label_version("tb", TB)
    vectors, extra = fakes.make_vector(names)[None], np.array([extra], object)
    assert _names(version, labels.assign(version, vectors, extra)) == [expected]
    assert labels.select(version, vectors, extra).tolist() == [expected is not None]
    members = [c.name for c in version.classes if c.contains(vectors, extra)[0]]
    assert members == [expected][: len(members)] and len(members) == (expected is not None)


def test_extra_findings_of_a_version():
    version = labels.make_label_version("tb", TB)
    assert version.extra_findings == ("Mass", "Tuberculosis")
    assert version.constrained == frozenset(labels.LABELS)
    assert labels.get_label_version("v2").extra_findings == ()
    assert not labels.satisfies(version, 1, fakes.make_vector(())[None])[0]


def test_many_rows_at_once():
    rng = np.random.default_rng(0)
    version = labels.make_label_version("tb", TB)
    choices = np.array(["", "Mass", "Tuberculosis", "Hernia|Mass"], object)
    vectors, extra = rng.random((5000, 14)) < 0.05, rng.choice(choices, 5000)
    index = labels.assign(version, vectors, extra)
    one_by_one = [labels.assign(version, vectors[i : i + 1], extra[i : i + 1])[0] for i in range(0, 5000, 50)]
    assert index[::50].tolist() == one_by_one
    assert set(index) == {-1, 0, 1, 2}
    assert labels.assign(version, vectors[:0], extra[:0]).shape == (0,)


@pytest.mark.parametrize("name", [*labels.LABEL_VERSIONS, "tb"])
def test_definition_makes_the_same_version(name):
    version = {**labels.LABEL_VERSIONS, "tb": labels.make_label_version("tb", TB)}[name]
    definition = json.loads(json.dumps(version.definition()))
    assert labels.make_label_version(name, definition) == version
    assert "others" not in json.dumps(definition)
    assert (definition == {}) == version.multilabel


def test_vocabulary():
    version = labels.make_label_version("tb", TB)
    labels.check_vocabulary(version, ["Mass", "Tuberculosis", "Hernia"])
    with pytest.raises(InputError, match=r"version tb: class 'Tuberculosis' names 'Tuberculosis', .* 'tuberculoses'"):
        labels.check_vocabulary(version, ["Mass", "tuberculoses"])
    typo = labels.make_label_version("mine", {"A": {"one": ["oedema"]}, "B": {"zero": ["oedema"]}})
    with pytest.raises(InputError, match=r"'oedema', .* did you mean 'Edema'"):
        labels.check_vocabulary(typo, [])
    far = labels.make_label_version("mine", {"A": {"one": ["xyz"]}, "B": {"zero": ["xyz"]}})
    with pytest.raises(InputError, match=r"known: No Finding, .*, Support Devices, Hernia$"):
        labels.check_vocabulary(far, ["Hernia"])


def _write(tmp_path, text):
    path = tmp_path / "versions.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def test_load_label_versions(tmp_path):
    pair = {"Normal": {"zero": ["Pneumonia"]}, "Pneumonia": {"one": ["Pneumonia"]}}
    versions = labels.load_label_versions(_write(tmp_path, {"tb": TB, "Kermany_2-x.1": pair}))
    assert list(versions) == ["tb", "Kermany_2-x.1"]
    assert versions["tb"] == labels.make_label_version("tb", TB)
    assert labels.get_label_version("tb", versions) is versions["tb"]
    assert labels.get_label_version("v2", versions) is labels.LABEL_VERSIONS["v2"]
    with pytest.raises(InputError, match=r"--label_version=bt: unknown; .*v1_0s.*tb, Kermany.*resolution, classes-20"):
        labels.get_label_version("bt", versions)


PAIR = '{"A": {"one": ["Edema"]}, "B": {"zero": ["Edema"]}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100000, "is not valid JSON"),
        ("[]", "must be an object of label versions"),
        ("{}", "must be an object of label versions"),
        (f'{{"mine": {PAIR}, "mine": {PAIR}}}', "key 'mine' is given twice"),
        ('{"mine": {"A": {"one": ["Edema"], "one": []}}}', "key 'one' is given twice"),
        ('{"mine": 3}', "label version mine: must be an object of classes"),
        ('{"mine": {}}', "label version mine: has 0 classes"),
        ('{"mine": {"A": {"one": ["Edema"]}}}', "label version mine: has 1 classes; give two or more"),
        (f'{{"v2": {PAIR}}}', "label version v2: the name is taken"),
        (f'{{"classes-6": {PAIR}}}', "label version classes-6: the name is taken"),
        (f'{{"a/b": {PAIR}}}', "label version 'a/b': a name holds letters"),
        (f'{{"..": {PAIR}}}', "label version '..': a name holds letters"),
        (f'{{"": {PAIR}}}', "label version '': a name holds letters"),
        ('{"mine": {"": {}, "B": {}}}', "mine: '' is no name for a class"),
        ('{"mine": {"A\\n": {}, "B": {}}}', "is no name for a class"),
        ('{"mine": {"A": 1, "B": {}}}', "mine: class 'A' must be an object"),
        (
            '{"mine": {"A": {"some": []}, "B": {}}}',
            "mine: class 'A' has the unknown key 'some'; the keys are one, zero",
        ),
        ('{"mine": {"A": {"zero": "other"}, "B": {}}}', "mine: class 'A': zero must be a list"),
        ('{"mine": {"A": {"one": ["Edema"]}, "B": {"one": ["Mass"]}}}', "mine: classes 'A' and 'B' do not exclude"),
    ],
)
def test_bad_file_of_label_versions(tmp_path, text, message):
    path = _write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        labels.load_label_versions(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_unreadable_file_of_label_versions(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        labels.load_label_versions(tmp_path / "absent.json")
    (tmp_path / "bytes.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(InputError, match="is not valid JSON"):
        labels.load_label_versions(tmp_path / "bytes.json")


def test_parse_uncertain():
    policies = labels.parse_uncertain("drop, Edema:ones,Atelectasis:zeros")
    assert dict(zip(labels.LABELS, policies, strict=True)) == {
        **dict.fromkeys(labels.LABELS, "drop"),
        "Edema": "ones",
        "Atelectasis": "zeros",
    }
    assert labels.parse_uncertain("Edema:ones").count("zeros") == 13
    assert labels.parse_uncertain("zeros") == ("zeros",) * 14


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown policy ''"),
        ("ones,", "unknown policy ''"),
        ("zeros,Edema:one", "unknown policy 'one'; choose one of zeros, ones, drop"),
        ("zeros,edema:ones", "unknown label 'edema'; did you mean 'Edema'"),
        ("zeros,:ones", "unknown label ''; choose of No Finding"),
        ("zeros,ones", "only the first item is for all labels"),
        ("Edema:ones,Edema:drop", "'Edema' is given twice"),
    ],
)
def test_bad_uncertain(text, message):
    with pytest.raises(InputError, match=f"--uncertain={text}: {message}"):
        labels.parse_uncertain(text)


def test_uncertain_per_label():
    values = np.zeros((4, 14))
    values[0, labels.LABELS.index("Edema")] = -1
    values[1, labels.LABELS.index("Pneumonia")] = -1
    values[2, labels.LABELS.index("Pneumothorax")] = -1
    values[3, labels.LABELS.index("No Finding")] = 1
    text = "zeros,Edema:ones,Pneumonia:drop,Pneumothorax:drop"
    vectors, kept = labels.apply_uncertain(labels.get_label_version("v1_xs"), values, text)
    assert vectors.sum(axis=1).tolist() == [1, 0, 0, 1] and vectors[0, labels.LABELS.index("Edema")] == 1
    assert kept.tolist() == [True, True, False, True]  # v1_xs leaves Pneumonia free
    _, kept = labels.apply_uncertain(labels.get_label_version("v3_xs"), values, text)
    assert kept.tolist() == [True, False, False, True]


def test_orphans():
    rows = [("Pneumonia",), ("Pneumonia", "Lung Opacity"), ("Pneumonia", "Consolidation", "Lung Opacity"), ("Edema",)]
    vectors = np.stack([fakes.make_vector(names) for names in [*rows, ("Cardiomegaly",), ("Fracture",)]])
    expected = {
        "Cardiomegaly without Enlarged Cardiomediastinum": 1,
        "Edema without Lung Opacity": 1,
        "Pneumonia without Lung Opacity": 1,
        "Pneumonia without Consolidation": 2,
    }
    assert labels.DEFAULT.count_orphans(vectors) == expected
    assert list(labels.DEFAULT.count_orphans(vectors)) == list(expected)
    assert labels.DEFAULT.count_orphans(vectors, ["Pneumonia", "Consolidation", "Edema"]) == {
        "Pneumonia without Consolidation": 2
    }


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"one": ["Edema"], "zero": [label for label in labels.LABELS if label != "Edema"]},
            "Edema present; all other labels absent; no finding outside the 14 labels",
        ),
        (
            {"zero": ["No Finding"], "any": list(labels.LABELS[1:])},
            "No Finding absent; at least one of the other labels present",
        ),
        (
            {"zero": ["No Finding", "Fracture"]},
            "No Finding and Fracture absent; any value of the other labels",
        ),
        (
            {"any": ["Edema", "Pneumonia"], "zero": ["Fracture"]},
            "Fracture absent; at least one of Edema and Pneumonia present; any value of the other labels",
        ),
        (
            {"one": ["Tuberculosis"], "zero": [*labels.LABELS, "Hernia"]},
            "Tuberculosis present; all other labels and Hernia absent; no other finding outside the 14 labels",
        ),
    ],
)
def test_describe_rule(rule, words):
    assert labels.describe_rule(rule) == words

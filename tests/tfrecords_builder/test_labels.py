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
    index = labels.assign(version, fakes.make_vector(labels_)[None], np.array([True]))
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
        ({"A": {"one": ["Oedema"]}}, "unknown label 'Oedema'"),
        ({"A": {"two": ["Edema"]}}, "unknown key 'two'"),
        ({"A": {"one": ["Edema"], "zero": ["Edema"]}}, "no row can be in class 'A'"),
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

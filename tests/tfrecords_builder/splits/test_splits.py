import hashlib

import numpy as np
import pandas as pd
import pytest

from tfrecords_builder import labels, splits
from tfrecords_builder.errors import InputError


def _frame(num_patients=600, seed=0):
    """Patients with 1 to 6 images; common and rare labels; a fifth is the official test fold."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 7, num_patients))
    frame = pd.DataFrame({"patient": [f"p{i:04d}" for i in patients], "extra": ""})
    frame["fold"] = np.where(patients % 5 == 0, "test", "train_val")
    names = np.array(["No Finding", "Pneumothorax", "Cardiomegaly", "Pneumonia"], object)
    drawn = rng.choice(names, len(frame), p=[0.6, 0.25, 0.13, 0.02])
    for label in labels.LABELS:
        frame[label] = np.where(drawn == label, 1.0, np.nan)
    frame["id"] = [f"{patient}/{i}.png" for i, patient in enumerate(frame["patient"])]
    return frame


def _shares(frame, split, name):
    rows = frame[name] == 1
    return [float((split[rows] == s).mean()) for s in ("train", "validation", "test")]


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.8, 0.2, 0.0)])
def test_patient_split(fractions):
    frame = _frame()
    split = splits.assign_splits(frame, "patient", fractions=fractions, seed=3)
    splits.check_disjoint(frame["patient"].to_numpy(), split)
    patients = pd.Series(split).groupby(frame["patient"]).first().value_counts(normalize=True)
    for name, fraction in zip(("train", "validation", "test"), fractions, strict=True):
        assert abs(patients.get(name, 0) - fraction) < 0.005
    for label, tolerance in (("No Finding", 0.03), ("Pneumothorax", 0.05), ("Cardiomegaly", 0.06), ("Pneumonia", 0.1)):
        np.testing.assert_allclose(_shares(frame, split, label), fractions, atol=tolerance, err_msg=label)


def test_deterministic_by_seed():
    frame = _frame()
    first = splits.assign_splits(frame, "patient", seed=1)
    assert (first == splits.assign_splits(frame, "patient", seed=1)).all()
    assert (first != splits.assign_splits(frame, "patient", seed=2)).any()
    shuffled = frame.sample(frac=1, random_state=0)
    by_patient = dict(zip(frame["patient"], first, strict=True))
    again = splits.assign_splits(shuffled, "patient", seed=1)
    assert all(by_patient[p] == s for p, s in zip(shuffled["patient"], again, strict=True))


def test_every_split_gets_a_rare_label():
    frame = _frame(40)
    for label in labels.LABELS:
        frame[label] = np.nan
    frame["No Finding"] = 1.0
    rare = frame["patient"].isin(frame["patient"].unique()[:3])
    frame.loc[rare, ["No Finding", "Pneumonia"]] = [0.0, 1.0]
    split = splits.assign_splits(frame, "patient")
    assert set(split[rare]) == {"train", "validation", "test"}


def test_official_split():
    frame = _frame()
    split = splits.assign_splits(frame, "official", seed=0)
    assert ((split == "test") == (frame["fold"] == "test")).all()
    patients = pd.Series(split).groupby(frame["patient"]).first()
    others = patients[patients != "test"]
    assert abs((others == "validation").mean() - 0.1) < 0.005
    frame["fold"] = "train_val"
    with pytest.raises(InputError, match="official fold has no row"):
        splits.assign_splits(frame, "official")


def test_official_folds_that_share_a_patient_are_refused():
    frame = _frame()
    frame.loc[0, "fold"] = "train_val"
    frame.loc[1, ["patient", "fold"]] = [frame.loc[0, "patient"], "test"]
    with pytest.raises(InputError, match=r"1 patient is in more than one split, such as .* --split_policy=patient"):
        splits.assign_splits(frame, "official")
    patients = np.repeat(np.array([f"p{i}" for i in range(725)], object), 2)
    with pytest.raises(InputError, match="725 patients are in more than one split, such as p0 in train and test"):
        splits.check_disjoint(patients, np.tile(np.array(["train", "test"], object), 725))


def test_image_split_leaks():
    frame = _frame()
    split = splits.assign_splits(frame, "image", seed=0)
    np.testing.assert_allclose(_shares(frame, split, "No Finding"), (0.8, 0.1, 0.1), atol=0.01)
    with pytest.raises(InputError):
        splits.check_disjoint(frame["patient"].to_numpy(), split)


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)])
def test_bad_fractions(fractions):
    with pytest.raises(InputError, match="--split_fractions"):
        splits.assign_splits(_frame(10), "patient", fractions=fractions)


def test_synthetic_images_are_exempt():
    splits.check_disjoint(np.array(["", ""], object), np.array(["train", "test"], object))


@pytest.mark.parametrize(
    ("policy", "fractions", "expected"),
    [
        ("patient", (0.8, 0.1, 0.1), "4cbfda50a9102eb9"),
        ("patient", (0.8, 0.2, 0), "9d91f12d0765d21a"),
        ("official", (0.8, 0.1, 0.1), "c85c5c4beac87158"),
        ("image", (0.8, 0.1, 0.1), "8c9fc9c74abaa36b"),
        ("image", (0.8, 0.2, 0), "e4f31a47c9228358"),
    ],
)
def test_splits_of_earlier_record_sets_stay(policy, fractions, expected):
    frame = _frame()
    frame["extra"] = ["Hernia" if i % 17 == 0 else "" for i in range(len(frame))]
    split = splits.assign_splits(frame, policy, fractions=fractions, seed=5)
    assert hashlib.sha256("\n".join(split).encode()).hexdigest()[:16] == expected


@pytest.mark.parametrize("policy", ["patient", "kfold"])
def test_images_without_a_patient_are_split_one_by_one(policy):
    frame = _frame()
    frame["patient"] = ""
    split = splits.assign_splits(frame, policy, seed=1, num_folds=10)
    np.testing.assert_allclose(_shares(frame, split, "No Finding"), (0.8, 0.1, 0.1), atol=0.01)
    shuffled = frame.sample(frac=1, random_state=0)
    if policy == "patient":
        by_id = dict(zip(frame["id"], split, strict=True))
        assert [by_id[i] for i in shuffled["id"]] == splits.assign_splits(shuffled, policy, seed=1).tolist()


def test_some_images_without_a_patient():
    frame = _frame()
    frame.loc[:99, "patient"] = ""
    split = splits.assign_splits(frame, "patient", seed=1)
    assert set(split[:100]) == {"train", "validation", "test"}
    splits.check_disjoint(frame["patient"].to_numpy(), split)
    assert (splits.assign_splits(frame[frame["patient"] != ""], "patient", seed=1) != "").all()


def test_kfold_tests_every_patient_once():
    frame = _frame()
    runs = [splits.assign_splits(frame, "kfold", seed=3, num_folds=5, fold=fold) for fold in range(5)]
    table = np.stack(runs)
    for name, times in (("test", 1), ("validation", 1), ("train", 3)):
        assert ((table == name).sum(axis=0) == times).all()
    for fold in range(5):  # the next fold is for validation
        assert ((runs[fold] == "validation") == (runs[(fold + 1) % 5] == "test")).all()
    for run in runs:
        splits.check_disjoint(frame["patient"].to_numpy(), run)
        counts = pd.Series(run).groupby(frame["patient"]).first().value_counts()
        assert counts.to_dict() == {"train": 360, "validation": 120, "test": 120}
        assert abs((run == "test").mean() - 0.2) < 0.005
        for label, tolerance in (("No Finding", 0.02), ("Pneumothorax", 0.03), ("Pneumonia", 0.06)):
            np.testing.assert_allclose(_shares(frame, run, label), (0.6, 0.2, 0.2), atol=tolerance, err_msg=label)
    assert (splits.assign_splits(frame, "kfold", seed=4, num_folds=5) != runs[0]).any()


def test_kfold_without_test():
    frame = _frame()
    tested = splits.assign_splits(frame, "kfold", seed=3, num_folds=4, fold=2)
    split = splits.assign_splits(frame, "kfold", seed=3, num_folds=4, fold=2, kfold_test=False)
    assert ((split == "validation") == (tested == "test")).all()
    assert set(split) == {"train", "validation"}
    assert set(splits.assign_splits(frame, "kfold", num_folds=2, fold=1, kfold_test=False)) == {"train", "validation"}


def test_as_many_folds_as_patients():
    frame = _frame(7)
    tests = [splits.assign_splits(frame, "kfold", num_folds=7, fold=fold) == "test" for fold in range(7)]
    assert [frame["patient"][test].nunique() for test in tests] == [1] * 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_folds": 2}, "--num_folds=2: give at least 3 with a test fold"),
        ({"num_folds": 1, "kfold_test": False}, "--num_folds=1: give at least 2"),
        ({"num_folds": 5, "fold": 5}, "--fold=5: give one of 0 to 4"),
        ({"num_folds": 5, "fold": -1}, "--fold=-1: give one of 0 to 4"),
        ({"num_folds": 11}, "--num_folds=11: the table has 10 patients"),
    ],
)
def test_bad_folds(arguments, message):
    with pytest.raises(InputError, match=message):
        splits.assign_splits(_frame(10), "kfold", **arguments)


def test_official_folds_of_a_data_set_that_cuts_all_three():
    frame = _frame()
    number = frame["patient"].str[1:].astype(int) % 4
    frame["fold"] = np.array(["train", "validation", "test", ""], object)[number]
    assert (splits.assign_splits(frame, "official") == frame["fold"]).all()
    frame.loc[number == 1, "fold"] = "train_val"
    split = splits.assign_splits(frame, "official")
    assert (split == frame["fold"])[number != 1].all() and set(split[number == 1]) == {"train", "validation"}
    for alone in ("train", "test"):
        frame["fold"] = alone
        assert set(splits.assign_splits(frame, "official")) == {alone}


@pytest.mark.parametrize("folds", [("train_val", "validation"), ("train_val",), ("",)])
def test_official_needs_its_folds(folds):
    frame = _frame(40)
    frame["fold"] = np.resize(np.array(folds, object), len(frame))
    with pytest.raises(InputError, match="official fold has no row"):
        splits.assign_splits(frame, "official")


def test_unknown_official_fold():
    frame = _frame(40)
    frame["fold"] = "dev"
    with pytest.raises(InputError, match="unknown fold 'dev'; known: train_val, train"):
        splits.assign_splits(frame, "official")


def _write(tmp_path, text):
    path = tmp_path / "lists.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_lists_reuse_the_splits_of_a_record_set(tmp_path):
    frame = _frame()
    split = splits.assign_splits(frame, "patient", seed=1)
    manifest = frame[["id", "patient"]].assign(split=split, shard="x", position=0)
    manifest.iloc[::9].to_csv(tmp_path / "manifest.csv", index=False)  # some images of most patients
    again = splits.assign_splits(frame, "lists", lists=splits.read_lists(tmp_path))
    listed = frame["patient"].isin(manifest.iloc[::9]["patient"]).to_numpy()
    assert 100 < frame["patient"][~listed].nunique() < 500
    assert (again[listed] == split[listed]).all() and (again[~listed] == splits.NO_SPLIT).all()


@pytest.mark.parametrize(
    "text",
    [
        "id,split\na,train\nb,val\nc,test\n",
        "\ufeffid;Split\r\na;Train\r\nb;VALID\r\n\r\nc;test\r\n",
        'note,split,"id"\n"x,y", train ,a\nz,validation,b\n,test,c',
        "patient,id,split\n,a,train\n,b,val\n,c,test\n",
        "patient,id,split\nq1,a,train\nq2,b,val\nq3,c,test\n",
        "patient;split\nq1;train\nsalted2;val\nq3;test\n",
    ],
)
def test_layouts_of_lists(tmp_path, text):
    lists = splits.read_lists(_write(tmp_path, text))
    if lists.ids and not lists.alone:
        patients, hashed = ["", "", "", ""], None  # a table that knows no patients goes by id
    else:
        patients, hashed = ["q1", "q2", "q3", "q4"], np.array(["salted1", "salted2", "salted3", "salted4"], object)
    frame = pd.DataFrame({"id": list("abcd"), "patient": patients})
    split = splits.assign_splits(frame, "lists", lists=lists, hashed=hashed)
    assert split.tolist() == ["train", "validation", "test", ""]


def test_a_patient_whom_the_lists_do_not_know_does_not_go_by_id(tmp_path):
    lists = splits.read_lists(_write(tmp_path, "patient,id,split\nhash1,a,train\np2,b,test\n"))
    frame = pd.DataFrame({"id": ["a", "b"], "patient": ["p1", "p2"]})
    assert splits.assign_splits(frame, "lists", lists=lists).tolist() == ["", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("patient,id\np,a\n", "header must name the columns split"),
        ("split,name\ntrain,a\n", "header must name the columns split"),
        ("split,id\n", "has no rows, only a header"),
        ("split,id\ntrain,a\ndev,b\n", "line 3: unknown split 'dev'; give one of train, validation, test"),
        ("split,id\ntrain,a\n,b\n", "line 3: unknown split ''"),
        ("id,split\na,train\nb\n", "line 3: has 1 cells"),
        ("patient,id,split\n,,train\n", "line 2: names neither a patient nor an id"),
        ("patient,split\np1,train\np1,train\np1,test\n", "line 4: patient p1 is in train and in test; keep each"),
        (
            "patient,split\np1,train\np1,test\np2,train\np2,val\np3,val\np3,test\n",
            "line 3: patient p1 is in train and in test, and 2 others are in two",
        ),
        ("id,split\na,train\na,val\n", "line 3: id a is in train and in validation"),
        (b"id,split\n\xff,train\n", "line 2: is not UTF-8 text"),
        ("id,split\n" + "a" * 200000 + ",train\n", "line 2: is no row of a table"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    path = _write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        splits.read_lists(path)
    assert str(caught.value).startswith(f"--split_lists={path}: ")


def test_lists_that_do_not_fit_the_table(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.csv: cannot be read"):
        splits.read_lists(tmp_path)
    frame = _frame(3)
    lists = splits.read_lists(_write(tmp_path, "patient,split\nq1,train\n"))
    with pytest.raises(InputError, match=rf"lists\.csv: holds none of the {len(frame)} rows"):
        splits.assign_splits(frame, "lists", lists=lists)
    frame["patient"], (first, second) = "p7", frame["id"][:2]
    lists = splits.read_lists(_write(tmp_path, f"id,split\n{first},train\n{second},test\n"))
    with pytest.raises(InputError, match=r"lists\.csv: 1 patient is in more than one split, such as p7"):
        splits.assign_splits(frame, "lists", lists=lists)
    with pytest.raises(InputError, match="needs --split_lists"):
        splits.assign_splits(frame, "lists")


def test_unknown_policy():
    with pytest.raises(
        InputError, match="--split_policy=study: unknown; choose one of patient, official, image, kfold"
    ):
        splits.assign_splits(_frame(3), "study")

import csv

import numpy as np
import pandas as pd
import pytest

from tests import fakes
from tfrecords_builder import labels, readers
from tfrecords_builder.errors import InputError
from tfrecords_builder.statistics import counting, label_stats, patients, published, published_differences

# (patient, study, view, age, values): 1 positive, 0 negative, -1 uncertain; what is not named is blank.
CHEXPERT = (
    (1, 1, "frontal", 15, {"No Finding": 1}),
    (1, 1, "lateral", 15, {"No Finding": 1}),
    (1, 2, "frontal", 25, {"No Finding": 1, "Support Devices": 1}),
    (2, 1, "frontal", 40, {"Pneumothorax": 1, "Pneumonia": -1}),
    (2, 2, "frontal", 40, {"Pneumothorax": 1, "Pneumonia": 0}),
    (3, 1, "frontal", 85, {"Pneumonia": 1, "Lung Opacity": 1, "Consolidation": 0}),
    (3, 2, "frontal", 85, {"Pneumothorax": 1, "Support Devices": 1}),
    (4, 1, "frontal", 60, {"Cardiomegaly": 1, "Enlarged Cardiomediastinum": -1}),
    (4, 2, "frontal", 60, {"Edema": 0}),
    (5, 1, "lateral", 30, {"Fracture": 1}),
)


def write_chexpert(folder):
    root = folder / "CheXpert-v1.0-small"
    root.mkdir(parents=True)
    with (root / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels.LABELS])
        for patient, study, view, age, values in CHEXPERT:
            path = f"CheXpert-v1.0-small/train/patient{patient:05d}/study{study}/view1_{view}.jpg"
            cells = [f"{values[label]:.1f}" if label in values else "" for label in labels.LABELS]
            # Patient 4's are frontal although AP/PA says LL, as 16 rows of the published table.
            position = "" if view == "lateral" else {3: "AP", 4: "LL"}.get(patient, "PA")
            writer.writerow([path, "Female", age, view.capitalize(), position, *cells])
    return root


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory):
    return write_chexpert(tmp_path_factory.mktemp("chexpert"))


def _rows(data_dir, dataset="chexpert", **values):
    table = readers.read(dataset, data_dir, official=values.get("split_policy") == "official")
    return counting.select_rows(table, **values)


def _members(rows, *names):
    return [counting.assign_classes(rows, version) for version in counting.get_versions(names)]


def _totals(rows, *names):
    counts = counting.count_classes(rows, _members(rows, *names))
    counts = counts[counts["split"] == "all"]
    return {(version, name): count for version, name, _, count in counts.itertuples(index=False)}


def test_label_counts(chexpert):
    counts = counting.count_labels(_rows(chexpert).values, labels.LABELS).set_index("label")
    assert list(counts.columns) == ["positive", "uncertain", "negative", "blank"]
    assert counts.loc["Pneumonia"].tolist() == [1, 1, 1, 5]
    assert counts.loc["Pneumothorax"].tolist() == [3, 0, 0, 5]
    assert (counts.sum(axis=1) == 8).all()
    # Label counts are what the table says, whatever the policy.
    assert counting.count_labels(_rows(chexpert, uncertain="ones").values, labels.LABELS).equals(counts.reset_index())


def test_class_counts_by_hand(chexpert):
    rows = _rows(chexpert)
    assert _totals(rows, "v1_0s", "v1_xs", "v2", "v2_thesis", "multilabel") == {
        ("v1_0s", "No Finding"): 1,
        ("v1_0s", "Pneumothorax"): 2,
        ("v1_xs", "No Finding"): 2,
        ("v1_xs", "Pneumothorax"): 3,
        ("v2", "No Finding"): 1,
        ("v2", "Finding"): 5,
        ("v2_thesis", "No Finding"): 1,
        ("v2_thesis", "Finding"): 5,  # one with support devices less, one without any label more
        ("multilabel", counting.ANY_LABEL): 7,
    }


def test_splits_add_up(chexpert):
    rows = _rows(chexpert, split_fractions=(0.8, 0.2, 0.0), seed=3)
    counts = counting.count_classes(rows, _members(rows, "v1_xs"))
    assert set(counts["split"]) == {"all", "train", "validation"}
    wide = counts.pivot(index="class", columns="split", values="count")
    assert (wide["train"] + wide["validation"] == wide["all"]).all()


def test_uncertain_policies(chexpert):
    found = counting.compare_policies(_rows(chexpert), counting.get_versions(["v1_0s", "v1_xs", "v3_xs"]))
    found = found.set_index(["label_version", "class"])
    # The Pneumothorax with uncertain Pneumonia: alone only if that is negative; v1_xs does not look at it.
    assert found.loc[("v1_0s", "Pneumothorax")].tolist() == [2, 1, 1]
    assert found.loc[("v1_xs", "Pneumothorax")].tolist() == [3, 3, 3]
    assert found.loc[("v3_xs", "Pneumothorax")].tolist() == [3, 2, 2]


def test_pairs(chexpert):
    pairs = counting.count_pairs(_rows(chexpert))
    assert pairs.shape == (14, 14) and (pairs.to_numpy() == pairs.to_numpy().T).all()
    assert pairs.loc["Pneumothorax", "Pneumothorax"] == 3
    assert pairs.loc["Pneumothorax", "Support Devices"] == 1
    assert pairs.loc["Pneumothorax", "Pneumonia"] == 0
    assert counting.count_pairs(_rows(chexpert, uncertain="ones")).loc["Pneumothorax", "Pneumonia"] == 1


def test_combinations(chexpert):
    rows = _rows(chexpert)
    found = counting.count_combinations(rows, _members(rows, "v1_xs"))
    assert found.to_dict("split")["data"] == [
        ["v1_xs", "No Finding", "No Finding", 1],
        ["v1_xs", "No Finding", "No Finding|Support Devices", 1],
        ["v1_xs", "Pneumothorax", "Pneumothorax", 2],
        ["v1_xs", "Pneumothorax", "Pneumothorax|Support Devices", 1],
    ]
    totals = counting.count_totals(found)
    assert totals.to_dict("split")["data"] == [["v1_xs", "No Finding", 2, 0, 2], ["v1_xs", "Pneumothorax", 2, 0, 3]]


def test_studies_are_counted_once_with_their_lateral_views(chexpert):
    table = readers.read("chexpert", chexpert)
    studies = label_stats.read_studies(table, chexpert, None).set_index("label")
    assert studies.loc["No Finding"].tolist() == [2, 0, 0, 7]
    assert studies.loc["Fracture", "positive"] == 1  # a study without a frontal view


def test_hierarchy(chexpert):
    found = counting.count_hierarchy(_rows(chexpert)).set_index(["child", "parent"])
    assert found.loc[("Pneumonia", "Lung Opacity")].tolist() == [1, 1, 0, 0, 0]
    assert found.loc[("Pneumonia", "Consolidation")].tolist() == [1, 0, 0, 1, 0]
    assert found.loc[("Cardiomegaly", "Enlarged Cardiomediastinum")].tolist() == [1, 0, 1, 0, 0]


def test_patients(chexpert):
    rows = _rows(chexpert)
    found = patients.describe_patients(rows).set_index(["measure", "group"])
    assert found.loc[("all", "all")].tolist() == [8, 4]
    assert found.loc[("view", "AP")].tolist() == [2, 1]
    assert found.loc[("age", "0-19")].tolist() == [1, 1]
    assert found.loc[("age", "80 and over")].tolist() == [2, 1]
    sizes = patients.describe_images_per_patient(rows).set_index("statistic")["images"]
    assert sizes["median"] == sizes["maximum"] == sizes["mean"] == 2


def test_view(chexpert):
    assert len(_rows(chexpert, view="AP").frame) == 2
    nih = fakes.make_chestxray(chexpert.parent / "nih", num_patients=10)
    with pytest.raises(InputError, match=r"--view=AP: .* has no row of that view"):
        _rows(nih, dataset="chestxray", view="AP")


def test_extra_findings(tmp_path):
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID,View Position\n"
        "a.png,Hernia,1,PA\nb.png,Hernia|Mass,1,PA\nc.png,Hernia|Pneumothorax,2,PA\nd.png,Pneumothorax,3,AP\n"
    )
    rows = _rows(tmp_path, dataset="chestxray")
    found = counting.count_extra_findings(rows).set_index("finding")
    assert found.loc["Hernia"].tolist() == [3, 1, 1, 1]
    assert found.loc["Mass"].tolist() == [1, 0, 1, 0]
    combinations = counting.count_combinations(rows, _members(rows, "v1_xs"))
    assert combinations["labels"].tolist() == ["Pneumothorax", "Pneumothorax|Hernia"]
    names = counting.compare_names(rows).set_index("label")
    assert names.loc["Pleural Effusion", "relation"] == "renamed"
    assert names.loc["Hernia"].tolist() == ["", "Hernia", "only ChestX-ray14", 3]
    assert names.loc["Fracture", "relation"] == "only CheXpert"


def test_unknown_label_version():
    with pytest.raises(InputError, match="--label_versions=v9: unknown; choose of v1_0s"):
        counting.get_versions(["v1_0s", "v9"])
    with pytest.raises(InputError, match="given twice"):
        counting.get_versions(["v1_0s", "v1_0s"])


def test_published_sums():
    """Sums and single counts of the published tables."""

    def total(*cell):
        return published.class_count(*cell, "all")

    assert total("chexpert", "v3_0s", "Pneumothorax") == 1539  # which is Cardiomegaly alone
    assert total("chexpert", "v3_0s", "Cardiomegaly") == 2274
    assert total("chexpert", "v1_0s", "No Finding") == total("chexpert", "v2", "No Finding") == 9553
    assert total("chexpert", "v1_0s", "Pneumothorax") == 2274
    assert total("chexpert", "v1_xs", "No Finding") == 9553 + 7421
    assert total("chexpert", "v2", "Finding") == 74304
    v3_xs = [total("chexpert", "v3_xs", name) for name in ("Pneumothorax", "Pneumonia", "Cardiomegaly")]
    assert v3_xs == [65005, 2785, 6514] and sum(v3_xs) == 74304
    assert total("chestxray", "v3_0s", "Pneumothorax") == 1093
    assert total("chestxray", "v3_0s", "Cardiomegaly") == 2194
    assert published.class_count("chexpert", "v1_0s", "Pneumothorax", "validation") == 455
    assert published.class_count("chexpert", "v1_0s", "Pneumothorax", "test") is None
    assert {sum(counts) for counts in published.STUDY_COUNTS.values()} == {published.NUM_STUDIES}
    alone = published.COMBINATIONS["chexpert"]
    assert alone["v1_xs"]["Pneumothorax"]["Pneumothorax"] == 2274
    assert alone["v3_xs"]["Cardiomegaly"]["Cardiomegaly"] == 1539
    assert "Cardiomegaly|Lung Opacity|Edema|Pleural Effusion|Support Devices" in alone["v3_xs"]["Cardiomegaly"]


def test_published_study_counts_are_those_of_the_specification(shared_dir):
    table = pd.read_csv(shared_dir / "spec" / "thesis_label_counts.csv", index_col="label")
    assert {label: tuple(row) for label, *row in table.itertuples(name=None)} == published.STUDY_COUNTS


def test_errata_name_published_classes():
    for dataset, version, name in published.ERRATA:
        assert published.class_count(dataset, version, name, "all") is not None
        assert name in labels.LABEL_VERSIONS[version].class_names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "folder"}, "no published counts of --dataset=folder"),
        ({"source": "phantom-a"}, "the table is of phantom-a"),
        ({"num_rows": 500}, "has 500 rows, the published counts are of CheXpert's train.csv with 223,414"),
        ({"view": "AP"}, "all frontal views, these of AP"),
        ({"uncertain": "ones"}, "made with --uncertain=zeros, these with --uncertain=ones"),
        ({"uncertain": "ones", "policy": "ones"}, ""),
        ({"dataset": "chestxray", "source": "chestxray", "num_rows": 112_120, "uncertain": "ones"}, ""),
        ({}, ""),
    ],
)
def test_obstacles(values, message):
    known = {"dataset": "chexpert", "source": "chexpert", "num_rows": 223_414, "view": "any", "uncertain": "zeros"}
    found = published.obstacle(**{**known, **values})
    assert message in found and bool(message) == bool(found)


def _compare(data_dir, **values):
    rows = _rows(data_dir, **values)
    studies = label_stats.read_studies(rows.table, data_dir, None)
    return label_stats.compute(rows, counting.get_versions(None), studies).comparison


def test_another_table_is_not_compared(chexpert):
    comparison = _compare(chexpert)
    assert comparison.num_compared == 0 and "the table has 10 rows" in comparison.obstacle
    assert comparison.classes["published"].isna().all() and "the table has 10 rows" in comparison.studies_note


@pytest.fixture
def matching(monkeypatch):
    """Published counts that fit CHEXPERT: true ones, swapped ones, and one that nothing explains."""
    counts = {
        "v1_0s": {"No Finding": (1, 0), "Pneumothorax": (3, 1)},
        "v3_0s": {"Pneumothorax": (1, 0), "Cardiomegaly": (2, 0)},
        "v3_xs": {"No Finding": (5, 0), "Pneumothorax": (3, 0), "Pneumonia": (2, 0)},
    }
    monkeypatch.setitem(published.NUM_ROWS, "chexpert", len(CHEXPERT))
    monkeypatch.setitem(published.CLASS_COUNTS, "chexpert", counts)
    combinations = {"v1_xs": {"Pneumothorax": {"Pneumothorax": 2, "Pneumothorax|Fracture": 7}}}
    monkeypatch.setitem(published.COMBINATIONS, "chexpert", combinations)
    monkeypatch.setitem(published.NUM_COMBINATIONS, "chexpert", {("v1_xs", "Pneumothorax"): 2})


def test_comparison_with_matching_table(chexpert, matching):
    comparison = _compare(chexpert)
    found = comparison.classes.set_index(["label_version", "class", "split"])

    def cell(version, name, split="all"):
        row = found.loc[(version, name, split)]
        return row["published"], row["difference"], row["status"]

    assert comparison.obstacle == ""
    assert cell("v1_0s", "No Finding") == (1, 0, "equal")
    assert cell("v1_0s", "Pneumothorax") == (4, -2, "differs")
    assert cell("v3_0s", "Pneumothorax") == (1, 1, "erratum")
    assert cell("v3_0s", "Cardiomegaly") == (2, -1, "erratum")
    assert "[checked: 2 is our v3_0s Pneumothorax, all]" in found.loc[("v3_0s", "Cardiomegaly", "all"), "note"]
    # An erratum that our own counts contradict explains nothing.
    assert cell("v3_xs", "No Finding") == (5, -3, "differs")
    assert "[but our v3_0s No Finding, all, is 1, not 5]" in found.loc[("v3_xs", "No Finding", "all"), "note"]
    # Summed errata: 3 + 2 is v2_thesis's count of findings; Pneumothorax itself is 3 here and needs no explanation.
    assert cell("v3_xs", "Pneumothorax") == (3, 0, "equal")
    assert cell("v3_xs", "Pneumonia") == (2, -1, "erratum")
    assert "[checked: 5 is our v2_thesis Finding, all]" in found.loc[("v3_xs", "Pneumonia", "all"), "note"]
    assert found.xs("train", level="split")["published"].isna().all()  # made with other fractions

    combinations = comparison.combinations.set_index("labels")
    combinations = combinations[combinations["label_version"] == "v1_xs"]
    assert combinations.loc["Pneumothorax", "status"] == "equal"
    assert combinations.loc["Pneumothorax|Fracture", ["count", "difference"]].tolist() == [0, -7]
    totals = comparison.totals[comparison.totals["published"].notna()]
    assert totals["status"].tolist() == ["equal"]
    assert "the table has 9 studies" in comparison.studies_note
    assert (comparison.num_compared, comparison.num_mismatches, comparison.num_explained) == (10, 6, 3)


def test_the_thesis_split_is_beside_ours_but_not_judged(chexpert, matching):
    comparison = _compare(chexpert, split_fractions=(0.8, 0.2, 0.0))
    found = comparison.classes.set_index(["label_version", "class", "split"])
    assert found.loc[("v1_0s", "Pneumothorax", "train"), ["published", "status"]].tolist() == [3, "another split"]
    assert comparison.num_compared == 10


def test_published_studies_are_compared_if_their_number_fits(chexpert, matching, monkeypatch):
    monkeypatch.setattr(published, "NUM_STUDIES", 9)
    counts = dict.fromkeys(labels.LABELS, (0, 0, 9)) | {"No Finding": (2, 0, 7)}
    monkeypatch.setattr(published, "STUDY_COUNTS", counts)
    studies = _compare(chexpert).studies.set_index(["label", "value"])
    assert studies.loc["No Finding", "status"].tolist() == ["equal"] * 3
    assert studies.loc[("Fracture", "positive"), ["difference", "status"]].tolist() == [1, "differs"]


def test_number_of_frequent_combinations_is_compared_under_ones_only(chexpert, matching):
    for uncertain, expected in (("zeros", []), ("ones", [138])):
        totals = _compare(chexpert, uncertain=uncertain).totals
        totals = totals[(totals["label_version"] == "multilabel") & totals["published"].notna()]
        assert totals["published"].tolist() == expected


def test_real_nih_table(shared_dir):
    """The counts that the README of the data names."""
    rows = _rows(shared_dir / "data" / "nih", dataset="chestxray", split_policy="official")
    stats = label_stats.compute(rows, counting.get_versions(None))
    counts = stats.frames["class_counts"].set_index(["label_version", "class", "split"])["count"].sort_index()
    for name, expected in {
        "No Finding": (50500, 9861),
        "Pneumothorax": (1241, 953),
        "Pneumonia": (234, 88),
        "Cardiomegaly": (777, 316),
    }.items():
        found = counts["v3_0s", name]
        assert (found["train_val"], found["test"], found["all"]) == (*expected, sum(expected))
        assert found["train"] + found["validation"] == found["train_val"]
    assert counts["multilabel", counting.ANY_LABEL, "all"] == 112_120 - 20_343
    labelled = stats.frames["label_counts"].set_index("label")
    assert labelled.loc["Pneumothorax"].tolist() == [5302, 0, 106_818, 0]
    assert labelled.loc["Fracture", "blank"] == 112_120
    comparison = stats.comparison
    assert (comparison.num_compared, comparison.num_mismatches, comparison.num_explained) == (18, 9, 9)
    swapped = comparison.classes.set_index(["label_version", "class", "split"]).loc[("v1_0s", "Pneumothorax", "all")]
    assert (swapped["count"], swapped["published"]) == (2194, 1093)
    assert "may have used Cardiomegaly" in swapped["note"]
    alone = stats.frames["combinations"].set_index(["label_version", "class", "labels"])["count"]
    assert alone["v1_xs", "Pneumothorax", "Pneumothorax"] == 2194
    assert alone["v3_xs", "Cardiomegaly", "Cardiomegaly"] == 1093
    assert np.diag(stats.frames["cooccurrence"]).tolist() == labelled["positive"].tolist()


def test_chestxray_by_another_policy_is_compared_as_a_whole(shared_dir):
    rows = _rows(shared_dir / "data" / "nih", dataset="chestxray")
    members = _members(rows, "v3_0s")
    classes = counting.count_classes(rows, members)
    combinations = counting.count_combinations(rows, members)
    totals = counting.count_totals(combinations)
    found = published_differences.compare(rows, classes, combinations, totals, None).classes
    assert set(found[found["published"].notna()]["split"]) == {"all"}

"""Published label counts as data, and the errors in them, so that a reader sees ours beside them.

Sources: the thesis that this project reproduces (its chapter 3), called the thesis below; its Table 3.2 repeats
Table 1 of Irvin et al. 2019 (CheXpert, https://arxiv.org/abs/1901.07031), which counts studies, not images, and does
not tell negative from blank (each row adds up to NUM_STUDIES); the number of frequent combinations, Schütte et al.
2021 (npj Digital Medicine), which count uncertain labels as positive. The thesis counts them as negative.
"""

import dataclasses

from tfrecords_builder.labels import combinations
from tfrecords_builder.labels.canonical import LABELS, NO_FINDING

# What the published counts were made from: CheXpert's train.csv, NIH's Data_Entry_2017.csv.
NUM_ROWS: dict[str, int] = {"chexpert": 223_414, "chestxray": 112_120}
NUM_STUDIES = 187_641
TABLE_NAMES: dict[str, str] = {"chexpert": "CheXpert's train.csv", "chestxray": "NIH's Data_Entry_2017"}
# The splits that the two numbers of a cell belong to; the thesis's own 80/20 split of CheXpert is not published.
SPLITS: dict[str, tuple[str, str]] = {"chexpert": ("train", "validation"), "chestxray": ("train_val", "test")}
THESIS_FRACTIONS = (0.8, 0.2, 0.0)
FREQUENT = 256  # the benchmark keeps combinations with more images than this


@dataclasses.dataclass(frozen=True)
class Erratum:
    """Why a printed count is not the count of its definition.

    `note` says so in words. `same_as` lets the explanation be checked against a table: it is the (label version, class)
    whose count the printed one is; with `summed`, all printed findings of the version together are that count.
    """

    note: str
    same_as: tuple[str, str] | None = None
    summed: bool = False


# Table 3.2: label -> studies that are positive, uncertain, negative or blank.
STUDY_COUNTS: dict[str, tuple[int, int, int]] = {
    "No Finding": (16627, 0, 171014),
    "Enlarged Cardiomediastinum": (9020, 10148, 168473),
    "Cardiomegaly": (23002, 6597, 158042),
    "Lung Opacity": (92669, 4341, 90631),
    "Lung Lesion": (6856, 1071, 179714),
    "Edema": (48905, 11571, 127165),
    "Consolidation": (12730, 23976, 150935),
    "Pneumonia": (4576, 15658, 167407),
    "Atelectasis": (29333, 29377, 128931),
    "Pneumothorax": (17313, 2663, 167665),
    "Pleural Effusion": (75696, 9419, 102526),
    "Pleural Other": (2441, 1771, 183429),
    "Fracture": (7270, 484, 179887),
    "Support Devices": (105831, 898, 80912),
}

# Tables 3.4 and 3.5 as printed: data set -> label version -> class -> one count per split of SPLITS.
_V2 = {"No Finding": (7630, 1923), "Finding": (59455, 14849)}
_CHESTXRAY_NO_FINDING = (50500, 9861)
CLASS_COUNTS: dict[str, dict[str, dict[str, tuple[int, int]]]] = {
    "chexpert": {
        "v1_0s": {"No Finding": (7642, 1911), "Pneumothorax": (1819, 455)},
        "v1_xs": {"No Finding": (13535, 3439), "Pneumothorax": (14198, 3495)},
        "v2": _V2,
        "v2_thesis": _V2,
        "v3_0s": {
            "No Finding": (7641, 1912),
            "Pneumothorax": (1231, 308),
            "Pneumonia": (341, 82),
            "Cardiomegaly": (1818, 456),
        },
        "v3_xs": {
            "No Finding": (7630, 1923),
            "Pneumothorax": (51988, 13017),
            "Pneumonia": (2251, 534),
            "Cardiomegaly": (5216, 1298),
        },
    },
    "chestxray": {
        "v1_0s": {"No Finding": _CHESTXRAY_NO_FINDING, "Pneumothorax": (777, 316)},
        "v3_0s": {
            "No Finding": _CHESTXRAY_NO_FINDING,
            "Pneumothorax": (777, 316),
            "Pneumonia": (234, 88),
            "Cardiomegaly": (1241, 953),
        },
    },
}


def _with(label: str, *others: str) -> str:
    return combinations.join([label, *others], LABELS)


_LO, _PE, _SD = "Lung Opacity", "Pleural Effusion", "Support Devices"

# Figures 3.4 to 3.11: data set -> label version -> class -> combination -> frontal images.
COMBINATIONS: dict[str, dict[str, dict[str, dict[str, int]]]] = {
    "chexpert": {
        "v1_xs": {
            "No Finding": {"No Finding": 9553, _with("No Finding", _SD): 7421},
            "Pneumothorax": {
                "Pneumothorax": 2274,
                _with("Pneumothorax", _SD): 2213,
                _with("Pneumothorax", _LO, _SD): 1938,
                _with("Pneumothorax", _LO, _PE, _SD): 1645,
                _with("Pneumothorax", _LO): 940,
                _with("Pneumothorax", _LO, _PE): 671,
                _with("Pneumothorax", _PE, _SD): 647,
                _with("Pneumothorax", "Atelectasis", _SD): 528,
            },
        },
        "v3_xs": {
            "Pneumonia": {
                "Pneumonia": 423,
                _with("Pneumonia", _LO): 720,
                _with("Pneumonia", _LO, _SD): 303,
                _with("Pneumonia", _LO, _PE): 230,
                _with("Pneumonia", "Consolidation"): 188,
            },
            "Cardiomegaly": {
                "Cardiomegaly": 1539,
                _with("Cardiomegaly", "Edema", _LO, _SD, _PE): 1784,
                _with("Cardiomegaly", _SD, _PE): 1579,
                _with("Cardiomegaly", _SD): 1439,
                _with("Cardiomegaly", "Edema", _SD): 1308,
            },
        },
    },
}
# Different combinations in a class (uncertain labels negative), and combinations with more than FREQUENT images in the
# whole multi-label set (uncertain labels positive).
NUM_COMBINATIONS: dict[str, dict[tuple[str, str], int]] = {"chexpert": {("v1_xs", "Pneumothorax"): 380}}
NUM_FREQUENT: dict[str, int] = {"chexpert": 138}

_SWAPPED = "the columns Pneumothorax and Cardiomegaly are swapped in print: "
_V3_XS = "every finding that is neither Pneumonia nor Cardiomegaly was counted as Pneumothorax: "
_V3_XS += "65,005 + 2,785 + 6,514 = 74,304, all of the thesis's v2 findings, which have no support devices"
_V3_XS_ERRATUM = Erratum(_V3_XS, ("v2_thesis", "Finding"), summed=True)
_V2_COUNTING = "counted were all rows without No Finding and without support devices, the 7,766 rows without any label "
_V2_COUNTING += "included, although the definition leaves support devices free and the text leaves such rows out"

# (data set, label version, class) -> what is wrong with the printed count.
ERRATA: dict[tuple[str, str, str], Erratum] = {
    ("chexpert", "v2", "Finding"): Erratum(_V2_COUNTING + "; v2_thesis counts so", ("v2_thesis", "Finding")),
    ("chexpert", "v3_0s", "Pneumothorax"): Erratum(
        _SWAPPED + "1,231 + 308 = 1,539 is Cardiomegaly alone", ("v3_0s", "Cardiomegaly")
    ),
    ("chexpert", "v3_0s", "Cardiomegaly"): Erratum(
        _SWAPPED + "1,818 + 456 = 2,274 is Pneumothorax alone", ("v3_0s", "Pneumothorax")
    ),
    ("chexpert", "v3_xs", "No Finding"): Erratum(
        "printed is No Finding alone; by its definition v3_xs also holds No Finding with support devices, "
        "16,974 in all",
        ("v3_0s", "No Finding"),
    ),
    ("chexpert", "v3_xs", "Pneumothorax"): _V3_XS_ERRATUM,
    ("chexpert", "v3_xs", "Pneumonia"): _V3_XS_ERRATUM,
    ("chexpert", "v3_xs", "Cardiomegaly"): _V3_XS_ERRATUM,
    ("chestxray", "v1_0s", "Pneumothorax"): Erratum(
        "777 + 316 = 1,093 is Cardiomegaly alone in NIH's own table, Pneumothorax alone is 2,194: the thesis's test on "
        "ChestX-ray8 may have used Cardiomegaly images for Pneumothorax",
        ("v3_0s", "Cardiomegaly"),
    ),
    ("chestxray", "v3_0s", "Pneumothorax"): Erratum(
        _SWAPPED + "777 + 316 = 1,093 is Cardiomegaly alone", ("v3_0s", "Cardiomegaly")
    ),
    ("chestxray", "v3_0s", "Cardiomegaly"): Erratum(
        _SWAPPED + "1,241 + 953 = 2,194 is Pneumothorax alone", ("v3_0s", "Pneumothorax")
    ),
}
OTHER_SPLIT = (
    "the thesis's own 80/20 split, which is not published and not said to keep a patient on one side: only the sum "
    "over the splits can be equal"
)


def class_count(dataset: str, version: str, class_name: str, split: str) -> int | None:
    """The printed count of a class in a split; `all` is the sum over the printed splits; None: not published."""
    counts = CLASS_COUNTS.get(dataset, {}).get(version, {}).get(class_name)
    if counts is None:
        return None
    if split == "all":
        return sum(counts)
    return dict(zip(SPLITS[dataset], counts, strict=True)).get(split)


def sum_of_findings(dataset: str, version: str, split: str) -> int:
    """The printed counts of a version's classes, No Finding left out, added up; 0 if they are not published."""
    names = [name for name in CLASS_COUNTS.get(dataset, {}).get(version, {}) if name != NO_FINDING]
    return sum(class_count(dataset, version, name, split) or 0 for name in names)


def obstacle(*, dataset: str, source: str, num_rows: int, view: str, uncertain: str, policy: str = "zeros") -> str:
    """Why published counts cannot stand beside ours, in one line; "" if they can.

    Args:
        dataset: chexpert, chestxray, ...
        source: of the table: that of a phantom is not the data set's name.
        num_rows: of the table, skipped rows included.
        view: any for all frontal views, or what else was counted.
        uncertain: our policy for uncertain labels.
        policy: that of the published counts; NIH has no uncertain labels, so there it does not matter.
    """
    if dataset not in NUM_ROWS:
        return f"there are no published counts of --dataset={dataset}"
    if source != dataset:
        return f"the table is of {source}, the published counts are of {TABLE_NAMES[dataset]}"
    if num_rows != NUM_ROWS[dataset]:
        return (
            f"the table has {num_rows:,} rows, the published counts are of {TABLE_NAMES[dataset]} "
            f"with {NUM_ROWS[dataset]:,}"
        )
    if view != "any":
        return f"the published counts are of all frontal views, these of {view}"
    if dataset == "chexpert" and uncertain != policy:
        return f"the published counts were made with --uncertain={policy}, these with --uncertain={uncertain}"
    return ""

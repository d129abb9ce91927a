"""The settings of synthetic-medical-benchmark, as label versions that are made from the data.

A class is a combination of labels. A setting takes the most frequent combinations of a table, all of those with
more than a number of images or a given number of them, and as many images of each as it says.

Source: Schütte et al. 2021 (npj Digital Medicine), whose settings look at CheXpert with uncertain labels taken as
positive, split by patient 80/10/10; and, of the label set brain_benchmark, at the RSNA's brain CTs. There they use at
most 107,365 slices without a finding, which --images_per_class does for settings with numbers; the resolution setting
here has all.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations
from tfrecords_builder.labels.canonical import SPLITS
from tfrecords_builder.labels.label_sets import BRAIN6, BRAIN_BENCHMARK, DEFAULT, LabelSet
from tfrecords_builder.labels.versions import LabelVersion, make_label_version


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: which combinations are classes, and how many images of each are used."""

    combinations: int | None  # the most frequent ones; None: all with more than `more_than` images
    more_than: int = 0
    images_per_class: tuple[int, int, int] | None = None  # train, validation, test; None: all
    uncertain: str = "ones"  # for labels.apply_uncertain


SETTINGS: dict[str, Setting] = {
    "resolution": Setting(None, more_than=256),
    "classes-20": Setting(20, images_per_class=(1450, 190, 170)),
    "classes-15": Setting(15, images_per_class=(1600, 190, 170)),
    "classes-10": Setting(10, images_per_class=(2000, 190, 170)),
    "classes-6": Setting(6, images_per_class=(2300, 190, 170)),
    "classes-4": Setting(4, images_per_class=(3900, 190, 170)),
    "classes-2": Setting(2, images_per_class=(6300, 190, 170)),
    "samples-5950": Setting(3, images_per_class=(5950, 750, 750)),
    "samples-4500": Setting(3, images_per_class=(4500, 750, 750)),
    "samples-3000": Setting(3, images_per_class=(3000, 750, 750)),
    "samples-1500": Setting(3, images_per_class=(1500, 750, 750)),
    "samples-1000": Setting(3, images_per_class=(1000, 750, 750)),
    "samples-500": Setting(3, images_per_class=(500, 750, 750)),
    "samples-400": Setting(3, images_per_class=(400, 750, 750)),
    "samples-200": Setting(3, images_per_class=(200, 750, 750)),
}


# Of the label set brain_benchmark.
BRAIN_SETTINGS: dict[str, Setting] = {
    "resolution": Setting(None, more_than=110, uncertain="zeros"),
    **{
        f"classes-{number}": Setting(number, images_per_class=(train, 300, 200), uncertain="zeros")
        for number, train in ((10, 2500), (8, 3120), (6, 4170), (4, 6250), (2, 12500))
    },
    **{
        f"samples-{train}": Setting(6, images_per_class=(train, 500, 500), uncertain="zeros")
        for train in (5400, 4500, 3000, 1500, 1000, 500, 300, 100)
    },
}
NAMES = tuple(dict.fromkeys([*SETTINGS, *BRAIN_SETTINGS]))


def settings_of(label_set: LabelSet) -> dict[str, Setting]:
    """The settings for a label set: those of the brain CTs for their labels, else those of chest radiographs."""
    return BRAIN_SETTINGS if label_set in (BRAIN6, BRAIN_BENCHMARK) else SETTINGS


def make_version(
    name: str, vectors: np.ndarray, extra: np.ndarray | None = None, label_set: LabelSet = DEFAULT
) -> LabelVersion:
    """Makes a setting's label version: its classes are label combinations of the data, the most frequent first.

    Args:
        name: of a setting of the label set.
        vectors: [N, L] in {0, 1}: the label vectors of the rows that may be used.
        extra: object[N] of str, their findings outside the label set (None: no row has any). A row with such a finding,
            or without any label, is in no class.
        label_set: the labels of the vectors.

    Returns:
        A version whose classes fix all labels and are called by the positive ones, joined by "|". Of equally
        frequent combinations the one that has the first label in which they differ comes first.

    Raises:
        InputError: the data have fewer combinations than the setting needs.
    """
    setting = settings_of(label_set)[name]
    positive = np.asarray(vectors) > 0.5
    counted = positive.any(axis=1)
    if extra is not None:
        counted &= np.asarray(extra, object) == ""
    occurring = combinations.count(combinations.encode(positive[counted]), len(label_set))
    codes = combinations.rank(occurring)
    counts = occurring[codes]
    if setting.combinations is None:
        codes = codes[counts > setting.more_than]
        if not len(codes):
            most = f"the most frequent has {counts[0]}" if len(counts) else "the data have no labelled row"
            raise InputError(
                f"--label_version={name}: none of the {len(counts)} label combinations has more than "
                f"{setting.more_than} images ({most}); choose a classes-N or samples-N setting"
            )
    elif len(codes) < setting.combinations:
        raise InputError(
            f"--label_version={name}: needs {setting.combinations} label combinations, the data have {len(codes)}; "
            "choose a setting with fewer classes"
        )
    table, labels = {}, label_set.labels
    for code in codes[: setting.combinations]:
        one = combinations.names(code, labels)
        table[combinations.format_code(code, labels)] = {
            "one": one,
            "zero": [label for label in labels if label not in one],
        }
    return make_label_version(name, table, label_set)


def draw(
    splits: np.ndarray,
    classes: np.ndarray,
    images_per_class: Sequence[int],
    *,
    class_names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """Draws the same number of images of every class, at random.

    A smaller number draws a part of what a larger one draws from the same rows with the same seed.

    Args:
        splits: object[N] of str, a name of SPLITS or anything else for rows that are not to be drawn.
        classes: int[N], the class of each row, -1 for rows that are not to be drawn.
        images_per_class: how many of train, validation and test; 0: none of that split.
        class_names: the names in the order of the class indices.
        seed: decides which rows.

    Returns:
        bool[N]: the drawn rows.

    Raises:
        InputError: numbers that are none, no class at all, or a class with fewer images in a split than are asked for.
    """
    text = ",".join(map(str, images_per_class))
    if len(images_per_class) != len(SPLITS) or min(images_per_class) < 0 or not any(images_per_class):
        raise InputError(f"--images_per_class={text}: give three numbers for {', '.join(SPLITS)}, not all 0")
    if not class_names:
        raise InputError(f"--images_per_class={text}: a multi-label version has no classes; choose another version")
    splits, classes = np.asarray(splits, object), np.asarray(classes)
    chosen = np.zeros(len(splits), bool)
    for s, (split, want) in enumerate(zip(SPLITS, images_per_class, strict=True)):
        for index, name in enumerate(class_names):
            rows = np.flatnonzero((splits == split) & (classes == index))
            if len(rows) < want:
                raise InputError(
                    f"class {name!r} has {len(rows)} images in the {split} split, {want} are wanted; "
                    "--images_per_class=TRAIN,VALIDATION,TEST sets smaller numbers"
                )
            chosen[np.random.default_rng([seed, 3, s, index]).permutation(rows)[:want]] = True
    return chosen

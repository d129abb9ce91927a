"""Policies that split images into train, validation and test.

The split of a patient depends on the data set's table, the policy and its arguments and the seed only: not on label
version, resolution, uncertain policy, view or limit. So a patient in the test fold of one record set is in the test
fold of every other one made from the same table, and a GAN trained on `multilabel` records has not seen the patients
that a classifier is tested on in `v1_0s`. (`--missing_images=skip` is the exception: it splits the images there are.)

An image without a patient (an empty id: synthetic images, folder sets that do not know theirs) is a group of its own.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from tfrecords_builder import choices
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.canonical import SPLITS
from tfrecords_builder.labels.label_sets import DEFAULT
from tfrecords_builder.splits.lists import NO_SPLIT, Lists

OFFICIAL_VALIDATION = 0.1
# What a reader's column `fold` may hold; "train_val" is the official fold that the data set leaves to its users to cut.
_FOLDS = ("train_val", *SPLITS, NO_SPLIT)


def assign_splits(
    frame: pd.DataFrame,
    policy: str,
    *,
    fractions: Sequence[float] = choices.SPLIT_FRACTIONS,
    seed: int = 0,
    num_folds: int = 5,
    fold: int = 0,
    kfold_test: bool = True,
    lists: Lists | None = None,
    hashed: np.ndarray | None = None,
    labels: Sequence[str] = DEFAULT.labels,
) -> np.ndarray:
    """Returns the split of each row of a reader's frame (object[N] of str).

    Args:
        frame: `readers.Table.frame`.
        policy: `patient`: whole patients, stratified by label; `official`: the folds of the data set, where a tenth of
            the patients of a fold `train_val`, stratified, is for validation (rows in no fold get NO_SPLIT); `image`:
            single images, stratified: one patient's images leak from train to test; `kfold`: whole patients in equal
            folds, stratified; `lists`: as in `lists` (rows in no list get NO_SPLIT).
        fractions: of train, validation and test (for `patient` and `image`); they sum to 1.
        seed: decides which patients.
        num_folds: for `kfold`, at least 2, with a test fold 3.
        fold: for `kfold`, from 0: which fold is the test split, the next one (after the last the first) being the
            validation split. The folds themselves do not depend on it.
        kfold_test: if false, `fold` is the validation split of `kfold` and there is no test split.
        lists: for `lists`, what `read_lists` returned.
        hashed: object[N] of str, salted patient ids to look for in `lists` where it does not hold the plain one.
        labels: the columns of `frame` that are labels, by which patients are stratified.

    Raises:
        InputError: a bad argument, an empty official fold, folds or lists that put a patient into two splits, lists
            that hold no row.
    """
    if policy not in choices.SPLIT_POLICIES:
        raise InputError(f"--split_policy={policy}: unknown; choose one of {', '.join(choices.SPLIT_POLICIES)}")
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        text = ",".join(map(str, fractions))
        raise InputError(f"--split_fractions={text}: give three numbers for {', '.join(SPLITS)} that sum to 1")
    patients, names = frame["patient"].to_numpy(object), np.array(SPLITS, object)
    if policy == "image":
        return names[_split_groups(np.arange(len(frame)), _memberships(frame, labels), fractions, seed)]
    if policy == "patient":
        result = names[_split_groups(_groups(frame), _memberships(frame, labels), fractions, seed)]
    elif policy == "kfold":
        result = _kfold(frame, num_folds, fold, kfold_test, seed, labels)
    elif policy == "lists":
        if lists is None:
            raise InputError("--split_policy=lists: needs --split_lists, a CSV or a record set; give it")
        return _follow_lists(frame, lists, hashed)
    else:
        result = _official(frame, seed, labels)
    check_disjoint(patients, result)
    return result


def check_disjoint(patients: np.ndarray, splits: np.ndarray) -> None:
    """Raises InputError if patients are in two splits: how many, one of them, and what to do.

    Empty ids (synthetic images) are exempt.
    """
    pairs = pd.DataFrame({"patient": patients, "split": splits}).drop_duplicates()
    pairs = pairs[(pairs["patient"] != "") & (pairs["split"] != NO_SPLIT)]
    twice = pairs["patient"].duplicated()
    if twice.any():
        patient = pairs["patient"][twice].iloc[0]
        both = " and ".join(pairs["split"][pairs["patient"] == patient])
        count = pairs["patient"][twice].nunique()
        raise InputError(
            f"{count:,} {'patients are' if count > 1 else 'patient is'} in more than one split, such as {patient} in "
            f"{both}, so that scores would be too good; --split_policy=patient splits all images anew, by patient"
        )


def _official(frame: pd.DataFrame, seed: int, labels: Sequence[str]) -> np.ndarray:
    folds = frame["fold"].to_numpy(object)
    present = set(folds)
    unknown = sorted(present - set(_FOLDS))
    if unknown:
        raise InputError(f"--split_policy=official: unknown fold {unknown[0]!r}; known: {', '.join(_FOLDS[:-1])}")
    # A data set that says itself which rows train may leave out the others, and one that is for tests has no other; an
    # official list may not be missing.
    if not present - {NO_SPLIT} or ("train_val" in present and "test" not in present and "train" not in present):
        raise InputError("--split_policy=official: an official fold has no row of the table; choose another policy")
    result, rest = np.where(folds == "train_val", NO_SPLIT, folds).astype(object), folds == "train_val"
    if rest.any():
        cut = (1 - OFFICIAL_VALIDATION, OFFICIAL_VALIDATION, 0.0)
        part = _split_groups(_groups(frame[rest]), _memberships(frame, labels)[rest], cut, seed)
        result[rest] = np.array(SPLITS, object)[part]
    return result


def _kfold(frame: pd.DataFrame, num_folds: int, fold: int, test: bool, seed: int, labels: Sequence[str]) -> np.ndarray:
    least = 3 if test else 2
    if num_folds < least:
        raise InputError(f"--num_folds={num_folds}: give at least {least}{' with a test fold' if test else ''}")
    if not 0 <= fold < num_folds:
        raise InputError(f"--fold={fold}: give one of 0 to {num_folds - 1} (--num_folds={num_folds})")
    inverse, sizes, strata = stratify(_groups(frame), _memberships(frame, labels))
    if len(sizes) < num_folds:
        raise InputError(f"--num_folds={num_folds}: the table has {len(sizes)} patients; give fewer folds")
    # Strata one after the other, large groups first, dealt out like cards, to and fro so that no fold always gets the
    # larger ones: the numbers of patients in the folds differ by at most one.
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.lexsort([-sizes[shuffled], strata[shuffled]])]
    places = np.arange(len(order))
    there, back = places % num_folds, num_folds - 1 - places % num_folds
    folds = np.zeros(len(sizes), np.int64)
    folds[order] = np.where(places // num_folds % 2, back, there)
    behind = (folds - fold) % num_folds
    names = np.array(["test", "validation", "train"] if test else ["validation", "train", "train"], object)
    return names[np.minimum(behind, 2)][inverse]


def _follow_lists(frame: pd.DataFrame, lists: Lists, hashed: np.ndarray | None) -> np.ndarray:
    patients = frame["patient"].to_numpy(object)
    result = lists.find(frame["id"].to_numpy(object), patients, hashed)
    if not (result != NO_SPLIT).any():
        raise InputError(
            f"--split_lists={lists.path}: holds none of the {len(frame)} rows of the table; "
            "are they patients and images of this data set, and is its salt the same?"
        )
    try:
        check_disjoint(patients, result)
    except InputError as error:
        raise InputError(f"--split_lists={lists.path}: {error}; or keep each patient in one of the lists") from error
    return result


def _groups(frame: pd.DataFrame) -> np.ndarray:
    """Returns what must stay together, object[N] of str: the patient, or the image if it has none."""
    patients = frame["patient"].to_numpy(object)
    alone = patients == ""
    return np.where(alone, "\0" + frame["id"].to_numpy(object), patients) if alone.any() else patients


def _memberships(frame: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """bool[N, K]: what to balance over the splits: each label, each label alone, extra findings, no label at all."""
    positive = frame[list(labels)].to_numpy() == 1
    extra = (frame["extra"] != "").to_numpy()
    alone = positive & (positive.sum(axis=1) + extra == 1)[:, None]
    return np.column_stack([positive, alone, extra, ~positive.any(axis=1) & ~extra])


def number_patients(patients: Iterable[str]) -> np.ndarray:
    """A number for each patient, int64 [N] in 0..P-1, of ids [N]; an image without one is a patient of its own."""
    names = [name or f"\0{i}" for i, name in enumerate(patients)]
    return np.unique(names, return_inverse=True)[1]


def stratify(groups: np.ndarray, memberships: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Puts whole groups, such as patients, into strata.

    Args:
        groups: what must stay together, [N] of any kind.
        memberships: what each row has, bool [N, K]; each row has at least one thing.

    Returns:
        Each row's group number int [N], and each group's number of rows and its stratum, int [G]: the rarest thing
        (column of `memberships`) that one of its rows has.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse)
    has = np.zeros((len(sizes), memberships.shape[1]), bool)
    for k in range(memberships.shape[1]):
        has[inverse[memberships[:, k]], k] = True
    rarest_first = np.argsort(has.sum(axis=0), kind="stable")
    return inverse, sizes, np.argmax(has[:, rarest_first], axis=1)  # every row has at least one


def _split_groups(groups: np.ndarray, memberships: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Returns the split index int[N] of each row; rows of a group stay together.

    In each stratum the splits get their shares of the groups, dealt out in order of group size, so that each gets small
    and large ones; a stratum with enough groups gives every split one.
    """
    inverse, sizes, stratum = stratify(groups, memberships)
    rng = np.random.default_rng(seed)
    result = np.zeros(len(sizes), np.int64)
    shares = np.asarray(fractions, float)
    given = np.zeros(len(shares))
    for k in range(memberships.shape[1]):
        members = rng.permutation(np.flatnonzero(stratum == k))
        members = members[np.argsort(-sizes[members], kind="stable")]
        counts = _quotas(len(members), shares, given)
        given += counts
        # Split s gets the places (0.5, 1.5, ...) / counts[s] of the way down the list.
        places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n] or [np.zeros(0)])
        dealt = np.repeat(np.arange(len(counts)), counts)
        result[members] = dealt[np.argsort(places, kind="stable")]
    return result[inverse]


def _quotas(count: int, shares: np.ndarray, given: np.ndarray) -> np.ndarray:
    """How many of `count` groups each split gets: what it lacks to its share of all groups so far, in whole numbers."""
    if not count:
        return np.zeros(len(shares), np.int64)
    want = np.maximum(shares * (given.sum() + count) - given, 0)
    want *= count / want.sum()
    quotas = np.floor(want + 1e-9).astype(np.int64)
    for s in np.argsort(quotas - want, kind="stable")[: count - quotas.sum()]:
        quotas[s] += 1
    used = np.flatnonzero(shares > 0)
    if count >= len(used):
        for s in used[quotas[used] == 0]:
            quotas[np.argmax(quotas)] -= 1
            quotas[s] += 1
    return quotas

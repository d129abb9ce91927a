"""Splits into train, validation and test.

The split of a patient depends on the data set's table, the policy, the fractions and the seed only: not on label
version, resolution, uncertain policy, view or limit. So a patient in the test fold of one record set is in the test
fold of every other one made from the same table, and a GAN trained on `multilabel` records has not seen the patients
that a classifier is tested on in `v1_0s`. (`--missing_images=skip` is the exception: it splits the images there are.)
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS
from tfrecords_builder.records import SPLITS

POLICIES: tuple[str, ...] = ("patient", "official", "image")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
OFFICIAL_VALIDATION = 0.1
NO_SPLIT = ""


def assign_splits(
    frame: pd.DataFrame, policy: str, *, fractions: Sequence[float] = DEFAULT_FRACTIONS, seed: int = 0
) -> np.ndarray:
    """Returns the split of each row of a reader's frame (object[N] of str).

    Args:
        frame: `readers.Table.frame`.
        policy: `patient`: whole patients, stratified by label; `official`: the test fold of the data set, and a tenth
            of the other patients, stratified, for validation (rows in no official fold get NO_SPLIT); `image`: single
            images, stratified: one patient's images leak from train to test.
        fractions: of train, validation and test (not for `official`); they sum to 1.
        seed: decides which patients.

    Raises:
        InputError: a bad argument, an empty official fold, or an official fold that shares patients with another.
    """
    if policy not in POLICIES:
        raise InputError(f"--split_policy={policy}: unknown; choose one of {', '.join(POLICIES)}")
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        text = ",".join(map(str, fractions))
        raise InputError(f"--split_fractions={text}: give three numbers for {', '.join(SPLITS)} that sum to 1")
    strata, patients = _memberships(frame), frame["patient"].to_numpy(object)
    names = np.array(SPLITS, object)
    if policy == "image":
        return names[_split_groups(np.arange(len(frame)), strata, fractions, seed)]
    if policy == "patient":
        result = names[_split_groups(patients, strata, fractions, seed)]
    else:
        fold = frame["fold"].to_numpy(object)
        result = np.where(fold == "test", "test", NO_SPLIT).astype(object)
        rest = fold == "train_val"
        if not rest.any() or not (fold == "test").any():
            raise InputError("--split_policy=official: an official fold has no row of the table; choose another policy")
        official = (1 - OFFICIAL_VALIDATION, OFFICIAL_VALIDATION, 0.0)
        result[rest] = names[_split_groups(patients[rest], strata[rest], official, seed)]
    check_disjoint(patients, result)
    return result


def check_disjoint(patients: np.ndarray, splits: np.ndarray) -> None:
    """Raises InputError naming a patient who is in two splits. Empty ids (synthetic images) are exempt."""
    pairs = pd.DataFrame({"patient": patients, "split": splits}).drop_duplicates()
    pairs = pairs[(pairs["patient"] != "") & (pairs["split"] != NO_SPLIT)]
    twice = pairs["patient"].duplicated()
    if twice.any():
        patient = pairs["patient"][twice].iloc[0]
        both = ", ".join(pairs["split"][pairs["patient"] == patient])
        raise InputError(f"patient {patient} is in more than one split ({both})")


def _memberships(frame: pd.DataFrame) -> np.ndarray:
    """bool[N, K]: what to balance over the splits: each label, each label alone, extra findings, no label at all."""
    positive = frame[list(LABELS)].to_numpy() == 1
    extra = (frame["extra"] != "").to_numpy()
    alone = positive & (positive.sum(axis=1) + extra == 1)[:, None]
    return np.column_stack([positive, alone, extra, ~positive.any(axis=1) & ~extra])


def _split_groups(groups: np.ndarray, memberships: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Returns the split index int[N] of each row; rows of a group stay together.

    A group's stratum is the rarest thing (column of `memberships`) that one of its rows has. In each stratum the
    splits get their shares of the groups, dealt out in order of group size, so that each gets small and large ones;
    a stratum with enough groups gives every split one.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse)
    has = np.zeros((len(sizes), memberships.shape[1]), bool)
    for k in range(memberships.shape[1]):
        has[inverse[memberships[:, k]], k] = True
    rarest_first = np.argsort(has.sum(axis=0), kind="stable")
    stratum = np.argmax(has[:, rarest_first], axis=1)  # every row has at least one

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

"""Which patients and images two record sets share: what tells whether a test is of data that was trained on."""

import dataclasses
from collections.abc import Sequence

from tfrecords_builder.records import manifest
from tfrecords_builder.records.info import RecordSetInfo


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What two record sets share.

    Attributes:
        patients: ids of patients that are in both.
        images: digests of the encoded images that are in both (see `examples.digest_image`).
    """

    patients: frozenset[str]
    images: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.patients or self.images)


def find_overlap(
    first: RecordSetInfo, first_splits: str | Sequence[str], second: RecordSetInfo, second_splits: str | Sequence[str]
) -> Overlap:
    """Finds what splits of one record set share with splits of another, or of the same one.

    Patients are compared where both sets are of one data set (`RecordSetInfo.dataset_name`) and both have plain ids, or
    both hashed ones; a patient id of two data sets is two people. Images are always compared, by the bytes in the
    record: equal pictures under other names are found, but not those built with another --resolution, --aspect or
    --contrast.

    Args:
        first: a record set.
        first_splits: one of its splits or several; a split that it lacks is empty.
        second: another record set, or the same.
        second_splits: as `first_splits`.

    Returns:
        The patients and images that are on both sides.

    Raises:
        InputError: a manifest is not of its records.
        RunError: damaged records.
    """
    ours, theirs = (list_members(*side) for side in ((first, first_splits), (second, second_splits)))
    patients = ours.patients & theirs.patients if have_same_patients(first, second) else frozenset[str]()
    return Overlap(patients, ours.images & theirs.images)


def list_members(info: RecordSetInfo, splits: str | Sequence[str]) -> Overlap:
    """All patients and images of splits of a record set; errors as of `find_overlap`."""
    patients: set[str] = set()
    images: set[str] = set()
    for split in [splits] if isinstance(splits, str) else splits:
        if split in info.splits:
            rows = manifest.read_rows(info, split, ["patient", "image_digest"])
            patients.update(rows["patient"].unique())
            images.update(rows["image_digest"])
    return Overlap(frozenset(patients - {""}), frozenset(images))


def have_same_patients(first: RecordSetInfo, second: RecordSetInfo) -> bool:
    """Whether an id of a patient in one record set means the same person in the other."""
    if first.hashed_patients != second.hashed_patients:
        return False
    if first.dataset_name and second.dataset_name:
        return first.dataset_name == second.dataset_name
    return first.source == second.source

"""What a record set says of itself: splits, classes, counts and digest; reading and writing that."""

import dataclasses
import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import CHEXPERT14, LabelSet, make_label_set
from tfrecords_builder.labels.versions import LabelVersion, make_label_version
from tfrecords_builder.records import tfds_format
from tfrecords_builder.records.examples import features

SCHEMA_VERSION = 3
# Sets of version 2 have no label set: they are of CheXpert's labels, then the only ones.
_SCHEMA_OF_CHEXPERT = 2

INFO_FILE = "tfcxr_info.json"
MANIFEST_FILE = "manifest.csv"


def manifest_columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The columns of manifest.csv of a set with these labels."""
    return (
        *("id", "patient", "split", "class", "view", "sex", "age"),
        *labels,
        *("extra", "image_digest", "shard", "position"),
    )


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """One split of a record set."""

    num_examples: int
    num_patients: int | None  # None: the images belong to no patients (synthetic)
    num_bytes: int
    shards: tuple[str, ...]  # file names
    shard_lengths: tuple[int, ...]
    class_counts: dict[str, int]  # empty if multi-label
    label_counts: dict[str, int]  # images with the label


@dataclasses.dataclass(frozen=True)
class RecordSetInfo:
    """What a record set holds and how it was made."""

    name: str
    dataset: str  # chexpert, chestxray, folder, records, synthetic
    source: str  # `source` of its records: chexpert, chestxray, folder:<name>, phantom-a, synthetic:<run>
    label_version: str
    classes: tuple[str, ...]
    resolution: int
    uncertain: str
    split_policy: str
    view: str
    seed: int
    label_set: LabelSet
    digest: str  # of the records and their splits, whatever their order
    label_definition: dict[
        str, dict[str, list[str]]
    ]  # class -> its rule, see labels.make_label_version; {} if multi-label
    aspect: str  # see pictures.py; empty for synthetic images, as is `contrast`
    contrast: str
    hashed_patients: bool  # whether patient ids are salted hashes
    splits: dict[str, SplitInfo]
    provenance: dict[str, Any]
    schema_version: int
    folder: pathlib.Path  # where it was loaded from
    # Whose patients they are: equal ids of data sets of one name are one person. Empty in sets written before there was
    # such a name: `source` stands for it.
    dataset_name: str = ""

    def split(self, name: str) -> SplitInfo:
        """The split called `name`. Raises InputError listing those there are."""
        if name not in self.splits:
            raise InputError(f"{self.folder}: has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def shard_paths(self, split: str) -> list[str]:
        """Paths of the split's shards, in order. Raises InputError if there is no such split."""
        return [str(self.folder / shard) for shard in self.split(split).shards]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of label vectors."""
        return self.label_set.labels

    @property
    def multilabel(self) -> bool:
        """Whether the set has label vectors but no classes."""
        return not self.classes

    @property
    def version(self) -> LabelVersion:
        """The label version, made of the definition that the set holds. Raises InputError if that is damaged."""
        return make_label_version(self.label_version, self.label_definition, self.label_set)


def load_info(folder: str | os.PathLike, *, check_shards: bool = True) -> RecordSetInfo:
    """Loads the description of a record set.

    Raises:
        InputError: the folder is absent, no record set, of another schema version or damaged; with `check_shards`
            also if a shard file is absent. The message is one line and names the folder.
    """
    folder = pathlib.Path(folder)
    if not (folder / INFO_FILE).is_file():
        what = f"has no {INFO_FILE}" if folder.is_dir() else "is not there"
        raise InputError(f"{folder}: {what}; expected a record set written by build-records or generate")
    value = files.read_json(folder / INFO_FILE)
    schema = value.get("schema_version") if isinstance(value, dict) else None
    if schema not in (SCHEMA_VERSION, _SCHEMA_OF_CHEXPERT):
        raise InputError(
            f"{folder}: schema version {schema}, this program reads {SCHEMA_VERSION}; build the records again"
        )
    try:
        splits = {name: SplitInfo(**_tuples(split)) for name, split in value.pop("splits").items()}
        named = tuple(value.pop("labels"))
        label_set = make_label_set(value.pop("label_set")) if schema == SCHEMA_VERSION else CHEXPERT14
        info = RecordSetInfo(**_tuples(value), label_set=label_set, splits=splits, folder=folder)
    except (TypeError, AttributeError, KeyError, InputError) as error:
        raise InputError(f"{folder}: {INFO_FILE} is damaged ({error}); build the records again") from error
    for part in (info, *splits.values()):
        for name, kind in get_type_hints(type(part)).items():
            if not _is(getattr(part, name), kind):
                raise InputError(f"{folder}: {INFO_FILE} is damaged (its {name}); build the records again")
    if info.classes != tuple(info.label_definition):
        raise InputError(f"{folder}: {INFO_FILE} is damaged (its classes); build the records again")
    if info.labels != named:
        raise InputError(f"{folder}: its labels are not those of {label_set.name}; build the records again")
    absent = [shard for split in splits.values() for shard in split.shards if not (folder / shard).is_file()]
    if check_shards and absent:
        raise InputError(f"{folder}: shard {absent[0]} is missing; build the records again")
    return info


def write_info(info: RecordSetInfo) -> None:
    """Writes tfcxr_info.json, dataset_info.json and features.json into `info.folder`."""
    value = dataclasses.asdict(info)
    del value["folder"]
    value |= {"label_set": info.label_set.to_dict(), "labels": list(info.labels)}
    files.write_json(info.folder / INFO_FILE, value)
    images = info.label_set.images
    described = tfds_format.describe_set(
        info.name,
        version=f"{SCHEMA_VERSION}.0.0",
        description=f"{images[:1].upper()}{images[1:]} ({info.source}), label version {info.label_version}, "
        f"{info.resolution} px. Written by tfcxr; see {INFO_FILE}.",
        splits={name: (split.num_bytes, split.shard_lengths) for name, split in info.splits.items()},
    )
    described_features = tfds_format.describe_features(
        features(len(info.labels)), image_key="image/encoded", resolution=info.resolution
    )
    files.write_json(info.folder / "dataset_info.json", described)
    files.write_json(info.folder / "features.json", described_features)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value, with all that it holds, is of the type that an annotation says."""
    parts = get_args(kind)
    if kind is Any or not parts:
        return kind is Any or (isinstance(value, kind) and (kind is not int or not isinstance(value, bool)))
    if get_origin(kind) in (tuple, list):  # of any length, of one type
        return isinstance(value, get_origin(kind)) and all(_is(each, parts[0]) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(key, parts[0]) and _is(value[key], parts[1]) for key in value)
    return any(_is(value, each) for each in parts)


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


class Summary:
    """Counts and digest over records; sums of summaries do not depend on the order of the records."""

    def __init__(self, classes: Sequence[str], labels: Sequence[str]):
        self._classes, self._labels = classes, labels
        self.num_examples = 0
        self.num_bytes = 0
        self.patients: set[str] = set()
        self.has_anonymous = False
        self.class_counts: Counter[str] = Counter()
        self.label_counts: Counter[str] = Counter()
        self.digest = 0

    def add(self, split: str, serialized: bytes, row: Mapping[str, Any]) -> None:
        """Adds one record; `row` is what `to_row` made of it."""
        self.num_examples += 1
        self.num_bytes += len(serialized)
        if row["patient"]:
            self.patients.add(row["patient"])
        else:
            self.has_anonymous = True
        if row["class"]:
            self.class_counts[row["class"]] += 1
        self.label_counts.update(label for label in self._labels if row[label])
        self.digest += int.from_bytes(hashlib.sha256(split.encode() + b"\0" + serialized).digest(), "big")

    def merge(self, other: "Summary") -> None:
        """Adds all that `other` saw."""
        self.num_examples += other.num_examples
        self.num_bytes += other.num_bytes
        self.patients |= other.patients
        self.has_anonymous |= other.has_anonymous
        self.class_counts += other.class_counts
        self.label_counts += other.label_counts
        self.digest += other.digest

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes this summary of again."""
        return {
            "num_examples": self.num_examples,
            "num_bytes": self.num_bytes,
            "patients": sorted(self.patients),
            "has_anonymous": self.has_anonymous,
            "class_counts": dict(self.class_counts),
            "label_counts": dict(self.label_counts),
            "digest": format_digest(self.digest),
        }

    @classmethod
    def from_json(cls, classes: Sequence[str], labels: Sequence[str], value: Mapping[str, Any]) -> "Summary":
        """The summary that `to_json` described."""
        summary = cls(classes, labels)
        summary.num_examples, summary.num_bytes = value["num_examples"], value["num_bytes"]
        summary.patients, summary.has_anonymous = set(value["patients"]), value["has_anonymous"]
        summary.class_counts, summary.label_counts = Counter(value["class_counts"]), Counter(value["label_counts"])
        summary.digest = int(value["digest"], 16)
        return summary

    def split_info(self, shards: Sequence[str], lengths: Sequence[int]) -> SplitInfo:
        """This summary as the description of a split."""
        return SplitInfo(
            num_examples=self.num_examples,
            num_patients=None if self.has_anonymous else len(self.patients),
            num_bytes=self.num_bytes,
            shards=tuple(shards),
            shard_lengths=tuple(lengths),
            class_counts={name: self.class_counts[name] for name in self._classes},
            label_counts={label: self.label_counts[label] for label in self._labels},
        )


def format_digest(digest: int) -> str:
    """The sum of the records' SHA-256 values, modulo 2^256, as 64 hexadecimal digits."""
    return f"{digest % 2**256:064x}"

"""Plans: which labels each image of a synthetic set has, and in which split it is.

Unless a table says otherwise, the first 80% of the images of a class are train and the rest validation. A plan takes 3
bytes per image, 3 MB per million; making one takes up to 30 MB per million for a moment, and writing one holds another
12 bytes per image.
"""

import dataclasses
import functools
import os

import numpy as np

from tfcxr.gan import loading
from tfcxr.generation import conditions
from tfrecords_builder import labels as labels_lib
from tfrecords_builder import records
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LabelClass, LabelSet, LabelVersion, combinations
from tfrecords_builder.labels.canonical import SPLITS

TRAIN_FRACTION = 0.8
MAX_IMAGES = 10**9  # a slip of the finger should not fill the disk or the memory

_SHOWN = 3  # combinations that a message names

_TRAIN, _VALIDATION = SPLITS.index("train"), SPLITS.index("validation")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to generate: row i is image i.

    Attributes:
        version: label version of the set.
        codes: uint16 or uint32 [N], the label combinations (see combinations.py): the conditions, which the records
            hold.
        splits: uint8 [N], indices into canonical.SPLITS.
        label_source: where the labels come from, in words.
        left_out: reason -> number of images of the source that have no image here.
    """

    version: LabelVersion
    codes: np.ndarray
    splits: np.ndarray
    label_source: str
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def class_of_code(self) -> np.ndarray:
        """int16 [2^L]: the class of each combination; -1: none, as in a multilabel set."""
        return classes_of_codes(self.version)

    @property
    def classes(self) -> np.ndarray:
        """int16 [N], -1 in a multilabel set."""
        return self.class_of_code[self.codes]

    @property
    def vectors(self) -> np.ndarray:
        """float32 [N, L], of all images at once: for small plans."""
        return combinations.decode(self.codes, len(self.version.label_set))

    @functools.cached_property
    def code_counts(self) -> np.ndarray:
        """int64 [2^L]: the number of images of each combination."""
        return combinations.count(self.codes, len(self.version.label_set))

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name -> number of images; empty if multilabel."""
        names = enumerate(self.version.class_names)
        return {name: int(self.code_counts[self.class_of_code == index].sum()) for index, name in names}

    def __len__(self) -> int:
        return len(self.codes)


def classes_of_codes(version: LabelVersion) -> np.ndarray:
    """int16 [2^L]: the class of each combination of labels in a version; -1: none."""
    num_labels = len(version.label_set)
    everything = combinations.decode(np.arange(combinations.num_codes(num_labels)), num_labels)
    return labels_lib.assign(version, everything).astype(np.int16)


def find_label_version(
    name: str,
    versions_file: str | os.PathLike | None,
    label_records: str | os.PathLike | None,
    label_set: LabelSet = labels_lib.DEFAULT,
) -> LabelVersion:
    """The label version `name` of the generator's label set.

    It is a built-in one, one of the user's file, or that of the record set `label_records`. The last is how the classes
    of a benchmark setting are had, which come from data. Raises InputError.
    """
    if label_records:
        info = records.load_info(label_records)
        labels_lib.refuse_other(
            label_set, info.label_set, of="the generator", other_of=f"--label_records={label_records}"
        )
        if info.label_version == name:
            return info.version
    own = labels_lib.load_label_versions(versions_file, label_set) if versions_file else None
    return labels_lib.get_label_version(name, own, label_set)


def plan_balanced(
    generator: loading.Generator,
    version: LabelVersion,
    per_class: int,
    *,
    seed: int,
    label_records: str | os.PathLike | None = None,
    top_combinations: int | None = None,
) -> Plan:
    """The same number of images of each class.

    A class that fixes all labels is conditioned on exactly them. A class with free labels (Xs, "Finding") draws
    combinations that satisfy it, in proportion to their frequency. A multilabel set is one group of `per_class` images.

    Args:
        generator: decides which labels can be asked for.
        version: the label version.
        per_class: images per class.
        seed: of the draws; image i's combination is a function of (seed, i).
        label_records: record set whose combinations to draw from; default the generator's training fold.
        top_combinations: draw from that many most frequent combinations per class only; None: all.

    Raises:
        InputError: a class whose labels the generator was not conditioned on, or that no combination satisfies.
    """
    groups: list[tuple[int, LabelClass | None]] = [*enumerate(version.classes)] or [(labels_lib.NO_CLASS, None)]
    check_total("--per_class", per_class, per_class * len(groups))
    count_source = functools.cache(lambda: conditions.count_source(generator, label_records))
    class_of_code, uniform = classes_of_codes(version), _uniform(seed, per_class * len(groups))
    parts, origins = [], set()
    for position, (index, label_class) in enumerate(groups):
        if label_class is not None and _is_exact(label_class):
            choices, frequencies = _exact_code(generator, version, label_class)[None], np.ones(1, np.int64)
            origins.add("the class's own labels")
        else:
            counts, origin, _ = count_source()
            origins.add(origin)
            choices = combinations.rank(np.where(class_of_code == index, counts, 0))[:top_combinations]
            frequencies = counts[choices]
            if not len(choices):
                name = "multilabel" if label_class is None else label_class.name
                raise InputError(
                    f"--label_version={version.name}: no combination of the labels that the GAN is conditioned on "
                    f"satisfies class {name}; give --label_records that hold it"
                )
        mine = uniform[position * per_class : (position + 1) * per_class]
        parts.append(choices[conditions.draw(frequencies, mine)])
    codes = np.concatenate(parts)
    return Plan(version, codes, split_by_index(class_of_code[codes]), "; ".join(sorted(origins)))


def plan_replicated(
    generator: loading.Generator,
    version: LabelVersion,
    *,
    seed: int,
    label_records: str | os.PathLike | None = None,
    top_combinations: int | None = None,
) -> Plan:
    """One image for each labelled image of the source, with the same label vector; arguments and errors as
    `plan_balanced`.

    Vectors that are in no class of the version are left out and counted. The order is shuffled, so that both splits
    have the same distribution.
    """
    choices, frequencies, origin, left_out = _rank_source(generator, version, label_records, top_combinations)
    total = int(frequencies.sum())
    check_total("--label_records", total, total)
    order = np.random.Generator(np.random.Philox(seed)).permutation(total)
    codes = np.repeat(choices, frequencies)[order]
    splits = split_by_index(classes_of_codes(version)[codes])
    return Plan(version, codes, splits, f"replicates the {origin}", left_out)


def plan_sampled(
    generator: loading.Generator,
    version: LabelVersion,
    num_images: int,
    *,
    seed: int,
    label_records: str | os.PathLike | None = None,
    top_combinations: int | None = None,
) -> Plan:
    """`num_images` images with label vectors drawn from the distribution that `plan_replicated` copies.

    Image i's combination is a function of (seed, i): a larger set begins with the labels of a smaller one. Arguments
    and errors as `plan_balanced`.
    """
    check_total("--num_images", num_images, num_images)
    choices, frequencies, origin, left_out = _rank_source(generator, version, label_records, top_combinations)
    codes = choices[conditions.draw(frequencies, _uniform(seed, num_images))]
    splits = split_by_index(classes_of_codes(version)[codes])
    return Plan(version, codes, splits, f"sampled from the {origin}", left_out)


def plan_vector(generator: loading.Generator, version: LabelVersion, labels: str, num_images: int) -> Plan:
    """`num_images` images of one label combination.

    Args:
        generator: decides which labels can be asked for.
        version: the label version; one of its classes must hold the combination.
        labels: names joined by commas, in any case of letters.
        num_images: how many.

    Raises:
        InputError: what `conditions.parse_labels` refuses, or labels that are in no class of the version.
    """
    check_total("--num_images", num_images, num_images)
    code = conditions.parse_labels(labels, generator)
    class_of_code = classes_of_codes(version)
    if class_of_code[code] == labels_lib.NO_CLASS and not version.multilabel:
        raise InputError(f"--labels={labels}: is in no class of --label_version={version.name}; try multilabel")
    codes = np.full(num_images, code, combinations.code_type(len(version.label_set)))
    return Plan(version, codes, split_by_index(class_of_code[codes]), "one combination of labels")


def check_seen(generator: loading.Generator, plan: Plan, named: str, *, allow: bool) -> list[str]:
    """Checks that the GAN's training images have the label combinations of a plan, as far as it sees labels.

    Args:
        generator: what is to make the images.
        plan: what it is asked for.
        named: flag and value that named the generator, for messages.
        allow: only tell of combinations that it has not seen.

    Returns:
        What is to be told; empty if it has seen all.

    Raises:
        InputError: a combination that it has not seen, and `allow` is false.
    """
    if not generator.combinations:
        return [f"note: {named}: what it was trained on is unknown, so whether it has seen these labels is not checked"]
    seen_labels, labels = conditions.seen_labels(generator), generator.label_set.labels
    vectors = combinations.decode(np.flatnonzero(combinations.from_table(generator.combinations, labels)), len(labels))
    trained = combinations.encode(vectors * seen_labels)
    codes = combinations.rank(plan.code_counts)
    asked = combinations.encode(combinations.decode(codes, len(labels)) * seen_labels)
    unseen = codes[~np.isin(asked, trained)]
    if not len(unseen):
        return []
    number = int(plan.code_counts[unseen].sum())
    shown = [f"{' + '.join(combinations.names(code, labels))} ({plan.code_counts[code]})" for code in unseen[:_SHOWN]]
    more = f" and {len(unseen) - _SHOWN} other combinations" if len(unseen) > _SHOWN else ""
    known = ", ".join(np.array(labels)[(vectors * seen_labels).any(axis=0)])
    text = (
        f"{named}: none of its training images has the labels that {number} of {len(plan)} images ask for: "
        f"{', '.join(shown)}{more}; the labels that it has seen are {known}"
    )
    if allow:
        return [f"warning: {text}"]
    raise InputError(f"{text}. Choose another --label_version, or give --allow_unseen_labels")


def split_by_index(classes: np.ndarray, seed: int | None = None) -> np.ndarray:
    """Splits uint8 [N] of images with the classes int [N]: the first 80% of each class train, the rest validation.

    With a seed each class is shuffled before; for images whose order has a meaning.
    """
    splits = np.full(len(classes), _VALIDATION, np.uint8)
    for index in np.unique(classes):
        rows = np.flatnonzero(classes == index)
        if seed is not None:
            rows = np.random.Generator(np.random.Philox(seed)).permutation(rows)
        splits[rows[: round(len(rows) * TRAIN_FRACTION)]] = _TRAIN
    return splits


def check_total(what: str, value: int, total: int) -> None:
    """Raises InputError if a plan of `total` images, which the flag or file `what` asks for, has too many or none."""
    if value < 1:
        raise InputError(f"{what}={value}: must be at least 1")
    if total > MAX_IMAGES:
        raise InputError(f"{what}: asks for {total} images; a set holds at most {MAX_IMAGES}, make several")


def _uniform(seed: int, count: int) -> np.ndarray:
    """float64 [count] in [0, 1), each a function of `seed` and its index."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def _rank_source(
    generator: loading.Generator,
    version: LabelVersion,
    label_records: str | os.PathLike | None,
    top_combinations: int | None,
) -> tuple[np.ndarray, np.ndarray, str, dict[str, int]]:
    """Codes of the source that are in a class of the version, their counts, the source, and what is left out."""
    counts, origin, left_out = conditions.count_source(generator, label_records)
    if not version.multilabel:
        outside = classes_of_codes(version) == labels_lib.NO_CLASS
        if counts[outside].any():
            left_out[f"in no class of {version.name}"] = int(counts[outside].sum())
        counts = np.where(outside, 0, counts)
    choices = combinations.rank(counts)
    if not len(choices):
        raise InputError(
            f"--label_version={version.name}: no label combination of the {origin} is in any of its classes"
        )
    kept = choices[:top_combinations]
    if len(kept) < len(choices):
        left_out[f"not of the {len(kept)} most frequent combinations"] = int(counts[choices[len(kept) :]].sum())
    return kept, counts[kept], origin, left_out


def _is_exact(label_class: LabelClass) -> bool:
    return label_class.fixes_all and not label_class.any and set(label_class.one) <= set(label_class.label_set.labels)


def _exact_code(generator: loading.Generator, version: LabelVersion, label_class: LabelClass) -> np.ndarray:
    labels = np.array(generator.label_set.labels)
    wanted = np.isin(labels, label_class.one)
    unseen = labels[wanted & ~conditions.seen_labels(generator)]
    if len(unseen):
        raise InputError(
            f"--label_version={version.name}: class {label_class.name} needs the label {unseen[0]}, but the GAN was "
            f"conditioned on {conditions.known_names(generator)} only"
        )
    return combinations.encode(wanted[None])[0]

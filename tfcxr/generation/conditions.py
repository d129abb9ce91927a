"""The labels that a generator is conditioned on: which it knows, how often they occur together, which a flag names."""

import difflib
import os
import pathlib

import numpy as np

from tfcxr.gan import loading
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import combinations, refuse_other

NO_LABEL = "no label that the GAN is conditioned on"


def seen_labels(generator: loading.Generator) -> np.ndarray:
    """bool [L]: the labels that the generator is conditioned on."""
    seen = np.zeros(len(generator.label_set), bool)
    seen[generator.network.seen_labels] = True
    return seen


def known_names(generator: loading.Generator) -> str:
    """The labels that the generator is conditioned on, joined by commas."""
    return ", ".join(np.array(generator.label_set.labels)[seen_labels(generator)])


def count_source(
    generator: loading.Generator, label_records: str | os.PathLike | None
) -> tuple[np.ndarray, str, dict[str, int]]:
    """How often each combination occurs in a record set or in the generator's training fold.

    Only the labels that the generator is conditioned on are kept; images without any of them are left out.

    Args:
        generator: its training fold is the default source.
        label_records: a record set whose train split to use instead.

    Returns:
        Counts int64 [2^L] by code, where they come from, and {reason: number of images left out}.

    Raises:
        InputError: no such records, or a generator that does not know its training fold.
        RunError: damaged records.
    """
    seen, labels = seen_labels(generator), generator.label_set.labels
    if label_records:
        from tfcxr import data

        record_set = data.RecordSet(label_records, flag="--label_records")
        refuse_other(
            generator.label_set,
            record_set.info.label_set,
            of=f"the generator {generator.name}",
            other_of=f"--label_records={label_records}",
        )
        vectors = record_set.labels("train")["vector"]
        counts = combinations.count(combinations.encode(vectors * seen), len(labels))
        origin = f"train split of {pathlib.Path(label_records).name}"
    elif generator.combinations:
        whole = combinations.from_table(generator.combinations, labels)
        codes = np.flatnonzero(whole)
        kept = combinations.encode(combinations.decode(codes, len(labels)) * seen)
        counts = np.bincount(kept, weights=whole[codes], minlength=len(whole)).astype(np.int64)
        origin = f"training fold of {generator.name}"
    else:
        raise InputError("--label_records is needed: the generator does not know the labels of its training images")
    left_out = {NO_LABEL: int(counts[0])} if counts[0] else {}
    counts[0] = 0
    return counts, origin, left_out


def draw(counts: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Turns numbers in [0, 1), float64 [N], into indices int64 [N] into `counts`, int64 [C], in proportion to them."""
    bounds = np.cumsum(counts)
    return np.searchsorted(bounds, uniform * bounds[-1], side="right")


def parse_labels(text: str, generator: loading.Generator) -> int:
    """The code of labels joined by commas, in any case of letters.

    Raises InputError: no label, an unknown one, one given twice, or one that the generator is not conditioned on; the
    message names --labels.
    """
    labels = generator.label_set.labels
    folded = {name.casefold(): index for index, name in enumerate(labels)}
    chosen: list[int] = []
    for item in (part.strip() for part in text.split(",")):
        index = folded.get(item.casefold())
        if index is None:
            raise InputError(f"--labels={text}: unknown label {item!r}; {suggest(item, labels)}")
        if index in chosen:
            raise InputError(f"--labels={text}: {labels[index]!r} is given twice; give each label once")
        if not seen_labels(generator)[index]:
            raise InputError(
                f"--labels={text}: the GAN was not conditioned on {labels[index]}, only on {known_names(generator)}"
            )
        chosen.append(index)
    return combinations.parse(combinations.SEPARATOR.join(labels[index] for index in chosen), labels)


def suggest(name: str, known: tuple[str, ...]) -> str:
    """Says which known names are like `name`, or all of them."""
    folded = {text.casefold(): text for text in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else f"choose of {', '.join(known)}"

"""Label combinations: which of the 14 labels an image has, as a number, a vector or a text.

The number is a code below 2^14 whose bits are the labels, the first label the highest. So a plan of millions of images
has two bytes of labels per image, and counts of all combinations are one small array. The text is the names of the
labels joined by "|", in files and pictures; without any label it is "(none)".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfrecords_builder.labels.canonical import INDEX, LABELS

NUM_CODES = 2 ** len(LABELS)
SEPARATOR = "|"
NONE = "(none)"

_BITS = 2 ** np.arange(len(LABELS))[::-1]


def encode(vectors: np.ndarray) -> np.ndarray:
    """The codes uint16 [N] of label vectors [N, 14] in {0, 1}."""
    return ((np.asarray(vectors) > 0.5) @ _BITS).astype(np.uint16)


def decode(codes: np.ndarray) -> np.ndarray:
    """The label vectors float32 [N, 14] of codes [N]."""
    return (np.asarray(codes, np.int64)[:, None] & _BITS > 0).astype(np.float32)


def names(code: int) -> list[str]:
    """The labels of a combination, in their order."""
    return [label for label, bit in zip(LABELS, _BITS, strict=True) if int(code) & bit]


def join(names: Iterable[str]) -> str:
    """Names of labels in canonical order (findings outside the 14 after them, as given), joined by "|"."""
    given = list(names)
    return SEPARATOR.join([label for label in LABELS if label in given] + [name for name in given if name not in INDEX])


def format_code(code: int) -> str:
    """The combination as text: `Edema|Pleural Effusion`, or `(none)`."""
    return join(names(code)) or NONE


def parse(text: str) -> int:
    """The code of a combination's text. Raises ValueError if a name is no label."""
    unknown = [name for name in _split(text) if name not in INDEX]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the 14 labels")
    return sum({int(_BITS[INDEX[name]]) for name in _split(text)})


def count(codes: np.ndarray) -> np.ndarray:
    """How often each code is in codes [N]: int64 [2^14]."""
    return np.bincount(codes, minlength=NUM_CODES).astype(np.int64)


def rank(counts: np.ndarray) -> np.ndarray:
    """The codes uint16 [C] that occur, most frequent first; `counts` is int64 [2^14].

    Of equally frequent ones that comes first which has the first label in which they differ.
    """
    codes = np.flatnonzero(counts)[::-1]
    return codes[np.argsort(-counts[codes], kind="stable")].astype(np.uint16)


def to_table(counts: np.ndarray) -> list[dict[str, Any]]:
    """The combinations that occur, most frequent first, as {"labels": text, "count": n}; counts int64 [2^14]."""
    return [{"labels": format_code(code), "count": int(counts[code])} for code in rank(counts)]


def from_table(table: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The counts int64 [2^14] that `to_table` listed. Raises ValueError if a name is no label."""
    counts = np.zeros(NUM_CODES, np.int64)
    for row in table:
        counts[parse(row["labels"])] += row["count"]
    return counts


def _split(text: str) -> list[str]:
    return [] if text == NONE else [name for name in text.split(SEPARATOR) if name]

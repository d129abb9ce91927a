"""Label combinations: which labels of a label set an image has, as a number, a vector or a text.

The number is a code below 2^L, L the number of labels, whose bits are the labels, the first the highest. So a plan of
millions of images has two bytes of labels per image, and counts of all combinations are one small array. The text is
the names of the labels joined by "|", in files and pictures; without any label it is "(none)".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

SEPARATOR = "|"
NONE = "(none)"


def num_codes(num_labels: int) -> int:
    """The number of combinations."""
    return 2**num_labels


def code_type(num_labels: int) -> type[np.unsignedinteger]:
    """The type of codes: two bytes, four if there are more than 16 labels."""
    return np.uint16 if num_labels <= 16 else np.uint32


def encode(vectors: np.ndarray) -> np.ndarray:
    """The codes, uint16 or uint32 [N], of label vectors [N, L] in {0, 1}."""
    vectors = np.asarray(vectors)
    return ((vectors > 0.5) @ _bits(vectors.shape[1])).astype(code_type(vectors.shape[1]))


def decode(codes: np.ndarray, num_labels: int) -> np.ndarray:
    """The label vectors float32 [N, L] of codes [N]."""
    return (np.asarray(codes, np.int64)[:, None] & _bits(num_labels) > 0).astype(np.float32)


def names(code: int, labels: Sequence[str]) -> list[str]:
    """Those of `labels` that a combination has, in their order."""
    return [label for label, bit in zip(labels, _bits(len(labels)), strict=True) if int(code) & bit]


def join(names: Iterable[str], labels: Sequence[str]) -> str:
    """Names in the order of `labels` (findings outside them after them, as given), joined by "|"."""
    given = list(names)
    return SEPARATOR.join(
        [label for label in labels if label in given] + [name for name in given if name not in labels]
    )


def format_code(code: int, labels: Sequence[str]) -> str:
    """The combination as text: `Edema|Pleural Effusion`, or `(none)`."""
    return join(names(code, labels), labels) or NONE


def parse(text: str, labels: Sequence[str]) -> int:
    """The code of a combination's text. Raises ValueError if a name is no label."""
    index = {label: i for i, label in enumerate(labels)}
    unknown = [name for name in _split(text) if name not in index]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the {len(labels)} labels")
    bits = _bits(len(labels))
    return sum({int(bits[index[name]]) for name in _split(text)})


def count(codes: np.ndarray, num_labels: int) -> np.ndarray:
    """How often each code is in codes [N]: int64 [2^L]."""
    return np.bincount(codes, minlength=num_codes(num_labels)).astype(np.int64)


def rank(counts: np.ndarray) -> np.ndarray:
    """The codes, uint16 or uint32 [C], that occur, most frequent first; `counts` is int64 [2^L].

    Of equally frequent ones that comes first which has the first label in which they differ.
    """
    codes = np.flatnonzero(counts)[::-1]
    return codes[np.argsort(-counts[codes], kind="stable")].astype(code_type(len(counts).bit_length() - 1))


def to_table(counts: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The combinations that occur, most frequent first, as {"labels": text, "count": n}; counts int64 [2^L]."""
    return [{"labels": format_code(code, labels), "count": int(counts[code])} for code in rank(counts)]


def from_table(table: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> np.ndarray:
    """The counts int64 [2^L] that `to_table` listed. Raises ValueError if a name is no label."""
    counts = np.zeros(num_codes(len(labels)), np.int64)
    for row in table:
        counts[parse(row["labels"], labels)] += row["count"]
    return counts


def _bits(num_labels: int) -> np.ndarray:
    return 2 ** np.arange(num_labels)[::-1]


def _split(text: str) -> list[str]:
    return [] if text == NONE else [name for name in text.split(SEPARATOR) if name]

"""Replaces patients by salted hashes, in the patient column and in the paths that name them."""

import hashlib
import hmac
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfrecords_builder.errors import InputError

_DIGITS = 16
_NIH = re.compile(r"0*(\d+)(_\d+\.\w+)")
_CHEXPERT = re.compile(r"patient\d+")
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


def hash_ids(
    ids: Sequence[str] | pd.Series, patients: Sequence[str] | pd.Series, salt: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces patients by the first 16 hexadecimal digits of HMAC-SHA256(salt, patient), in the ids as well.

    In an id, CheXpert's folder `patient00001` becomes `patient<hash>` and NIH's `00000013_005.png` `<hash>_005.png`. In
    other ids the patient's text is replaced where it stands alone (no letter or digit beside it; for a number, whatever
    zeros in front). Where it does not, or where it would still be part of what is left, the whole id becomes the hash
    of itself, with its suffix.

    Args:
        ids: [N] paths in the table.
        patients: [N] texts; "" stays "", as does its id.
        salt: the secret; the same one gives the same hashes.

    Returns:
        ids and patients, object [N] of str.

    Raises:
        InputError: two different ids become the same.
    """
    old, names = np.asarray(ids, object), np.asarray(patients, object)
    hashes = {name: _hash(name, salt) if name else "" for name in set(names.tolist())}
    new = np.array(
        [_replace(i, name, hashes[name], salt) if name else i for i, name in zip(old, names, strict=True)], object
    )
    if len(set(new.tolist())) < len(set(old.tolist())):
        first: dict[str, str] = {}
        for before, after in zip(old, new, strict=True):
            if first.setdefault(after, before) != before:
                raise InputError(f"--hash_patient_ids: {first[after]} and {before} would both become {after}")
    return new, np.array([hashes[name] for name in names], object)


def _hash(text: str, salt: bytes) -> str:
    return hmac.digest(salt, text.encode(), hashlib.sha256).hex()[:_DIGITS]


def _replace(image: str, patient: str, hashed: str, salt: bytes) -> str:
    nih = _NIH.fullmatch(image)
    if nih and nih[1] == (patient.lstrip("0") or "0"):
        return hashed + nih[2]
    rest, found = _cut(image, patient)
    if not found or any(patient.casefold() in part.casefold() for part in rest):
        suffix = _SUFFIX.search(image)
        return _hash(image, salt) + (suffix[0] if suffix else "")
    return (f"patient{hashed}" if _CHEXPERT.fullmatch(patient) else hashed).join(rest)


def _cut(text: str, word: str) -> tuple[list[str], bool]:
    """Cuts `word` out where no letter or digit is beside it; returns what is between, and whether it was there."""
    number = word.isdigit()
    core = (word.lstrip("0") or "0") if number else word
    parts, start, place = [], 0, text.find(core)
    while place >= 0:
        first, last = place, place + len(core)
        while number and first > start and text[first - 1] == "0":
            first -= 1
        if not (first > 0 and text[first - 1].isalnum()) and not text[last : last + 1].isalnum():
            parts.append(text[start:first])
            start = last
        place = text.find(core, last)
    return [*parts, text[start:]], bool(parts)

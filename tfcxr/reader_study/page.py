"""Library behind reader-study: one page with shuffled real and synthetic images, and its key.

The study's name is a digest of the key, and the page and all answers bear it. So the key cannot be changed once the
page is out, and the page does not give it away.
"""

import base64
import hashlib
import json
import os
import pathlib
from typing import Any

import jinja2
import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.fidelity import features
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.labels import LabelSet
from tfrecords_builder.records import manifest

PAGE_FILE, KEY_FILE = "reader_study.html", "key.json"
REAL, SYNTHETIC = "real", "synthetic"
SCHEMA_VERSION = 1


def make_study(
    *,
    real: str | os.PathLike,
    synthetic: str | os.PathLike,
    split: str = "test",
    synthetic_split: str = "train",
    num_images: int = 60,
    finding: str | None = None,
    seed: int = 0,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Writes the page and its key.

    Args:
        real, split: record set and fold of the real images; best images that the generator has not seen.
        synthetic, synthetic_split: those of the synthetic images.
        num_images: in all, half of them synthetic; even.
        finding: a label that readers are asked for as well; None: they are not.
        seed: of the draws and the order. The salt of the study's name is not of it, since whoever knows the sets and
            the seed could find the key.
        output_dir: existing folder to write into.

    Returns:
        The key, as key.json has it.

    Raises:
        InputError: sets of different resolution or of other images, one set as both, too few images, no such label.
        RunError: damaged records.
    """
    real_set = data.RecordSet(real, flag="--real")
    synthetic_set = data.RecordSet(synthetic, flag="--synthetic", resolution=real_set.info.resolution)
    shown = synthetic_set.info.label_set.images, real_set.info.label_set.images
    if shown[0] != shown[1]:
        raise InputError(f"--synthetic={synthetic}: shows {shown[0]}, --real={real} shows {shown[1]}; give sets of one")
    if (synthetic_set.info.digest, synthetic_split) == (real_set.info.digest, split):
        raise InputError(
            f"--synthetic={synthetic}: is --real={real}, of the same fold: an image would be real and synthetic at "
            "once; give the set that generate wrote"
        )
    if finding is not None:
        synthetic_set.refuse_other_labels(real_set.info.label_set, f"--real={real}")
        finding = _find_label(finding, real_set.info.label_set)
    rng = np.random.default_rng(seed)
    label_set = real_set.info.label_set
    half = num_images // 2
    rows: list[dict[str, Any]] = []
    pictures: list[bytes] = []
    for kind, record_set, fold in ((REAL, real_set, split), (SYNTHETIC, synthetic_set, synthetic_split)):
        there = record_set.num_examples(fold)
        if there < half:
            raise InputError(
                f"--{kind}={record_set.path}: the {fold} split has {there} images, "
                f"--num_images={num_images} needs {half}"
            )
        positions = features.choose(there, half, seed)
        ids = manifest.read_rows(record_set.info, fold, ["id"])["id"].to_numpy()[positions]
        vectors = record_set.labels(fold)["vector"][positions]
        for name, vector in zip(ids, vectors, strict=True):
            row = {"set": kind, "id": name}
            rows.append(row if finding is None else {**row, "finding": bool(vector[label_set.index[finding]])})
        for batch in features.read_images(record_set, fold, positions):
            # Encoded anew, so that files of both kinds are alike.
            pictures += [tf.io.encode_png(image).numpy() for image in pixel_ranges.signed_to_uint8(batch)]
    order = rng.permutation(len(rows))
    key = {
        "schema_version": SCHEMA_VERSION,
        "salt": os.urandom(16).hex(),
        "finding": finding,
        "sets": {
            kind: {"path": str(record_set.path), "split": fold, "digest": record_set.info.digest}
            for kind, record_set, fold in ((REAL, real_set, split), (SYNTHETIC, synthetic_set, synthetic_split))
        },
        "images": [{"number": number, **rows[index]} for number, index in enumerate(order, start=1)],
    }
    images = [base64.b64encode(pictures[index]).decode("ascii") for index in order]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfcxr"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("reader_study.html.j2").render(
        study=name_study(key), images=images, what=label_set.images, finding=finding or ""
    )
    files.write_text(output_dir / PAGE_FILE, page)
    files.write_json(output_dir / KEY_FILE, key)
    return key


def _find_label(finding: str, label_set: LabelSet) -> str:
    label = label_set.match(finding)
    if label is None:
        raise InputError(f"--finding={finding}: is no label of these records; choose of {', '.join(label_set.labels)}")
    return label


def name_study(key: dict[str, Any]) -> str:
    """The name of the study with this key: the first 16 hexadecimal digits of the key's SHA-256."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

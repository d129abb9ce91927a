"""The record, a `tf.train.Example`: its keys, and making and parsing one."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import message

from tfrecords_builder.labels.label_sets import DEFAULT, EXTRA_SEPARATOR

# Key of the record -> its dtype. `label/extra` joins findings outside the label set by "|" (empty: none).
_TYPES: dict[str, tf.DType] = {
    "image/encoded": tf.string,
    "image/id": tf.string,
    "image/height": tf.int64,
    "image/width": tf.int64,
    "image/view": tf.string,
    "patient/id": tf.string,
    "patient/sex": tf.string,
    "patient/age": tf.int64,
    "label/vector": tf.float32,
    "label/class": tf.int64,
    "label/extra": tf.string,
    "source": tf.string,
}


def features(num_labels: int) -> dict[str, tuple[tf.DType, tuple[int, ...]]]:
    """Key of the record -> its dtype and shape."""
    return {key: (dtype, (num_labels,) if key == "label/vector" else ()) for key, dtype in _TYPES.items()}


def make_example(
    *,
    encoded: bytes,
    image_id: str,
    resolution: int,
    vector: Sequence[float] | np.ndarray,
    class_index: int,
    source: str,
    patient_id: str = "",
    view: str = "",
    sex: str = "",
    age: int = -1,
    extra: Sequence[str] = (),
) -> bytes:
    """Serializes one record, deterministically.

    Args:
        encoded: 8-bit grey PNG of resolution x resolution pixels.
        image_id: path in the source's table, or synthetic-000123.
        resolution: side of the image in pixels.
        vector: values in {0, 1}, in the order of the label set.
        class_index: index into the set's classes; -1 if multi-label.
        source: chexpert, chestxray, phantom-a, synthetic:<run>, ...
        patient_id: empty for synthetic images.
        view: PA, AP, LL or empty.
        sex: as in the source's table, or empty.
        age: years; -1 unknown.
        extra: findings outside the label set.
    """
    vector = [float(value) for value in vector]
    if not vector or not set(vector) <= {0.0, 1.0}:
        raise ValueError(f"vector must be values in {{0, 1}}, got {vector}")
    values: dict[str, Any] = {
        "image/encoded": encoded,
        "image/id": image_id,
        "image/height": resolution,
        "image/width": resolution,
        "image/view": view,
        "patient/id": patient_id,
        "patient/sex": sex,
        "patient/age": int(age),
        "label/vector": vector,
        "label/class": int(class_index),
        "label/extra": EXTRA_SEPARATOR.join(extra),
        "source": source,
    }
    example = tf.train.Example()
    feature = example.features.feature
    for key, value in values.items():
        dtype = _TYPES[key]
        if dtype == tf.string:
            feature[key].bytes_list.value.append(value if isinstance(value, bytes) else value.encode())
        elif dtype == tf.int64:
            feature[key].int64_list.value.append(value)
        else:
            feature[key].float_list.value.extend(value)
    # Protobuf maps have no order of their own; byte-identical rebuilds need one.
    return example.SerializeToString(deterministic=True)


def parse_example(
    serialized: tf.Tensor, *, num_labels: int = len(DEFAULT), decode: bool = True
) -> dict[str, tf.Tensor]:
    """Parses one record (TensorFlow ops, for `Dataset.map`).

    Args:
        serialized: string scalar.
        num_labels: of the label set.
        decode: whether to add `image`.

    Returns:
        The keys of `features` with their dtypes and shapes, and `image`: uint8 [R, R, 1], static shape [None, None, 1].
    """
    spec = {key: tf.io.FixedLenFeature(shape, dtype) for key, (dtype, shape) in features(num_labels).items()}
    record = tf.io.parse_single_example(serialized, spec)
    if decode:
        record["image"] = tf.io.decode_png(record["image/encoded"], channels=1)
    return record


def read_example(serialized: bytes) -> dict[str, Any]:
    """Parses one record without TensorFlow ops: the keys of `features`.

    Texts are str (image/encoded: bytes), numbers int or a list of float.

    Raises ValueError if the bytes are no record of this schema.
    """
    try:
        feature = tf.train.Example.FromString(serialized).features.feature
    except message.DecodeError as error:
        raise ValueError("is no tf.train.Example") from error
    values: dict[str, Any] = {}
    for key, dtype in _TYPES.items():
        kind = {tf.string: "bytes_list", tf.int64: "int64_list", tf.float32: "float_list"}[dtype]
        value = list(getattr(feature[key], kind).value) if key in feature else []
        several = key == "label/vector"
        if not value or (len(value) != 1 and not several):
            raise ValueError(f"{key} is missing or has another type or length")
        values[key] = value if several else value[0]
        if dtype == tf.string and key != "image/encoded":
            values[key] = values[key].decode()
    return values


def to_row(record: Mapping[str, Any], classes: Sequence[str], labels: Sequence[str] = DEFAULT.labels) -> dict[str, Any]:
    """Returns the columns of the manifest, but for split, shard and position, of what `read_example` returned.

    Raises ValueError if the class is none of `classes` (-1 stands for none), or if there are not as many labels.
    """
    index = record["label/class"]
    if not -1 <= index < len(classes):
        raise ValueError(f"label/class is {index}, there are {len(classes)} classes")
    if len(record["label/vector"]) != len(labels):
        raise ValueError(f"label/vector has {len(record['label/vector'])} values, there are {len(labels)} labels")
    return {
        "id": record["image/id"],
        "patient": record["patient/id"],
        "class": classes[index] if index >= 0 else "",
        "view": record["image/view"],
        "sex": record["patient/sex"],
        "age": record["patient/age"],
        **dict(zip(labels, map(int, record["label/vector"]), strict=True)),
        "extra": record["label/extra"],
        "image_digest": digest_image(record["image/encoded"]),
    }


def digest_image(encoded: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an encoded image.

    Two of a million different images have the same digest with a probability of 3 in 10^8.
    """
    return hashlib.sha256(encoded).hexdigest()[:16]

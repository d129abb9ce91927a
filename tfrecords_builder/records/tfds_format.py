"""The JSON files by which tensorflow-datasets (4.9) reads a folder of TFRecords; it need not be installed.

`tfds.builder_from_directory(folder).as_dataset()` then reads the folder without any code of ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

_MODULE = "tensorflow_datasets.core.features"


def describe_set(
    name: str, *, version: str, description: str, splits: Mapping[str, tuple[int, Sequence[int]]]
) -> dict[str, Any]:
    """Returns dataset_info.json.

    Args:
        name: first part of the shards' file names, `<name>-<split>.tfrecord-00000-of-000NN`.
        version: three numbers, such as 1.0.0.
        description: one or two sentences.
        splits: split -> bytes of its records, and records in each shard.
    """
    return {
        "name": name,
        "version": version,
        "description": description,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "numBytes": str(num_bytes),
                "shardLengths": [str(length) for length in lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split, (num_bytes, lengths) in splits.items()
        ],
    }


def describe_features(
    features: Mapping[str, tuple[tf.DType, tuple[int, ...]]], *, image_key: str, resolution: int
) -> dict[str, Any]:
    """Returns features.json: flat keys; strings become Text, numbers Tensor, and `image_key` an 8-bit grey PNG."""
    content: dict[str, Any] = {}
    for key, (dtype, shape) in features.items():
        if key == image_key:
            dimensions = {"dimensions": [str(resolution), str(resolution), "1"]}
            content[key] = {
                "pythonClassName": f"{_MODULE}.image_feature.Image",
                "image": {"shape": dimensions, "dtype": "uint8", "encodingFormat": "png"},
            }
        elif dtype == tf.string:
            content[key] = {"pythonClassName": f"{_MODULE}.text_feature.Text", "text": {}}
        else:
            content[key] = {
                "pythonClassName": f"{_MODULE}.tensor_feature.Tensor",
                "tensor": {
                    "shape": {"dimensions": [str(n) for n in shape]} if shape else {},
                    "dtype": dtype.name,
                    "encoding": "none",
                },
            }
    return {
        "type": f"{_MODULE}.features_dict.FeaturesDict",
        "content": {"features": content},
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }

"""The record (examples.py) and the record set (info.py describes and loads it, writing.py writes it).

A record is a `tf.train.Example`; its keys are those of `features`. A record set is a folder of TFRecord shards

    <name>-<split>.tfrecord-00000-of-000NN     splits train, validation, test; an empty split has no shard
    dataset_info.json, features.json           the description that `tfds.builder_from_directory` reads
    tfcxr_info.json                            what TFDS cannot hold: `RecordSetInfo`
    manifest.csv                               a row per image: what the record says but for the pixels, and its place
    croissant.json, DATASHEET.md               the set described for other tools and for people
    build_report.json                          where the images came from and what was left out, and why

TFRecord and its CRCs: https://www.tensorflow.org/tutorials/load_data/tfrecord; folder format: tensorflow-datasets 4.9.
"""

from tfrecords_builder.records.examples import features, make_example, parse_example, read_example, to_row
from tfrecords_builder.records.info import (
    INFO_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    RecordSetInfo,
    SplitInfo,
    Summary,
    format_digest,
    load_info,
    manifest_columns,
    write_info,
)

__all__ = [
    "INFO_FILE",
    "MANIFEST_FILE",
    "SCHEMA_VERSION",
    "RecordSetInfo",
    "SplitInfo",
    "Summary",
    "features",
    "format_digest",
    "load_info",
    "make_example",
    "manifest_columns",
    "parse_example",
    "read_example",
    "to_row",
    "write_info",
]

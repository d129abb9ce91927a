"""A record set described in Croissant 1.0 (JSON-LD), which data set catalogues and loaders read.

Croissant has no way to read TFRecords: the shards are listed as files, the records described are the rows of
manifest.csv. Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from tfrecords_builder import labels, records
from tfrecords_builder.records import sources

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_FORMATS = {".csv": "text/csv", ".json": "application/json", ".md": "text/markdown", ".png": "image/png"}
_SPLIT_TYPES = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
# Columns of the manifest, but for the labels: type and description.
_COLUMNS: dict[str, tuple[str, str]] = {
    "id": ("sc:Text", "Path of the image in the source's table, or its number in a synthetic set."),
    "patient": ("sc:Text", "Patient id; empty where the image belongs to no patient."),
    "split": ("sc:Text", "The split that the image is in."),
    "class": ("sc:Text", "Class of the label version; empty in a multi-label set."),
    "view": ("sc:Text", "Projection: PA, AP or LL; empty: unknown."),
    "sex": ("sc:Text", "Sex as in the source's table; empty: unknown."),
    "age": ("sc:Integer", "Age in years; -1: unknown."),
    "extra": ("sc:Text", "Findings outside the labels, joined by '|'."),
    "image_digest": ("sc:Text", "First 16 hexadecimal digits of the SHA-256 of the encoded image."),
    "shard": ("sc:Text", "File name of the TFRecord shard that holds the record."),
    "position": ("sc:Integer", "Number of the record in its shard, from 0."),
}


def describe(info: records.RecordSetInfo, *, files: Mapping[str, str]) -> dict[str, Any]:
    """Returns the Croissant description of a record set; equal record sets give equal descriptions.

    Its name, digest, counts and definitions are those of the record set; licence, terms, citation, web page, creator
    and date of publication are those of the source, and are left out where the source has none (a folder, a phantom,
    a GAN). There is no date of the build, since a rebuild must give the same bytes.

    Args:
        info: the record set.
        files: name -> SHA-256 (hexadecimal) of the small files beside the shards; manifest.csv must be one of them.

    Returns:
        JSON values. File names in it are relative to the file that it is saved in, which belongs into the record
        set's folder.

    Raises:
        ValueError: manifest.csv is not in `files`.
    """
    if records.MANIFEST_FILE not in files:
        raise ValueError(f"files: {records.MANIFEST_FILE} is missing; the described records are its rows")
    source = sources.lookup(info.source)
    facts = {
        "citeAs": source.citation,
        "creator": {"@type": "sc:Organization", "name": source.creator} if source.creator else None,
        "datePublished": source.published,
        "url": source.url,
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{info.source.replace(':', '-')}-{info.label_version}-{info.resolution}",
        "description": _describe_set(info, source),
        "version": f"{info.schema_version}.0.0",
        "identifier": f"tfcxr-digest:{info.digest}",
        "license": source.license,
        "usageInfo": source.terms,
        **{key: value for key, value in facts.items() if value},
        "distribution": [*_describe_files(files), *_describe_shards(info)],
        "recordSet": _describe_records(info),
    }


def _describe_set(info: records.RecordSetInfo, source: sources.Source) -> str:
    count = sum(split.num_examples for split in info.splits.values())
    parts = ", ".join(f"{split.num_examples} {name}" for name, split in info.splits.items())
    return (
        f"{count} {info.label_set.images} ({parts}) of {info.resolution} x {info.resolution} pixels, 8-bit grey, as "
        f"TFRecords with {len(info.labels)} labels; label version {info.label_version}. Source: {source.name}. "
        f"{source.collection} {source.labelling} Digest of the records: {info.digest}."
    )


def _describe_files(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": _FORMATS.get(pathlib.PurePath(name).suffix, "application/octet-stream"),
            "sha256": files[name],
        }
        for name in sorted(files)
    ]


def _describe_shards(info: records.RecordSetInfo) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"shards-{name}",
            "name": f"shards-{name}",
            "description": f"TFRecord shards of the {name} split: {split.num_examples} records of tf.train.Example.",
            "encodingFormat": "application/x-tfrecord",  # there is no registered name
            "includes": f"{info.name}-{name}.tfrecord-*",
        }
        for name, split in info.splits.items()
    ]


def _describe_records(info: records.RecordSetInfo) -> list[dict[str, Any]]:
    sets = [
        _enumerate(
            "splits",
            "cr:Split",
            "The splits and how many images they hold.",
            {"name": "sc:Text", "url": "sc:URL", "images": "sc:Integer"},
            [
                {"name": name, "url": _SPLIT_TYPES[name], "images": split.num_examples}
                for name, split in info.splits.items()
            ],
        ),
        _enumerate(
            "labels",
            "sc:Enumeration",
            f"The {len(info.labels)} labels, in the order of the record's label/vector.",
            {"name": "sc:Text", "images": "sc:Integer"},
            [{"name": name, "images": _count(info, "label_counts", name)} for name in info.labels],
        ),
    ]
    if info.classes:
        sets.append(
            _enumerate(
                "classes",
                "sc:Enumeration",
                f"The classes of label version {info.label_version}, in the order of the record's label/class.",
                {"name": "sc:Text", "definition": "sc:Text", "images": "sc:Integer"},
                [
                    {
                        "name": name,
                        "definition": labels.describe_rule(info.label_definition[name], info.label_set),
                        "images": _count(info, "class_counts", name),
                    }
                    for name in info.classes
                ],
            )
        )
    images = {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": f"One row per image: {records.MANIFEST_FILE}.",
        # Not the id: nothing forbids a folder's table to name an image twice.
        "key": [{"@id": "images/shard"}, {"@id": "images/position"}],
        "field": [_describe_column(info, column) for column in records.manifest_columns(info.labels)],
    }
    return [*sets, images]


def _describe_column(info: records.RecordSetInfo, column: str) -> dict[str, Any]:
    data_type: str | list[str]
    if column in info.labels:
        data_type, description = ["sc:Integer", "cr:Label"], f"1 if the image has the label {column}, else 0."
    else:
        data_type, description = _COLUMNS[column]
    if column == "class":
        data_type = ["sc:Text", "cr:Label"]
    field = {
        "@type": "cr:Field",
        "@id": f"images/{column.lower().replace(' ', '_')}",
        "name": column,
        "description": description,
        "dataType": data_type,
        "source": {"fileObject": {"@id": records.MANIFEST_FILE}, "extract": {"column": column}},
    }
    if column == "split":
        field["references"] = {"field": {"@id": "splits/name"}}
    if column == "class" and info.classes:
        field["references"] = {"field": {"@id": "classes/name"}}
    return field


def _enumerate(
    name: str, data_type: str, description: str, fields: Mapping[str, str], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """A record set whose rows are in the description itself; its key is the field `name`."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "dataType": data_type,
        "key": {"@id": f"{name}/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": field_type}
            for field, field_type in fields.items()
        ],
        "data": [{f"{name}/{field}": value for field, value in row.items()} for row in rows],
    }


def _count(info: records.RecordSetInfo, counts: str, name: str) -> int:
    return sum(getattr(split, counts)[name] for split in info.splits.values())

"""Descriptions of record sets that nobody has written: for tests of what is made from a description alone."""

from tfrecords_builder import labels, records

DIGEST = "0123456789abcdef" * 4


def make_info(label_version: str = "v1_xs", **values) -> records.RecordSetInfo:
    """Returns the description of 3 training images (of 2 patients) and 1 test image; `values` replace its fields.

    Two training images and the test image are of the first class, the third of the second; all have the label Edema.
    """
    version = labels.LABEL_VERSIONS[label_version]
    definition = {
        c.name: {key: list(getattr(c, key)) for key in ("one", "zero", "any") if getattr(c, key)}
        for c in version.classes
    }

    def split(name: str, counts: tuple[int, int], patients: int | None) -> records.SplitInfo:
        return records.SplitInfo(
            num_examples=sum(counts),
            num_patients=patients,
            num_bytes=100,
            shards=(f"chexpert-{name}.tfrecord-00000-of-00001",),
            shard_lengths=(sum(counts),),
            class_counts=dict(zip(version.class_names, (*counts, 0, 0), strict=False)),
            label_counts={label: sum(counts) * (label == "Edema") for label in labels.LABELS},
        )

    fields = {
        "name": "chexpert",
        "dataset": "chexpert",
        "source": "chexpert",
        "label_version": label_version,
        "classes": version.class_names,
        "resolution": 64,
        "uncertain": "zeros",
        "split_policy": "patient",
        "view": "any",
        "seed": 3,
        "label_set": labels.DEFAULT,
        "digest": DIGEST,
        "label_definition": definition,
        "aspect": "stretch",
        "contrast": "none",
        "hashed_patients": False,
        "splits": {"train": split("train", (2, 1), 2), "test": split("test", (1, 0), 1)},
        "provenance": {"split_fractions": [0.8, 0.0, 0.2], "limit": 0, "tables": {"train.csv": "ab"}},
        "schema_version": records.SCHEMA_VERSION,
        "folder": None,
    }
    return records.RecordSetInfo(**{**fields, **values})

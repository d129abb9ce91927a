"""Draws a sheet of a record set's images: one row per class, or per label in a multilabel set.

Example: python -m tools.sheet --records=workspace/records/chexpert/multilabel/64 --output=sheet.png
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the sheet."""
    common.define_records(fv)
    common.define_split(fv, "train")
    flags.DEFINE_integer("columns", 8, "images per row", lower_bound=1, flag_values=fv)
    flags.DEFINE_string("output", None, "PNG to write", flag_values=fv)
    common.define_required(fv, "output", "the PNG to write")


def choose_rows(
    vectors: np.ndarray, classes: np.ndarray, names: list[str], columns: int, labels: Sequence[str]
) -> dict[str, list[int]]:
    """Row title -> positions of its first images.

    Args:
        vectors: [N, L] in {0, 1}.
        classes: int [N]; -1 if multi-label.
        names: class names; empty if multi-label: rows are labels then, images with the fewest other labels first.
        columns: most images per row.
        labels: L names.
    """
    if names:
        return {name: np.flatnonzero(classes == k)[:columns].tolist() for k, name in enumerate(names)}
    rows = {}
    for k, name in enumerate(labels):
        positions = np.flatnonzero(vectors[:, k] > 0)
        if len(positions):
            order = np.argsort(vectors[positions].sum(axis=1), kind="stable")
            rows[name] = positions[order][:columns].tolist()
    return rows


def draw(rows: dict[str, list[int]], images: dict[int, np.ndarray], columns: int, path: pathlib.Path) -> None:
    """Writes the sheet; `images` maps positions to uint8 [R, R, 1]."""
    from matplotlib import pyplot as plt

    from tfcxr import plotting

    figure, axes = plt.subplots(
        len(rows), columns, figsize=(columns + 1.6, len(rows)), squeeze=False, layout="constrained"
    )
    for line, (title, positions) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, position in zip(line, positions, strict=False):
            axis.imshow(images[position][:, :, 0], cmap="gray", vmin=0, vmax=255)
        line[0].text(-0.1, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    plotting.save(figure, path, 80)


def main(fv: flags.FlagValues) -> None:
    """Draws."""
    from tfcxr import data
    from tfrecords_builder.errors import InputError

    record_set = data.RecordSet(fv.records)
    table = record_set.labels(fv.split)
    rows = choose_rows(
        table["vector"], table["class"], list(record_set.info.classes), fv.columns, record_set.info.labels
    )
    wanted = {position for row in rows.values() for position in row}
    if not wanted:
        raise InputError(f"--split={fv.split}: {fv.records} has no image in it")
    images = {
        position: record["image"]
        for position, record in enumerate(record_set.dataset(fv.split).as_numpy_iterator())
        if position in wanted
    }
    draw(rows, images, fv.columns, pathlib.Path(fv.output))
    print(f"Written to {fv.output}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

"""Pictures of many images in one."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from tfrecords_builder import files

_TILE = 96
_FONT_SIZE = 13
_MARGIN = 6


def image_grid(images: np.ndarray, columns: int, *, gap: int = 2) -> np.ndarray:
    """Tiles uint8 [N, R, R, 1] row by row into one uint8 [H, W, 1] on white; the last row may be short.

    Pixels of small images are repeated, so that a tile has a side of about 96 and can be looked at.
    """
    images = np.asarray(images)
    enlarge = max(1, _TILE // images.shape[1])
    images = images.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    side, rows = images.shape[1], -(-len(images) // columns)
    cell = side + gap
    grid = np.full([rows * cell + gap, columns * cell + gap, 1], 255, np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * cell, gap + index % columns * cell
        grid[top : top + side, left : left + side] = image
    return grid


def titled_grid(rows: Sequence[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
    """One row of tiles per (title, uint8 [N, R, R, 1] with N <= columns), the title on its left: uint8 [H, W, 1].

    A title of several labels joined by `|` has a line for each. Rows that are short end in white.
    """
    cells = []
    for _, images in rows:
        blank = np.full([columns - len(images), *images.shape[1:]], 255, np.uint8)
        cells += [images, blank]
    grid = image_grid(np.concatenate(cells), columns)
    # The font that comes with Pillow has no letters beyond Latin-1 where Pillow was built without FreeType.
    titles = [title.replace("|", "\n").encode("latin-1", "replace").decode("latin-1") for title, _ in rows]
    font, height = ImageFont.load_default(_FONT_SIZE), grid.shape[0] // len(rows)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    boxes = [pen.multiline_textbbox((0, 0), title, font=font) for title in titles]
    margin = Image.new("L", (int(max(box[2] for box in boxes)) + 2 * _MARGIN, grid.shape[0]), 255)
    pen = ImageDraw.Draw(margin)
    for row, (title, box) in enumerate(zip(titles, boxes, strict=True)):
        top = row * height + (height - box[1] - box[3]) // 2
        pen.multiline_text((_MARGIN, max(top, 0)), title, fill=0, font=font)
    return np.concatenate([np.asarray(margin)[..., None], grid], axis=1)


def write_png(path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 1] as PNG, atomically."""
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(tf.io.encode_png(image).numpy())

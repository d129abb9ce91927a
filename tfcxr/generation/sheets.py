"""Pictures of a synthetic set: a sheet of its images, and strips from one latent or label combination to another.

Each row shows one label combination and says which. They are rendered apart from the shards, so that they are the same
whether or not the writing was stopped in between.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tfcxr.gan import image_grids, interpolation
from tfcxr.generation import plans
from tfrecords_builder.labels import combinations

COLUMNS = 11  # so that strips go in steps of a tenth
MAX_ROWS = 8  # more only if there are more classes

_CODES_AT_ONCE = 2**20

# Latents of image numbers int64 [N] -> float32 [N, size].
LatentsFn = Callable[[np.ndarray], np.ndarray]
# (latents float32 [N, size], labels float32 [N, L]) -> uint8 [N, R, R, 1].
ImagesFn = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Group(NamedTuple):
    """Images of one label combination."""

    title: str  # lines joined by "|": the class, if it does not say the labels, and the labels
    vector: np.ndarray  # float32 [L]
    numbers: np.ndarray  # int64 [n], n >= 1, of its first images


def choose_groups(plan: plans.Plan) -> list[Group]:
    """The most frequent combinations of each class, or of the whole multilabel set, in the order of the classes."""
    classes = [
        index for index in np.unique(plan.class_of_code) if (plan.code_counts[plan.class_of_code == index]).any()
    ]
    lines = max(1, MAX_ROWS // len(classes))
    groups, names = [], plan.version.label_set.labels
    for index in classes:
        codes = combinations.rank(np.where(plan.class_of_code == index, plan.code_counts, 0))[:lines]
        for code, vector in zip(codes, combinations.decode(codes, len(names)), strict=True):
            labels = combinations.format_code(code, names)
            name = "" if plan.version.multilabel else plan.version.class_names[index]
            title = labels if name in ("", labels) else f"{name}:|{labels}"
            groups.append(Group(title, vector, _first(plan.codes, code, COLUMNS * (lines // len(codes)))))
    return groups


def draw_sheet(plan: plans.Plan, latents: LatentsFn, images: ImagesFn) -> np.ndarray:
    """The first images of each group, in one row or, where a class has few combinations, in several."""
    rows = []
    for group in choose_groups(plan):
        pictures = images(latents(group.numbers), np.repeat(group.vector[None], len(group.numbers), axis=0))
        parts = np.split(pictures, range(COLUMNS, len(pictures), COLUMNS))
        rows += [("" if i else group.title, part) for i, part in enumerate(parts)]
    return image_grids.titled_grid(rows, COLUMNS)


def draw_latent_strips(plan: plans.Plan, latents: LatentsFn, images: ImagesFn) -> np.ndarray:
    """From the latent of the first image of each group to that of its second, with the group's labels.

    Where a group has one image, the second latent is that of the first number beyond the set.
    """
    rows = []
    for group in choose_groups(plan):
        first, last = latents(np.append(group.numbers, len(plan))[:2])
        vectors = np.repeat(group.vector[None], COLUMNS, axis=0)
        rows.append((group.title, images(interpolation.between_latents(first, last, COLUMNS), vectors)))
    return image_grids.titled_grid(rows, COLUMNS)


def draw_label_strips(plan: plans.Plan, latents: LatentsFn, images: ImagesFn) -> np.ndarray | None:
    """From the labels of the first group to those of each other one, the latent being that of an image of the first.

    Few groups get several rows each, of several images. None if there is one group only.
    """
    start, *others = choose_groups(plan)
    if not others:
        return None

    def strips() -> Iterator[tuple[str, np.ndarray]]:
        for end in others:
            vectors = interpolation.between_labels(start.vector, end.vector, COLUMNS)
            for i, latent in enumerate(latents(start.numbers[: max(1, MAX_ROWS // len(others))])):
                title = "" if i else f"{start.title}|to|{end.title}"
                yield title, images(np.repeat(latent[None], COLUMNS, axis=0), vectors)

    return image_grids.titled_grid(list(strips()), COLUMNS)


def _first(codes: np.ndarray, code: int, count: int) -> np.ndarray:
    """int64: the numbers of the first `count` images of a combination; looks no further than it must."""
    found = np.zeros(0, np.int64)
    for start in range(0, len(codes), _CODES_AT_ONCE):
        found = np.append(found, np.flatnonzero(codes[start : start + _CODES_AT_ONCE] == code) + start)[:count]
        if len(found) == count:
            break
    return found

"""Pictures of a synthetic set: a sheet of samples, one row per class, and strips from one latent or class to another.

They are rendered apart from the shards, so that they are the same whether or not the writing was stopped in between.
"""

from collections.abc import Callable

import numpy as np

from tfcxr.gan import interpolation, samples
from tfcxr.generation import combinations, plans
from tfrecords_builder.labels import LABELS

COLUMNS = 10
_MAX_ROWS = 8

# Latents of image numbers int64 [N] -> float32 [N, size].
LatentsFn = Callable[[np.ndarray], np.ndarray]
# (latents float32 [N, size], labels float32 [N, 14]) -> uint8 [N, R, R, 1].
ImagesFn = Callable[[np.ndarray, np.ndarray], np.ndarray]


def choose_rows(plan: plans.Plan) -> list[tuple[str, np.ndarray]]:
    """Title and numbers of the first images of each class, or of the most frequent combinations in a multilabel set."""
    if plan.version.multilabel:
        codes = combinations.rank(plan.code_counts)[:_MAX_ROWS]
        titles = [samples.describe(vector, LABELS) for vector in combinations.decode(codes)]
        chosen = [_first(plan.codes == code) for code in codes]
    else:
        titles = list(plan.version.class_names)
        chosen = [_first(plan.classes == index) for index in range(len(titles))]
    return [(title, numbers) for title, numbers in zip(titles, chosen, strict=True) if len(numbers)]


def draw_sheet(plan: plans.Plan, latents: LatentsFn, images: ImagesFn) -> np.ndarray:
    """The first images of each class in rows with the class's name: uint8 [H, W, 1]."""
    rows = choose_rows(plan)
    numbers = np.concatenate([numbers for _, numbers in rows])
    pictures = images(latents(numbers), combinations.decode(plan.codes[numbers]))
    ends = np.cumsum([len(numbers) for _, numbers in rows])[:-1]
    return samples.titled_grid(
        [(title, part) for (title, _), part in zip(rows, np.split(pictures, ends), strict=True)], COLUMNS
    )


def draw_latent_strips(plan: plans.Plan, latents: LatentsFn, images: ImagesFn) -> np.ndarray:
    """From the latent of the first image of each class to that of its second, with the labels of the first.

    Where a class has one image, the second latent is that of the first number beyond the set.
    """
    rows = []
    for title, numbers in choose_rows(plan):
        first, last = latents(np.array([numbers[0], numbers[1] if len(numbers) > 1 else len(plan)]))
        vectors = combinations.decode(np.repeat(plan.codes[numbers[:1]], COLUMNS))
        rows.append((title, images(interpolation.between_latents(first, last, COLUMNS), vectors)))
    return samples.titled_grid(rows, COLUMNS)


def draw_label_strips(plan: plans.Plan, latents: LatentsFn, images: ImagesFn) -> np.ndarray | None:
    """From the labels of the first class's first image to those of each other class's, with the latent of the former.

    None if there is one class only.
    """
    (start, numbers), *others = choose_rows(plan)
    if not others:
        return None
    latent = np.repeat(latents(numbers[:1]), COLUMNS, axis=0)
    first = combinations.decode(plan.codes[numbers[:1]])[0]
    rows = []
    for title, ends in others:
        last = combinations.decode(plan.codes[ends[:1]])[0]
        pictures = images(latent, interpolation.between_labels(first, last, COLUMNS))
        rows.append((f"{start}|to|{title}", pictures))
    return samples.titled_grid(rows, COLUMNS)


def _first(chosen: np.ndarray) -> np.ndarray:
    return np.flatnonzero(chosen)[:COLUMNS]

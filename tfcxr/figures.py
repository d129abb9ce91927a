"""Writing Matplotlib's figures."""

import os

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from tfrecords_builder import files

matplotlib.use("Agg")


def save(figure: Figure, path: str | os.PathLike, dpi: int) -> None:
    """Writes a figure as PNG, whole or not at all, and closes it."""
    with files.atomic_path(path) as temporary:
        # Without the writer's version in it, the same numbers give the same file.
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)

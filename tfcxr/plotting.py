"""Writing Matplotlib's figures."""

import os

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from tfrecords_builder import files

matplotlib.use("Agg")

# Okabe and Ito's palette without yellow, which colour-blind eyes can tell apart.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"
)  # fmt: skip
GREY = "#777777"


def save(figure: Figure, path: str | os.PathLike, dpi: int) -> None:
    """Writes a figure as PNG, whole or not at all, and closes it."""
    with files.atomic_path(path) as temporary:
        # Without the writer's version in it, the same numbers give the same file.
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)

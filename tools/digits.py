"""Writes two domains of handwritten digits: a case in which adaptation is known to be possible.

The 1,797 digits of scikit-learn's load_digits (8 x 8 pixels), enlarged to 32 px. Half of them are the source, as they
are; the others are the target, with a texture, contrast that is inverted where that is bright, blur and noise. Each
folder has its images and a table.csv for `--dataset=folder`; versions.json beside them is the label version `digits`.
Example: python -m tools.digits --output_dir=workspace/data/digits
"""

import csv
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from PIL import Image
from scipy import ndimage
from sklearn import datasets

from flags import app, common
from tfrecords_builder import files
from tfrecords_builder.errors import InputError

SIZE = 32
_CLASSES = 10
_BRIGHTNESS, _TEXTURE, _TEXTURE_WIDTH = 0.25, 0.2, 3.0  # grey values: mean and standard deviation; pixels
_DEPTH, _BLUR, _NOISE = 0.9, 0.7, 0.05  # of a stroke; pixels; standard deviation of grey values


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the digits."""
    common.define_output_dir(fv)
    common.define_seed(fv)
    flags.DEFINE_list(
        "target_shares", None,
        "ten numbers: how many of the target's images of 0, 1 ... 9 to keep, as shares of the digit that keeps most",
        flag_values=fv,
    )  # fmt: skip


def make_domains(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name of a domain -> images uint8 [N, 32, 32] and their digits int64 [N]; no digit is in both."""
    digits = datasets.load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    large = np.clip(ndimage.zoom(digits.images[order] / 16.0, (1, SIZE / 8, SIZE / 8), order=1), 0, 1)
    labels = digits.target[order].astype(np.int64)
    half = len(order) // 2
    return {
        "source": (_to_bytes(large[:half]), labels[:half]),
        "target": (_to_bytes(disguise(large[half:], rng)), labels[half:]),
    }


def disguise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same images, float [N, S, S] in [0, 1], as the target shows them: on a texture, inverted, blurred, noisy.

    A stroke inverts the texture under it: it is bright where that is dark, and dark where that is bright. (As in
    MNIST-M, Ganin et al. 2016, arXiv 1505.07818. Inverted everywhere, a classifier of the source is wrong so regularly,
    with 4% of ten classes, that no method finds out which class is which.)
    """
    texture = ndimage.gaussian_filter(rng.normal(size=images.shape), (0, _TEXTURE_WIDTH, _TEXTURE_WIDTH))
    texture = np.clip(_BRIGHTNESS + _TEXTURE * texture / texture.std(), 0, 1)
    shown = np.abs(texture - _DEPTH * images)
    return ndimage.gaussian_filter(shown, (0, _BLUR, _BLUR)) + rng.normal(0, _NOISE, images.shape)


def thin_out(labels: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The first images of each digit, in these shares [10] of the digit with the largest: positions int64."""
    counts = np.bincount(labels, minlength=_CLASSES)
    wanted = np.asarray(shares, float) / max(shares)
    most = (counts[wanted > 0] / wanted[wanted > 0]).min()
    kept = [np.flatnonzero(labels == k)[: round(most * share)] for k, share in enumerate(wanted)]
    return np.sort(np.concatenate(kept))


def _to_bytes(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)


def _write(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    (folder / "images").mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "patient", "class"])
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = f"images/{number:04d}.png"
            Image.fromarray(image).save(folder / path)
            table.writerow([path, f"{folder.name}-{number:04d}", str(label)])


def main(fv: flags.FlagValues) -> None:
    """Writes both folders and the label version."""
    shares = None
    if fv.target_shares is not None:
        try:
            shares = [float(share) for share in fv.target_shares]
        except ValueError:
            shares = []
        if len(shares) != _CLASSES or min(shares) < 0 or max(shares) <= 0:
            raise InputError(f"--target_shares={','.join(fv.target_shares)}: must be ten numbers from 0 on, not all 0")
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        for name, (images, labels) in make_domains(fv.seed).items():
            kept = thin_out(labels, shares) if shares and name == "target" else np.arange(len(labels))
            _write(folder / name, images[kept], labels[kept])
            print(f"{name}: {', '.join(map(str, np.bincount(labels[kept], minlength=_CLASSES)))} images of 0 to 9")
        names = [str(k) for k in range(_CLASSES)]
        version = {name: {"one": [name], "zero": [other for other in names if other != name]} for name in names}
        files.write_json(folder / "versions.json", {"digits": version})


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))

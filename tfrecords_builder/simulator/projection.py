"""From the line integral to a displayed picture: Beer-Lambert, scatter, detector, display curve, collimation."""

import dataclasses
import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@dataclasses.dataclass(frozen=True)
class Exposure:
    """How a picture is exposed and shown.

    Attributes:
        photons: mean count per 0.3 cm pixel behind nothing (sets the noise).
        scatter: scattered to primary radiation behind the middle of the body (a grid lowers it).
        blur: standard deviation of focal spot and detector blur, in pixels.
        low, high: percentiles of the log signal shown as black and white.
        contrast: steepness of the display's S-curve; 0 is a straight line.
        gamma: exponent on the grey value; below 1 is lighter.
        equalise: share of histogram equalisation, 0..1.
        collimation: black margins (left, top, right, bottom) as fractions of the side.
        marker: text of the lead marker, or "".
        marker_place: (x, y) of the marker as fractions.
    """

    photons: float
    scatter: float
    blur: float
    low: float
    high: float
    contrast: float
    gamma: float
    equalise: float = 0.0
    collimation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    marker: str = ""
    marker_place: tuple[float, float] = (0.9, 0.06)


def expose(attenuation: np.ndarray, exposure: Exposure, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Line integral [n, n] -> picture float32 [n, n] in [0, 1], bone white.

    I = exp(-integral) is primary radiation; scatter is a broad blur of what the body removes; noise is Gaussian with
    the variance of a Poisson count; the picture shows -log I between two percentiles.
    """
    n = attenuation.shape[0]
    primary = np.exp(-attenuation)
    scattered = exposure.scatter * _blur_broad(primary * np.minimum(attenuation, 2.5) / 2.5, 3.5 / pitch)
    signal = primary + 0.5 * scattered
    # A smaller pixel catches fewer photons; the noise per cm2 stays what it is.
    count = exposure.photons * (pitch / 0.3) ** 2
    signal = signal + np.sqrt(signal / count) * rng.standard_normal((n, n)).astype(np.float32)
    log = -np.log(np.maximum(signal, 0.2 / count))
    if exposure.blur > 0.05:
        log = _blur_narrow(log, exposure.blur)
    return display(log, exposure)


def display(log: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Log signal [n, n] -> grey in [0, 1]: window, S-curve, gamma, partial equalisation, collimator and marker."""
    n = log.shape[0]
    left, top, right, bottom = exposure.collimation
    inside = (
        slice(round(top * n), n - round(bottom * n)),
        slice(round(left * n), n - round(right * n)),
    )
    # The window is set on the middle of the field, as exposure control does.
    middle = log[n // 10 : n - n // 10 : 2, n // 10 : n - n // 10 : 2]
    low, high = np.percentile(middle, [exposure.low, exposure.high])
    grey = np.clip((log - low) / max(float(high - low), 1e-3), 0, 1)
    if exposure.contrast > 0:
        edge = np.tanh(exposure.contrast / 2)
        grey = np.clip(0.5 + 0.5 * np.tanh(exposure.contrast * (grey - 0.5)) / edge, 0, 1)
    grey = grey ** np.float32(exposure.gamma)
    if exposure.equalise > 0:
        grey = (1 - exposure.equalise) * grey + exposure.equalise * _equalised(grey)
    if exposure.marker:
        grey = np.maximum(grey, _marker(exposure.marker, n, exposure.marker_place))
    shown = np.zeros_like(grey)
    shown[inside] = grey[inside]
    return shown.astype(np.float32)


def to_bytes(grey: np.ndarray) -> np.ndarray:
    """Grey in [0, 1] -> uint8 of the same shape."""
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)


def average(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean of factor x factor pixels: what a coarser detector measures."""
    if factor == 1:
        return image
    n = image.shape[0] // factor
    return image.reshape(n, factor, n, factor).mean(axis=(1, 3))


def _equalised(grey):
    counts = np.bincount((grey.ravel() * 255).astype(np.int64), minlength=256).astype(np.float64)
    cumulative = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    return cumulative.astype(np.float32)[(grey * 255).astype(np.int64)]


def _blur_broad(image, sigma):
    """A Gaussian blur of many pixels, done on a small copy."""
    n = image.shape[0]
    small = 24
    coarse = np.asarray(Image.fromarray(image.astype(np.float32)).resize((small, small), Image.Resampling.BOX))
    kernel = _gaussian_matrix(small, sigma * small / n)
    # einsum, not a matrix product: a linear algebra library would start its threads for this.
    coarse = np.einsum("ij,jk->ik", kernel, coarse)
    coarse = np.einsum("ik,lk->il", coarse, kernel).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((n, n), Image.Resampling.BICUBIC))


@functools.lru_cache(maxsize=8)
def _gaussian_matrix(size, sigma):
    distance = np.arange(size)[:, None] - np.arange(size)[None, :]
    kernel = np.exp(-0.5 * np.square(distance / max(sigma, 0.1)))
    return kernel / kernel.sum(axis=1, keepdims=True)


def _blur_narrow(image, sigma):
    """A Gaussian blur of about a pixel with a 5-tap kernel (edges repeat)."""
    taps = np.exp(-0.5 * np.square(np.arange(-2, 3) / sigma))
    taps = (taps / taps.sum()).astype(np.float32)
    n = image.shape[0]
    padded = np.pad(image, 2, mode="edge")
    rows = sum(tap * padded[i : i + n] for i, tap in enumerate(taps))
    return sum(tap * rows[:, i : i + n] for i, tap in enumerate(taps))


@functools.lru_cache(maxsize=16)
def _font(size):
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=256)
def _marker(text, n, place):
    size = max(int(n * (0.055 if len(text) == 1 else 0.03)), 6)
    canvas = Image.new("L", (n, n))
    ImageDraw.Draw(canvas).text(
        (place[0] * n, place[1] * n),
        text,
        fill=235,
        font=_font(size),
        anchor="mm" if len(text) == 1 else "rm",
    )
    return np.asarray(canvas, np.float32) / 255

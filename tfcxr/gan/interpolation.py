"""Ways from one latent, or one label vector, to another."""

import numpy as np

_PARALLEL = 1e-6  # sine of the angle below which the spherical formula divides by nothing


def between_latents(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """Spherical interpolation float32 [steps, size] from latent `first` to latent `last` [size], both included.

    z(t) = (sin((1 - t) w) first + sin(t w) last) / sin w, w the angle between them: Shoemake 1985
    (https://doi.org/10.1145/325334.325242), for latents White 2016 (https://arxiv.org/abs/1609.04468). Latents from
    N(0, I) lie near a sphere, which a straight line would leave. Parallel ones are joined by a straight line.
    """
    first, last = np.asarray(first, np.float64), np.asarray(last, np.float64)
    t = np.linspace(0, 1, steps)[:, None]
    norms = np.linalg.norm(first) * np.linalg.norm(last)
    angle = np.arccos(np.clip(first @ last / norms, -1, 1)) if norms else 0.0
    if np.sin(angle) < _PARALLEL:
        return ((1 - t) * first + t * last).astype(np.float32)
    return ((np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)).astype(np.float32)


def between_labels(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """Straight line float32 [steps, L] from label vector `first` to `last` [L], both included.

    Between the ends the values are fractions, which no image of the training had.
    """
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - t) * np.asarray(first, np.float32) + t * np.asarray(last, np.float32)

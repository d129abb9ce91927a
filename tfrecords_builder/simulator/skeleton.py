"""Bones, airways and lung vessels as quadrature points: (points [m, 3] in cm, volumes [m] in cm^3)."""

import functools
import math

import numpy as np

from tfrecords_builder.simulator.anatomy import LEFT, SIDES, Chest
from tfrecords_builder.simulator.geometry import smooth_path, tube, tubes

RIBS = 12
# Directions in which the lobar vessels fan from the hilum: (outwards, down, back).
_FAN = [
    (0.35, -1.0, 0.1),
    (0.75, -0.75, 0.5),
    (0.7, -0.6, -0.6),
    (1.0, -0.2, 0.4),
    (0.9, -0.1, -0.6),
    (0.95, 0.25, -0.5),
]
_FAN += [(0.8, 0.5, 0.6), (0.5, 0.9, 0.5), (0.6, 0.8, -0.4), (0.3, 1.0, 0.1), (0.15, 1.0, -0.1), (0.2, -0.9, -0.4)]
_LEVELS = 6  # of branching of the lung vessels
VERTEBRA_CM = 2.15  # one thoracic vertebra with its disc


def join(parts):
    """Several (points, volumes) -> one."""
    parts = list(parts)
    if not parts:
        return np.zeros((0, 3)), np.zeros(0)
    return np.concatenate([p for p, _ in parts]), np.concatenate([v for _, v in parts])


def rib_y(chest: Chest, rib) -> np.ndarray:
    """Height at which ribs (0 = first) leave the spine, cm."""
    anatomy = chest.anatomy
    return (-13.2 + VERTEBRA_CM * 0.98 * np.asarray(rib) * anatomy.rib_pitch) * anatomy.size


def rib_paths(chest: Chest, count: int) -> np.ndarray:
    """Centre lines of the ribs from the spine round the chest to the cartilage, [2 sides, 12, count, 3] in cm."""
    anatomy, size = chest.anatomy, chest.anatomy.size
    rib = np.arange(RIBS)[:, None]
    end = 0.86 - 0.09 * np.clip(rib - 6, 0, None)
    s = 0.08 + (end - 0.08) * np.linspace(0, 1, count)  # [12, count], 0 at the back, 1 in front
    angle = s * math.pi
    # A rib rises a little at its neck, falls slowly behind, faster at the side, and turns up at the cartilage.
    drop = (2.2 + 1.25 * np.minimum(rib, 6)) * anatomy.rib_slope * size * (1.0 + 0.15 * (1 - chest.inspiration))
    fall = drop * (0.25 * s + 1.05 * s**2 - 0.35 * s**4)
    y = rib_y(chest, rib) + fall - 0.5 * np.sin(np.pi * np.minimum(4 * s, 1))
    lateral, _, depth = chest.edges(np.maximum(y, np.where(rib == 0, -12.9, -12.4) * size))
    x = (lateral + 0.35) * np.sin(angle) ** 0.9
    z = 0.3 + (depth + 0.4) * np.cos(angle)
    return np.stack([np.stack([side * x + chest.spine_x(y), y, z], axis=-1) for side in SIDES])


def ribs(chest: Chest, step: float):
    """Cortical shells of all ribs, and what fills them, as one set of points (bone-equivalent volume)."""
    anatomy = chest.anatomy
    paths = rib_paths(chest, math.ceil(18 * anatomy.size / step))
    for fracture in chest.changes.breaks:
        break_rib(paths[SIDES.index(fracture.side), fracture.rib], fracture)
    paths = paths.reshape(2 * RIBS, -1, 3)
    scale = np.tile(np.where(np.isin(np.arange(RIBS), (0, 10, 11)), 0.8, 1.0), 2) * anatomy.size
    shell = tubes(paths, scale, anatomy.rib_height, 0.48, step, shell=0.24)
    # What fills a rib is a smaller ring: with the wall's, its points cover the section.
    core = tubes(paths, scale, anatomy.rib_height * 0.6, 0.25, 1.6 * step, shell=0.24)
    return join([shell, core])


def break_rib(path: np.ndarray, fracture) -> None:
    """Puts a step and a gap into a rib [k, 3], in place."""
    count = len(path)
    cut = int(np.clip(fracture.where * count, 4, count - 5))
    reach = min(int(0.2 * count), cut, count - cut)
    # The ends are displaced where they meet, in place further away.
    fade = np.linspace(0, 1, reach)
    path[cut - reach : cut, 1] -= 0.45 * fracture.step * fade
    path[cut : cut + reach, 1] += 0.55 * fracture.step * fade[::-1]
    path[cut : cut + reach, 0] -= 0.3 * fracture.step * fade[::-1] * fracture.side


def clavicles(chest: Chest, step: float):
    """Both collar bones: S-shaped tubes from the sternum to the shoulders."""
    size = chest.anatomy.size
    points, volumes = _clavicle(_coarse(step))
    points = points * np.float32(size)
    # Raised shoulders lift the outer ends.
    points[:, 1] -= np.float32(chest.anatomy.clavicle) * np.clip((points[:, 0] / size - 5) / 10.5, 0, 1)
    mirrored = points * np.array([-1, 1, 1], np.float32)
    return np.concatenate([points, mirrored]), np.tile(volumes * size**3, 2)


@functools.lru_cache(maxsize=64)
def _clavicle(step):
    """The left collar bone of a body of size 1."""
    path = smooth_path([(1.6, -10.6, -7.5), (5.0, -11.6, -8.3), (9.5, -12.8, -5.0), (15.5, -14.0, 0.5)])
    core, filling = tube(path, 0.5, 0.42, step * 1.4)
    return join([tube(path, 0.68, 0.6, step, shell=0.22), (core, 0.4 * filling)])


def _coarse(step: float) -> float:
    """Steps of templates are multiples of 0.05 cm, so that pictures of nearly the same field share a template."""
    return 0.05 * max(math.floor(step / 0.05 + 1e-6), 1)


def shoulders(chest: Chest, step: float):
    """Scapulae (borders, spine and blade) and humeri, lateral to the lungs."""
    points, volumes = _shoulder(_coarse(1.4 * step))  # broad and faint: coarser points do
    size = chest.anatomy.size
    return np.concatenate([points * [side * size, size, size] for side in SIDES]), np.tile(volumes * size**3, 2)


@functools.lru_cache(maxsize=64)
def _shoulder(step):
    """The left shoulder of a body of size 1."""
    medial = smooth_path([(12.4, -12.0, 8), (12.8, -7, 8.6), (14.2, -2.2, 8.4)])
    outer = smooth_path([(17.4, -11.2, 4), (16.2, -7, 7), (14.2, -2.2, 8.4)])
    spine = smooth_path([(12.5, -10.5, 8), (15, -12.8, 7.5), (18.5, -15.4, 3)])
    parts = [tube(medial, 0.3, 0.25, step), tube(outer, 0.45, 0.35, step), tube(spine, 0.5, 0.4, step, shell=0.25)]
    for share in np.linspace(0.12, 0.88, 6):
        points, volumes = tube(medial * (1 - share) + outer * share, 1.1, 0.1, step * 1.6)
        parts.append((points, 0.6 * volumes))
    arm = smooth_path([(19.2, -12.5, 2.0), (20.5, -6.0, 1.5), (21.5, 4.0, 1.0)])
    return join([*parts, tube(arm, 1.3, 1.2, step * 1.4, shell=0.4)])


def vertebrae(chest: Chest, step: float):
    """Pedicles, spinous and transverse processes; the bodies are a column (see scene.py)."""
    size = chest.anatomy.size
    points, volumes = _vertebra(_coarse(1.3 * step))
    y = rib_y(chest, np.arange(-3, 15))
    place = np.stack([chest.spine_x(y), y, np.zeros_like(y)], axis=1)
    return (points * size + place[:, None]).reshape(-1, 3), np.tile(volumes * size**3, len(y))


@functools.lru_cache(maxsize=64)
def _vertebra(step):
    """The posterior parts of a vertebra at the origin."""
    parts = []
    ring = np.linspace(0, 2 * math.pi, 13)
    for side in SIDES:
        loop = np.stack([side * 1.15 + 0.28 * np.cos(ring), 0.48 * np.sin(ring), np.full(13, 8.0)], 1)
        parts.append(tube(loop, 0.14, 0.2, step))
        parts.append(tube(np.array([(side * 1.5, 0, 8.5), (side * 3.3, -0.35, 9.2)]), 0.34, 0.3, step, shell=0.15))
    parts.append(tube(np.array([(0, 0.4, 9.0), (0, 1.6, 11.0)]), 0.25, 0.6, step))
    return join(parts)


@functools.lru_cache(maxsize=64)
def _tree(seed: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A branching tree in a lung: starts [m, 3], ends [m, 3], radii [m]; body of size 1, hilum at the origin."""
    rng = np.random.default_rng([seed, side + 1])
    fan = np.array(_FAN) + rng.normal(0, 0.18, (len(_FAN), 3))
    direction = fan / np.sqrt(np.square(fan).sum(1))[:, None]
    start = fan * [0.5, 0.9, 0.5] + rng.normal(0, 0.25, fan.shape)
    radius = rng.uniform(0.36, 0.52, len(direction))
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    radii: list[np.ndarray] = []
    length = rng.uniform(1.7, 2.9, len(direction))
    for level in range(_LEVELS):
        end = start + direction * length[:, None]
        starts.append(start)
        ends.append(end)
        radii.append(radius)
        if level == _LEVELS - 1:
            break
        turn = rng.normal(0, 1, (2, *direction.shape))
        turn -= (turn * direction).sum(-1, keepdims=True) * direction
        turn /= np.sqrt(np.square(turn).sum(-1, keepdims=True))
        angle = np.stack([rng.uniform(0.1, 0.4, len(direction)), -rng.uniform(0.4, 0.9, len(direction))])[..., None]
        turn[1] = turn[0]
        # Main branches go on nearly straight, side branches leave at a wider angle and are thinner.
        child = direction * np.cos(angle) + turn * np.sin(angle)
        start = np.concatenate([end, end])
        radius = np.concatenate(
            [radius * rng.uniform(0.78, 0.88, len(radius)), radius * rng.uniform(0.55, 0.75, len(radius))]
        )
        length = np.concatenate(
            [length * rng.uniform(0.8, 1.0, len(length)), length * rng.uniform(0.65, 0.95, len(length))]
        )
        direction = child.reshape(-1, 3)
        direction /= np.sqrt(np.square(direction).sum(1))[:, None]
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(radii)


def hilum(chest: Chest, side: int) -> np.ndarray:
    """Where the vessels of a lung come from, (3,) in cm; the left hilum is the higher one."""
    size = chest.anatomy.size
    y = -1.6 if side == LEFT else -0.8
    return np.array([side * 2.6 * size + float(chest.shift(y)), y * size, 0.3])


def vessels(chest: Chest, side: int, step: float):
    """Vessels inside one lung. They move with a collapsing lung and are cut where the lung ends."""
    points, lengths, radius = _tree_points(chest.anatomy.vessel_seed, side, _coarse(step))
    size = chest.anatomy.size
    stretch = np.array([side * size * chest.anatomy.width, size * 1.12, size], np.float32)
    points = points * stretch + hilum(chest, side).astype(np.float32)
    if chest.changes.upper_vessels != 1:
        radius = radius * np.where(points[:, 1] < -2, np.float32(chest.changes.upper_vessels), np.float32(1))
    volumes = np.float32(math.pi * size**3) * np.square(radius) * lengths
    points = _collapse(chest, side, points)
    return points, volumes * chest.in_lung(points, side)


@functools.lru_cache(maxsize=16)
def _tree_points(seed: int, side: int, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tree in points: places [m, 3], lengths [m] that each stands for, radii [m]; float32, body of size 1."""
    starts, ends, radii = _tree(seed, side)
    length = np.sqrt(np.square(ends - starts).sum(1))
    count = np.maximum(np.ceil(length / step).astype(np.int64), 1)
    owner = np.repeat(np.arange(len(count)), count)
    along = (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[owner]
    points = starts[owner] + (ends - starts)[owner] * along[:, None]
    lengths, radius = (length / count)[owner], radii[owner]
    # Vessels wider than a pixel become three lines of points side by side.
    thick = radius > 0.5 * step
    disc = np.array([(1, 0, 0.5), (-0.5, 0.87, -0.5), (-0.5, -0.87, 0.2)])
    wide = points[thick, None] + 0.62 * radius[thick, None, None] * disc
    points = np.concatenate([points[~thick], wide.reshape(-1, 3)])
    lengths = np.concatenate([lengths[~thick], np.repeat(lengths[thick] / 3, 3)])
    radius = np.concatenate([radius[~thick], np.repeat(radius[thick], 3)])
    return points.astype(np.float32), lengths.astype(np.float32), radius.astype(np.float32)


def _collapse(chest, side, points):
    """Moves points with a retracting lung."""
    gap, apex_t = chest.retraction(side, points[:, 1])
    if not apex_t:
        return points
    lateral, medial, _ = chest.edges(points[:, 1])
    outwards = points[:, 0] * side - medial
    moved = points.copy()
    moved[:, 0] = side * (medial + outwards * (1 - gap / (lateral - medial)))
    above = np.minimum(points[:, 1] + 1.0, 0)
    moved[:, 1] = points[:, 1] - above * apex_t * 1.8
    return moved


# Trachea and main bronchi of a body of size 1: (knots, radius), to be bent by `_bend`.
_CARINA = (-0.2, -4.2, 1.0)
_AIRWAYS = [
    ([(0, -23, -1.5), (0, -14, -0.5), (-0.3, -8, 0.5), _CARINA], 0.85),
    ([_CARINA, (-1.6, -2.9, 1.2), (-3.0, -1.2, 1.4)], 0.65),
    ([_CARINA, (1.8, -3.0, 1.2), (3.8, -1.8, 1.4)], 0.55),
]


def airways(chest: Chest, step: float):
    """Trachea and main bronchi."""
    points, volumes = _airways(_coarse(1.5 * step))
    return _bend(chest, points), volumes * chest.anatomy.size**3


def trachea_path(chest: Chest) -> np.ndarray:
    """Centre line of the trachea from the neck to the carina, [k, 3] in cm."""
    return _bend(chest, smooth_path(_AIRWAYS[0][0]))


@functools.lru_cache(maxsize=64)
def _airways(step):
    return join([tube(smooth_path(knots), radius, radius, step) for knots, radius in _AIRWAYS])


def _bend(chest, points):
    """Moves points of a body of size 1 with the size, the spine and the mediastinum of this one."""
    points = points * points.dtype.type(chest.anatomy.size)
    points[:, 0] += chest.shift(points[:, 1]) + chest.spine_x(points[:, 1])
    return points

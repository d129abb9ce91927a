"""Support devices: tubes, lines, pacemakers, electrodes and wires."""

import math

import numpy as np

from tfrecords_builder.simulator import skeleton
from tfrecords_builder.simulator.anatomy import LEFT, Chest
from tfrecords_builder.simulator.geometry import smooth_path, tube
from tfrecords_builder.simulator.scene import MU_PLASTIC, MU_STEEL, MU_TITANIUM, Scene

KINDS = ("endotracheal", "central", "pacemaker", "chest_tube", "electrodes", "gastric", "sternal")


def choose(severity: float, chest: Chest, rng: np.random.Generator) -> list[str]:
    """Kinds of device of a patient; more and larger ones with severity."""
    if chest.changes.collapse and rng.random() < 0.8:
        return ["chest_tube"] + (["electrodes"] if severity > 0.6 else [])
    order = rng.permutation(["endotracheal", "central", "pacemaker", "electrodes", "gastric", "sternal"])
    count = 1 + int(severity > 0.45) + int(severity > 0.75)
    return [str(kind) for kind in order[:count]]


def draw(scene: Scene, severity: float, side: int, rng: np.random.Generator) -> None:
    """Draws the devices of a patient."""
    for kind in choose(severity, scene.chest, rng):
        _DRAW[kind](scene, side, rng)


def _line(scene, knots, radius, mu, shell=None):
    size = scene.chest.anatomy.size
    path = smooth_path(np.array(knots) * [size, size, 1], 60)
    scene.add(mu, *tube(path, radius, radius, scene.step, shell=shell))
    return path


def _endotracheal(scene, side, rng):
    trachea = skeleton.trachea_path(scene.chest)
    tip = rng.uniform(-8.5, -6.0) * scene.chest.anatomy.size
    path = trachea[trachea[:, 1] < tip]
    if len(path) < 2:
        return
    scene.add(0.6 * MU_PLASTIC, *tube(path, 0.42, 0.42, scene.step, shell=0.1))
    stripe = path + np.array([0.35, 0, 0])
    scene.add(2.0 * MU_PLASTIC, *tube(stripe, 0.09, 0.12, scene.step))


def _central(scene, side, rng):
    neck = rng.random() < 0.6
    entry = (
        [(-3.8, -18.5, -4.0), (-3.0, -13.0, -4.0)]
        if neck
        else [(-10.5, -9.5, -9.0), (-7.0, -11.5, -7.0), (-3.0, -10.6, -4.0)]
    )
    tip = rng.uniform(-3.0, 0.5)
    _line(scene, [*entry, (-2.4, -8.0, -2.0), (-2.3, tip, -1.0)], 0.13, 2.2 * MU_PLASTIC)


def _pacemaker(scene, side, rng):
    size = scene.chest.anatomy.size
    x, y = 9.0 * size, -8.2 * size
    box = scene.canvas.ellipsoid((x, y, -10), (2.2, 1.9, 0.45), 0.3)
    # A can has flat faces: the thickness saturates.
    scene.extra += MU_TITANIUM * 1.2 * np.minimum(box.length(), 0.35)
    ventricle = scene.chest.solids()["ventricles"]
    apex = (ventricle[0][0] / size + 2.2, ventricle[0][1] / size + 2.6, -6.0)
    vein = [(7.6, -9.2, -9.0), (5.0, -11.2, -7.0), (1.0, -9.8, -4.0), (-2.2, -6.5, -2.0), (-2.4, -1.0, -2.0)]
    _line(scene, [*vein, (-1.0, 4.0, -4.0), apex], 0.11, 0.5 * MU_STEEL)
    if rng.random() < 0.5:
        _line(scene, [*vein, (-2.0, 2.0, -4.0), (-1.6, 0.8, -5.0)], 0.1, 0.5 * MU_STEEL)


def _chest_tube(scene, side, rng):
    if scene.chest.changes.collapse:
        side = next(iter(scene.chest.changes.collapse))
    lateral = float(scene.chest.edges(3.0)[0]) / scene.chest.anatomy.size
    top = rng.uniform(-10, -6)
    knots = [(side * (lateral + 4), 5.0, 0), (side * (lateral + 0.5), 2.5, 0.5), (side * (lateral - 2.5), -2.0, 2)]
    path = _line(scene, [*knots, (side * rng.uniform(5.0, 7.0), top, 2.5)], 0.42, 0.35 * MU_PLASTIC, shell=0.1)
    scene.add(2.5 * MU_PLASTIC, *tube(path + np.array([0.3, 0, 0]), 0.09, 0.12, scene.step))


def _electrodes(scene, side, rng):
    size = scene.chest.anatomy.size
    for x, y in [(-11, -9), (11, -9), (10, 9)][: 2 + int(rng.random() < 0.6)]:
        x, y = x + rng.normal(0, 1.2), y + rng.normal(0, 1.2)
        disc = scene.canvas.ellipsoid((x * size, y * size, -12), (0.55, 0.55, 0.12))
        scene.extra += 0.5 * MU_STEEL * np.minimum(disc.length(), 0.12)
        end = (x * 0.4 + rng.normal(0, 3), 19.0, -12)
        _line(scene, [(x, y, -12), (x + rng.normal(0, 1.5), y + 5, -12), end], 0.07, 0.7 * MU_STEEL)


def _gastric(scene, side, rng):
    top = scene.chest.dome_top(LEFT) / scene.chest.anatomy.size
    knots = [(0.3, -22, 2), (0.2, -8, 3), (0.8, 3, 3), (1.6, top + 1.0, 1), (5.0, top + 4.5, -1)]
    _line(scene, knots, 0.16, 1.6 * MU_PLASTIC)


def _sternal(scene, side, rng):
    shift = rng.normal(0, 0.15)
    for y in np.arange(-8.5, 3.6, 2.4):
        angle = np.linspace(0, 2 * math.pi, 16)
        loop = np.stack([shift + 0.9 * np.cos(angle), y + 0.4 * np.sin(angle), np.full(16, -10.0)], axis=1)
        scene.add(MU_STEEL, *tube(loop, 0.05, 0.05, scene.step))


_DRAW = {
    "endotracheal": _endotracheal,
    "central": _central,
    "pacemaker": _pacemaker,
    "chest_tube": _chest_tube,
    "electrodes": _electrodes,
    "gastric": _gastric,
    "sternal": _sternal,
}

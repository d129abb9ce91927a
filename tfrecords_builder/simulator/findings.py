"""The findings: how each changes the shape of the chest (`plan`), and what it adds to the picture (`draw`).

A finding has a severity in (0, 1]: 1 is obvious at a glance, 0.1 is what a reader may miss. Its seed fixes where it is
and how it looks, so that the same finding in a later study of a patient is recognisably the same.
"""

import dataclasses
import math

import numpy as np

from tfrecords_builder.simulator import devices, skeleton
from tfrecords_builder.simulator.anatomy import RIGHT, SIDES, Anatomy, Changes, RibBreak
from tfrecords_builder.simulator.geometry import TABLE_Y, smooth_path, tube
from tfrecords_builder.simulator.scene import BONE_EXTRA, FILL_EXTRA, MU_SOFT, Scene

PNEUMOTHORAX, CARDIOMEGALY, PNEUMONIA = "Pneumothorax", "Cardiomegaly", "Pneumonia"
CARDIOMEDIASTINUM, OPACITY, LESION = "Enlarged Cardiomediastinum", "Lung Opacity", "Lung Lesion"
EDEMA, CONSOLIDATION, ATELECTASIS = "Edema", "Consolidation", "Atelectasis"
EFFUSION, PLEURAL, FRACTURE, DEVICES = "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"
NO_FINDING = "No Finding"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding in one study: CheXpert name, severity in (0, 1], side (-1 right, 1 left), seed of its details."""

    name: str
    severity: float
    side: int
    seed: int

    def rng(self) -> np.random.Generator:
        """The generator of this finding's details: the same in every study."""
        return np.random.default_rng([self.seed, 7])


def plan(findings: list[Finding], anatomy: Anatomy) -> Changes:
    """What the findings of a study do to the shape of the chest."""
    changes = Changes()
    for finding in findings:
        severity, side, rng = finding.severity, finding.side, finding.rng()
        if finding.name == CARDIOMEGALY:
            changes.heart_ratio = 0.545 + 0.15 * severity + 0.02 * rng.random()
        elif finding.name == CARDIOMEDIASTINUM:
            changes.mediastinum = 1.45 + 0.85 * severity
        elif finding.name == PNEUMOTHORAX:
            collapse = 0.09 + 0.62 * severity
            changes.collapse[side] = collapse
            tension = max(collapse - 0.45, 0)
            changes.shift -= side * 5.0 * tension
            changes.dome[side] += 4.0 * tension
        elif finding.name == ATELECTASIS:
            changes.dome[side] -= (0.3 + 2.2 * severity) * anatomy.size
            changes.shift += side * (1.6 * severity if _lobar(finding) else 0.3 * severity)
        elif finding.name == EFFUSION:
            changes.shift -= side * 2.5 * max(severity - 0.75, 0)
        elif finding.name == EDEMA:
            changes.upper_vessels = 1.15 + 0.5 * severity
        elif finding.name == FRACTURE:
            changes.breaks += _breaks(finding, rng)
    return changes


def draw(scene: Scene, findings: list[Finding]) -> None:
    """Draws the findings onto a scene whose chest was planned with them."""
    for finding in findings:
        if finding.name in _DRAW:
            _DRAW[finding.name](scene, finding)


def lesion_radius(finding: Finding) -> float:
    """Radius of the largest lesion, cm (3 cm across parts a nodule from a mass)."""
    return 0.55 + 2.3 * finding.severity**1.4


def _lobar(finding):
    return finding.severity > 0.45 and finding.seed % 2 == 0


def _breaks(finding, rng):
    count = 1 + int(rng.integers(0, 3)) + int(2 * finding.severity)
    first = int(rng.integers(3, 8))
    where = rng.uniform(0.22, 0.5)
    step = 0.6 + 1.5 * finding.severity
    return [
        RibBreak(finding.side, first + i, where + rng.normal(0, 0.015), step * rng.uniform(0.7, 1.2))
        for i in range(count)
    ]


def cloud(scene: Scene, centres, radii, raggedness: float) -> np.ndarray:
    """An ill-defined patch: 1 inside, 0 outside, float32 [n, n]; centres [k, 2] and radii [k, 2] (x, y) in cm."""
    u, v = scene.canvas.u, scene.canvas.v
    ragged = np.exp(np.float32(raggedness) * scene.noise(1.6))
    clear = np.ones_like(u)
    for (x, y), (rx, ry) in zip(centres, radii, strict=True):
        distance = (np.square((u - x) / rx) + np.square((v - y) / ry)) * ragged
        clear *= 1 - np.exp(-np.square(distance))
    return 1 - clear


def _place(scene, side, rng, low, high):
    """A place in a lung in the frontal plane: `low`..`high` is the range of height as a fraction of the lung."""
    chest = scene.chest
    apex = -12.0 * chest.anatomy.size
    base = chest.dome_top(side)
    y = apex + (base - apex) * rng.uniform(low, high)
    lateral, medial, _ = (float(edge) for edge in chest.edges(y))
    inner = medial + 2.0
    return side * (inner + (lateral - inner) * rng.uniform(0.15, 0.75)), y


def _consolidation(scene, finding):
    rng, size, side = finding.rng(), scene.chest.anatomy.size, finding.side
    lobe = rng.choice(["upper", "middle", "lower"])
    low, high = {"upper": (0.2, 0.4), "middle": (0.55, 0.75), "lower": (0.75, 0.95)}[lobe]
    x, y = _place(scene, side, rng, low, high)
    spread = (2.0 + 2.6 * finding.severity) * size
    centres = [(x + rng.normal(0, 0.35) * spread, y + rng.normal(0, 0.35) * spread) for _ in range(4)]
    patch = cloud(scene, centres, [(spread * rng.uniform(0.7, 1.2), spread * rng.uniform(0.6, 1.0))] * 4, 0.25)
    fissure = y + 0.5 * spread if lobe == "upper" else y - 0.6 * spread
    # A lobe ends at its fissure: a sharp edge, where the rest of the outline is soft.
    sense = 1 if lobe == "upper" else -1
    slope = 0.12 * side * (scene.canvas.u - x)
    patch = patch / (1 + np.exp(np.clip(sense * (scene.canvas.v - fissure - slope) / 0.2, -30, 30)))
    amount = (0.3 + 0.5 * finding.severity) * patch * np.clip(1 + 0.1 * scene.noise(1.0), 0.5, 1.3)
    filled = scene.fill(side, amount)
    # Air bronchograms: bronchi that stay open show dark in what is filled.
    start = skeleton.hilum(scene.chest, side)
    parts = []
    for _ in range(5):
        end = np.array([x + rng.normal(0, 0.8) * spread, y + rng.normal(0, 0.8) * spread, start[2]])
        bend = (start + end) / 2 + rng.normal(0, 0.6, 3)
        parts.append(tube(smooth_path([start, bend, end]), 0.22, 0.3, scene.step))
    open_air = scene.canvas.splat(*skeleton.join(parts))
    scene.extra -= np.float32(MU_SOFT) * np.minimum(open_air, 0.5 * filled)


def _pneumonia(scene, finding):
    rng, size, severity = finding.rng(), scene.chest.anatomy.size, finding.severity
    sides = [finding.side] if rng.random() < 0.75 else list(SIDES)
    for side in sides:
        x, y = _place(scene, side, rng, 0.45, 0.95)
        spread = (2.3 + 2.6 * severity) * size
        count = 5
        centres = [(x + rng.normal(0, 0.55) * spread, y + rng.normal(0, 0.45) * spread) for _ in range(count)]
        radii = [(spread * r, spread * r * 0.85) for r in rng.uniform(0.35, 0.8, count)]
        patch = cloud(scene, centres, radii, 0.4)
        mottle = np.clip(0.8 + 0.16 * scene.noise(0.7) + 0.25 * scene.noise(2.0), 0.2, 1.5)
        scene.fill(side, (0.17 + 0.38 * severity) * patch * mottle)


def _opacity(scene, finding):
    rng, size, severity = finding.rng(), scene.chest.anatomy.size, finding.severity
    x, y = _place(scene, finding.side, rng, 0.25, 0.9)
    spread = (3.0 + 2.5 * severity) * size
    patch = cloud(scene, [(x, y), (x + rng.normal(0, 1.5), y + rng.normal(0, 1.5))], [(spread, 0.8 * spread)] * 2, 0.2)
    scene.fill(finding.side, (0.13 + 0.27 * severity) * patch)


def _lesion(scene, finding):
    rng = finding.rng()
    radius = lesion_radius(finding)
    count = 1 if rng.random() < 0.7 else int(rng.integers(2, 6))
    for index in range(count):
        side = finding.side if index % 2 == 0 else -finding.side
        x, y = _place(scene, side, rng, 0.15, 0.9)
        r = radius if index == 0 else radius * rng.uniform(0.4, 0.9)
        ball = scene.canvas.ellipsoid((x, y, rng.normal(0, 2)), r * rng.uniform(0.85, 1.15, 3), rng.uniform(0, 3))
        length = np.minimum(ball.length(), scene.lungs[side].air)
        scene.extra += FILL_EXTRA * length * np.clip(1 + 0.08 * scene.noise(0.6), 0.7, 1.2)
        if r > 1.2 and index == 0:
            rays = [
                tube(
                    np.array([(x, y, 0), (x + 1.6 * r * math.cos(t), y + 1.6 * r * math.sin(t), 0)]),
                    0.08,
                    0.3,
                    scene.step,
                )
                for t in rng.uniform(0, 2 * math.pi, 9)
            ]
            scene.add(FILL_EXTRA, *skeleton.join(rays))


def _edema(scene, finding):
    rng, size, severity = finding.rng(), scene.chest.anatomy.size, finding.severity
    texture = np.clip(1 + 0.13 * scene.noise(0.7) + 0.22 * scene.noise(2.2), 0.3, 2)
    lines = []
    for side in SIDES:
        x, y, _ = skeleton.hilum(scene.chest, side)
        reach = (5.5 + 2.5 * severity) * size
        near = np.exp(-np.square((scene.canvas.u - x) / reach) - np.square((scene.canvas.v - y - 1.5) / (1.2 * reach)))
        scene.fill(side, (0.05 + 0.12 * severity + (0.1 + 0.33 * severity) * near) * texture)
        # Kerley B lines: short, horizontal, at the pleura of the base.
        for _ in range(int(4 + 5 * severity)):
            line_y = scene.chest.dome_top(side) + rng.uniform(-4.5, 1.5)
            lateral = float(scene.chest.edges(line_y)[0])
            ends = np.array(
                [(side * (lateral - 0.3), line_y, 0), (side * (lateral - rng.uniform(1.4, 2.4)), line_y + 0.1, 0)]
            )
            lines.append(tube(ends, 0.06, 0.9, scene.step))
    fissure_y = skeleton.hilum(scene.chest, RIGHT)[1] + 0.8
    lateral = float(scene.chest.edges(fissure_y)[0])
    fissure = np.array([(-3.5, fissure_y, -2), (-(lateral - 0.3), fissure_y + 0.6, -2)])
    lines.append(tube(fissure, 0.08, 1.0 + severity, scene.step))
    scene.add((0.4 + 0.6 * severity) * FILL_EXTRA, *skeleton.join(lines))


def _atelectasis(scene, finding):
    rng, size, side, severity = finding.rng(), scene.chest.anatomy.size, finding.side, finding.severity
    top = scene.chest.dome_top(side)
    if _lobar(finding):
        # A collapsed lower lobe: a dense wedge at the mediastinum with a straight lateral edge.
        u, v = scene.canvas.u * side, scene.canvas.v
        edge = 2.2 * size + (v - (top - 8.5)) * (0.35 + 0.3 * severity)
        wedge = 1 / (1 + np.exp(np.clip((u - edge) / 0.2, -30, 30)))
        wedge = wedge / (1 + np.exp(np.clip((top - 8.5 - v) / 0.6, -30, 30)))
        scene.fill(side, (0.35 + 0.45 * severity) * wedge)
        return
    bands = []
    for _ in range(1 + int(rng.integers(0, 2)) + int(severity > 0.5)):
        y = top - rng.uniform(0.6, 3.5)
        lateral = float(scene.chest.edges(y)[0])
        length = min((3.0 + 4.0 * severity) * size, lateral - 3.5)
        start = rng.uniform(3.0, max(lateral - length - 0.5, 3.1))
        tilt = rng.normal(0, 0.22)
        path = np.array([(side * start, y, 1.0), (side * (start + 0.5 * length), y + tilt, 1.0)])
        path = smooth_path([*path, (side * (start + length), y + 3 * tilt, 1.0)])
        bands.append(tube(path, 0.13 + 0.27 * severity, 0.9 + 1.1 * severity, scene.step))
    scene.add(FILL_EXTRA, *skeleton.join(bands))
    # The crowded base under the bands is a little denser.
    base = 1 / (1 + np.exp(np.clip((top - 2.2 - scene.canvas.v) / 0.8, -30, 30)))
    scene.fill(side, (0.08 + 0.22 * severity) * base * np.clip(1 + 0.4 * scene.noise(1.2), 0, 2))


def _pneumothorax(scene, finding):
    side = finding.side
    maps = scene.lungs[side]
    inner = scene.canvas.column(*scene.chest.lung(side, shrink=0.07))
    # The visceral pleura with the fluid film on it: a shell, brightest where the ray grazes it.
    shell = np.maximum(maps.lung.length() - inner.length(), 0)
    seen = np.clip((maps.gas + maps.air) / 2.0, 0, 1)
    scene.extra += np.float32(MU_SOFT) * np.minimum(shell, 1.6) * seen


def meniscus(scene: Scene, finding: Finding) -> np.ndarray:
    """Share of each ray through the pleural cavity that is below the fluid's surface, float32 [n, n] in 0..1.

    The surface rises towards the chest wall; the least amounts only blunt the costophrenic angle.
    """
    chest, size = scene.chest, scene.chest.anatomy.size
    lateral = scene.canvas.rows(chest.edges(TABLE_Y)[0])
    wall = np.maximum(lateral - scene.canvas.u * finding.side, 0)
    angle_y = chest.dome_top(finding.side) + 3.2 * size
    level = angle_y - 14.0 * size * finding.severity**1.3
    rise = (2.2 + 2.5 * finding.severity) * np.exp(-wall / (1.4 + 1.4 * finding.severity)) * size
    return 1 / (1 + np.exp(np.clip((level - rise - scene.canvas.v) / (0.22 * size), -30, 30)))


def _effusion(scene, finding):
    side = finding.side
    below = meniscus(scene, finding)
    supine = scene.canvas.view.from_front and finding.seed % 3 == 0
    if supine:
        # Lying down, the fluid layers behind the lung: a veil that thickens downwards.
        size = scene.chest.anatomy.size
        veil = np.clip((scene.canvas.v + 9 * size) / (22 * size), 0, 1)
        below = np.maximum(0.6 * below, (0.15 + 0.5 * finding.severity) * veil)
    scene.fill(side, below)
    # Air above fluid has a level instead of a meniscus.
    maps = scene.lungs[side]
    maps.gas = maps.gas * (1 - below)


def _pleural(scene, finding):
    rng, side, severity = finding.rng(), finding.side, finding.severity
    chest = scene.chest
    x, z, a, b = chest.pleura(side)
    thick = 0.35 + 0.75 * severity
    inner = scene.canvas.column(
        x - side * 0.5 * thick, z, np.maximum(a - 0.5 * thick, 0), np.maximum(b - 0.3 * thick, 0)
    )
    maps = scene.lungs[side]
    rind = np.minimum(np.maximum(maps.cavity.length() - inner.length(), 0), maps.air)
    low = rng.uniform(-2, 5)
    if rng.random() < 0.3:  # an apical cap
        low = -12.0
    zone = np.exp(-(((scene.canvas.v - low) / (4.0 + 3.0 * severity)) ** 4))
    lateral_half = np.clip((scene.canvas.u * side - 5.0) / 3.0, 0, 1) if low > -10 else 1.0
    scene.extra += FILL_EXTRA * rind * zone * lateral_half
    for _ in range(int(rng.integers(0, 3)) + int(3 * severity)):  # calcified plaques
        px, py = _place(scene, side, rng, 0.3, 0.95)
        plaque = scene.canvas.ellipsoid(
            (px, py, -6), (rng.uniform(0.5, 1.4), rng.uniform(0.3, 0.8), 0.25), rng.uniform(0, 3)
        )
        scene.extra += 0.7 * BONE_EXTRA * plaque.length() * np.clip(1 + 0.4 * scene.noise(0.4), 0, 2)


def _fracture(scene, finding):
    rng = finding.rng()
    paths = skeleton.rib_paths(scene.chest, 60)
    parts = []
    for fracture in _breaks(finding, rng):
        x, y, z = paths[SIDES.index(fracture.side), fracture.rib, int(fracture.where * 60)]
        callus = tube(np.array([(x - 0.3, y, z), (x + 0.3, y + 0.3, z)]), 0.45, 0.4, scene.step)
        parts.append((callus[0], 0.5 * callus[1] * (finding.seed % 2)))
        if finding.severity > 0.4:  # a haematoma under the pleura
            blood = scene.canvas.ellipsoid((x - 0.3 * finding.side, y, z), (1.0, 1.6, 1.6))
            scene.extra += 0.5 * FILL_EXTRA * np.minimum(blood.length(), scene.lungs[finding.side].air)
    scene.add_bone(*skeleton.join(parts))


def _devices(scene, finding):
    devices.draw(scene, finding.severity, finding.side, finding.rng())


_DRAW = {
    # Fluid takes lung away, so it comes before what fills lung.
    EFFUSION: _effusion,
    CONSOLIDATION: _consolidation,
    PNEUMONIA: _pneumonia,
    OPACITY: _opacity,
    LESION: _lesion,
    EDEMA: _edema,
    ATELECTASIS: _atelectasis,
    PNEUMOTHORAX: _pneumothorax,
    PLEURAL: _pleural,
    FRACTURE: _fracture,
    DEVICES: _devices,
}

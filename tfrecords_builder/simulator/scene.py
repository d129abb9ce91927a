"""One study on the pixel grid: path lengths through every tissue, and the line integral of attenuation.

Linear attenuation coefficients are NIST's mass coefficients (X-ray Mass Attenuation Coefficients, tables 3 and 4:
ICRU-44 tissues) interpolated to 70 keV, the effective energy of a 120 kV chest beam, times density.
"""

import dataclasses

import numpy as np
from PIL import Image

from tfrecords_builder.simulator import skeleton
from tfrecords_builder.simulator.anatomy import LEFT, RIGHT, SIDES, Chest
from tfrecords_builder.simulator.geometry import TABLE_Y, Canvas, Interval

# In cm^-1 at 70 keV.
MU_SOFT = 0.205  # soft tissue, 0.193 cm2/g x 1.06 g/cm3; blood, fluid and consolidated lung are taken as the same
MU_FAT = 0.179  # adipose tissue, 0.188 x 0.95
MU_LUNG = 0.050  # aerated lung, 0.193 x 0.26
MU_BONE = 0.502  # cortical bone, 0.262 x 1.92
MU_PLASTIC = 1.0  # radio-opaque (barium) stripe of tubes and catheters: effective
MU_TITANIUM = 2.48  # 0.547 x 4.54
MU_STEEL = 6.5  # iron, 0.83 x 7.87

# Bone replaces soft tissue; filling replaces aerated lung.
BONE_EXTRA = MU_BONE - MU_SOFT
FILL_EXTRA = MU_SOFT - MU_LUNG


@dataclasses.dataclass
class LungMaps:
    """One side of the chest on the pixel grid; arrays float32 [n, n] in cm.

    Attributes:
        cavity: where rays are in the pleural cavity (diaphragm not taken off).
        lung: where they are in the lung (smaller in a pneumothorax).
        air: path length in lung, less mediastinum and diaphragm.
        gas: path length in free pleural air.
        whole: `air` before any finding.
        filled: how much of `whole` findings have filled.
    """

    cavity: Interval
    lung: Interval
    air: np.ndarray
    gas: np.ndarray
    whole: np.ndarray
    filled: np.ndarray


class Scene:
    """Path lengths of one study. Findings add to `extra` (line integral, dimensionless) and change the lung maps."""

    def __init__(self, chest: Chest, canvas: Canvas, rng: np.random.Generator):
        self.chest, self.canvas, self.rng = chest, canvas, rng
        n = canvas.view.resolution
        self.extra = np.zeros((n, n), np.float32)
        self.step = max(canvas.view.pitch, 0.06)
        solids = {name: canvas.ellipsoid(*solid) for name, solid in chest.solids().items()}
        self.heart = (solids["ventricles"], solids["atrium"])
        self.solids = solids
        self.body = canvas.column(*chest.body()).length()
        self.domes = {side: canvas.column(*chest.dome(side)) for side in SIDES}
        middle = [canvas.column(*chest.mediastinum()), solids["ventricles"], solids["atrium"]]
        right = [solids["cava"], solids["right hilum"]]
        left = [solids[name] for name in ("knob", "trunk", "outflow", "left hilum")]
        left.append(canvas.column(*chest.descending_aorta()))
        self._obstacles = {RIGHT: middle + right, LEFT: middle + left}
        self.lungs = {side: self._lung_maps(side) for side in SIDES}
        self.density = {
            side: chest.anatomy.lung_density / (1 - 0.6 * chest.changes.collapse.get(side, 0)) for side in SIDES
        }

    def _lung_maps(self, side) -> LungMaps:
        cavity = self.canvas.column(*self.chest.pleura(side))
        whole = self._clear(cavity, side)
        if not self.chest.changes.collapse.get(side):
            return LungMaps(cavity, cavity, whole, np.zeros_like(whole), whole, np.zeros_like(whole))
        lung = self.canvas.column(*self.chest.lung(side))
        air = np.minimum(self._clear(lung, side), whole)
        return LungMaps(cavity, lung, air, whole - air, air, np.zeros_like(air))

    def _clear(self, solid: Interval, side) -> np.ndarray:
        """Path length in a solid less what is in the diaphragm or the mediastinum (overlaps of those counted once
        where they matter: heart on diaphragm)."""
        length = solid.length()
        heart, dome = self.heart[0], self.domes[side]
        both = Interval(np.maximum(heart.enter, dome.enter), np.minimum(heart.leave, dome.leave))
        covered = solid.overlap(dome) - solid.overlap(both)
        for obstacle in self._obstacles[side]:
            covered += solid.overlap(obstacle)
        return np.maximum(length - covered, 0)

    def silhouette(self, name: str) -> np.ndarray:
        """Shadow of "heart", "right lung" or "left lung": bool [n, n]."""
        if name == "heart":
            return (self.heart[0].length() > 0) | (self.heart[1].length() > 0)
        return self.lungs[{"right lung": -1, "left lung": 1}[name]].cavity.length() > 0

    def noise(self, scale_cm: float) -> np.ndarray:
        """A smooth random field with features of this size: mean 0, standard deviation 1, float32 [n, n]."""
        n = self.canvas.view.resolution
        # Drawn on a fixed coarse grid, so that the same patient looks the same at another resolution.
        coarse = int(np.clip(self.canvas.view.field_cm / (0.7 * scale_cm), 8, 96))
        field = self.rng.standard_normal((coarse, coarse)).astype(np.float32)
        field = np.asarray(Image.fromarray(field).resize((n, n), Image.Resampling.BICUBIC))
        return (field - field.mean()) / max(float(field.std()), 1e-6)

    def add_bone(self, points, volumes):
        """Adds points of bone, as dense as this patient's."""
        self.extra += np.float32(BONE_EXTRA * self.chest.anatomy.bone) * self.canvas.splat(points, volumes)

    def add(self, mu: float, points, volumes):
        """Adds points of a material whose attenuation exceeds its surroundings by mu (cm^-1)."""
        self.extra += np.float32(mu) * self.canvas.splat(points, volumes)

    def fill(self, side: int, amount) -> np.ndarray:
        """Fills lung with fluid: `amount` (float or [n, n], 0..1) of the lung path that is left.

        Returns the filled path length in cm, float32 [n, n].
        """
        maps = self.lungs[side]
        filled = maps.air * np.clip(amount, 0, 1).astype(np.float32)
        maps.air = maps.air - filled
        maps.filled += filled
        return filled

    def attenuation(self) -> np.ndarray:
        """Line integral of attenuation, float32 [n, n], >= 0."""
        fat = np.minimum(self.body, 1.4 * self.chest.anatomy.fat)
        total = MU_SOFT * (self.body - fat) + MU_FAT * fat + self.extra
        for side, maps in self.lungs.items():
            lung_mu = min(MU_LUNG * self.density[side], 0.8 * MU_SOFT)
            total -= (MU_SOFT - lung_mu) * maps.air + MU_SOFT * maps.gas
        return np.maximum(total, 0)


def draw_normal(scene: Scene) -> None:
    """Everything but the findings: bones, vessels, airways, breasts, stomach bubble, lung texture."""
    _draw_bones(scene)
    chest, step, size = scene.chest, scene.step, scene.chest.anatomy.size
    for side in SIDES:
        points, volumes = skeleton.vessels(chest, side, step)
        maps = scene.lungs[side]
        # Vessels show against air only: they vanish in what is filled.
        seen = 1 - maps.filled / np.maximum(maps.whole, 0.1)
        scene.extra += np.float32(FILL_EXTRA) * scene.canvas.splat(points, volumes) * seen
    grain = 0.09 * scene.noise(0.9) + 0.07 * scene.noise(0.45)
    for side in SIDES:
        scene.extra += np.float32(MU_LUNG * scene.density[side]) * scene.lungs[side].air * grain
    scene.add(-0.9 * MU_SOFT, *skeleton.airways(chest, step))
    if chest.anatomy.breast:
        _draw_breasts(scene)
    else:
        for side in SIDES:
            muscle = scene.canvas.ellipsoid(
                (side * 9.5 * size, -4.5 * size, -10), (6 * size, 5 * size, 1.1), side * 0.5
            )
            scene.extra += MU_SOFT * 0.5 * muscle.length()
    if chest.anatomy.bubble > 0.3:
        bubble = chest.anatomy.bubble
        y = chest.dome_top(1) + 2.4 + 0.5 * bubble
        gas = scene.canvas.ellipsoid(
            (6.0 * size, y, -3.0), (2.2 * bubble + 0.6, 0.9 * bubble + 0.3, 2.0 * bubble + 0.5)
        )
        scene.extra -= MU_SOFT * 0.7 * gas.length()


def _draw_bones(scene: Scene) -> None:
    chest, step = scene.chest, scene.step
    parts = [skeleton.ribs(chest, step), skeleton.clavicles(chest, step), skeleton.vertebrae(chest, step)]
    if not chest.arms_up:
        parts.append(skeleton.shoulders(chest, step))
    for part in parts:
        scene.add_bone(*part)
    # Vertebral bodies: a column whose bone content follows vertebra, disc, vertebra.
    size = chest.anatomy.size
    period = skeleton.VERTEBRA_CM * 0.98 * chest.anatomy.rib_pitch * size
    phase = (TABLE_Y + 13.2 * size) / period
    near_disc = np.abs(phase - np.floor(phase) - 0.5)  # 0.5 at mid-body, 0 at the disc
    body = np.clip((near_disc - 0.07) / 0.05, 0, 1)
    plate = np.exp(-np.square((near_disc - 0.13) / 0.03))
    width = (1.5 + 0.012 * (TABLE_Y + 13)) * size * (1.0 + 0.08 * plate)
    column = scene.canvas.column(
        chest.spine_x(TABLE_Y), np.full_like(TABLE_Y, 6.3), width, np.full_like(TABLE_Y, 1.5 * size)
    )
    content = scene.canvas.rows(0.16 * body + 0.12 * plate)
    scene.extra += np.float32(BONE_EXTRA * chest.anatomy.bone) * content * column.length()


def _draw_breasts(scene: Scene) -> None:
    breast, size = scene.chest.anatomy.breast, scene.chest.anatomy.size
    for side in SIDES:
        axes = ((5.6 + 0.8 * breast) * size, (6.5 + 1.2 * breast) * size, 2.0 + 2.2 * breast)
        y = (4.0 + 1.2 * breast) * size
        solid = scene.canvas.ellipsoid((side * 8.6 * size, y, -11.5), axes, side * 0.25)
        # Half of it stands out of the trunk, more at the lower pole; breast tissue is mostly fat.
        sag = np.clip(0.45 + 0.5 * (scene.canvas.v - y) / axes[1], 0, 1)
        scene.extra += 0.6 * (0.4 * MU_SOFT + 0.6 * MU_FAT) * solid.length() * sag

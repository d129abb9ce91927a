"""A patient's chest in three dimensions: what it is made of, how it varies, and where disease moves it.

The proportions follow radiographic anatomy: ten posterior ribs above the right dome in full inspiration, the right dome
about one vertebra higher than the left, a cardiothoracic ratio below 0.5, the aortic knob on the left.
"""

import dataclasses
import math

import numpy as np

from tfrecords_builder.simulator.geometry import TABLE_Y, half_extent

RIGHT, LEFT = -1, 1  # sides, as the sign of x
SIDES = (RIGHT, LEFT)

APEX_Y, BASE_Y = -13.0, 14.6  # of the pleural cavity, cm, in a body of size 1


def _curve(knots):
    """A smooth curve through knots (x, y) that overshoots none (Fritsch and Butland 1984, as SciPy's PCHIP).

    Written here because importing scipy.interpolate takes longer than simulating twenty images.
    """
    x, y = np.array(knots, np.float64).T
    width = np.diff(x)
    slope = np.diff(y) / width
    first, second = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = slope[:-1] * slope[1:] > 0
    before, after = np.where(same, slope[:-1], 1.0), np.where(same, slope[1:], 1.0)
    inner = np.where(same, (first + second) / (first / before + second / after), 0.0)
    tangent = np.concatenate([slope[:1], inner, slope[-1:]])

    def evaluate(at):
        i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
        t = (np.clip(at, x[0], x[-1]) - x[i]) / width[i]
        rise = y[i] * (1 + 2 * t) * (1 - t) ** 2 + y[i + 1] * t**2 * (3 - 2 * t)
        return rise + width[i] * (tangent[i] * t * (1 - t) ** 2 - tangent[i + 1] * t**2 * (1 - t))

    return evaluate


# Pleural cavity by the fraction of the way from apex (0) to costophrenic sulcus (1): edges and half depth, cm.
_T = np.linspace(0, 1, 2001)
_LATERAL_EDGE = _curve(
    [(0, 4.6), (0.01, 5.8), (0.04, 7.0), (0.1, 8.6), (0.2, 10.4), (0.4, 12.4), (0.6, 13.4), (0.8, 13.9), (1, 13.7)]
)(_T)
_MEDIAL_EDGE = _curve([(0, 4.4), (0.01, 3.4), (0.04, 2.6), (0.1, 2.0), (0.2, 1.6), (0.4, 1.2), (0.6, 0.9), (1, 0.9)])(
    _T
)
_HALF_DEPTH = _curve([(0, 0.3), (0.01, 1.8), (0.04, 3.2), (0.1, 4.6), (0.2, 6.3), (0.4, 8.0), (0.6, 8.7), (1, 8.4)])(_T)

# Trunk: half width and half depth by y.
_SHOULDERS = [(-26, 6.4), (-19.5, 6.2), (-17.6, 7.2), (-16, 11), (-14, 17.5), (-11.5, 21), (-8, 20.5)]
_BODY_WIDTH = _curve([*_SHOULDERS, (-4.5, 17.8), (0, 16.8), (6, 16.3), (12, 16.0), (26, 16.6)])(TABLE_Y)
_BODY_DEPTH = _curve([(-26, 6), (-17, 6.5), (-13, 8.5), (-7, 10.4), (0, 11.2), (8, 11.6), (26, 11.4)])(TABLE_Y)


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """One patient. Lengths in cm, angles in radians; see `sample_anatomy` for the ranges."""

    sex: str
    age: int
    size: float
    width: float
    fat: float
    heart_ratio: float
    heart_tilt: float
    aorta: float
    mediastinum: float
    right_dome: float
    left_dome_lower: float
    dome_height: float
    scoliosis: float
    scoliosis_phase: float
    rib_slope: float
    rib_height: float
    rib_pitch: float
    bone: float
    breast: float
    clavicle: float
    bubble: float
    vessel_seed: int
    lung_density: float


@dataclasses.dataclass(frozen=True)
class RibBreak:
    """A fracture: which rib (0 = first), where along it (0 spine .. 1 cartilage), and the step in cm."""

    side: int
    rib: int
    where: float
    step: float


@dataclasses.dataclass
class Changes:
    """How the findings of one study change the shape of the chest. `collapse`, `dome`, `volume` are by side."""

    heart_ratio: float | None = None
    mediastinum: float = 1.0
    shift: float = 0.0
    collapse: dict[int, float] = dataclasses.field(default_factory=dict)
    dome: dict[int, float] = dataclasses.field(default_factory=lambda: {RIGHT: 0.0, LEFT: 0.0})
    breaks: list[RibBreak] = dataclasses.field(default_factory=list)
    upper_vessels: float = 1.0


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draws a patient: adults of 20 to 90, both sexes."""
    sex = "Male" if rng.random() < 0.55 else "Female"
    male = sex == "Male"
    age = int(np.clip(rng.normal(57, 17), 20, 90))
    old = (age - 20) / 70
    return Anatomy(
        sex=sex,
        age=age,
        size=float(np.clip(rng.normal(1.0 if male else 0.92, 0.045), 0.8, 1.12)),
        width=float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)),
        fat=float(np.clip(rng.gamma(2.0, 0.7), 0.1, 4.5)),
        heart_ratio=float(np.clip(rng.normal(0.425 + 0.02 * old, 0.022), 0.36, 0.465)),
        heart_tilt=float(rng.normal(0.62, 0.12)),
        aorta=float(np.clip(rng.normal(0.85 + 0.3 * old, 0.1), 0.7, 1.35)),
        mediastinum=float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.12)),
        right_dome=float(rng.normal(7.6, 0.7)),
        left_dome_lower=float(np.clip(rng.normal(1.1, 0.5), -0.3, 2.2)),
        dome_height=float(np.clip(rng.normal(7.4, 0.8), 5.5, 9.5)),
        scoliosis=float(rng.normal(0, 0.35)),
        scoliosis_phase=float(rng.uniform(0, 2 * math.pi)),
        rib_slope=float(np.clip(rng.normal(1.0, 0.13), 0.65, 1.35)),
        rib_height=float(np.clip(rng.normal(0.62, 0.05), 0.48, 0.76)),
        rib_pitch=float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.1)),
        bone=float(np.clip(rng.normal(1.05 - 0.35 * old * (1.0 if male else 1.2), 0.1), 0.5, 1.3)),
        breast=0.0 if male else float(np.clip(rng.normal(1.0, 0.35), 0.3, 2.0)),
        clavicle=float(rng.normal(0, 0.7)),
        bubble=float(np.clip(rng.normal(1.0, 0.5), 0.0, 2.0)),
        vessel_seed=int(rng.integers(2**31)),
        lung_density=float(np.clip(rng.normal(1.0, 0.1), 0.75, 1.3)),
    )


@dataclasses.dataclass
class Chest:
    """The shapes of one study: an anatomy, the changes of its findings, and how deep the breath is.

    `inspiration` 1 is full; below, the domes rise by 6 cm for each unit. `arms_up` is how a lateral view is taken.
    All methods return cm.
    """

    anatomy: Anatomy
    changes: Changes
    inspiration: float = 1.0
    arms_up: bool = False
    _cache: dict = dataclasses.field(default_factory=dict, repr=False)

    def _once(self, key, make):
        """The profiles are asked for many times in one picture."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _table_edges(self):
        return self._once("edges", lambda: self.edges(TABLE_Y))

    def fraction(self, y):
        """How far y is from apex (0) to costophrenic sulcus (1)."""
        size = self.anatomy.size
        return (np.asarray(y) / size - APEX_Y) / (BASE_Y - APEX_Y)

    def edges(self, y):
        """Distance of the lateral and medial edge of the pleural cavity from the midline, and half depth, at y."""
        t = np.clip(self.fraction(y), 0, 1)
        size = self.anatomy.size
        wide = size * self.anatomy.width
        lateral = np.interp(t, _T, _LATERAL_EDGE) * wide
        return lateral, np.interp(t, _T, _MEDIAL_EDGE) * wide, np.interp(t, _T, _HALF_DEPTH) * size

    def pleura(self, side: int):
        """Profiles (x, z, half width, half depth) on TABLE_Y of a pleural cavity; empty above apex and below base."""
        return self._once(("pleura", side), lambda: self._pleura(side))

    def _pleura(self, side):
        lateral, medial, depth = self._table_edges()
        inside = self._inside(TABLE_Y)
        depth = depth * self._thinning()
        x = side * (lateral + medial) / 2 + self.spine_x(TABLE_Y)
        return x, np.full_like(x, 0.3), (lateral - medial) / 2 * inside, depth * inside

    def lung(self, side: int, shrink: float = 0.0):
        """The same for the lung: smaller than the cavity where air is in the pleural space, and by `shrink` cm."""
        return self._once(("lung", side, shrink), lambda: self._lung(side, shrink))

    def _lung(self, side, shrink):
        lateral, medial, depth = self._table_edges()
        inside = self._inside(TABLE_Y)
        gap, apex_t = self.retraction(side, TABLE_Y)
        t = self.fraction(TABLE_Y)
        # A collapsed lung has a rounded apex of its own.
        top = np.sqrt(np.clip((t - apex_t) / 0.12, 0, 1)) if apex_t > 0 else 1.0
        width = np.maximum((lateral - gap - medial) * top / 2 - shrink, 0)
        middle = (lateral - gap + medial) / 2
        depth = np.maximum(depth * self._thinning() * (1 - 0.45 * gap / lateral) * top - shrink, 0)
        x = side * middle + self.spine_x(TABLE_Y)
        return x, np.full_like(x, 0.3), width * inside, depth * inside

    def retraction(self, side: int, y):
        """(how far the lung's lateral edge is from the chest wall at y in cm, where its apex is as a fraction)."""
        collapse = self.changes.collapse.get(side, 0.0)
        if not collapse:
            return np.zeros_like(np.asarray(y, np.float64)), 0.0
        lateral, medial, _ = self.edges(y)
        t = np.clip(self.fraction(y), 0, 1)
        # Upright, air gathers at the apex: the rim is widest there and thins towards the base.
        share = np.clip(collapse * (1.45 - 1.0 * t + 0.6 * collapse * t), 0, 0.86)
        return share * (lateral - medial), 0.02 + 0.42 * collapse

    def dome(self, side: int):
        """Profiles on TABLE_Y of the diaphragm and what is below it, on one side."""
        return self._once(("dome", side), lambda: self._dome(side))

    def _dome(self, side):
        top = self.dome_top(side)
        height = self.anatomy.dome_height * self.anatomy.size
        lateral, medial, depth = self.edges(top + 0.7 * height)
        rise = np.sqrt(np.clip(1 - np.square(np.minimum((TABLE_Y - top - height) / height, 0)), 0, 1))
        x = np.full_like(TABLE_Y, side * (lateral + medial) / 2 * 0.97)
        return x, np.full_like(x, -0.4), (lateral - medial) / 2 * 1.07 * rise, depth * 1.04 * rise

    def dome_top(self, side: int) -> float:
        """y of the top of a dome."""
        anatomy = self.anatomy
        top = anatomy.right_dome + (anatomy.left_dome_lower if side == LEFT else 0.0)
        return (top - 6.0 * (1 - self.inspiration)) * anatomy.size + self.changes.dome[side]

    def body(self):
        """Profiles of the trunk."""
        anatomy = self.anatomy
        y = TABLE_Y / anatomy.size
        width = np.interp(y, TABLE_Y, _BODY_WIDTH) * anatomy.size * (0.4 + 0.6 * anatomy.width) + 0.55 * anatomy.fat
        if self.arms_up:
            width = np.minimum(width, 15.5 * anatomy.size)
        depth = np.interp(y, TABLE_Y, _BODY_DEPTH) * anatomy.size + 0.7 * anatomy.fat
        return np.zeros_like(y), np.full_like(y, 0.2), width, depth

    def mediastinum(self):
        """Profiles of the tissue between the lungs, heart excepted."""
        scale = self.anatomy.mediastinum * self.anatomy.size
        y = TABLE_Y / self.anatomy.size
        wide = 1 + (self.changes.mediastinum - 1) * np.exp(-np.square((y + 5.5) / 4.5))
        width = np.interp(y, [-20, -13, -10, -6, -2, 4, 15], [3.0, 2.5, 2.2, 2.0, 1.9, 1.9, 2.0]) * scale * wide
        x = self.spine_x(TABLE_Y) + 0.2 + self.shift(TABLE_Y)
        return x, np.full_like(y, 0.5), width, np.interp(y, [-20, -13, -6, 15], [3.5, 4.0, 5.5, 6.0]) * scale

    def descending_aorta(self):
        """Profiles of the aorta beside the spine."""
        radius = 1.25 * self.anatomy.aorta * self.anatomy.size
        below = np.where(TABLE_Y / self.anatomy.size > -6.5, radius, 0.0)
        x = self.spine_x(TABLE_Y) + 1.55 * self.anatomy.size + 0.5 * self.shift(TABLE_Y)
        return x, np.full_like(x, 4.6), below, below

    def spine_x(self, y):
        """Sideways position of the spine at y (a gentle scoliosis)."""
        anatomy = self.anatomy
        return anatomy.scoliosis * np.sin(np.asarray(y) / 9.0 + anatomy.scoliosis_phase)

    def shift(self, y):
        """Sideways shift of the mediastinum at y: nothing in the neck."""
        return self.changes.shift * np.clip((np.asarray(y) + 15) / 8, 0, 1)

    def solids(self):
        """Ellipsoids of the mediastinal contour: name -> (centre, half axes, tilt)."""
        anatomy, size = self.anatomy, self.anatomy.size
        aorta, wide = anatomy.aorta, self.changes.mediastinum
        x = float(self.spine_x(-4.0)) + self.changes.shift
        parts = {
            "knob": ((1.9 + 0.35 * wide, -6.2, 1.0), (1.35 * aorta * wide, 1.5 * aorta, 3.6), 0.0),
            "trunk": ((2.1, -2.6, -1.2), (1.5, 2.2, 2.2), -0.4),
            "outflow": ((1.6, 0.6, -2.2), (2.7, 4.4, 3.0), -0.25),
            "right hilum": ((-2.6, -0.8, 0.4), (1.3, 2.3, 1.5), 0.3),
            "left hilum": ((2.9, -1.8, 0.6), (1.3, 2.0, 1.5), -0.3),
            "cava": ((-2.0 - 0.5 * (wide - 1), -5.4, -1.0), (0.95 * wide, 5.4, 1.2), 0.0),
        }
        out = {
            name: ((c[0] * size + x, c[1] * size, c[2] * size), tuple(a * size for a in axes), tilt)
            for name, (c, axes, tilt) in parts.items()
        }
        return out | self._heart(x)

    def _heart(self, x):
        """The ventricles (a tilted ellipsoid) and the right atrium, scaled to the wanted cardiothoracic ratio."""
        anatomy = self.anatomy
        wanted = (self.changes.heart_ratio or anatomy.heart_ratio) * self.inner_width()
        axes, atrium = np.array([6.6, 4.6, 4.8]), np.array([3.0, 4.0, 3.5])
        # At scale 1 the left border is at 2.9 + extent, the right at -1.6 - 3.0.
        unit = 2.9 + half_extent(axes, anatomy.heart_tilt) + 1.6 + 3.0
        k = wanted / unit
        # The heart rests on the diaphragm; in a shallow breath it lies flatter.
        y = min(self.dome_top(LEFT), self.dome_top(RIGHT)) - 3.3 * min(k, 1.1)
        tilt = anatomy.heart_tilt * np.clip(self.inspiration, 0.6, 1.0)
        unit_now = 2.9 + half_extent(axes, tilt) + 4.6
        stretch = np.array([unit / unit_now, 1.0, 1.0])
        return {
            "ventricles": ((x + 2.9 * k, y, -3.2), tuple(axes * k * stretch), float(tilt)),
            "atrium": ((x - 1.6 * k, y - 0.8 * k, -2.0), tuple(atrium * k), 0.0),
        }

    def inner_width(self) -> float:
        """Greatest inner width of the rib cage above the sulci."""
        return 2 * float(self._table_edges()[0][(TABLE_Y > -8) & (TABLE_Y < 12)].max())

    def in_lung(self, points: np.ndarray, side: int) -> np.ndarray:
        """Whether points [m, 3] are in a lung (bool [m]), the mediastinum not taken off."""
        inside = _in_column(points, self.lung(side))
        return inside & ~_in_column(points, self.dome(side))

    def _thinning(self):
        """The sulcus is a wedge: the cavity loses its depth towards the base."""
        return np.sqrt(np.clip((1 - self.fraction(TABLE_Y)) / 0.2, 0, 1))

    def _inside(self, y):
        t = self.fraction(y)
        return ((t > 0) & (t < 1)).astype(np.float64)


def _in_column(points, column):
    step = TABLE_Y[1] - TABLE_Y[0]
    rows = np.clip(((points[:, 1] - TABLE_Y[0]) / step).astype(np.int64), 0, len(TABLE_Y) - 1)
    x, z, a, b = (np.broadcast_to(profile, TABLE_Y.shape)[rows] for profile in column)
    return np.square((points[:, 0] - x) / np.maximum(a, 1e-6)) + np.square((points[:, 2] - z) / np.maximum(b, 1e-6)) < 1

"""Closed-form X-ray path lengths through simple solids, on the pixel grid of one view.

Patient frame, in cm: x to the patient's left (right in a frontal image), y down (feet), z to the back; the origin is in
the middle of the chest. A convex solid meets the ray of a pixel in one interval of z; solids are therefore pairs of
float32 arrays [n, n] (z where the ray enters, z where it leaves; empty where leave <= enter), and unions, overlaps and
thicknesses of them are closed form. Thin curved things (ribs, vessels, tubes) are quadrature points with a volume each,
splatted onto the pixels: volume / pixel area is the mean path length in cm.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

# Profiles along y are tabulated this finely, and looked up by nearest row (0.025 cm: far below a pixel).
TABLE_Y = np.linspace(-26.0, 26.0, 2049, dtype=np.float64)
_TABLE_STEP = float(TABLE_Y[1] - TABLE_Y[0])


class Interval(NamedTuple):
    """Where rays are inside a convex solid: `enter`, `leave` are float32 [n, n], in cm of depth."""

    enter: np.ndarray
    leave: np.ndarray

    def length(self) -> np.ndarray:
        """Path length in cm, float32 [n, n], >= 0."""
        return np.maximum(self.leave - self.enter, 0)

    def overlap(self, other: "Interval") -> np.ndarray:
        """Path length inside both solids in cm, float32 [n, n], >= 0."""
        return np.maximum(np.minimum(self.leave, other.leave) - np.maximum(self.enter, other.enter), 0)


@dataclasses.dataclass(frozen=True)
class View:
    """How one image is taken.

    Attributes:
        resolution: pixels per side.
        field_cm: side of the square field at the depth of the origin.
        centre_x, centre_y: what is in the middle of the image, cm.
        yaw: rotation of the patient about y, radians; pi / 2 gives a lateral view.
        roll: rotation in the image plane, radians.
        source_cm: distance from source to origin.
        from_front: True for AP (source in front of the patient), False for PA.
    """

    resolution: int
    field_cm: float = 38.0
    centre_x: float = 0.0
    centre_y: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    source_cm: float = 170.0
    from_front: bool = False

    @property
    def pitch(self) -> float:
        """Side of a pixel at the depth of the origin, cm."""
        return self.field_cm / self.resolution


class Canvas:
    """The pixel grid of a view; computes path lengths on it.

    `u`, `v` are the plane coordinates of the pixel centres in cm, float32 [n, n].
    """

    def __init__(self, view: View):
        self.view = view
        n = view.resolution
        axis = (np.arange(n) + 0.5) * view.pitch - view.field_cm / 2
        right, down = axis[None, :], axis[:, None]
        cos, sin = math.cos(view.roll), math.sin(view.roll)
        self.u = (right * cos - down * sin + view.centre_x).astype(np.float32)
        self.v = (right * sin + down * cos + view.centre_y).astype(np.float32)
        rows = np.rint((self.v - TABLE_Y[0]) / _TABLE_STEP)
        self._rows = np.clip(rows, 0, len(TABLE_Y) - 1).astype(np.intp)

    def turn(self, x, z):
        """Patient x, z -> x, z after the yaw of the view (z along the rays, away from the viewer)."""
        cos, sin = math.cos(self.view.yaw), math.sin(self.view.yaw)
        return x * cos + z * sin, z * cos - x * sin

    def magnification(self, z):
        """Perspective: size on the image of something at depth z (after yaw), relative to the origin's depth."""
        source = self.view.source_cm
        return source / (source + z) if self.view.from_front else source / (source - z)

    def rows(self, profile: np.ndarray) -> np.ndarray:
        """A profile tabulated on TABLE_Y -> its value at each pixel, float32 [n, n]."""
        return profile.astype(np.float32)[self._rows]

    def column(self, x, z, half_width, half_depth) -> Interval:
        """A solid whose section at each height y is an ellipse; all four are profiles on TABLE_Y, in cm.

        A section with half axes a, b turned by the yaw t has M = [[a2 c2 + b2 s2, (b2 - a2) s c], [., a2 s2 + b2 c2]];
        a ray at distance d from the axis crosses it at z = M01 / M00 d -+ (a b / M00) sqrt(M00 - d2).
        """
        cos, sin = math.cos(self.view.yaw), math.sin(self.view.yaw)
        x, z = self.turn(np.broadcast_to(x, TABLE_Y.shape), np.broadcast_to(z, TABLE_Y.shape))
        a2, b2 = np.square(half_width), np.square(half_depth)
        width2 = np.maximum(a2 * cos * cos + b2 * sin * sin, 1e-9)
        slope = (b2 - a2) * sin * cos / width2
        depth = np.sqrt(a2 * b2) / width2
        d = self.u - self.rows(x)
        half = self.rows(width2) - d * d
        outside = half <= 0
        half = np.sqrt(np.maximum(half, 0)) * self.rows(depth)
        middle = self.rows(z) if abs(sin) < 1e-9 else self.rows(z) + self.rows(slope) * d
        half[outside] = -1.0
        return Interval(middle - half, middle + half)

    def ellipsoid(self, centre, half_axes, tilt: float = 0.0) -> Interval:
        """An ellipsoid: centre (3,), half axes (3,) in cm, turned by `tilt` radians in the frontal plane.

        With M = Q diag(axes2) Q', S the inverse of M's leading 2 x 2 block and m = (M02, M12), the ray at offset
        d = (dx, dy) crosses it at z = m' S d -+ sqrt((1 - d' S d) (M22 - m' S m)).
        """
        # Written out: a linear algebra library would start its threads for each of these 3 x 3 inverses.
        (m00, m01, m02), (_, m11, m12), (_, _, m22) = _covariance(half_axes, tilt, self.view.yaw)
        area = m00 * m11 - m01 * m01
        slope_x, slope_y = (m11 * m02 - m01 * m12) / area, (m00 * m12 - m01 * m02) / area
        depth = math.sqrt(m22 - slope_x * m02 - slope_y * m12)  # 1 / sqrt(P22)
        x, z = self.turn(centre[0], centre[2])
        size = self.magnification(z)
        dx = self.u * np.float32(1 / size) - np.float32(x)
        dy = self.v * np.float32(1 / size) - np.float32(centre[1])
        rest = (
            1 - (np.float32(m11 / area) * dx - np.float32(2 * m01 / area) * dy) * dx - np.float32(m00 / area) * dy * dy
        )
        outside = rest <= 0
        half = np.sqrt(np.maximum(rest, 0)) * np.float32(depth)
        half[outside] = -1.0
        middle = np.float32(z) + np.float32(slope_x) * dx + np.float32(slope_y) * dy
        return Interval(middle - half, middle + half)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [m, 3] in cm -> fractional column and row of each, float arrays [m] (pixel centres at integers)."""
        x, z = self.turn(points[:, 0], points[:, 2])
        size = self.magnification(z)
        u, v = x * size - self.view.centre_x, points[:, 1] * size - self.view.centre_y
        cos, sin = math.cos(self.view.roll), math.sin(self.view.roll)
        half, pitch = self.view.field_cm / 2, self.view.pitch
        return (u * cos + v * sin + half) / pitch - 0.5, (v * cos - u * sin + half) / pitch - 0.5

    def splat(self, points: np.ndarray, volumes: np.ndarray) -> np.ndarray:
        """Points [m, 3] in cm with volumes [m] in cm^3 -> mean path length in cm, float32 [n, n]."""
        n = self.view.resolution
        column, row = self.project(points)
        # A margin of one pixel before and two behind takes what is outside.
        column = np.clip(column + 1, 0, n + 1)
        row = np.clip(row + 1, 0, n + 1)
        left, top = column.astype(np.int32), row.astype(np.int32)
        fx, fy = column - left, row - top
        stride = n + 3
        index = top.astype(np.int64) * stride + left
        weight = np.asarray(volumes, fx.dtype) / self.view.pitch**2
        low = weight * (1 - fy)
        high = weight - low
        low_right, high_right = low * fx, high * fx
        size = stride * stride
        plane = np.bincount(index, low - low_right, size + stride + 1)
        plane[1:] += np.bincount(index, low_right, size + stride + 1)[:-1]
        plane[stride:] += np.bincount(index, high - high_right, size + stride + 1)[:-stride]
        plane[stride + 1 :] += np.bincount(index, high_right, size + stride + 1)[: -stride - 1]
        return plane[:size].reshape(stride, stride)[1:-2, 1:-2].astype(np.float32)


def half_extent(half_axes, tilt: float, yaw: float = 0.0) -> float:
    """Half width in x of a tilted ellipsoid seen with this yaw, cm."""
    return math.sqrt(_covariance(half_axes, tilt, yaw)[0][0])


def _covariance(half_axes, tilt, yaw):
    """Rows of Q diag(half_axes^2) Q', Q = (turn by yaw about y) (turn by tilt about z), as nested tuples."""
    ct, st, cy, sy = math.cos(tilt), math.sin(tilt), math.cos(yaw), math.sin(yaw)
    columns = ((cy * ct, st, -sy * ct), (-cy * st, ct, sy * st), (sy, 0.0, cy))
    squares = [float(axis) ** 2 for axis in half_axes]

    def entry(i, j):
        return sum(square * column[i] * column[j] for square, column in zip(squares, columns, strict=True))

    return tuple(tuple(entry(i, j) for j in range(3)) for i in range(3))


def resample(path: np.ndarray, step: float) -> np.ndarray:
    """A polyline [k, 3] in cm -> points [m, 3] at most `step` apart along it, ends included."""
    lengths = np.concatenate([[0.0], np.cumsum(np.sqrt(np.square(np.diff(path, axis=0)).sum(1)))])
    where = np.linspace(0.0, lengths[-1], max(3, math.ceil(lengths[-1] / step) + 1))
    return np.stack([np.interp(where, lengths, path[:, axis]) for axis in range(3)], axis=1)


def smooth_path(knots, steps: int = 40) -> np.ndarray:
    """Knots [k, 3], k >= 2, in cm -> a Catmull-Rom curve through them, [m, 3]."""
    knots = np.asarray(knots, np.float64)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, max(4, steps // (len(knots) - 1)), endpoint=False)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        cubic = 3 * p1 - 3 * p2 + p3 - p0
        pieces.append(p1 + 0.5 * t * ((p2 - p0) + t * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + t * cubic)))
    return np.concatenate([*pieces, knots[-1:]])


def tube(
    path: np.ndarray, half_height, half_thickness, step: float, *, shell: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature of a tube of elliptic section round a polyline.

    Args:
        path: [k, 3] in cm.
        half_height: half axis of the section across the path, as near to y as the path allows, in cm.
        half_thickness: the other half axis, cm.
        step: greatest distance between points, cm (about one pixel).
        shell: thickness of the wall in cm; None fills the tube.
    Returns:
        points [m, 3] in cm and volumes [m] in cm^3.
    """
    return tubes(resample(path, step)[None], np.ones(1), half_height, half_thickness, step, shell=shell)


def tubes(
    points: np.ndarray, scale: np.ndarray, half_height, half_thickness, step: float, *, shell: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The same for many tubes at once: points [t, k, 3] about `step` apart, section of tube t times scale [t].

    float32: a thousandth of a millimetre at these sizes, and twice as fast.
    """
    # Coordinates first and stations last: NumPy's inner loops then run over contiguous numbers.
    centre = np.ascontiguousarray(np.moveaxis(points, -1, 0), np.float32)  # [3, t, k]
    scale = scale.astype(np.float32)
    along = np.empty_like(centre)
    along[..., 1:-1] = 0.5 * (centre[..., 2:] - centre[..., :-2])
    # Half steps at the ends: the trapezoidal rule.
    along[..., 0], along[..., -1] = 0.5 * (centre[..., 1] - centre[..., 0]), 0.5 * (centre[..., -1] - centre[..., -2])
    ds = np.sqrt(np.square(along).sum(0))
    tx, ty, tz = along / np.maximum(ds, 1e-9)
    # The across direction: y made orthogonal to the path; x where the path runs along y.
    upright = np.abs(ty) > 0.95
    across = np.stack(
        [np.where(upright, 1, -ty * tx), np.where(upright, 0, 1 - ty * ty), np.where(upright, 0, -ty * tz)]
    )
    across /= np.maximum(np.sqrt(np.square(across).sum(0)), 1e-9)
    ax, ay, az = across
    other = np.stack([ty * az - tz * ay, tz * ax - tx * az, tx * ay - ty * ax])
    offsets, areas = (part.astype(np.float32) for part in _section(half_height, half_thickness, step, shell))
    high = (scale[:, None] * offsets[:, 0])[..., None]  # [t, m, 1]
    thick = (scale[:, None] * offsets[:, 1])[..., None]
    spread = centre[:, :, None] + high * across[:, :, None] + thick * other[:, :, None]  # [3, t, m, k]
    # Every other point of a section is half a step ahead, so that the points along a tube interleave.
    spread[:, :, 1::2] += 0.5 * along[:, :, None]
    volumes = ds[:, None] * (np.square(scale)[:, None] * areas)[..., None]
    return spread.reshape(3, -1).T, volumes.ravel()


@functools.lru_cache(maxsize=512)
def _section(half_height, half_thickness, step, shell):
    """Points [k, 2] and areas [k] that stand for the section of a tube."""
    a, b = half_height, half_thickness
    # The near and the far half of a ring interleave on the image, so its points may be further apart than a pixel.
    count = int(np.clip(math.ceil(2 * math.pi * max(a, b) / (1.5 * step)), 4, 48))
    angle = 2 * math.pi * (np.arange(count) + 0.5) / count
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if shell is not None:
        area = math.pi * (a * b - max(a - shell, 0) * max(b - shell, 0))
        return ring * [a - shell / 2, b - shell / 2], np.full(count, area / count)
    levels = int(np.clip(math.ceil(max(a, b) / (1.5 * step)), 1, 12))
    if levels == 1 and max(a, b) < 0.6 * step:
        return np.zeros((1, 2)), np.array([math.pi * a * b])
    radii = (np.arange(levels) + 0.5) / levels
    offsets = (radii[:, None, None] * ring * [a, b]).reshape(-1, 2)
    areas = np.repeat(radii, count)
    return offsets, areas * (math.pi * a * b / areas.sum())

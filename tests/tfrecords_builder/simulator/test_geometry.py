"""Path lengths against closed forms and against volumes: a projection keeps the volume of what it projects."""

import math

import numpy as np
import pytest

from tfrecords_builder.simulator.geometry import TABLE_Y, Canvas, View, half_extent, tube

# A far source: parallel rays, so that volumes are kept exactly.
FAR = {"source_cm": 1e9, "field_cm": 40.0}


def volume(path_lengths, canvas):
    return float(path_lengths.sum()) * canvas.view.pitch**2


@pytest.mark.parametrize(("yaw", "roll", "tilt"), [(0.0, 0.0, 0.0), (0.5, 0.2, 0.7), (math.pi / 2, 0.0, 0.4)])
def test_ellipsoid_keeps_its_volume(yaw, roll, tilt):
    canvas = Canvas(View(256, yaw=yaw, roll=roll, **FAR))
    lengths = canvas.ellipsoid((1.0, -2.0, 1.5), (4.0, 6.0, 3.0), tilt).length()
    assert volume(lengths, canvas) == pytest.approx(4 / 3 * math.pi * 4 * 6 * 3, rel=2e-3)
    assert lengths.dtype == np.float32


def test_ellipsoid_centre_ray_is_the_diameter():
    canvas = Canvas(View(129, **FAR))
    assert canvas.ellipsoid((0, 0, 0), (2, 2, 5)).length()[64, 64] == pytest.approx(10, rel=1e-3)


def test_half_extent_is_the_width_of_the_shadow():
    canvas = Canvas(View(512, **FAR))
    shadow = canvas.ellipsoid((0, 0, 0), (6, 3, 4), 0.6).length() > 0
    columns = np.flatnonzero(shadow.any(axis=0))
    width = (columns[-1] - columns[0] + 1) * canvas.view.pitch
    assert width == pytest.approx(2 * half_extent((6, 3, 4), 0.6), abs=2 * canvas.view.pitch)


@pytest.mark.parametrize("yaw", [0.0, 0.4, math.pi / 2])
def test_column_is_an_elliptic_cylinder(yaw):
    canvas = Canvas(View(256, yaw=yaw, **FAR))
    inside = (np.abs(TABLE_Y) < 5).astype(float)
    lengths = canvas.column(np.zeros_like(TABLE_Y), np.zeros_like(TABLE_Y), 6 * inside, 4 * inside).length()
    assert volume(lengths, canvas) == pytest.approx(math.pi * 6 * 4 * 10, rel=1e-2)


@pytest.mark.parametrize("yaw", [0.0, 1.2])
def test_column_and_ellipsoid_agree(yaw):
    canvas = Canvas(View(64, yaw=yaw, **FAR))
    rise = np.sqrt(np.clip(1 - (TABLE_Y / 7) ** 2, 0, 1))
    column = canvas.column(np.zeros_like(TABLE_Y), np.zeros_like(TABLE_Y), 5 * rise, 3 * rise)
    ellipsoid = canvas.ellipsoid((0, 0, 0), (5, 7, 3))
    np.testing.assert_allclose(column.length(), ellipsoid.length(), atol=0.15)


@pytest.mark.parametrize("shell", [None, 0.2])
def test_tube_keeps_its_volume_and_place(shell):
    canvas = Canvas(View(128, **FAR))
    path = np.array([(-8.0, 3.0, 0.0), (8.0, 3.0, 0.0)])
    points, volumes = tube(path, 0.6, 0.4, canvas.view.pitch, shell=shell)
    area = math.pi * (0.6 * 0.4 - (0 if shell is None else 0.4 * 0.2))
    image = canvas.splat(points, volumes)
    assert volume(image, canvas) == pytest.approx(16 * area, rel=1e-3)
    rows = (image.sum(axis=1) * canvas.v[:, 0]).sum() / image.sum()
    assert rows == pytest.approx(3.0, abs=0.05)


def test_splat_drops_what_is_outside():
    canvas = Canvas(View(32, **FAR))
    points = np.array([(0.0, 0, 0), (500.0, 0, 0), (0, -500.0, 0)])
    assert volume(canvas.splat(points, np.array([2.0, 3.0, 4.0])), canvas) == pytest.approx(2.0, rel=1e-5)


def test_perspective_enlarges_what_is_near_the_source():
    front = Canvas(View(256, field_cm=40, source_cm=100, from_front=True))
    back = Canvas(View(256, field_cm=40, source_cm=100, from_front=False))
    widths = [(canvas.ellipsoid((0, 0, -8), (5, 5, 2)).length() > 0).any(axis=0).sum() for canvas in (front, back)]
    assert widths[0] / widths[1] == pytest.approx(1.08 / 0.92, rel=0.03)

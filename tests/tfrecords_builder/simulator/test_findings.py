"""The findings measured on the pictures of one patient with and without them."""

import dataclasses

import numpy as np
import pytest

from tfrecords_builder.labels import LABELS
from tfrecords_builder.simulator import cases, findings, hospital, projection, scene
from tfrecords_builder.simulator.anatomy import LEFT, RIGHT, sample_anatomy
from tfrecords_builder.simulator.findings import Finding
from tfrecords_builder.simulator.geometry import View

EXPOSURE = projection.Exposure(photons=5e4, scatter=0.5, blur=0.4, low=1, high=99.5, contrast=1, gamma=0.8)
DRAWN = [label for label in LABELS if label != findings.NO_FINDING]


def simulate(seed, *present, resolution=96):
    anatomy = sample_anatomy(np.random.default_rng(seed))
    view = View(resolution, field_cm=36 * anatomy.size)
    shot = hospital.Shot(anatomy, present, view, 1.0, EXPOSURE)
    return hospital.simulate(shot, np.random.default_rng(seed))


def width(mask, pitch):
    columns = np.flatnonzero(mask.any(axis=0))
    return (columns[-1] - columns[0] + 1) * pitch


def cardiothoracic_ratio(made):
    pitch = made.canvas.view.pitch
    return width(made.silhouette("heart"), pitch) / width(
        made.silhouette("right lung") | made.silhouette("left lung"), pitch
    )


@pytest.mark.parametrize("seed", range(6))
def test_normal_heart_is_below_half_and_cardiomegaly_above(seed):
    assert 0.34 < cardiothoracic_ratio(simulate(seed)[1]) < 0.5
    for severity in (0.06, 0.5, 1.0):
        large = simulate(seed, Finding(findings.CARDIOMEGALY, severity, LEFT, seed))[1]
        assert 0.5 < cardiothoracic_ratio(large) < 0.75


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_pneumothorax_is_lucent_and_without_vessels(side):
    normal, plain = simulate(3)
    present, made = simulate(3, Finding(findings.PNEUMOTHORAX, 0.4, side, 5))
    maps = made.lungs[side]
    rim = (maps.gas > 2) & (maps.air == 0)
    assert rim.sum() > 40
    assert (normal - present)[rim].mean() > 0.1
    # The rim is in the upper outer part of the cavity, its air in front of nothing.
    assert np.abs(made.canvas.u[rim]).mean() > np.abs(made.canvas.u[plain.lungs[side].air > 2]).mean()
    # The other lung is as it was.
    other = plain.lungs[-side].air
    np.testing.assert_allclose(made.lungs[-side].air, other, atol=1e-4)


def test_pneumothorax_has_a_pleural_line():
    with_line, made = simulate(3, Finding(findings.PNEUMOTHORAX, 0.5, LEFT, 5), resolution=256)
    maps = made.lungs[LEFT]
    row = 100
    edge = np.flatnonzero(maps.lung.length()[row] > 0)[-1]
    profile = with_line[row]
    assert profile[edge - 2 : edge + 2].max() > profile[edge + 4 : edge + 9].mean() + 0.1


def test_collapse_grows_with_severity():
    gas = [simulate(1, Finding(findings.PNEUMOTHORAX, s, RIGHT, 2))[1].lungs[RIGHT].gas.sum() for s in (0.1, 0.5, 1.0)]
    assert gas[0] < gas[1] < gas[2]


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_effusion_fills_the_costophrenic_region(side):
    normal, plain = simulate(4)
    present, made = simulate(4, Finding(findings.EFFUSION, 0.3, side, 9))
    u, v = made.canvas.u * side, made.canvas.v
    top = made.chest.dome_top(side)
    angle = (plain.lungs[side].air > 1.5) & (u > 8) & (v > top + 1)
    upper = (plain.lungs[side].air > 1.5) & (v < top - 10)
    assert (present - normal)[angle].mean() > 0.2
    assert abs((present - normal)[upper].mean()) < 0.02
    # A meniscus: the surface is higher at the wall than inside.
    below = findings.meniscus(made, Finding(findings.EFFUSION, 0.3, side, 9)) > 0.5
    heights = np.where(below, v, np.inf).min(axis=0)
    wall, inside = np.argmin(np.abs(u[0] - 13)), np.argmin(np.abs(u[0] - 7))
    assert heights[wall] < heights[inside] - 0.5


def test_wide_mediastinum():
    normal = simulate(2)[1]
    wide = simulate(2, Finding(findings.CARDIOMEDIASTINUM, 0.5, LEFT, 3))[1]
    columns = [made.canvas.column(*made.chest.mediastinum()).length() > 0 for made in (normal, wide)]
    row = np.argmin(np.abs(normal.canvas.v[:, 0] + 6))
    assert columns[1][row].sum() > 1.4 * columns[0][row].sum()


@pytest.mark.parametrize(
    "name",
    sorted({*DRAWN} - {findings.PNEUMOTHORAX, findings.FRACTURE}),
)
def test_opaque_findings_add_attenuation(name):
    normal, _ = simulate(5)
    present, _ = simulate(5, Finding(name, 0.8, LEFT, 4))
    assert (present - normal).max() > 0.15
    assert (present - normal).sum() > 0


def test_bronchi_stay_dark_in_consolidation():
    _, made = simulate(5, Finding(findings.CONSOLIDATION, 0.8, LEFT, 4), resolution=192)
    assert (made.extra[made.lungs[LEFT].filled > 1] < made.lungs[LEFT].filled.max() * scene.FILL_EXTRA).any()
    assert made.lungs[LEFT].filled.max() > 3
    assert not made.lungs[RIGHT].filled.any()


def test_atelectasis_lifts_the_diaphragm():
    plain = simulate(6)[1].chest
    collapsed = simulate(6, Finding(findings.ATELECTASIS, 0.8, RIGHT, 4))[1].chest
    assert collapsed.dome_top(RIGHT) < plain.dome_top(RIGHT) - 0.5
    assert collapsed.dome_top(LEFT) == plain.dome_top(LEFT)


def test_fracture_moves_a_rib():
    from tfrecords_builder.simulator import skeleton

    normal, fractured = simulate(7)[1].chest, simulate(7, Finding(findings.FRACTURE, 0.8, LEFT, 4))[1].chest
    points = [skeleton.ribs(chest, 0.3)[0] for chest in (normal, fractured)]
    moved = np.abs(points[0] - points[1]).max(axis=1)
    assert moved.max() > 0.3
    assert 0 < (moved > 0.01).mean() < 0.15


@pytest.mark.parametrize("name", DRAWN)
def test_severity_shows(name):
    normal, _ = simulate(8)
    changes = [np.abs(simulate(8, Finding(name, s, RIGHT, 6))[0] - normal).sum() for s in (0.1, 0.95)]
    assert 0 < changes[0] < changes[1]


def test_every_archetype_reports_known_labels_with_their_hierarchy():
    seen = set()
    for index in range(400):
        for study in cases.sample_studies(np.random.default_rng(index), "a"):
            assert set(study.report) <= set(LABELS)
            assert list(study.report) == sorted(study.report, key=LABELS.index)
            positive = {name for name, value in study.report.items() if value == 1}
            if findings.NO_FINDING in positive:
                assert positive <= {findings.NO_FINDING, findings.DEVICES}
            seen |= {(name, value) for name, value in study.report.items()}
    assert {name for name, value in seen if value == 1} == set(LABELS)
    assert {value for _, value in seen} == {1.0, 0.0, -1.0}


def test_nih_labels():
    def study(*present):
        return cases.Study(present, {finding.name: 1.0 for finding in present}, "x")

    small, large = Finding(findings.LESION, 0.2, 1, 0), Finding(findings.LESION, 1.0, 1, 0)
    devices = Finding(findings.DEVICES, 0.5, 1, 0)
    assert hospital.nih_labels(study()) == ["No Finding"]
    assert hospital.nih_labels(study(devices)) == ["No Finding"]
    assert hospital.nih_labels(study(small, devices)) == ["Nodule"]
    assert hospital.nih_labels(study(large)) == ["Mass"]
    opacity, effusion = (
        dataclasses.replace(small, name=findings.OPACITY),
        dataclasses.replace(small, name=findings.EFFUSION),
    )
    assert hospital.nih_labels(study(opacity, effusion)) == ["Effusion", "Infiltration"]

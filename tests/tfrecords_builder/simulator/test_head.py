"""The phantom head: Hounsfield units, where each bleed lies, and files that depend on the arguments alone."""

import dataclasses
import hashlib

import numpy as np
import pytest

from tfrecords_builder.images import dicom
from tfrecords_builder.simulator import head

SIDE = 96


def draw(kind=None, *, height=0.5, seed=0, size=1.0, angle=1.5):
    """A slice of an upright head in the middle, with one bleed on the patient's left."""
    rng = np.random.default_rng(seed)
    plain = dataclasses.replace(head.make_head(rng), turn=0.0, shift=(0.0, 0.0), bleeds=())
    if kind:
        bleed = head.Bleed(kind, height=height, extent=0.4, angle=angle, size=size, density=70.0)
        plain = dataclasses.replace(plain, bleeds=(bleed,))
    return head.draw_slice(plain, height, SIDE, rng)


def find_blood(kind, **how):
    """Where a bleed changes the slice to blood, bool [H, W]."""
    with_it, shown = draw(kind, **how)
    assert shown == [kind]
    return (with_it - draw(**{k: v for k, v in how.items() if k in ("height", "seed")})[0]) > 15


def test_values_are_hounsfield_units():
    image, shown = draw()
    assert shown == []
    assert image.shape == (SIDE, SIDE)
    assert image.dtype == np.float32
    assert image[:4, :4].mean() == pytest.approx(-1000, abs=5)
    middle = image[SIDE // 2 - 6 : SIDE // 2 + 6, SIDE // 2 + 14 : SIDE // 2 + 24]
    assert 20 < middle.mean() < 45  # brain
    assert 600 < image.max() < 2000  # bone


@pytest.mark.parametrize("kind", ["epidural", "subdural", "intraparenchymal"])
def test_bleeds_lie_on_their_side(kind):
    blood = find_blood(kind)
    columns = np.flatnonzero(blood.any(axis=0))
    assert (columns > SIDE // 2).mean() > 0.7


def test_each_bleed_has_its_own_shape():
    rows, columns = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    far = {}
    spread = {}
    for kind in ("epidural", "subdural", "intraparenchymal"):
        blood = find_blood(kind)
        far[kind] = np.hypot(rows, columns)[blood].mean()
        spread[kind] = np.ptp(rows[blood])
    assert far["intraparenchymal"] < far["epidural"]
    assert far["intraparenchymal"] < far["subdural"]
    assert spread["subdural"] > 1.3 * spread["epidural"]  # a crescent along half of the skull, not a lens
    ventricles = find_blood("intraventricular", height=0.55)
    assert rows[ventricles].min() > -SIDE / 8  # the head lies on its back: blood gathers there
    assert np.abs(columns[ventricles]).max() < SIDE / 6
    low = find_blood("subarachnoid", height=0.25)
    assert (np.hypot(rows, columns)[low] < SIDE / 6).any()  # cisterns at the base


def test_what_cannot_be_seen_is_not_labelled():
    rng = np.random.default_rng(0)
    one = head.make_head(rng)
    away = head.Bleed("subdural", height=0.1, extent=0.2, angle=1, size=1, density=70)
    assert head.draw_slice(dataclasses.replace(one, bleeds=(away,)), 0.8, SIDE, rng)[1] == []
    assert away.strength(0.1) == 1
    assert away.strength(0.31) == 0
    assert away.strength(0.2) == pytest.approx(np.sqrt(0.75))


def test_files_depend_on_the_arguments_alone(tmp_path):
    pytest.importorskip("pydicom")
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        result = head.simulate_heads(tmp_path / name, num_patients=4, resolution=24, seed=1)
        digest = hashlib.sha256()
        for path in sorted((tmp_path / name).rglob("*")):
            if path.is_file():
                digest.update(path.name.encode() + path.read_bytes())
        results.append((digest.hexdigest(), result["labels"], result["num_images"]))
    assert results[0] == results[1]
    table = (tmp_path / "one/stage_2_train.csv").read_text().splitlines()
    assert len(table) == 1 + 6 * results[0][2]
    file = next((tmp_path / "one/stage_2_train").iterdir())
    windowed = dicom.decode(file.read_bytes(), (40.0, 80.0))
    assert windowed.shape == (24, 24)
    assert windowed[0, 0] == 0  # air
    assert windowed.max() == 1  # bone

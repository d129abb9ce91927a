"""Warnings, on planted numbers."""

import numpy as np
import pytest

from tfcxr.gan.training import collapse

HEALTHY = {"signs/real": 0.6, "signs/fake": -0.7, "penalty/gradient_norm": 1.1, "loss/G": 3.0}
NAMES = ["No Finding", "Pneumonia", "Edema", "Fracture", "Lung Lesion"]


def complaints(means=(), ratios=(0.8,) * 5, loss="logistic_r1"):
    return collapse.complaints(HEALTHY | dict(means), ratios, NAMES, loss=loss)


def test_diversity_is_the_spread_over_that_of_the_reals():
    pair = np.stack([np.full([2, 2, 1], -0.5), np.full([2, 2, 1], 0.5)])  # deviation 1/2 at each pixel
    assert collapse.spread(pair) == 0.5
    # Pixels of one image that differ from each other are no variety.
    assert collapse.spread(np.stack([np.arange(4.0).reshape(2, 2, 1)] * 3)) == 0
    fakes = np.stack([pair / 2, pair * 0 + 0.3, pair * 100, pair])
    found = collapse.diversity(fakes, [pair, pair, pair, pair[:1]])
    # Beyond [-1, 1] images are clipped; one real image has no spread to compare with.
    assert found == [0.5, 0.0, 2.0, None]
    assert collapse.diversity(fakes[:1], [np.zeros([3, 2, 2, 1])]) == [None]


@pytest.mark.parametrize("loss", ["wgan_gp", "logistic_ns", "logistic_r1", "hinge", "hinge_gp"])
def test_healthy_numbers_give_no_warning(loss):
    assert complaints(loss=loss) == {}
    assert collapse.complaints({}, [None] * 5, NAMES, loss=loss) == {}
    assert complaints(ratios=[0.1, 2.0, None, 0.11, 5.0], loss=loss) == {}


def test_collapsed_label_combinations_are_named():
    assert complaints(ratios=[0.5, 0.09, None, 1.0, 1.0]).keys() == {"collapse"}
    assert "samples of Pneumonia hardly differ (under 10%" in complaints(ratios=[0.5, 0.09, None, 1.0, 1.0])["collapse"]
    text = complaints(ratios=[0.0] * 5)["collapse"]
    assert "No Finding, Pneumonia, Edema and others" in text
    assert "Fracture" not in text


@pytest.mark.parametrize(
    ("loss", "real", "fake", "expected"),
    [
        ("logistic_r1", 0.96, -0.96, {"saturation"}),
        ("hinge", 1.0, -1.0, {"saturation"}),
        ("logistic_r1", 0.96, -0.9, set()),
        ("logistic_r1", 0.9, -0.96, set()),
        # A critic's scores have no zero, so their signs say nothing.
        ("wgan_gp", 1.0, -1.0, set()),
    ],
)
def test_a_saturated_discriminator(loss, real, fake, expected):
    found = complaints({"signs/real": real, "signs/fake": fake}, loss=loss)
    assert found.keys() == expected
    assert all("--augment=ada" in text for text in found.values())


@pytest.mark.parametrize(
    ("loss", "norm", "expected"),
    [
        ("wgan_gp", 5.1, {"gradient_norm"}),
        ("hinge_gp", 123.456, {"gradient_norm"}),
        ("wgan_gp", 5.0, set()),
        ("logistic_r1", 100.0, set()),
    ],
)
def test_a_runaway_gradient_norm(loss, norm, expected):
    found = complaints({"penalty/gradient_norm": norm}, loss=loss)
    assert found.keys() == expected
    assert all(f"is {norm:.3g}, where the penalty wants 1" in text for text in found.values())


def test_every_warning_at_once():
    means = {"signs/real": 1.0, "signs/fake": -1.0, "penalty/gradient_norm": 50.0}
    assert complaints(means, [0.0] * 5, "hinge_gp").keys() == {"collapse", "saturation", "gradient_norm"}

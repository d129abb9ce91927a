"""The tests of copying, against plain computations and on sets that are known to copy or not."""

import numpy as np
import pytest
from scipy import stats

from tfcxr.privacy import copying

PATIENTS = 60


def draw(patients, rng, images=2, width=4):
    centres = rng.normal(size=(patients, 1, width))
    return (centres + 0.5 * rng.normal(size=(patients, images, width))).reshape(-1, width).astype(np.float32)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    reals = draw(2 * PATIENTS, rng)
    is_train = np.arange(len(reals)) < 2 * PATIENTS
    exchange = copying.Exchange(reals, is_train, np.arange(len(reals)) // 2, permutations=199)
    return exchange, draw(150, rng, images=1)


def distances(a, b):
    return np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=2)


def test_the_figures_are_those_of_all_distances(world):
    exchange, synthetic = world
    found = exchange.find(synthetic)
    values = exchange.values(found)
    for p in (0, 7):
        member = exchange.members[p]
        train = distances(synthetic, exchange.reals[member]).min(axis=1)
        holdout = distances(synthetic, exchange.reals[~member]).min(axis=1)
        of_holdouts = distances(exchange.reals[~member], exchange.reals[member]).min(axis=1)
        assert values["distance_ratio"][:, p] == pytest.approx(np.log(train / holdout), abs=1e-4)
        assert values["train_share"][:, p].mean() == pytest.approx((train < holdout).mean())
        assert values["much_nearer"][:, p].mean() == pytest.approx((train < holdout / 2).mean())
        assert values["nearer_than_any_holdout"][:, p].mean() == pytest.approx((train < of_holdouts.min()).mean())
        assert values["matched"][:, p].mean() == pytest.approx((train < np.quantile(of_holdouts, 0.01)).mean())
    to_train, indices = exchange.find_train(synthetic, found)
    every = distances(synthetic, exchange.reals[exchange.members[0]])
    assert to_train == pytest.approx(every.min(axis=1), rel=1e-5)
    assert np.array_equal(indices, every.argmin(axis=1))


def test_patients_change_sides_as_wholes(world):
    members = world[0].members
    assert (members[:, ::2] == members[:, 1::2]).all()
    assert (members.sum(axis=1) == 2 * PATIENTS).all()
    assert len(np.unique(members, axis=0)) == len(members)
    with pytest.raises(ValueError, match="both sides"):
        copying.exchange_roles(np.array([True, False]), np.array([0, 0]), 3, 0)


def test_copies_are_detected_and_honest_sets_rarely(world):
    exchange, _ = world
    rng = np.random.default_rng(1)
    p_of = {name: [] for name in copying.EXCHANGED}
    for _ in range(30):
        # The same distribution, other patients: nobody is copied.
        values = exchange.values(exchange.find(draw(80, rng, images=1)))
        for name, greater in copying.EXCHANGED.items():
            p_of[name].append(copying.p_values(values[name].mean(axis=0), greater=greater))
    for name, p in p_of.items():
        assert np.mean(np.array(p) <= 0.05) <= 0.2, name
    copies = exchange.reals[:80] + rng.normal(0, 0.01, (80, 4)).astype(np.float32)
    values = exchange.values(exchange.find(copies))
    for name, greater in copying.EXCHANGED.items():
        assert copying.p_values(values[name].mean(axis=0), greater=greater) == 1 / 200, name


def test_p_values_count_the_exchanges_that_do_as_much():
    figures = np.array([[0.5, 0.1, 0.5, 0.9], [2.0, 1.0, 1.5, 0.0]])
    assert copying.p_values(figures, greater=True).tolist() == [0.75, 0.25]
    assert copying.p_values(figures, greater=False).tolist() == [0.75, 1.0]


def test_authenticity_is_that_of_the_paper(world):
    exchange, synthetic = world
    test = copying.Authenticity(exchange)
    train, holdout = exchange.reals[exchange.members[0]], exchange.reals[~exchange.members[0]]
    own = distances(train, train)
    np.fill_diagonal(own, np.inf)
    radii = own.min(axis=1)

    def share(images):
        every = distances(images, train)
        return (every.min(axis=1) > radii[every.argmin(axis=1)]).mean()

    assert test.expected == pytest.approx(share(holdout))
    copied = test.copied(*exchange.find_train(synthetic, exchange.find(synthetic)))
    assert 1 - copied.mean() == pytest.approx(share(synthetic))
    assert test.p_values(copied.mean(), len(synthetic)) > 0.01
    assert test.p_values(np.array([1.0]), len(synthetic))[0] < 1e-6


def test_data_copying_in_one_cell_is_the_rank_test_of_mann_and_whitney(world, monkeypatch):
    exchange, synthetic = world
    monkeypatch.setattr(copying, "_MOST_CELLS", 1)
    test = copying.DataCopying(exchange)
    to_train, _ = exchange.find_train(synthetic, exchange.find(synthetic))
    score, p = test.scores(test.parts(synthetic, to_train).sum(axis=0))
    expected = stats.mannwhitneyu(
        to_train, test._sorted[0], alternative="less", method="asymptotic", use_continuity=False
    )
    assert p == pytest.approx(expected.pvalue, rel=1e-6)
    assert score == pytest.approx(stats.norm.ppf(expected.pvalue), rel=1e-6)
    copies = exchange.reals[:100]
    parts = test.parts(copies, np.zeros(100))
    assert test.scores(parts.sum(axis=0))[0] < -6
    assert test.scores(parts[:3].sum(axis=0))[1] == 1  # too few to tell

"""The estimate of the whole job: presets, storage, and arithmetic that grows with the images and not with the batch."""

import pytest

from tools import cost_model


def test_presets_say_their_feature_maps_and_length():
    assert cost_model.read_preset("reference", 256) == {"fmap_base": 16384, "fmap_max": 512, "total_kimg": 16000}
    assert cost_model.read_preset("fast", 256)["total_kimg"] == 1600


def test_storage_by_hand():
    assert cost_model.storage(64, 0.5) == (191_027 + 112_120) * 64 * 64 * 0.5


def test_arithmetic_of_an_image_grows_fourfold_with_its_side():
    small, large = (cost_model.count_gan(side, fmap_base=64, fmap_max=64 * 16 // side) for side in (16, 32))
    assert 1e6 < small < large < 8 * small


def test_a_batch_of_twice_as_many_takes_as_much_for_each_image(monkeypatch):
    one = cost_model.count_gan(16, fmap_base=64, fmap_max=8)
    monkeypatch.setattr(cost_model, "_BATCH", 8)
    cost_model.count_gan.cache_clear()
    assert cost_model.count_gan(16, fmap_base=64, fmap_max=8) == pytest.approx(one, rel=0.1)

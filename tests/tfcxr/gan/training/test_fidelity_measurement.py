"""Fidelity while training is what compare-sets gives of the set that generate makes; seeds share no latent."""

import csv

import numpy as np
import pytest

from tests import fakes, gan_runs
from tfcxr import data, generation
from tfcxr.fidelity import compare_sets, feature_statistics
from tfcxr.gan import latent_sampling, loading
from tfcxr.gan.training import fidelity_measurement
from tfrecords_builder import labels

SEED, NUMBER = 3, 70


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return data.RecordSet(
        fakes.make_records(tmp_path_factory.mktemp("records"), label_version="multilabel", per_class=20)
    )


def make(records, folder, seed=SEED):
    return fidelity_measurement.make(
        records,
        features_name="pixels_pca64",
        features_weights=None,
        num_images=NUMBER,
        labels=range(len(labels.LABELS)),
        latent_size=8,
        seed=seed,
        cache_dir=folder,
    )


def test_the_figures_of_a_training_are_those_of_compare_sets(records, tmp_path):
    generator = loading.load(gan_runs.make_gan_run(tmp_path / "run"))
    measured = make(records, tmp_path / "cache")(
        lambda latents, y: generator.model([latents, y], training=False).numpy()
    )
    # The same images as a set: the labels of the real images that were drawn, in their order, and the same seed.
    drawn = {"num_images": NUMBER, "seed": SEED}
    vectors = records.labels("train")["vector"][feature_statistics.positions(records, "train", **drawn)]
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*labels.LABELS, "split"])
        writer.writerows([*map(int, vector), "train"] for vector in vectors)
    version = labels.get_label_version("multilabel")
    plan = generation.plan_table(generator, version, table, seed=SEED)
    (tmp_path / "set").mkdir()
    generation.write(generator, plan, tmp_path / "set", generation.Options(seed=SEED))
    (tmp_path / "out").mkdir()
    result = compare_sets.compare_sets(
        real=records.path, synthetic=tmp_path / "set", num_images=NUMBER, seed=SEED, output_dir=tmp_path / "out"
    )
    compared = result["metrics"]["synthetic"]
    assert compared["fid/pixels_pca64"] > 1
    # A pixel between two grey levels may be rounded to the other one.
    assert measured == pytest.approx(compared, rel=1e-4)


def test_no_two_seeds_and_no_two_purposes_share_a_latent(records, tmp_path):
    found = {}
    for seed in (0, 1, 64, 128):
        seen = []

        def generate(latents, y, seen=seen):
            seen.append(latents.numpy())
            return np.zeros([len(y), 8, 8, 1], np.float32)

        make(records, tmp_path / f"{seed}", seed)(generate)
        found[f"measured {seed}"] = np.concatenate(seen)
        grid = latent_sampling.numbered_latents(seed, np.arange(64), 8, stream=latent_sampling.SAMPLE_GRIDS)
        found[f"grid {seed}"] = grid.numpy()
    assert found["measured 0"].shape == (NUMBER, 8)
    together = np.concatenate(list(found.values()))
    assert len(np.unique(together, axis=0)) == len(together) == 4 * (NUMBER + 64)

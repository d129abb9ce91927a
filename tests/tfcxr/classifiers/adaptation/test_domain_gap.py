"""What is shown of two domains: distances, shares, collapse, attention, features in the plane."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug import test as werkzeug_test

from tests import classifier_runs
from tfcxr.classifiers import inference
from tfcxr.classifiers.adaptation import domain_gap, embeddings
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.training import losses

CLASSES = ("No Finding", "Pneumonia")
CONFIG = models.ModelConfig(CLASSES, "v1_0s", 16, 16, "resnet_tiny", attention=True, correction=True)


@pytest.fixture(scope="module")
def classifier():
    classifier_runs.set_blocks_of_resnet_tiny(2)
    yield models.Classifier(CONFIG, seed=0)
    classifier_runs.set_blocks_of_resnet_tiny(1)


def make_outputs(count, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(offset, 1, (count, 256)).astype(np.float32)
    return inference.Outputs(np.arange(count) % 2, features, rng.normal(size=(count, 2)).astype(np.float32))


def predicting(*counts):
    """Outputs that predict so many images of each class."""
    classes = np.repeat(np.arange(len(counts)), counts)
    return inference.Outputs(classes, np.zeros([len(classes), 2]), np.eye(len(counts))[classes])


def test_measures_before_and_after_correction(classifier):
    source, target = make_outputs(10), make_outputs(12, 1.0, seed=1)
    row = domain_gap.measure(classifier, source, target)
    corrected = classifier.correct(target.features)[0].numpy()
    assert row["mmd/before_correction"] == pytest.approx(float(losses.quadratic_mmd(source.features, target.features)))
    assert row["mmd/after_correction"] == pytest.approx(float(losses.quadratic_mmd(source.features, corrected)))
    norms = np.sqrt((target.features**2).sum(1))
    assert row["feature_norm/target"] == pytest.approx(norms.mean(), rel=1e-6)
    added = np.sqrt(((corrected - target.features) ** 2).sum(1)).mean()
    assert row["feature_norm/correction"] == pytest.approx(added, rel=1e-5)


def test_predicted_shares_against_the_labels_of_the_source():
    target = predicting(1, 3)
    assert domain_gap.predicted_shares(target, ("a", "b"), "target") == {
        "target/predicted/a": 0.25, "target/predicted/b": 0.75,
    }  # fmt: skip
    assert domain_gap.marginal_distance(target, np.array([0.5, 0.5])) == pytest.approx(0.25)


@pytest.mark.parametrize("counts, warned", [((100, 0), True), ((98, 2), True), ((60, 40), False)])
def test_collapse_is_named(capsys, counts, warned):
    domain_gap.warn_of_collapse(predicting(*counts), CLASSES)
    assert ("are predicted as No Finding" in capsys.readouterr().out) == warned


def test_attention_statistics_are_those_of_the_factors(classifier):
    images = tf.random.stateless_uniform([3, 16, 16, 1], [0, 1])
    row = domain_gap.attention_statistics(classifier, {"source": images, "target": images})
    assert len(row) == 3 * 2 * 2
    # The first attention, by hand.
    names = [layer.name for layer in classifier.backbone.attentions]
    assert names[:2] == ["conv2_block1_attention", "conv2_block2_attention"]
    base = classifier.base
    inner = tf.keras.Model(base.inputs, base.get_layer("conv2_block1_add").input[1])
    pooled = tf.reduce_mean(inner(classifier.normalise(images)), axis=[1, 2])
    layer = classifier.backbone.attentions[0]
    first = layer.shared(layer.source(pooled)).numpy()
    scales = classifier.backbone.scales(classifier.normalise(images), "source")
    np.testing.assert_allclose(scales[0], first, rtol=1e-5)
    both = np.concatenate([np.ravel(scales[0]), np.ravel(scales[1])])
    assert row["attention/conv2/source/mean"] == pytest.approx(both.mean(), rel=1e-5)
    assert row["attention/conv2/source/spread"] == pytest.approx(both.std(), rel=1e-4)
    assert row["attention/conv2/target/spread"] != pytest.approx(row["attention/conv2/source/spread"], rel=1e-2)


def test_points_are_spread_over_both_domains_and_corrected(classifier, monkeypatch):
    monkeypatch.setattr(embeddings, "MOST_POINTS", 20)
    source, target = make_outputs(30), make_outputs(8, 3.0, seed=1)
    points = embeddings.make_points(classifier, source, target)
    assert points.domains == ["source"] * 10 + ["target"] * 8
    assert points.classes[10:] == ["No Finding", "Pneumonia"] * 4
    assert points.predicted[10] == CLASSES[target.predictions[0]]
    rows = np.concatenate([domain_gap.spread(source.features, 10), classifier.correct(target.features)[0].numpy()])
    centred = rows - rows.mean(0)
    assert points.features.shape == (18, 18)
    np.testing.assert_allclose(points.features @ points.features.T, centred @ centred.T, rtol=1e-2, atol=0.5)


def test_t_sne_shows_two_clusters_apart(classifier, tmp_path):
    points = embeddings.make_points(classifier, make_outputs(30), make_outputs(30, 5.0, seed=1))
    places = embeddings.t_sne(points)
    source, target = places[:30], places[30:]
    middle = np.linalg.norm(source.mean(0) - target.mean(0))
    assert middle > 2 * max(np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (source, target))
    embeddings.write_picture(points, tmp_path / "picture.png", "step 1")
    assert tf.io.decode_png((tmp_path / "picture.png").read_bytes()).shape[0] > 300


def test_the_projector_serves_the_points(classifier, tmp_path):
    points = embeddings.make_points(classifier, make_outputs(6), make_outputs(6, 1.0, seed=1))
    for step in (5, 10):
        embeddings.write_projector(points, tmp_path, step)
    multiplexer = plugin_event_multiplexer.EventMultiplexer({".": str(tmp_path)})
    context = base_plugin.TBContext(
        logdir=str(tmp_path), data_provider=data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    )
    plugin = projector_plugin.ProjectorPlugin(context)
    plugin._run_paths = {".": str(tmp_path)}

    def get(serve, query):
        return werkzeug_test.Client(serve).get("/", query_string=query).get_data()

    served = np.frombuffer(get(plugin._serve_tensor, "run=.&name=features_000010"), np.float32).reshape(12, -1)
    np.testing.assert_allclose(served, points.features, rtol=1e-3, atol=1e-3)
    metadata = get(plugin._serve_metadata, "run=.&name=features_000005").decode().splitlines()
    assert metadata[0] == "domain\tclass\tpredicted"
    assert metadata[1].startswith("source\tNo Finding\t")
    assert len(metadata) == 13

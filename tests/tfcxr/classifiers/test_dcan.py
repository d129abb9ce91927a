"""The adaptation objective as a whole, without training."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers import dcan, losses, models


def objective(alignment, **settings):
    """`losses_of` of a run on 8 + 8 random images, without records, and the run itself."""
    aligned = alignment != "none"
    run = types.SimpleNamespace(
        config=dcan.DcanConfig(alignment=alignment, **settings),
        model_config=models.ModelConfig(
            ("a", "b"), "v1_0s", 16, 16, "resnet_tiny", attention=aligned, correction=aligned
        ),
        aligned=aligned,
    )
    run.classifier = models.Classifier(run.model_config, seed=0)
    run._regulariser = types.MethodType(dcan.Dcan._regulariser, run)
    images = tf.random.stateless_uniform([16, 16, 16, 1], [0, 0])
    labels = tf.constant([0, 1] * 4, tf.int64)
    return run, dcan.Dcan.losses_of(run, images[:8], labels, images[8:], tf.constant(3, tf.int64)), images, labels


def test_dcan_is_the_sum_of_its_terms():
    run, values, images, labels = objective("dcan")
    features = run.classifier.features(images, "both")
    logits = run.classifier.head(features[:8])
    corrected, corrected_logits = run.classifier.correct(features[8:])
    probabilities = tf.nn.softmax(corrected_logits)
    np.testing.assert_allclose(values["cls"], losses.cross_entropy(logits, labels), rtol=1e-5)
    np.testing.assert_allclose(values["mmd_features"], losses.linear_mmd(features[:8], corrected), rtol=1e-4)
    np.testing.assert_allclose(values["entropy"], losses.entropy(probabilities), rtol=1e-5)
    discrepancy = values["mmd_features"] + values["mmd_probabilities"] + values["reg"]
    np.testing.assert_allclose(values["total"], values["cls"] + 1.5 * discrepancy + 0.1 * values["entropy"], rtol=1e-5)


def test_ours_has_no_regulariser_and_none_only_classifies():
    _, values, _, _ = objective("ours")
    assert "reg" not in values
    _, values, _, _ = objective("none")
    assert values.keys() == {"total", "cls", "accuracy"}
    assert values["total"] == values["cls"]


def test_best_by_criterion_reports_the_others_beside_it():
    def row(step, source, entropy, target):
        return {"step": step, "select/source": source, "select/entropy": -entropy, "target/entropy": entropy,
                "select/target": target}  # fmt: skip

    best = dcan.best_by_criterion([row(1, 0.9, 0.5, 0.4), row(2, 0.8, 0.1, 0.5), row(3, 0.7, 0.6, 0.6)])
    assert {name: values["step"] for name, values in best.items()} == {"source": 1, "entropy": 2, "target": 3}
    assert best["entropy"] == {"step": 2, "source": 0.8, "entropy": 0.1, "target": 0.5}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_collapse_is_named(capsys, share):
    predictions = np.zeros(10, int)
    predictions[: int(10 * (1 - share))] = 1
    run = types.SimpleNamespace(model_config=types.SimpleNamespace(classes=("No Finding", "Pneumonia")))
    dcan.Dcan._warn_of_collapse(run, types.SimpleNamespace(predictions=predictions))
    assert ("are predicted as No Finding" in capsys.readouterr().out) == (share == 1.0)

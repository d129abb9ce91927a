"""The adaptation objective as a whole, without training."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.adaptation import methods, strong_views, train_dcan
from tfcxr.classifiers.adaptation.methods import fixmatch
from tfcxr.classifiers.adaptation.methods.method import Setting
from tfcxr.classifiers.networks import models
from tfcxr.classifiers.training import losses


def objective(alignment, class_weights=None):
    """`losses_of` of a run on 8 + 8 random images, without records; the run and the batch."""
    corrected = methods.is_corrected(alignment)
    config = models.ModelConfig(("a", "b"), "v1_0s", 16, 16, "resnet_tiny", attention=corrected, correction=corrected)
    classifier = models.Classifier(config, seed=0)
    run = types.SimpleNamespace(
        config=train_dcan.AdaptationConfig(alignment=alignment, steps=10),
        classifier=classifier,
        network=classifier,
        class_weights=class_weights,
        method=methods.make(alignment, Setting(num_classes=2, feature_width=256)),
    )
    images = tf.random.stateless_uniform([16, 16, 16, 1], [0, 0])
    labels = tf.constant([0, 1] * 4, tf.int64)
    batch = {"source": images[:8], "class": labels, "target": images[8:], "number": tf.constant(3, tf.int64)}
    return run, train_dcan.Adaptation.losses_of(run, batch), images, labels


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


def test_a_discriminator_sees_plain_features_and_the_progress():
    run, values, images, _ = objective("dann")
    assert values.keys() == {"total", "cls", "domain", "accuracy"}
    features = run.classifier.features(images)
    expected = run.method.discriminator.loss(features[:8], features[8:], tf.constant(0.3))
    np.testing.assert_allclose(values["domain"], expected, rtol=1e-5)
    np.testing.assert_allclose(values["total"], values["cls"] + values["domain"], rtol=1e-6)


def test_none_only_classifies():
    _, values, _, _ = objective("none")
    assert values.keys() == {"total", "cls", "accuracy"}
    assert float(values["total"]) == pytest.approx(float(values["cls"]))


def test_classes_drawn_in_other_shares_are_weighed_back():
    run, values, images, labels = objective("none", class_weights=tf.constant([0.5, 1.5]))
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels, run.classifier.head(run.classifier.features(images[:8]))
    )
    np.testing.assert_allclose(values["cls"], np.mean(each * np.where(labels == 0, 0.5, 1.5)), rtol=1e-5)


def test_strong_views_are_taught_by_the_images_as_they_are():
    run, _, images, labels = objective("fixmatch")
    run.method.setting = Setting(num_classes=2, feature_width=256, threshold=0.5)
    batch = {
        "source": images[:8],
        "class": labels,
        "target": images[8:],
        "number": tf.constant(3, tf.int64),
    }
    values = train_dcan.Adaptation.losses_of(run, batch)
    views = strong_views.draw(images[8:], 2003, tf.constant(3, tf.int64))
    own, source = (tf.nn.softmax(run.classifier(images[rows])) for rows in (slice(8, None), slice(8)))
    taught = tf.argmax(fixmatch.align(own, source), axis=1)
    np.testing.assert_allclose(values["pseudo_labels"], losses.cross_entropy(run.classifier(views), taught), rtol=1e-4)
    assert float(values["certain"]) == 1.0
    np.testing.assert_allclose(values["total"], values["cls"] + values["pseudo_labels"], rtol=1e-6)


def test_the_teacher_sees_the_target_with_statistics_of_its_own():
    """With the source's statistics its first predictions are of few classes, and the student learns no others."""
    run, _, images, labels = objective("mean_teacher")
    run.config = train_dcan.AdaptationConfig(alignment="mean_teacher", steps=10, train_batch_norm=True)
    run.method.setting = Setting(num_classes=2, feature_width=256, threshold=0.0)
    run.network = models.Classifier(run.classifier.config, seed=1)
    number = tf.constant(3, tf.int64)
    batch = {"source": images[:8], "class": labels, "target": images[8:], "number": number}
    before = run.classifier.get_weights()
    values = train_dcan.Adaptation.losses_of(run, batch)
    statistics = [w for w in run.classifier.weights if "moving" in w.name]
    old = [value for value, w in zip(before, run.classifier.weights, strict=True) if "moving" in w.name]
    assert all(np.abs(w - value).max() > 0 for w, value in zip(statistics, old, strict=True))
    teacher = tf.nn.softmax(run.classifier(images[8:], training=True))
    seen = tf.concat([images, strong_views.draw(images[8:], 2003, number)], axis=0)
    student = tf.nn.softmax(run.network(seen, training=True))[16:]
    expected = tf.reduce_mean(tf.reduce_sum((student - teacher) ** 2, axis=1))
    np.testing.assert_allclose(values["consistency"], expected, rtol=1e-3)

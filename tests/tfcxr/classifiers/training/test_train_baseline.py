"""The baseline's two stages against the table of settings, and its curves."""

import dataclasses

import numpy as np
import pytest

from tests import fakes
from tfcxr import data
from tfcxr.classifiers.training import train_baseline


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """10 images of two classes, 5 steps of 2 an epoch."""
    record_set = data.RecordSet(fakes.make_records(tmp_path_factory.mktemp("records"), resolution=8, per_class=5))
    config = train_baseline.BaselineConfig(
        backbone="resnet_tiny", image_size=8, weights="none", batch_size=2, stage2_epochs=4
    )
    return train_baseline.Baseline(config, record_set)


def settings_of(optimizer):
    """(rate at the start, in the middle, at the end; momentum, decay, nesterov)."""
    rate = optimizer._learning_rate
    rates = [float(rate(step)) if callable(rate) else float(rate) for step in (0, 10, 20)]
    return [*np.round(rates, 9).tolist(), optimizer.momentum, optimizer.coupled_decay, optimizer.nesterov]


# Rates of backbone and head; the decay is the table's times its multiplier.
@pytest.mark.parametrize("variant, backbone, head", [
    ("plain", [1e-3, 1e-3, 1e-3, 0.9, 0, False], [1e-3, 1e-3, 1e-3, 0.9, 0, False]),
    ("sched", [1e-3, 5e-4, 0, 0.9, 0, False], [1e-3, 5e-4, 0, 0.9, 0, False]),
    ("layer_lr", [1e-4, 1e-4, 1e-4, 0.9, 1e-3, True], [1e-3, 1e-3, 1e-3, 0.9, 1e-3, True]),
    ("layer_lr_sched", [1e-4, 5e-5, 0, 0.9, 1e-3, True], [1e-3, 5e-4, 0, 0.9, 1e-3, True]),
])  # fmt: skip
def test_stage_2_has_the_settings_of_the_table(training, monkeypatch, variant, backbone, head):
    monkeypatch.setattr(training, "config", dataclasses.replace(training.config, variant=variant))
    stage = training._stage2()
    assert stage.steps == 20
    assert [settings_of(optimizer) for optimizer in stage.optimizer.optimizers] == [backbone, head]
    assert len(stage.optimizer.variables_to_train) == len(training.classifier.trainable_variables)


def test_stage_1_trains_the_head_alone_and_only_on_pretrained_features(training, monkeypatch):
    assert training._stage1().steps == 0
    monkeypatch.setattr(training, "config", dataclasses.replace(training.config, weights="some.h5"))
    stage = training._stage1()
    assert stage.steps == 10
    assert [settings_of(optimizer) for optimizer in stage.optimizer.optimizers] == [[0.01] * 3 + [0.9, 1e-4, False]]
    assert stage.optimizer.variables_to_train == training.classifier.head.trainable_variables


def test_extra_images_count_in_the_shares_of_their_classes(training):
    """20 of a set of which 3/4 are of class 1; the weights of classes rest on this."""
    others = data.RecordSet(training.record_set.path)
    others.labels = lambda split: {"class": np.array([0, 1, 1, 1])}
    np.testing.assert_array_equal(train_baseline._extra_counts(data.Extra(others, 20)), [5, 15])


def test_curves_have_a_line_for_each_fold(tmp_path, monkeypatch):
    lines = {}
    save = train_baseline.plt.Figure.savefig

    def keep(figure, *arguments, **keywords):
        for axis in figure.axes:
            lines[axis.get_ylabel()] = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
        save(figure, *arguments, **keywords)

    monkeypatch.setattr(train_baseline.plt.Figure, "savefig", keep)
    names = ("train/loss", "validation/loss", "train/accuracy", "validation/accuracy", "validation/balanced_accuracy")
    rows = [{"step": 5 * n, "phase": "head" if n == 1 else "network"} for n in (1, 2)]
    history = [row | {name: row["step"] / 10 + i for i, name in enumerate(names)} for row in rows]
    train_baseline.plot_curves(history, 5, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert lines == {
        "loss": {"training": [[1, 0.5], [2, 1.0]], "validation": [[1, 1.5], [2, 2.0]]},
        "accuracy": {
            "training": [[1, 2.5], [2, 3.0]],
            "validation": [[1, 3.5], [2, 4.0]],
            "validation, balanced": [[1, 4.5], [2, 5.0]],
        },
    }

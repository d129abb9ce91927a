"""The training loop with a network of one weight: best weights, patience, divergence."""

import json
import re
import time

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers import loading
from tfcxr.classifiers.training import loop, optimizers
from tfcxr.training import runs
from tfrecords_builder.errors import RunError


@pytest.fixture
def run(tmp_path):
    with runs.RunFolder.open(tmp_path / "run", kind="baseline", config={}, records_digests={}) as run:
        yield run


def make_trainer(
    run, scores, *, patience=0, loss=lambda weight: weight, select="source", gradient=-1.0, slow_data=lambda i: i
):
    """Each step adds -gradient to the weight; the i-th evaluation (every 2 steps) scores scores[i]."""
    network = tf.keras.Sequential([tf.keras.Input([1]), tf.keras.layers.Dense(1, use_bias=False, name="dense")])
    network.set_weights([np.zeros([1, 1])])
    (weight,) = network.trainable_variables
    optimizer = optimizers.GroupedSGD([optimizers.Group([network])], learning_rate=1.0, steps=1, momentum=0.0)

    def step(batch):
        value = loss(weight[0, 0])
        optimizer.apply([gradient * tf.ones([1, 1])])
        return {"loss": value}

    def stream(first, _):
        return tf.data.Dataset.range(first, 10**6).map(slow_data)

    phase = loop.Phase("only", 2 * len(scores), 2, stream, step, ["loss"], optimizer)
    left = list(scores)
    return loop.Trainer(
        run,
        network,
        [phase],
        evaluate=lambda: {f"select/{select}": left.pop(0)},
        select=select,
        checkpoint_steps=0,
        patience=patience,
        describe=lambda row: f"step {row['step']}",
    )


def kept_weight(run):
    network = tf.keras.Sequential([tf.keras.Input([1]), tf.keras.layers.Dense(1, use_bias=False, name="dense")])
    network.load_weights(str(run.path / loading.WEIGHTS))
    return float(network.get_weights()[0][0, 0])


def test_the_first_of_the_best_is_kept(run):
    trainer = make_trainer(run, [0.1, 0.7, 0.7, 0.2])
    trainer.fit()
    assert trainer.best["step"] == 4
    assert kept_weight(run) == 4.0
    rows = json.loads((run.path / loop.HISTORY).read_text())
    assert [row["train/loss"] for row in rows] == [0.5, 2.5, 4.5, 6.5]


def test_patience_ends_training(run):
    trainer = make_trainer(run, [0.5, 0.4, 0.4, 0.9], patience=2)
    trainer.fit()
    assert trainer.step == 6
    assert kept_weight(run) == 2.0


def test_an_evaluation_without_a_value_is_never_best(run):
    trainer = make_trainer(run, [None, 0.1])
    trainer.fit()
    assert trainer.best["step"] == 4


def test_divergence_names_the_term_and_keeps_the_last_checkpoint(run):
    trainer = make_trainer(run, [0.5, 0.6, 0.7], loss=lambda weight: tf.math.log(2.5 - weight))
    with pytest.raises(RunError, match="loss is not finite before step 4; the last good checkpoint is kept"):
        trainer.fit()
    assert tf.train.latest_checkpoint(str(run.checkpoints)).endswith("ckpt-2")
    assert kept_weight(run) == 2.0


def test_weights_spoilt_by_the_last_update_are_not_kept(run):
    trainer = make_trainer(run, [0.5, 0.6], gradient=np.inf, loss=lambda weight: tf.constant(1.0))
    with pytest.raises(RunError, match="a weight is not finite before step 2; there is no checkpoint yet"):
        trainer.fit()
    assert not (run.path / loading.WEIGHTS).exists()


def test_an_evaluation_that_overflows_ends_training(run):
    with pytest.raises(RunError, match="select/source is not finite before step 4; the last good checkpoint is kept"):
        make_trainer(run, [0.5, np.inf]).fit()
    assert len(json.loads((run.path / loop.HISTORY).read_text())) == 1


def late(value):
    """The value, a tenth of a second later."""

    def wait(value):
        time.sleep(0.1)
        return value

    result = tf.numpy_function(wait, [value], value.dtype)
    result.set_shape(value.shape)
    return result


@pytest.mark.parametrize("slow", ["data", "step"])
def test_the_share_of_time_spent_waiting_for_data_is_told(run, capsys, slow):
    make_trainer(run, [0.5, 0.6, 0.7], **({"slow_data": late} if slow == "data" else {"loss": late})).fit()
    shares = [float(share) for share in re.findall(r"waiting for data ([0-9.]+)%", capsys.readouterr().out)]
    assert len(shares) == 3
    assert all(share > 60 if slow == "data" else share < 40 for share in shares[1:])  # the first has the tracing
    (events,) = run.tensorboard.glob("events*")
    values = [value for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value]
    written = [100 * float(tf.make_ndarray(v.tensor)) for v in values if v.tag == "speed/waiting_for_data"]
    assert written == pytest.approx(shares, abs=0.06)

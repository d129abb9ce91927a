"""The training loop with a network of one weight: best weights, patience, divergence."""

import dataclasses
import json
import re
import time

import h5py
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config  # TensorFlow exports no way to turn determinism off again

from tests import stopping
from tests.tfcxr.training.test_event_files import shown
from tfcxr.classifiers import loading
from tfcxr.classifiers.training import loop, optimizers
from tfcxr.training import checkpoints, runs
from tfrecords_builder import files
from tfrecords_builder.errors import RunError


@pytest.fixture
def run(tmp_path):
    with runs.RunFolder.open(tmp_path / "run", kind="baseline", config={}, records_digests={}) as run:
        yield run


def make_trainer(
    run,
    scores,
    *,
    steps=None,
    patience=0,
    loss=lambda weight: weight,
    select="source",
    gradient=-1.0,
    slow_data=lambda i: i,
    plateau_patience=0,
):
    """Each step adds -gradient to the weight; the i-th evaluation of this call (every 2 steps) scores scores[i]."""
    network = tf.keras.Sequential([tf.keras.Input([1]), tf.keras.layers.Dense(1, use_bias=False, name="dense")])
    network.set_weights([np.zeros([1, 1])])
    (weight,) = network.trainable_variables
    optimizer = optimizers.GroupedSGD(
        [optimizers.Group([network])], learning_rate=1.0, steps=1, momentum=0.0, scaled=plateau_patience > 0
    )

    def step(batch):
        value = loss(weight[0, 0])
        optimizer.apply([gradient * tf.ones([1, 1])])
        return {"loss": value}

    def stream(first, _):
        return tf.data.Dataset.range(first, 10**6).map(slow_data)

    phase = loop.Phase("only", steps or 2 * len(scores), 2, stream, step, ["loss"], optimizer)
    left = list(scores)
    return loop.Trainer(
        run,
        network,
        [phase],
        evaluate=lambda: {f"select/{select}": left.pop(0)},
        select=select,
        checkpoint_steps=0,
        records="a or b",
        patience=patience,
        plateau_patience=plateau_patience,
        describe=lambda row: f"step {row['step']}",
    )


def kept_weight(run):
    network = tf.keras.Sequential([tf.keras.Input([1]), tf.keras.layers.Dense(1, use_bias=False, name="dense")])
    network.load_weights(str(loading.weights_path(run.path)))
    return float(network.get_weights()[0][0, 0])


def test_the_first_of_the_best_is_kept(run):
    trainer = make_trainer(run, [0.1, 0.7, 0.7, 0.2])
    trainer.fit()
    assert trainer.best["step"] == 4
    assert kept_weight(run) == 4.0
    rows = json.loads((run.path / loading.HISTORY).read_text())
    assert [row["train/loss"] for row in rows] == [0.5, 2.5, 4.5, 6.5]


def test_patience_ends_training(run):
    trainer = make_trainer(run, [0.5, 0.4, 0.4, 0.9], patience=2)
    trainer.fit()
    assert trainer.step == 6
    assert kept_weight(run) == 2.0


def test_the_learning_rate_falls_where_nothing_becomes_better(run, monkeypatch):
    """2 steps an evaluation: after two without a better one a tenth, after two more a hundredth; none forgotten."""
    scores = [0.5, 0.4, 0.5, 0.3, 0.2, 0.9, 0.1]
    killed_in(monkeypatch, checkpoints.Writer, "save", 8, run, scores, plateau_patience=2)
    trainer = make_trainer(run, scores[3:], steps=14, plateau_patience=2)
    assert trainer.step == 6
    trainer.fit()
    rates = [row["learning_rate"] for row in trainer.history]
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    # Each step adds the rate to the weight; the loss is its mean before the steps.
    assert trainer.history[-1]["train/loss"] == pytest.approx(6 + 4 * 0.1 + 2.5 * 0.01)


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
    assert not loading.weights_by_step(run.path)


def test_an_evaluation_that_overflows_ends_training(run):
    with pytest.raises(RunError, match="select/source is not finite before step 4; the last good checkpoint is kept"):
        make_trainer(run, [0.5, np.inf]).fit()
    assert len(json.loads((run.path / loading.HISTORY).read_text())) == 1


def test_deterministic_operations_are_enough(run):
    """TensorFlow refuses operations without a deterministic form, such as tf.timestamp, only when they run."""
    tf.config.experimental.enable_op_determinism()
    try:
        trainer = make_trainer(run, [0.1, 0.7])
        trainer.fit()
    finally:
        config.disable_op_determinism()
    assert trainer.best["step"] == 4


def late(value):
    """The value, a tenth of a second later."""

    def wait(value):
        time.sleep(0.1)
        return value

    result = tf.numpy_function(wait, [value], value.dtype)
    result.set_shape(value.shape)
    return result


def test_the_share_of_time_spent_waiting_for_data_is_told(tmp_path, capsys):
    def told(name, **slow):
        with runs.RunFolder.open(tmp_path / name, kind="baseline", config={}, records_digests={}) as run:
            make_trainer(run, [0.5, 0.6, 0.7], **slow).fit()
        shares = [float(share) for share in re.findall(r"waiting for data ([0-9.]+)%", capsys.readouterr().out)]
        (events,) = run.tensorboard.glob("events*")
        values = [value for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value]
        written = [100 * float(tf.make_ndarray(v.tensor)) for v in values if v.tag == "speed/waiting_for_data"]
        assert written == pytest.approx(shares, abs=0.06)
        assert len(shares) == 3 and all(0 <= share <= 100 for share in shares)
        return shares[1:]  # the first has the tracing

    # Compared with each other, not with a number: other programs may slow both down.
    assert min(told("data", slow_data=late)) > max(told("step", loss=late))


SCORES = [0.1, 0.7, 0.8, 0.2]  # at steps 2, 4, 6, 8


def killed_in(monkeypatch, owner, name, step, run, scores=SCORES, **more):
    """Trains until a kill as the run is at `step` and enters the function `owner.name`."""
    function = getattr(owner, name)

    def kill(*arguments, **named):
        if trainer.step == step:
            raise stopping.KilledError
        return function(*arguments, **named)

    with monkeypatch.context() as patch:
        trainer = make_trainer(run, scores, **more)
        patch.setattr(owner, name, kill)
        with pytest.raises(stopping.KilledError):
            trainer.fit()


@pytest.mark.parametrize("killed_before", ["history", "checkpoint", "nothing"])
@pytest.mark.parametrize("again", [0.8, 0.3])
def test_a_kill_mixes_no_best_weights_with_another_history(run, monkeypatch, killed_before, again):
    """What is done again may score otherwise, as machines round differently; then step 4 remains the best."""
    if killed_before == "nothing":
        make_trainer(run, [0.1, 0.7, again, 0.2]).fit()
    else:
        owner, name = (files, "write_json") if killed_before == "history" else (checkpoints.Writer, "save")
        killed_in(monkeypatch, owner, name, 6, run)
        rows = json.loads((run.path / loading.HISTORY).read_text())
        assert kept_weight(run) == max(rows, key=lambda row: row["select/source"])["step"]
        trainer = make_trainer(run, [0.1, 0.7, again, 0.2][2:], steps=8)
        assert trainer.step == 4
        assert kept_weight(run) == 4
        trainer.fit()
        trainer.finish({})
    trainer = make_trainer(run, [], steps=8)
    assert [(row["step"], row["select/source"]) for row in trainer.history] == [
        (2, 0.1),
        (4, 0.7),
        (6, again),
        (8, 0.2),
    ]
    assert [row["train/loss"] for row in trainer.history] == [0.5, 2.5, 4.5, 6.5]
    assert kept_weight(run) == trainer.best["step"] == (6 if again == 0.8 else 4)


def test_a_finished_run_keeps_one_file_of_weights(run):
    trainer = make_trainer(run, [0.1, 0.7])
    trainer.fit()
    assert sorted(loading.weights_by_step(run.path)) == [2, 4]
    trainer.finish({"steps": 4})
    assert loading.weights_path(run.path) == run.path / loading.WEIGHTS
    assert sorted(loading.weights_by_step(run.path)) == [0]
    assert kept_weight(run) == 4
    assert json.loads((run.path / "result.json").read_text())["steps"] == 4


@pytest.mark.parametrize("damage", ["list", "newest"])
def test_a_run_goes_on_from_what_can_be_read(run, monkeypatch, caplog, damage):
    killed_in(monkeypatch, checkpoints.Writer, "save", 6, run)
    if damage == "list":
        (run.checkpoints / "checkpoint").write_text("no list")
    else:
        newest = run.checkpoints / "ckpt-4.data-00000-of-00001"
        newest.write_bytes(newest.read_bytes()[:100])
    assert loop.has_checkpoint(run.path)
    step = 4 if damage == "list" else 2
    trainer = make_trainer(run, SCORES[step // 2 :], steps=8)
    assert trainer.step == step
    assert ("ckpt-4 cannot be read" in caplog.text) == (damage == "newest")
    trainer.fit()
    assert (trainer.best["step"], kept_weight(run)) == (6, 6.0)
    assert [row["step"] for row in trainer.history] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, r"history\.json: lacks 2 evaluations, such as that of step 2; put back a copy of it, or"),
        (lambda rows: rows[1:], r"history\.json: lacks 1 evaluations, such as that of step 2; "),
        (lambda rows: [{**rows[0], "select/source": "0.1"}, rows[1]], r"history\.json: lacks 1 evaluations"),
        (lambda rows: {"rows": rows}, r"history\.json: is damaged; "),
        (lambda rows: [3, *rows], r"history\.json: is damaged; "),
    ],
)
def test_a_damaged_history_of_a_run_that_goes_on_is_refused(run, monkeypatch, damage, said):
    killed_in(monkeypatch, checkpoints.Writer, "save", 6, run)
    path = run.path / loading.HISTORY
    rows = json.loads(path.read_text())
    path.unlink() if damage is None else path.write_text(json.dumps(damage(rows)))
    with pytest.raises(RunError, match=said) as caught:
        make_trainer(run, SCORES, steps=8)
    assert "\n" not in str(caught.value)
    path.write_text(json.dumps(rows))
    trainer = make_trainer(run, SCORES[2:], steps=8)
    trainer.fit()
    assert (trainer.best["step"], kept_weight(run)) == (6, 6.0)


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_best_weights_of_a_run_that_goes_on_are_refused(run, monkeypatch, damage):
    killed_in(monkeypatch, checkpoints.Writer, "save", 6, run)
    weights = loading.weights_of_step(run.path, 4)
    content = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    else:
        with h5py.File(weights, "r+") as file:
            (name,) = (n for n in all_names(file) if isinstance(file[n], h5py.Dataset))
            file[name][...] = 5.0
    said = rf"best-4\.weights\.h5: is {'gone' if damage == 'gone' else 'damaged'}, the best weights so far; put back"
    with pytest.raises(RunError, match=said):
        make_trainer(run, SCORES, steps=8)
    weights.write_bytes(content)
    assert make_trainer(run, SCORES[2:], steps=8).step == 4


def all_names(file):
    names = []
    file.visit(names.append)
    return names


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(run, monkeypatch):
    trainer = make_trainer(run, SCORES)

    def full(self, path):
        if path.endswith("-4"):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device\nmore")
        return write(self, path)

    write = tf.train.Checkpoint.write
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full)
        with pytest.raises(RunError, match=r"checkpoint 4 cannot be written \(No space left on device\); the one bef"):
            trainer.fit()
    trainer = make_trainer(run, SCORES[1:], steps=8)
    assert trainer.step == 2
    trainer.fit()
    assert kept_weight(run) == 6.0


def test_a_run_of_earlier_versions_goes_on(run, monkeypatch):
    """Those wrote checkpoints through TensorFlow's manager, and the best weights under one name."""

    def save(self, step):
        manager = tf.train.CheckpointManager(self._checkpoint, str(self._folder), max_to_keep=2)
        manager.save(checkpoint_number=step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Writer, "save", save)
        patch.setattr(loading, "weights_of_step", lambda path, _: path / loading.WEIGHTS)
        killed_in(monkeypatch, files, "write_json", 8, run, [0.1, 0.7, 0.2, 0.3])
    assert sorted(loading.weights_by_step(run.path)) == [0]
    for scores, best in ([0.5], 4), ([0.9], 10):
        trainer = make_trainer(run, scores, steps=8 if best == 4 else 10)
        assert trainer.step == (6 if best == 4 else 8)
        trainer.fit()
        assert (trainer.best["step"], kept_weight(run)) == (best, best)


def test_damaged_records_are_named_with_their_folders(run, tmp_path):
    (tmp_path / "broken").write_bytes(bytes(100))
    trainer = make_trainer(run, SCORES)
    [phase] = trainer.phases
    trainer.phases = [dataclasses.replace(phase, stream=lambda *_: tf.data.TFRecordDataset(str(tmp_path / "broken")))]
    with pytest.raises(RunError, match=r"^a or b: damaged records \(.*\); see verify-records$"):
        trainer.fit()


def test_each_evaluation_is_in_tensorboard_once(run, monkeypatch):
    killed_in(monkeypatch, checkpoints.Writer, "save", 6, run)
    make_trainer(run, SCORES[2:], steps=8).fit()
    assert shown(run.tensorboard, "train/loss") == shown(run.tensorboard, "select/source") == [2, 4, 6, 8]

"""The controller with a task that counts: when it evaluates and saves, what a kill leaves, what goes on."""

import json
import signal
import types

import pytest
import tensorflow as tf

from tests import stopping
from tests.tfcxr.training.test_event_files import shown
from tfcxr.training import checkpoints, controller, early_stop, runs, strategies
from tfrecords_builder import files
from tfrecords_builder.errors import Interrupted, RunError


@pytest.fixture
def run(tmp_path):
    with runs.RunFolder.open(tmp_path / "run", kind="gan", config={}, records_digests={}) as run:
        yield run


class Counter:
    """Each step adds 1 to a weight and shows `per_step` images; an evaluation's score is planted."""

    def __init__(self, run, *, scores=None, per_step=1, patience=0, total=12, every=3, saves_every=0, **stretch):
        self.run, self.scores, self.per_step, self.total, self.every = run, scores or {}, per_step, total, every
        self.saves_every, self.stretch = saves_every, stretch
        self.log = []  # of this call
        self.step = tf.Variable(0, dtype=tf.int64)
        self.weight = tf.Variable(0.0)
        state = tf.train.Checkpoint(step=self.step, weight=self.weight)
        self.best = checkpoints.Writer(tf.train.Checkpoint(weight=self.weight), run.best, keep=None)
        self.controller = controller.Controller(
            run, state, self.step, strategy=tf.distribute.get_strategy(), best=self.best
        )
        path = run.path / "history.json"
        rows = files.read_json(path) if path.exists() else []
        self.rows = [row for row in rows if row[0] <= int(self.step)]
        files.write_json(path, self.rows)
        self.early_stop = early_stop.EarlyStop("score", patience, maximize=True)
        for step, score in self.rows:
            self.early_stop.look(score, step)

    def train(self):
        self.controller.train(self, total=self.total, description="count", unit="images")
        return self

    @property
    def position(self):
        return int(self.step) * self.per_step

    def next_stretch(self):
        def run(most):
            self.log.append(most)
            self.step.assign_add(most)
            self.weight.assign_add(float(most))
            return most

        settings = {"saves_evaluations": True, "reports_end": True, **self.stretch}
        evaluations, saves = controller.Every(self.every), controller.Every(self.saves_every)
        return controller.Stretch(run, self.total, self.per_step, evaluations, saves, **settings)

    def check(self):
        if self.weight > 100:
            raise RunError("diverged")

    def evaluate(self):
        step = int(self.step)
        self.log.append(f"evaluated at {step}")
        score = self.scores.get(step)
        tf.summary.scalar("score", score or 0.0, step=step)
        tf.summary.flush()
        self.rows.append([step, score])
        if self.early_stop.look(score, step):
            self.best.save(step)
        self.write_history()

    def write_history(self):
        files.write_json(self.run.path / "history.json", self.rows)

    def out_of_patience(self):
        return self.early_stop.is_due(int(self.step))


def best_weight(run):
    """Of the newest snapshot that the history knows."""
    weight = tf.Variable(-1.0)
    steps = [step for step, _ in json.loads((run.path / "history.json").read_text())]
    checkpoints.restore_newest(run.best, tf.train.Checkpoint(weight=weight), whole=False, steps=steps)
    return float(weight)


def saved(run):
    return [int(path.rsplit("-", 1)[1]) for path in checkpoints.available(run.checkpoints)]


def test_positions_are_counted_from_an_origin():
    every = controller.Every(5, 3)
    assert [every.after(position) for position in (3, 7, 8)] == [8, 8, 13]
    assert every.within(3, 8)
    assert every.within(7, 9)
    assert not every.within(8, 12)
    assert controller.Every(0).after(7) == float("inf")
    assert not controller.Every(0).within(0, 10**9)


def test_calls_grow_but_stop_at_what_is_due(run):
    task = Counter(run, every=6, saves_every=4, saves_evaluations=False, total=10).train()
    assert [entry for entry in task.log if isinstance(entry, int)] == [1, 2, 1, 2, 2, 2]
    assert [entry for entry in task.log if isinstance(entry, str)] == ["evaluated at 6", "evaluated at 10"]
    assert saved(run) == [10, 8]


def test_a_step_may_go_past_what_is_due(run):
    task = Counter(run, per_step=4, every=6, total=16, saves_evaluations=False).train()
    assert [entry for entry in task.log if isinstance(entry, str)] == [f"evaluated at {step}" for step in (2, 3, 4)]
    assert saved(run) == [4]


def test_the_pace_is_that_of_seconds_per_call():
    assert controller._next_pace(1, 1, 1e-9) == 2
    assert controller._next_pace(64, 64, 4.0) == 32
    assert controller._next_pace(64, 10, 1.0) == 20
    assert controller._next_pace(5, 5, 1e9) == 1


def test_several_workers_make_the_same_steps_however_long_they_take(run, monkeypatch):
    task = Counter(run, every=20, total=40)
    monkeypatch.setattr(strategies, "num_workers", lambda _: 2)
    monkeypatch.setattr(strategies, "any_of", lambda _, flag: flag)
    monkeypatch.setattr(strategies, "is_chief", lambda _: True)
    task.train()
    assert [entry for entry in task.log if isinstance(entry, int)] == [16, 4, 16, 4]


@pytest.mark.parametrize("damage", ["list", "newest", "index"])
def test_a_run_goes_on_from_what_can_be_read(run, damage, caplog, capsys):
    Counter(run, total=9).train()
    newest = run.checkpoints / "ckpt-9.data-00000-of-00001"
    if damage == "list":
        (run.checkpoints / "checkpoint").write_bytes(b"\xff no list")
    elif damage == "newest":
        newest.write_bytes(newest.read_bytes()[:20])
    else:
        (run.checkpoints / "ckpt-9.index").write_bytes(b"")
    task = Counter(run, total=12)
    assert int(task.step) == (9 if damage == "list" else 6)
    assert ("ckpt-9 cannot be read" in caplog.text) == (damage != "list")
    task.train()
    assert f"resumed at {9 if damage == 'list' else 6} of 12 images" in capsys.readouterr().out
    assert float(task.weight) == 12
    assert [row[0] for row in task.rows] == [3, 6, 9, 12]
    assert shown(run.tensorboard, "score") == [3, 6, 9, 12]


def test_checkpoints_of_which_none_can_be_read_are_one_line(run):
    Counter(run, total=9).train()
    for path in run.checkpoints.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"ckpt-6: cannot be read \(.*nor can one before it; start again with --over"):
        Counter(run)


def test_a_signal_saves_and_the_next_call_goes_on(run, monkeypatch):
    with monkeypatch.context() as patch:
        stopping.stop_after(patch, 5)
        with pytest.raises(Interrupted):
            Counter(run).train()
    assert saved(run) == [5, 3]
    task = Counter(run).train()
    assert float(task.weight) == 12
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_patience_ends_a_run_and_it_stays_ended(run, capsys):
    task = Counter(run, scores={3: 0.5, 6: 0.4, 9: 0.5}, patience=2, total=30).train()
    assert int(task.step) == 9
    assert "stopped early at 9 of 30 images: " in capsys.readouterr().out
    again = Counter(run, patience=2, total=30)
    again.train()
    assert again.log == []


def test_a_diverged_state_is_not_saved(run):
    with pytest.raises(RunError, match="diverged"):
        Counter(run, every=60, total=300).train()
    assert saved(run) == [60]


SCORES = {3: 0.2, 6: 0.5, 9: 0.7, 12: 0.6}


@pytest.mark.parametrize("killed_before", ["history", "checkpoint"])
def test_a_kill_between_best_weights_and_history_mixes_nothing(run, tmp_path, monkeypatch, killed_before):
    """On another machine the steps that are done again may score otherwise: here step 9 is no longer the best."""
    owner = Counter if killed_before == "history" else checkpoints.Writer
    name = "write_history" if killed_before == "history" else "save"
    original = getattr(owner, name)

    def killed(self, *arguments):
        where = self if killed_before == "history" else types.SimpleNamespace(step=arguments[0], run=run)
        checkpoint = killed_before == "history" or self._folder == run.checkpoints
        if int(where.step) == 9 and checkpoint:
            raise stopping.KilledError
        original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(stopping.KilledError):
            Counter(run, scores=SCORES).train()
    # The history says which are the best, and those are there.
    assert best_weight(run) == (6 if killed_before == "history" else 9)
    again = Counter(run, scores=SCORES | {9: 0.4, 12: 0.1})
    assert int(again.step) == 6
    assert best_weight(run) == 6
    again.train()
    assert best_weight(run) == again.early_stop.best_at == 6
    assert again.best.steps() == [6]
    assert shown(run.tensorboard, "score") == [3, 6, 9, 12]


def test_best_weights_stay_while_a_checkpoint_may_need_them(run):
    task = Counter(run, scores=SCORES).train()
    assert saved(run) == [12, 9]
    assert task.best.steps() == [9]
    other = Counter(run, scores={15: 0.9}, total=15).train()
    assert saved(run) == [15, 12]
    assert other.best.steps() == [15, 9]
    newest = run.checkpoints / "ckpt-15.data-00000-of-00001"
    newest.write_bytes(b"")
    back = Counter(run, scores={15: 0.3}, total=15).train()
    assert (back.early_stop.best_at, best_weight(run)) == (9, 9)
    assert back.best.steps() == [9]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(run, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        stopping.kill_after(patch, 8)
        with pytest.raises(stopping.KilledError):
            Counter(run, scores=SCORES, saves_evaluations=False).train()
    assert saved(run) == []
    assert "holds no checkpoint" not in caplog.text
    monkeypatch.setattr(run, "resumed", True)
    task = Counter(run, scores={3: 0.9})
    assert f"{run.checkpoints}: holds no checkpoint; the training begins at step 0" in caplog.text
    assert task.rows == []
    task.train()
    assert task.best.steps() == [3]
    assert shown(run.tensorboard, "score") == [3, 6, 9, 12]

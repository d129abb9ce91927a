"""train-baseline and train-dcan on several workers: they end as one program does, and stop and fail together."""

import json
import re
import signal

import numpy as np
import pytest
import tensorflow as tf

from flags import app
from tests import classifier_runs, fakes, workers
from tfcxr import data
from tfcxr.classifiers import loading
from tfcxr.classifiers.training import loop, train_baseline
from tfcxr.commands import train_dcan
from tfcxr.training import runs, strategies

# BatchNorm over two images of a device is wild: at a higher learning rate the validation loss overflows.
SMALL = ["--backbone=resnet_tiny", "--image_size=16", "--batch_size=4", "--learning_rate=0.0003"]
BASELINE = [*SMALL, "--weights=none", "--stage2_epochs=2", "--patience=5", "--balanced"]
# BatchNorm runs on stored statistics, and the losses are means over images.
CDAN = [*SMALL, "--alignment=cdan", "--steps=6", "--eval_every=3", "--embeddings_every=0"]


@pytest.fixture(scope="module", autouse=True)
def network_of_users():
    """The network that the workers have, which are programs of their own."""
    classifier_runs.set_blocks_of_resnet_tiny(2)
    yield
    classifier_runs.set_blocks_of_resnet_tiny(1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """(source, target)."""
    root = tmp_path_factory.mktemp("sets")
    source = fakes.make_records(root / "source", resolution=16, per_class=10)
    return source, fakes.make_records(root / "target", resolution=16, per_class=4, seed=1)


def baseline_flags(sets, folder, *others):
    return [f"--records={sets[0]}", f"--run_dir={folder}", *BASELINE, *others]


def start_two(sets, folder, *others, second=()):
    flags = baseline_flags(sets, folder, *others)
    return workers.start_two("tfcxr.commands.train_baseline", flags, [*flags, *second])


def assert_same_run(a, b):
    """The same weights, optimizer and history, but for the time."""
    workers.assert_same_variables(a, b, ("classifier/", "optimizers/", "step/"))
    one, two = (json.loads((folder / "history.json").read_text()) for folder in (a, b))
    assert len(one) == len(two) > 1
    for row, other in zip(one, two, strict=True):
        assert other.pop("phase") == row.pop("phase")
        assert other == pytest.approx(row, rel=1e-3, abs=1e-4)
    files = [{path.relative_to(folder) for path in folder.rglob("*") if "events" not in path.name} for folder in (a, b)]
    assert files[0] == files[1]
    assert len(list((b / "tensorboard").glob("events*"))) == 1


def test_shares_of_a_batch_make_the_batch(sets):
    """Four devices, two at each worker."""
    record_set = data.RecordSet(sets[0])
    settings = {
        "batch_size": 8,
        "image_size": 16,
        "framing": "crop",
        "balanced": True,
        "flip": True,
        "seed": 3,
        "start_step": 2,
    }
    whole = next(iter(train_baseline.training_batches(record_set, **settings)))
    parts = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=4)
        assert list(strategies.own_shares(context)) == [2 * worker, 2 * worker + 1]
        parts += list(train_baseline.training_batches(record_set, **settings, context=context).take(2))
    for key, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), value, err_msg=key)


def test_other_workers_write_into_a_copy(tmp_path, monkeypatch):
    described = {"kind": "baseline", "config": {"seed": 1}, "records_digests": {}}
    with runs.RunFolder.open(tmp_path / "run", **described) as run:
        (run.checkpoints / "checkpoint").write_text("x")
        (run.path / loading.HISTORY).write_text("[]")
        monkeypatch.setattr(strategies, "is_chief", lambda _: False)
        strategy = tf.distribute.get_strategy()
        with loop.open_run(strategy, run.path, overwrite=False, **described) as copy:
            assert copy.path != run.path
            assert (copy.checkpoints / "checkpoint").read_text() == "x"
            assert (copy.path / loading.HISTORY).read_text() == "[]"
            copy.finish({})
        assert not copy.path.exists()
        assert not (run.path / "result.json").exists()
        other = {**described, "config": {"seed": 2}}
        with (
            pytest.raises(Exception, match="holds a run with seed=1, not 2"),
            loop.open_run(strategy, run.path, overwrite=False, **other),
        ):
            pass


@pytest.fixture(scope="module")
def two_devices(sets, tmp_path_factory):
    """A baseline on two devices of one program, whose BatchNorm has the statistics of shares, as with two workers."""
    folder = tmp_path_factory.mktemp("two") / "run"
    flags = baseline_flags(sets, folder, "--strategy=mirrored")
    codes, lines = workers.ended([workers.start("tfcxr.commands.train_baseline", flags, devices=2)])
    assert codes == [0], lines
    return folder


@pytest.mark.large
def test_two_workers_end_as_two_devices_and_only_the_first_writes(sets, two_devices, tmp_path):
    codes, lines = workers.ended(start_two(sets, tmp_path / "run"))
    assert codes == [0, 0], lines
    assert_same_run(two_devices, tmp_path / "run")


@pytest.mark.large
def test_two_workers_adapt_as_one_device(sets, tmp_path):
    start = classifier_runs.make_classifier_run(tmp_path / "start", sets[0])

    def flags(folder):
        named = [f"--source_records={sets[0]}", f"--target_records={sets[1]}", f"--init_from={start}"]
        return [*named, f"--run_dir={folder}", *CDAN]

    argv = ["train-dcan", *flags(tmp_path / "one")]
    assert app.run(train_dcan.main, train_dcan.define_flags, argv) == 0
    both = flags(tmp_path / "two")
    codes, lines = workers.ended(workers.start_two("tfcxr.commands.train_dcan", both, both))
    assert codes == [0, 0], lines
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.large
def test_two_devices_and_two_workers_train_the_head_as_one_device(sets, tmp_path):
    """Each takes its share of the features, which are those of one network."""
    start = classifier_runs.make_classifier_run(tmp_path / "start", sets[0])

    def flags(folder, *others):
        head = ["--stage1_epochs=2", "--stage2_epochs=1", "--flip", f"--init_from={start}"]
        return [f"--records={sets[0]}", f"--run_dir={tmp_path / folder}", *SMALL, *head, *others]

    module = "tfcxr.commands.train_baseline"
    processes = [
        workers.start(module, flags("one")),
        workers.start(module, flags("two", "--strategy=mirrored"), devices=2),
    ]
    codes, lines = workers.ended(processes)
    assert codes == [0, 0], lines
    codes, lines = workers.ended(workers.start_two(module, flags("workers"), flags("workers")))
    assert codes == [0, 0], lines
    one, *others = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two", "workers"))
    for rows in others:
        for row, other in zip(one[:2], rows[:2], strict=True):
            assert other.pop("phase") == row["phase"] == "head"
            assert other == pytest.approx({k: v for k, v in row.items() if k != "phase"}, rel=1e-4, abs=1e-5)


@pytest.mark.large
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_worker_that_is_stopped_stops_both_and_they_resume(sets, two_devices, tmp_path, stopped):
    long = ["--stage2_epochs=12", "--checkpoint_steps=2"]
    processes = start_two(sets, tmp_path / "run", *long)
    workers.wait_for(tmp_path / "run/checkpoints/ckpt-*.index", processes)
    processes[stopped].send_signal(signal.SIGTERM)
    codes, lines = workers.ended(processes)
    assert (codes[stopped], codes[1 - stopped]) == (143, 1)
    assert "stopped by a signal; the same command resumes" in lines[stopped]
    assert "another worker was stopped; the same commands resume" in lines[1 - stopped]
    step = tf.train.load_variable(str(tmp_path / "run/checkpoints"), "step/.ATTRIBUTES/VARIABLE_VALUE")
    assert 0 < step < 60
    assert not (tmp_path / "run/result.json").exists()
    codes, lines = workers.ended(start_two(sets, tmp_path / "run", *long))
    assert codes == [0, 0], lines
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [row["step"] for row in history] == sorted({row["step"] for row in history})


@pytest.mark.large
def test_what_one_worker_refuses_ends_both(sets, two_devices, tmp_path):
    codes, lines = workers.ended(start_two(sets, two_devices))
    assert codes == [2, 1], lines
    assert "this run is finished" in lines[0]
    assert "another worker could not go on" in lines[1]
    codes, lines = workers.ended(start_two(sets, tmp_path / "run", second=["--seed=3"]))
    assert codes == [1, 2], lines
    assert "holds a run with seed=0, not 3" in lines[1]


@pytest.mark.large
def test_each_worker_looks_at_its_own_memory(sets, tmp_path):
    codes, lines = workers.ended(start_two(sets, tmp_path / "run", "--batch_size=40000000"))
    assert codes == [2, 2], lines
    for line in lines:
        assert re.match(r"error: --batch_size=40000000: a step keeps at least [0-9.]+ GiB for its gradients, and", line)


@pytest.mark.large
def test_a_worker_that_is_killed_does_not_let_the_other_wait(sets, tmp_path):
    processes = start_two(sets, tmp_path / "run", "--stage2_epochs=1000", "--checkpoint_steps=2", "--patience=0")
    workers.wait_for(tmp_path / "run/checkpoints/ckpt-*.index", processes)
    processes[1].kill()
    codes, lines = workers.ended(processes)
    assert codes[0] == 1
    assert lines[0].startswith("error: another worker is gone (")


@pytest.mark.large
def test_workers_of_whom_one_was_killed_end_as_undisturbed_ones(sets, tmp_path):
    long = ["--stage2_epochs=4", "--checkpoint_steps=2"]
    codes, lines = workers.ended(start_two(sets, tmp_path / "undisturbed", *long), 900)
    assert codes == [0, 0], lines
    processes = start_two(sets, tmp_path / "run", *long)
    workers.wait_for(tmp_path / "run/checkpoints/ckpt-*.index", processes)
    processes[1].kill()
    codes, lines = workers.ended(processes)
    assert codes == [1, -signal.SIGKILL], lines
    assert not (tmp_path / "run/result.json").exists()
    codes, lines = workers.ended(start_two(sets, tmp_path / "run", *long), 900)
    assert codes == [0, 0], lines
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("undisturbed", "run"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    workers.assert_same_variables(tmp_path / "undisturbed", tmp_path / "run", ("classifier/", "optimizers/", "step/"))

"""Several devices, and several workers on this machine: they end as one device does, and stop and fail together."""

import json
import signal
import time
import types

import pytest
import tensorflow as tf

from flags import app
from tests import fakes, workers
from tfcxr.commands import train_gan
from tfcxr.training import strategies
from tfrecords_builder.errors import InputError, RunError

# Adam magnifies rounding where gradients vanish, by the learning rate.
SMALL = ["--fmap_base=64", "--fmap_max=8", "--batch_size=8", "--learning_rate=1e-4", "--loss=logistic_r1", "--mirror"]
SMALL += ["--augment=brightness", "--patience=0", "--d_steps=2", "--init=calm"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return fakes.make_records(tmp_path_factory.mktemp("shared_records"), label_version="multilabel", per_class=4)


@pytest.fixture(scope="module")
def alone(records, tmp_path_factory):
    """A run of 6 steps on one device."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert call(records, folder) == 0
    return folder


def arguments(records, folder, *others):
    return [f"--records={records}", f"--run_dir={folder}", *SMALL, "--total_kimg=0.096", *others]


def call(records, folder, *others):
    argv = ["train-gan", *arguments(records, folder, *others)]
    return app.run(train_gan.main, train_gan.define_flags, argv)


def start(records, folder, *others, devices):
    return workers.start("tfcxr.commands.train_gan", arguments(records, folder, *others), devices=devices)


def start_two(records, *others, folders, second=()):
    """Two workers of one cluster; `second`: more flags of the second one."""
    first, other = (arguments(records, folder, *others) for folder in folders)
    return workers.start_two("tfcxr.commands.train_gan", first, [*other, *second])


def assert_same_weights(a, b):
    first, second = workers.assert_same_variables(a, b, ("generator/", "discriminator/", "ema/"))
    for name in ("step", "images_shown"):
        name += "/.ATTRIBUTES/VARIABLE_VALUE"
        assert first.get_tensor(name) == second.get_tensor(name)
    means = [json.loads((folder / "ticks.json").read_text())[-1] for folder in (a, b)]
    assert means[0].keys() == means[1].keys()
    for name in ("loss/D", "loss/G", "scores/real", "norm/D", "norm/G", "penalty/value", "fid/pixels_pca64"):
        assert means[1][name] == pytest.approx(means[0][name], rel=1e-3, abs=1e-5), name


def test_two_devices_end_as_one(records, alone, tmp_path):
    process = start(records, tmp_path / "run", "--strategy=mirrored", devices=2)
    codes, lines = workers.ended([process])
    assert codes == [0], lines
    assert_same_weights(alone, tmp_path / "run")


@pytest.mark.large
def test_two_devices_end_as_one_with_the_convolutions_of_wide_networks(records, tmp_path):
    wide = ["--fmap_base=2048", "--fmap_max=256", "--loss=wgan_gp", "--total_kimg=0.024", "--learning_rate=2e-5"]
    assert call(records, tmp_path / "alone", *wide) == 0
    codes, lines = workers.ended([start(records, tmp_path / "run", *wide, "--strategy=mirrored", devices=2)])
    assert codes == [0], lines
    assert_same_weights(tmp_path / "alone", tmp_path / "run")


def test_a_classifiers_batch_that_devices_cannot_share():
    strategies.check_shares(tf.distribute.get_strategy(), 5)
    with pytest.raises(InputError, match="--batch_size=5: 2 devices cannot share it equally; give a multiple of 2"):
        strategies.check_shares(types.SimpleNamespace(num_replicas_in_sync=2), 5)


def test_a_batch_that_devices_cannot_share(records, tmp_path):
    processes = [
        # d_steps=2: the step has 16 images, but each batch 8.
        start(records, tmp_path / "a", "--strategy=mirrored", "--passes=2", devices=2),
        start(records, tmp_path / "b", "--strategy=mirrored", devices=3),
    ]
    codes, lines = workers.ended(processes)
    assert codes == [2, 2], lines
    assert "--strategy: 2 devices in 2 passes cannot share batches of 8 images" in lines[0]
    assert "must be divisible by 16" in lines[0]
    assert "--strategy: 3 devices in 1 passes cannot share batches of 8 images" in lines[1]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "x"}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": ["a:1", "b:1"], "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_bad_cluster_is_named(records, tmp_path, monkeypatch, capsys, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert call(records, tmp_path / "run", "--strategy=multiworker") == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--strategy=multiworker: TF_CONFIG must name the workers and this one" in message
    assert not (tmp_path / "run").exists()


def test_one_worker_agrees_with_itself():
    strategy = tf.distribute.get_strategy()
    assert strategies.num_workers(strategy) == 1
    assert strategies.is_chief(strategy)
    assert strategies.any_of(strategy, True) is True
    assert strategies.any_of(strategy, False) is False
    assert strategies.all_same(strategy, 7)
    with pytest.raises(InputError, match="bad"), strategies.together(strategy):
        raise InputError("bad")


def test_lost_workers_are_told_from_other_errors(monkeypatch):
    strategy = tf.distribute.get_strategy()
    error = tf.errors.UnavailableError(
        None, None, "Graph execution error:\n\nDetected at node x\nPeer is down\n\t [[x]]"
    )
    with pytest.raises(tf.errors.UnavailableError), strategies.naming_lost_workers(strategy):
        raise error
    monkeypatch.setattr(strategies, "num_workers", lambda _: 2)
    with pytest.raises(RunError, match=r"worker is gone \(Peer is down\)"), strategies.naming_lost_workers(strategy):
        raise error
    with pytest.raises(RunError, match="mine"), strategies.naming_lost_workers(strategy):
        raise RunError("mine")
    # The memory of this machine has nothing to do with the other one.
    short = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    with pytest.raises(tf.errors.ResourceExhaustedError), strategies.naming_lost_workers(strategy):
        raise short


@pytest.mark.large
def test_two_workers_end_as_one_and_only_the_first_writes(records, alone, tmp_path):
    codes, lines = workers.ended(start_two(records, folders=[tmp_path / "run"] * 2))
    assert codes == [0, 0], lines
    assert_same_weights(alone, tmp_path / "run")
    assert len(list((tmp_path / "run/tensorboard").glob("events*"))) == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.large
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_worker_that_is_stopped_stops_both_and_they_resume(records, tmp_path, stopped):
    long = ["--total_kimg=6.4", "--tick_kimg=1000", "--checkpoint_kimg=0.5"]
    processes = start_two(records, *long, folders=[tmp_path / "run"] * 2)
    workers.wait_for(tmp_path / "run/checkpoints/ckpt-*.index", processes)
    processes[stopped].send_signal(signal.SIGTERM)
    codes, lines = workers.ended(processes)
    assert codes[stopped] == 143
    assert codes[1 - stopped] == 1
    assert "stopped by a signal; the same command resumes" in lines[stopped]
    assert "another worker was stopped; the same commands resume" in lines[1 - stopped]
    step = tf.train.load_variable(str(tmp_path / "run/checkpoints"), "step/.ATTRIBUTES/VARIABLE_VALUE")
    assert 0 < step < 400
    assert not (tmp_path / "run/result.json").exists()
    codes, lines = workers.ended(start_two(records, *long, folders=[tmp_path / "run"] * 2))
    assert codes == [0, 0], lines
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 400


@pytest.mark.large
@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_that_is_killed_does_not_let_the_other_wait(records, tmp_path, killed):
    long = ["--total_kimg=200", "--tick_kimg=1000", "--checkpoint_kimg=0.5"]
    processes = start_two(records, *long, folders=[tmp_path / "run"] * 2)
    workers.wait_for(tmp_path / "run/checkpoints/ckpt-*.index", processes)
    processes[killed].kill()
    began = time.monotonic()
    codes, lines = workers.ended(processes)
    assert time.monotonic() - began < 90
    assert codes[1 - killed] == 1
    assert lines[1 - killed].startswith("error: another worker is gone (")
    assert "the same commands, given to all of them, resume" in lines[1 - killed]


@pytest.mark.large
@pytest.mark.parametrize(("count", "chief"), [(2, True), (4, False)], ids=["chief and worker", "four workers"])
def test_workers_of_whom_one_was_killed_end_as_undisturbed_ones(records, tmp_path, count, chief):
    flags = ["--batch_size=16", "--total_kimg=0.96", "--tick_kimg=1000", "--checkpoint_kimg=0.16", "--d_steps=1"]

    def launch(folder):
        return workers.start_cluster(
            "tfcxr.commands.train_gan", [arguments(records, folder, *flags)] * count, chief=chief
        )

    codes, lines = workers.ended(launch(tmp_path / "undisturbed"))
    assert codes == [0] * count, lines
    processes = launch(tmp_path / "run")
    workers.wait_for(tmp_path / "run/checkpoints/ckpt-*.index", processes)
    processes[-1].kill()
    codes, lines = workers.ended(processes)
    assert codes == [1] * (count - 1) + [-signal.SIGKILL], lines
    assert all(line.startswith("error: another worker is gone (") for line in lines[:-1]), lines
    step = tf.train.load_variable(str(tmp_path / "run/checkpoints"), "step/.ATTRIBUTES/VARIABLE_VALUE")
    assert 0 < step < 60
    codes, lines = workers.ended(launch(tmp_path / "run"))
    assert codes == [0] * count, lines
    workers.assert_same_variables(
        tmp_path / "undisturbed", tmp_path / "run", ("generator/", "discriminator/", "ema/", "step/")
    )


@pytest.mark.large
def test_what_the_first_worker_refuses_ends_both(records, alone, tmp_path):
    codes, lines = workers.ended(start_two(records, folders=[alone, alone]))
    assert codes == [2, 1], lines
    assert "this run is finished" in lines[0]
    assert "another worker could not go on" in lines[1]
    codes, lines = workers.ended(start_two(records, "--features=nowhere", folders=[tmp_path / "run"] * 2))
    assert codes == [2, 1], lines
    assert "--features=nowhere" in lines[0]


@pytest.mark.large
def test_workers_of_other_settings_or_folders_are_refused(records, tmp_path):
    codes, lines = workers.ended(start_two(records, folders=[tmp_path / "a"] * 2, second=["--seed=3"]))
    assert codes == [1, 2], lines
    assert "holds a run with seed=0, not 3" in lines[1]
    (tmp_path / "c").mkdir()
    codes, lines = workers.ended(start_two(records, folders=[tmp_path / "b", tmp_path / "c"]))
    assert codes == [1, 2], lines
    assert "is not a run folder" in lines[1]

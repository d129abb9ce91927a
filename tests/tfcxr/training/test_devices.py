"""What is said of the devices, and batches that cannot fit into their memory."""

import os
import re

import pytest
import tensorflow as tf

from flags import app
from tests import fakes
from tfcxr import data
from tfcxr.classifiers import loading
from tfcxr.classifiers.training import train_baseline
from tfcxr.commands import train_gan
from tfcxr.training import devices, strategies
from tfrecords_builder.errors import InputError

GIB = 2**30


@pytest.fixture(scope="module")
def network():
    """8x8 images; for each a step keeps 8 * 8 * 4 and 2 numbers."""
    inputs = tf.keras.Input([8, 8, 1])
    x = tf.keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(2)(tf.keras.layers.GlobalAveragePooling2D()(x)))


BYTES = 4 * (8 * 8 * 4 + 2)


def give_memory(monkeypatch, total, free):
    monkeypatch.setattr(devices, "_host_memory", lambda: (total, free))


def check(network, batch_size, *, num_images=10**6, **arguments):
    devices.check_batch(
        batch_size,
        num_images=num_images,
        pixels=64,
        graphs=lambda number: [devices.trace(network, number)],
        **arguments,
    )


def test_a_batch_that_cannot_fit_is_refused_and_one_that_hardly_will_is_warned_of(network, monkeypatch, capsys):
    give_memory(monkeypatch, 1000 * BYTES, 500 * BYTES)
    check(network, 500)
    assert capsys.readouterr().err == ""
    check(network, 501)
    assert re.fullmatch(
        r"warning: --batch_size=501: a step keeps at least 0\.0 GiB for its gradients, and 0\.0 GiB of memory are "
        r"free; give a smaller one if it does not suffice\n",
        capsys.readouterr().err,
    )
    check(network, 1000)
    with pytest.raises(InputError, match=r"^--batch_size=1001: a step keeps at least .* GiB.*; give a smaller one$"):
        check(network, 1001)
    check(network, 2000, passes=2)
    with pytest.raises(InputError, match="give a smaller one or more --passes"):
        check(network, 2002, passes=2)


def test_sizes_are_told_in_gib(network, monkeypatch):
    give_memory(monkeypatch, 2 * GIB, GIB)
    batch = 3 * GIB // BYTES
    with pytest.raises(InputError, match=r"at least 3\.0 GiB for its gradients, and the memory is 2\.0 GiB"):
        check(network, batch)


def test_nothing_is_traced_where_memory_is_plenty(monkeypatch):
    give_memory(monkeypatch, 64 * GIB, 32 * GIB)
    devices.check_batch(64, num_images=100, pixels=32 * 32, graphs=lambda _: pytest.fail("traced"))


def test_devices_share_a_batch(network, monkeypatch):
    give_memory(monkeypatch, 1000 * BYTES, 1000 * BYTES)

    class TwoDevices:
        num_replicas_in_sync = 2

    monkeypatch.setattr(tf.distribute, "get_strategy", TwoDevices)
    check(network, 2000)
    with pytest.raises(InputError):
        check(network, 2002)


def test_the_strategy_that_trains_counts_not_the_current_one(network, monkeypatch):
    give_memory(monkeypatch, 1000 * BYTES, 1000 * BYTES)
    check(network, 2000, strategy=Strategy(2))
    with pytest.raises(InputError):
        check(network, 2000, strategy=Strategy(1))


def test_tracing_knows_no_strategy(monkeypatch):
    """Under that of several workers it would wait for the others, which may have nothing to trace."""
    give_memory(monkeypatch, 1, 1)
    found = []
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        devices.check_batch(
            2, num_images=9, pixels=64, graphs=lambda _: found.append(tf.distribute.has_strategy()) or []
        )
        assert tf.distribute.has_strategy()
    assert found == [False]


def test_more_images_than_there_are_is_a_warning(network, capsys):
    check(network, 64, num_images=40)
    assert capsys.readouterr().err == (
        "warning: --batch_size=64: there are 40 training images, so a batch holds some more than once\n"
    )


def test_classifiers_and_gans_are_checked_before_they_train(tmp_path, monkeypatch, capsys):
    records = fakes.make_records(tmp_path / "records", label_version="v2", resolution=16)
    give_memory(monkeypatch, GIB // 16, GIB // 16)
    record_set = data.RecordSet(records)
    config = train_baseline.BaselineConfig(backbone="resnet_tiny", image_size=16, weights="none", batch_size=20_000)
    with pytest.raises(InputError, match=r"^--batch_size=20000: a step keeps at least \d+\.\d GiB"):
        loading.make_classifier(config, record_set, pictures=[record_set], load_weights=True)
    arguments = [f"--records={records}", f"--run_dir={tmp_path / 'gan'}", "--batch_size=20000", "--fmap_max=16"]
    assert app.run(train_gan.main, train_gan.define_flags, ["train-gan", *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: --batch_size=20000: a step keeps at least \d+\.\d GiB .* or more --passes$", message)


def test_memory_of_this_machine():
    total, free = devices._host_memory()
    assert 0 < free <= total
    assert total <= 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + 2**40


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{2**20}\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(devices, "_CGROUP_LIMITS", (str(tmp_path / "none"), str(tmp_path / "absent")))
    unlimited = devices._host_memory()
    assert unlimited[0] > 2**20
    monkeypatch.setattr(devices, "_CGROUP_LIMITS", (str(tmp_path / "memory.max"),))
    assert devices._host_memory() == (2**20, 2**20)


def fake_nvidia_smi(folder, monkeypatch, script):
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_memory_of_gpus_is_what_the_driver_says(tmp_path, monkeypatch, network):
    fake_nvidia_smi(tmp_path, monkeypatch, "echo 81559, 1000; echo 40000, 39000")
    assert devices._gpu_memory() == (81559 * 2**20, 39000 * 2**20)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [object()] if kind == "GPU" else [])
    fake_nvidia_smi(tmp_path, monkeypatch, "echo 1, 1")
    with pytest.raises(InputError, match=r"and the memory is 0\.0 GiB"):
        check(network, 2000)


@pytest.mark.parametrize("script", ["exit 9", "echo '[N/A], [N/A]'", "true"])
def test_a_driver_that_says_nothing_leaves_the_batch_unchecked(tmp_path, monkeypatch, network, script):
    fake_nvidia_smi(tmp_path, monkeypatch, script)
    assert devices._gpu_memory() is None
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [object()] if kind == "GPU" else [])
    check(network, 10**6)


def give_gpus(monkeypatch, *names):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(names) if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda name: {"device_name": name})


class Strategy:
    def __init__(self, number):
        self.num_replicas_in_sync = number


def test_devices_are_named_in_one_line(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert devices.describe(Strategy(1)) == f"device: CPU, {cores} cores"
    assert devices.describe(Strategy(2)) == f"devices: 2 share each batch; of this program: CPU, {cores} cores"
    give_gpus(monkeypatch, "NVIDIA A100")
    assert devices.describe(Strategy(1)) == "device: NVIDIA A100"
    give_gpus(monkeypatch, "NVIDIA A100", "NVIDIA A100", "NVIDIA T4")
    assert devices.describe(Strategy(1)) == (
        "device: NVIDIA A100 (1 of 3 GPUs; --strategy=mirrored trains on all of them)"
    )
    assert devices.describe(Strategy(3)) == (
        "devices: 3 share each batch; of this program: 2 x NVIDIA A100, 1 x NVIDIA T4"
    )


def test_a_strategy_says_what_it_trains_on_and_turns_determinism_on_if_asked_to(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append("on"))
    strategies.make("default")
    assert calls == []
    assert capsys.readouterr().out == f"device: CPU, {len(os.sched_getaffinity(0))} cores\n"
    strategies.make("default", deterministic=True)
    assert calls == ["on"]

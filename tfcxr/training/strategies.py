"""Distribution strategies by name, and what several workers must agree on."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator

import tensorflow as tf

from tfcxr.training import devices
from tfrecords_builder.errors import InputError, RunError, reason, says_disk, says_memory

# What a stream is made for where one device trains.
ALONE = tf.distribute.InputContext()


def make(name: str, *, deterministic: bool = False) -> tf.distribute.Strategy:
    """The strategy of --strategy; make it before anything else of TensorFlow. Prints the devices that it trains on.

    Args:
        name: 'default' (one device), 'mirrored' (all GPUs of this machine, or its logical CPUs where there is none) or
            'multiworker' (the machines that the environment variable TF_CONFIG names; each runs the same command).
        deterministic: whether TensorFlow uses only operations that give the same bits whenever they are run again.

    Raises:
        InputError: TF_CONFIG is absent or not what TensorFlow expects, or the workers do not meet.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = _make(name)
    print(devices.describe(strategy), flush=True)
    return strategy


def _make(name: str) -> tf.distribute.Strategy:
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    _check_cluster()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise InputError(f"--strategy=multiworker: the workers of TF_CONFIG do not meet ({reason(error)})") from error


def check_shares(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Raises InputError if the devices cannot share a batch equally."""
    devices = strategy.num_replicas_in_sync
    if batch_size % devices:
        raise InputError(
            f"--batch_size={batch_size}: {devices} devices cannot share it equally; give a multiple of {devices}"
        )


def distribute(strategy: tf.distribute.Strategy, make: Callable[[tf.distribute.InputContext], tf.data.Dataset]):
    """Gives each device its shares of all batches.

    Args:
        strategy: any.
        make: makes the dataset of this program: of each batch the shares of `own_shares` in turn, an element each.

    Returns:
        Dataset of what `strategy.run` takes.
    """
    if strategy.num_replicas_in_sync == 1:
        return make(ALONE)
    return strategy.distribute_datasets_from_function(make)


def own_shares(context: tf.distribute.InputContext) -> range:
    """Which shares of a batch, of one for each device of all programs, are those of this program's devices."""
    local = context.num_replicas_in_sync // context.num_input_pipelines
    first = context.input_pipeline_id * local
    return range(first, first + local)


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Programs that train together."""
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec().as_dict() if resolver else {}
    return max(1, len(spec.get("worker", [])) + len(spec.get("chief", [])))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this program is the one that writes."""
    resolver = strategy.cluster_resolver
    if num_workers(strategy) == 1:
        return True
    if resolver.cluster_spec().as_dict().get("chief"):
        return resolver.task_type == "chief"
    return resolver.task_id == 0


def any_of(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether the flag is set in any worker: all must ask at the same point. Also a barrier."""
    return _sum(strategy, int(flag)) > 0 if num_workers(strategy) > 1 else flag


def all_same(strategy: tf.distribute.Strategy, value: int) -> bool:
    """Whether all workers hold the same value: all must ask at the same point."""
    return not any_of(strategy, _sum(strategy, value) != value * strategy.num_replicas_in_sync)


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """What fails in one worker fails in all, so that none waits for another that has gone. Also a barrier.

    The block must ask nothing of the other workers.
    """
    failure = None
    try:
        yield
    except (InputError, RunError, OSError) as error:
        failure = error
    if any_of(strategy, failure is not None):
        raise failure or RunError("another worker could not go on; see what it says")


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """What TensorFlow raises in the block where another worker is gone becomes a RunError."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        own = isinstance(error, RunError) or says_memory(error) or says_disk(error)
        if own or num_workers(strategy) == 1:
            raise
        raise RunError(
            f"another worker is gone ({reason(error)}); the same commands, given to all of them, resume"
        ) from error


def _sum(strategy: tf.distribute.Strategy, value: int) -> int:
    total = strategy.run(_all_reduce, (tf.constant(value, tf.int64),))
    return int(strategy.experimental_local_results(total)[0])


@tf.function
def _all_reduce(value):
    return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(value))


def _check_cluster() -> None:
    text = os.environ.get("TF_CONFIG", "")
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        value = json.loads(text)
        jobs, task = value["cluster"], value["task"]
        hosts = [host for job in jobs.values() for host in job]
        good = jobs.keys() <= {"worker", "chief"} and len(set(hosts)) == len(hosts)
        good &= all(re.fullmatch(r".+:\d+", host) for host in hosts)
        good &= isinstance(task["index"], int) and 0 <= task["index"] < len(jobs[task["type"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise InputError(f"--strategy=multiworker: TF_CONFIG must name the workers and this one, such as {example}")

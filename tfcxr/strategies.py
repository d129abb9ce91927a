"""Distribution strategies by name, and what several workers must agree on."""

import json
import os

import tensorflow as tf

from tfrecords_builder.errors import InputError

NAMES = ("default", "mirrored", "multiworker")


def make(name: str) -> tf.distribute.Strategy:
    """The strategy of --strategy; make it before anything else of TensorFlow.

    Args:
      name: 'default' (one device), 'mirrored' (all GPUs of this machine, or its logical CPUs where there is none) or
        'multiworker' (the machines that the environment variable TF_CONFIG names; each runs the same command).

    Raises:
      InputError: TF_CONFIG is absent or not what TensorFlow expects.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    _check_cluster()
    return tf.distribute.MultiWorkerMirroredStrategy()


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
    if num_workers(strategy) == 1:
        return flag
    value = tf.constant(float(flag))
    total = strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", value))
    return bool(strategy.experimental_local_results(total)[0] > 0)


def _check_cluster() -> None:
    text = os.environ.get("TF_CONFIG", "")
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        value = json.loads(text)
        hosts = value["cluster"][value["task"]["type"]]
        good = 0 <= int(value["task"]["index"]) < len(hosts)
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise InputError(f"--strategy=multiworker: TF_CONFIG must name the workers and this one, such as {example}")

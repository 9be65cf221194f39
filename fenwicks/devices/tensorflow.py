"""The strategies of `tf.distribute` for the devices that share a batch."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os

import tensorflow as tf

from fenwicks.devices.placement import Placement, not_all, too_many

_STRATEGIES = itertools.count(1)  # mirrored ones of this process


def make_strategy(count: int | None, kind: str) -> tf.distribute.Strategy | None:
    """The strategy for `count` devices of a kind; `None` where that is one device.

    Args:
        count: how many; `None` for all, but one CPU device. Where `TF_CONFIG` describes several
            processes, and on TPUs, it must be all devices.
        kind: `'cpu'`, `'gpu'` or `'tpu'`.

    Raises:
        ValueError: there are fewer devices, or the strategy has another number.
    """
    if kind == 'tpu':
        strategy = _tpu_strategy()
    elif _training_processes(_cluster()) > 1:
        strategy = _workers_strategy()
    else:
        devices = _devices(kind, count)
        return None if len(devices) == 1 else _mirrored_strategy(tuple(devices))
    found = strategy.num_replicas_in_sync
    if count not in (None, found):
        raise not_all(count, found, 'the strategy')
    return strategy


def processes_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """How many processes train together under a strategy, and the number of this one, from 0, that
    of the chief."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    if not (isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and cluster):
        return 1, 0
    before = len(cluster.get('chief', ())) if resolver.task_type == 'worker' else 0
    return _training_processes(cluster), before + resolver.task_id


def place(count: int | None, kind: str) -> Placement:
    """The devices of `devices.distribute`."""
    strategy = make_strategy(count, kind)
    processes, number = (1, 0) if strategy is None else processes_of(strategy)
    return Placement(
        count=1 if strategy is None else strategy.num_replicas_in_sync,
        processes=processes,
        chief=number == 0,
        # Under a strategy Keras's XLA finds no device, and TPUs compile all the same; on a CPU
        # XLA's convolutions are slow.
        jit_compile=strategy is None and kind == 'gpu',
        feeding_processes=1,
        distribution=strategy,
    )


def _cluster():
    """The addresses of the processes by task type, as `TF_CONFIG` has them."""
    config = os.environ.get('TF_CONFIG') or '{}'
    try:
        return dict(json.loads(config).get('cluster', {}))
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            '`TF_CONFIG` must be a JSON object whose `cluster` lists the addresses of the '
            f'processes. Received: TF_CONFIG={config}'
        ) from None


def _training_processes(cluster):
    """How many processes of a cluster train: evaluators and parameter servers don't."""
    return len(cluster.get('chief', ())) + len(cluster.get('worker', ()))


def _devices(device, count):
    """Names of `count` devices of a kind; a CPU is split into as many logical devices."""
    kind = device.upper()
    if device == 'cpu' and (count or 1) > 1:
        processor, *_ = tf.config.list_physical_devices('CPU')
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        # Raised where TensorFlow has started already: the number of devices is fixed then.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(processor, parts)
        found = len(tf.config.list_logical_devices(kind))
    else:
        found = len(tf.config.get_visible_devices(kind))
    count = count or (1 if device == 'cpu' else found)
    if count > found:
        advice = ' TensorFlow splits the CPU before its first operation only: call this earlier.'
        raise too_many(count, found, device, advice if device == 'cpu' else '')
    return [f'{kind}:{number}' for number in range(count)]


@functools.cache
def _mirrored_strategy(devices):
    # Each strategy numbers the groups of devices that exchange messages from its own base, which
    # TensorFlow has at 0 for all: two in one process would take each other's messages, or abort.
    base = {'_collective_key_base': 1000 * next(_STRATEGIES)}
    return type('MirroredStrategy', (tf.distribute.MirroredStrategy,), base)(devices)


class WorkersStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """A `MultiWorkerMirroredStrategy` for Keras's `fit`, which reduces what this one can't by
    itself: a whole batch at once, and scalars along their first axis."""

    def reduce(self, reduce_op, value, axis):
        """As a `MirroredStrategy` does: of a tuple each of its values, of a scalar its replicas."""
        reduce = super().reduce

        def reduce_one(part):
            first, *_ = self.experimental_local_results(part)
            return reduce(reduce_op, part, axis if tf.convert_to_tensor(first).shape.rank else None)

        return tf.nest.map_structure(reduce_one, value)


@functools.cache  # a second one would break the first one's connections
def _workers_strategy():
    return WorkersStrategy()


@functools.cache  # nor may a TPU be initialized again
def _tpu_strategy():
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu='local')
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)

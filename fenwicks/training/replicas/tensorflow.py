"""Data parallelism on TensorFlow: what a step does differently under a `tf.distribute` strategy.

Every device holds the whole state and the whole data set, and takes an equal part of each batch.
Where devices communicate through the host (`MirroredStrategy`), the loop over the steps runs on the
host and calls `strategy.run` for each step: a loop on the devices can't communicate. On TPUs
`strategy.run` is called once, around the loop.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os

import keras
import tensorflow as tf

from fenwicks import _keras, augment
from fenwicks.training.replicas.base import Replicas, check_batch_norm, too_many


def replicate(count: int | None, batch_norm: str, device: str) -> TensorFlowReplicas:
    """`training.replicate` on TensorFlow."""
    if device == 'tpu':
        strategy = _tpu_strategy()
    elif _training_processes(_cluster()) > 1:
        strategy = _workers_strategy()
    else:
        devices = _devices(device, count)
        if len(devices) == 1:
            return TensorFlowReplicas()
        strategy = tf.distribute.MirroredStrategy(devices)
    found = strategy.num_replicas_in_sync
    if count not in (None, found):
        raise ValueError(
            f'`replicas` must be {found}, all devices of the strategy. Received: replicas={count}'
        )
    return from_strategy(strategy, batch_norm)


def default_replicas() -> TensorFlowReplicas:
    """The replicas of the strategy in scope, or one device."""
    if tf.distribute.has_strategy():
        return from_strategy(tf.distribute.get_strategy())
    return TensorFlowReplicas()


def from_strategy(
    strategy: tf.distribute.Strategy, batch_norm: str = 'per_replica'
) -> StrategyReplicas:
    """The replicas of a strategy of `tf.distribute`.

    Args:
        strategy: a `MirroredStrategy`, `MultiWorkerMirroredStrategy`, `TPUStrategy` or
            `OneDeviceStrategy`.
        batch_norm: as of `training.replicate`.
    """
    check_batch_norm(batch_norm)
    mirrored = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy
    kind = MirroredReplicas if isinstance(strategy, mirrored) else TPUReplicas
    return kind(strategy, batch_norm)


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


@functools.cache  # a second one would break the first one's connections
def _workers_strategy():
    return tf.distribute.MultiWorkerMirroredStrategy()


@functools.cache  # nor may a TPU be initialized again
def _tpu_strategy():
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu='local')
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


class TensorFlowReplicas(Replicas):
    """A single device without a strategy, and the interface of the classes for strategies.

    Attributes:
        supports_jit: whether XLA may compile the loop over the steps.
    """

    supports_jit = True

    def disable_gradient_sum(self, optimizer):
        """Makes a Keras optimizer take gradients that are means over the replicas already."""

    def local_loss(self, loss):
        """The loss function for this device's part of a batch: a mean over its images."""
        return loss

    def wrap_program(self, function):
        """Makes a function of the loop run on every device, where the loop runs there."""
        return function

    def wrap_step(self, function):
        """Makes a function of one step run on every device, where the loop runs on the host."""
        return function

    def wrap_augmentation(self, function):
        """Compiles a function of tensors by itself, where the rest of the step isn't compiled."""
        return function

    def wrap_inference(self, function):
        """Makes a function of a batch run on every device of this process, each for a part."""
        return function

    def all_reduce_mean(self, loss, gradients, fixed):
        """Means over the devices.

        Args:
            loss: scalar tensor.
            gradients: list of tensors or `None`.
            fixed: variables that aren't trained; the means of floats are assigned to them.

        Returns:
            The mean loss and a list of mean gradients.
        """
        return loss, gradients

    def batch_norm_scope(self, model):
        """A context of the forward pass in which batch norms follow `batch_norm`."""
        return contextlib.nullcontext()


class StrategyReplicas(TensorFlowReplicas):
    """The replicas of a `tf.distribute` strategy: what all strategies have in common.

    Args:
        strategy: a `tf.distribute.Strategy`.
        batch_norm: one of `BATCH_NORMS`.
    """

    supports_jit = False  # the strategy compiles for its devices

    def __init__(self, strategy, batch_norm):
        self.strategy, self.batch_norm = strategy, batch_norm
        self.count = strategy.num_replicas_in_sync
        resolver = strategy.cluster_resolver
        cluster = resolver.cluster_spec().as_dict() if resolver else {}
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and cluster:
            self.processes = _training_processes(cluster)
            first = 'chief' if 'chief' in cluster else 'worker'
            self.chief = (resolver.task_type, resolver.task_id) == (first, 0)
        self._local_count = self.count // self.processes

    def scope(self):
        return self.strategy.scope()

    def check_scope(self, model, optimizer):
        for variable in (*model.variables, *optimizer.variables):
            if not self.strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    '`model` and `optimizer` must be made in the scope of the strategy: '
                    f'with replicas.scope(): ... Received: {variable.path}, made outside'
                )

    def disable_gradient_sum(self, optimizer):
        # The sum would come after clipping; `all_reduce_mean` has their mean before.
        _keras.disable_gradient_sum(optimizer)

    def local_loss(self, loss):
        # Keras divides a mean over the images by the number of replicas, to be summed over them.
        scaled = isinstance(loss, keras.losses.Loss) and loss.reduction not in ('none', None)
        if not scaled:
            return loss

        def mean(targets, logits, *weights):
            is_mean_already = loss.call(targets, logits).shape.rank == 0
            sharing = tf.distribute.get_strategy().num_replicas_in_sync  # 1 in a validation
            return loss(targets, logits, *weights) * (1 if is_mean_already else sharing)

        return mean

    def local_batch(self, batch):
        size = batch.shape[0] // self.count
        return tf.slice(batch, [_replica_id() * size], [size])

    def local_seed(self, seed):
        return augment.fold(seed, _replica_id())

    def all_reduce_mean(self, loss, gradients, fixed):
        moving = [v.value for v in fixed if keras.backend.is_float_dtype(v.dtype)]
        present = [gradient for gradient in gradients if gradient is not None]
        context = tf.distribute.get_replica_context()
        # Copies on this device: tensors without a device would be reduced one by one.
        values = [tf.identity(value) for value in (loss, *present, *moving)]
        loss, *means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        gradients = [None if gradient is None else means.pop(0) for gradient in gradients]
        for variable, mean in zip(moving, means, strict=True):
            variable.assign(mean)
        return loss, gradients

    def all_reduce_sum(self, value):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    @contextlib.contextmanager
    def batch_norm_scope(self, model):
        if self.batch_norm == 'per_replica':
            yield
            return
        norms = [
            layer
            for layer in _keras.flatten_layers(model)
            if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
        ]
        try:
            for norm in norms:
                norm.synchronized = True
            yield
        finally:
            for norm in norms:
                norm.synchronized = False

    def wrap_inference(self, function):
        def infer_part(images):
            count = tf.shape(images)[0]
            size = -(-count // self._local_count)
            # The last parts may be short or empty: they are filled up with the first images.
            numbers = (_replica_id() % self._local_count) * size + tf.range(size)
            return function(tf.gather(images, numbers % count))

        def infer(images):
            logits = self.strategy.run(infer_part, (images,))
            logits = self.strategy.experimental_local_results(logits)
            return tf.concat(logits, 0)[: tf.shape(images)[0]]

        return infer

    def _first(self, results):
        """The results of the first device of this process."""
        return tf.nest.map_structure(
            lambda result: self.strategy.experimental_local_results(result)[0], results
        )


class MirroredReplicas(StrategyReplicas):
    """The replicas of a mirrored strategy: the loop over the steps runs on the host."""

    def place(self, tree):
        devices = self.strategy.extended.worker_devices

        def place(array):
            def copy(context):
                with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
                    return tf.identity(array)

            return self.strategy.experimental_distribute_values_from_function(copy)

        return tf.nest.map_structure(place, tree)

    def wrap_augmentation(self, function):
        # TensorFlow has no GPU kernel that gathers bytes, and augmentation is many small ones.
        jit_compile = 'GPU' in self.strategy.extended.worker_devices[0]
        return tf.function(function, jit_compile=True, autograph=False) if jit_compile else function

    def wrap_step(self, function):
        def step(*arguments):
            return self._first(self.strategy.run(function, arguments))

        return step


class TPUReplicas(StrategyReplicas):
    """The replicas of a strategy whose devices each run the whole loop: TPUs, or one device."""

    def place(self, tree):
        def place(array):
            with self.scope():  # of a variable each device has a copy
                return tf.Variable(array, trainable=False)

        return tf.nest.map_structure(place, tree)

    def wrap_program(self, function):
        def program(*arguments):
            return self._first(self.strategy.run(function, arguments))

        return program


def _replica_id():
    """This device's number, from 0."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group

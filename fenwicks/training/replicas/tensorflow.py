"""Data parallelism on TensorFlow: what a step does differently under a `tf.distribute` strategy.

Every device holds the whole state and the whole data set, and takes an equal share of each batch.
Where devices agree through the host (`MirroredStrategy`), `strategy.run` stands within the loop
over the steps, since they may not agree within a loop of their own. On TPUs it is around the loop.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os

import keras
import tensorflow as tf

from fenwicks import augment
from fenwicks.training.replicas import base as common


def replicate(count, batch_norm, device) -> common.Replicas:
    """`training.replicate` on TensorFlow."""
    if device == 'tpu':
        strategy = _tpu_strategy()
    elif _training_processes(_told_cluster()) > 1:
        strategy = _workers_strategy()
    else:
        devices = _devices(device, count)
        if len(devices) == 1:
            return Replicas()
        strategy = tf.distribute.MirroredStrategy(devices)
    found = strategy.num_replicas_in_sync
    if count not in (None, found):
        raise ValueError(
            f'`replicas` must be {found}, all devices of the strategy. Received: replicas={count}'
        )
    return replicas(strategy, batch_norm)


def at_hand() -> common.Replicas:
    """The replicas of the strategy in scope, or one device."""
    if tf.distribute.has_strategy():
        return replicas(tf.distribute.get_strategy())
    return Replicas()


def replicas(strategy, batch_norm='per_replica') -> common.Replicas:
    """The replicas of a strategy of `tf.distribute`.

    Args:
        strategy: a `MirroredStrategy`, `MultiWorkerMirroredStrategy`, `TPUStrategy` or
            `OneDeviceStrategy`.
        batch_norm: as of `training.replicate`.
    """
    common.check_batch_norm(batch_norm)
    mirrored = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy
    return (_Mirrored if isinstance(strategy, mirrored) else _WholeLoop)(strategy, batch_norm)


def _told_cluster():
    """The addresses of the processes, by their kind, that the environment tells of."""
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
    """Names of `count` devices of a kind; the processor is cut up into as many as are wanted."""
    kind = device.upper()
    if device == 'cpu' and (count or 1) > 1:
        processor, *_ = tf.config.list_physical_devices('CPU')
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        # TensorFlow has started already, with as many as it has.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(processor, parts)
        found = len(tf.config.list_logical_devices(kind))
    else:
        found = len(tf.config.get_visible_devices(kind))
    count = count or (1 if device == 'cpu' else found)
    if count > found:
        advice = ' TensorFlow cuts the processor up before its first operation: call it earlier.'
        raise common.too_few(count, found, device, advice if device == 'cpu' else '')
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


class Replicas(common.Replicas):
    """One device, without a strategy."""

    jit = True  # whether XLA compiles the program at all, where it pays

    def own(self, optimizer):
        """Has Keras's optimizer take gradients as they come, a mean over the replicas."""

    def loss_of_share(self, loss):
        """`loss`, for the images of this device."""
        return loss

    def program(self, function):
        """`function` of a whole call, in which steps call the methods of `common.Replicas`."""
        return function

    def step(self, function):
        """`function` of one step, for the loop over the steps."""
        return function

    def compiled(self, function):
        """`function` of tensors, a part of a step that needs a compiler of its own."""
        return function

    def infer(self, function):
        """`function` of a batch of images, run on every device of this process for a share."""
        return function

    def agree(self, loss, gradients, fixed):
        """Loss and gradients of the whole batch; variables that are no weights become the mean."""
        return loss, gradients

    def normalizing(self, model):
        """A context for the forward pass, in which batch norms do as they are told."""
        return contextlib.nullcontext()


class _Several(Replicas):
    """What the replicas of all strategies have in common."""

    jit = False  # the strategy sees to that

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

    def own(self, optimizer):
        # It would add up the replicas' gradients after clipping; `agree` has their mean before.
        optimizer._all_reduce_sum_gradients = list
        inner = [getattr(optimizer, 'inner_optimizer', None), *getattr(optimizer, 'optimizers', ())]
        for other in filter(None, inner):
            self.own(other)

    def loss_of_share(self, loss):
        # Keras divides means of a loss an image by the number of replicas, which add them up.
        scaled = isinstance(loss, keras.losses.Loss) and loss.reduction not in ('none', None)
        if not scaled:
            return loss

        def mean(targets, logits):
            is_mean_already = loss.call(targets, logits).shape.rank == 0
            return loss(targets, logits) * (1 if is_mean_already else self.count)

        return mean

    def share(self, batch):
        size = batch.shape[0] // self.count
        return tf.slice(batch, [_number() * size], [size])

    def seed(self, seed):
        return augment.fold(seed, _number())

    def agree(self, loss, gradients, fixed):
        moving = [v.value for v in fixed if keras.backend.is_float_dtype(v.dtype)]
        present = [gradient for gradient in gradients if gradient is not None]
        context = tf.distribute.get_replica_context()
        # Copies on this device: of tensors that name none, each would be a message of its own.
        values = [tf.identity(value) for value in (loss, *present, *moving)]
        loss, *means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        gradients = [None if gradient is None else means.pop(0) for gradient in gradients]
        for variable, mean in zip(moving, means, strict=True):
            variable.assign(mean)
        return loss, gradients

    def total(self, value):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    @contextlib.contextmanager
    def normalizing(self, model):
        if self.batch_norm == 'per_replica':
            yield
            return
        norms = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
        ]
        try:
            for norm in norms:
                norm.synchronized = True
            yield
        finally:
            for norm in norms:
                norm.synchronized = False

    def infer(self, function):
        def share(images):
            count = tf.shape(images)[0]
            size = -(-count // self._local_count)
            # The last shares may be short, or empty: they go on with the first images again.
            numbers = (_number() % self._local_count) * size + tf.range(size)
            return function(tf.gather(images, numbers % count))

        def shares(images):
            logits = self.strategy.experimental_local_results(self.strategy.run(share, (images,)))
            return tf.concat(logits, 0)[: tf.shape(images)[0]]

        return shares

    def _first(self, results):
        """What the devices have in common, from the first of this process."""
        return tf.nest.map_structure(
            lambda result: self.strategy.experimental_local_results(result)[0], results
        )


class _Mirrored(_Several):
    """GPUs, or parts of a processor: the loop over the steps is TensorFlow's, on the host."""

    def place(self, tree):
        devices = self.strategy.extended.worker_devices

        def place(array):
            def copy(context):
                with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
                    return tf.identity(array)

            return self.strategy.experimental_distribute_values_from_function(copy)

        return tf.nest.map_structure(place, tree)

    def compiled(self, function):
        # GPUs have no plain kernel that gathers bytes, and many small ones for augmentation.
        jit_compile = 'GPU' in self.strategy.extended.worker_devices[0]
        return tf.function(function, jit_compile=True, autograph=False) if jit_compile else function

    def step(self, function):
        def step(*arguments):
            return self._first(self.strategy.run(function, arguments))

        return step


class _WholeLoop(_Several):
    """TPUs: each runs all steps of a call in one program."""

    def place(self, tree):
        def place(array):
            with self.scope():  # a variable lies in the memory of each device
                return tf.Variable(array, trainable=False)

        return tf.nest.map_structure(place, tree)

    def program(self, function):
        def program(*arguments):
            return self._first(self.strategy.run(function, arguments))

        return program


def _number():
    """This device's, from 0 to the number of all."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group

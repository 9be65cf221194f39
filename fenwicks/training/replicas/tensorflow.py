"""Data parallelism on TensorFlow: what a step does differently under a `tf.distribute` strategy.

Every device holds the whole state and the whole data set, and takes an equal part of each batch.
Where devices communicate through the host (`MirroredStrategy`), the loop over the steps runs on the
host and calls `strategy.run` for each step: a loop on the devices can't communicate. On TPUs
`strategy.run` is called once, around the loop.
"""

from __future__ import annotations

import contextlib

import keras
import tensorflow as tf

from fenwicks import _keras, augment
from fenwicks.devices.tensorflow import make_strategy, processes_of
from fenwicks.training.replicas.base import Replicas, check_batch_norm


def replicate(count: int | None, batch_norm: str, device: str) -> TensorFlowReplicas:
    """`training.replicate` on TensorFlow."""
    strategy = make_strategy(count, device)
    return TensorFlowReplicas() if strategy is None else from_strategy(strategy, batch_norm)


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


class TensorFlowReplicas(Replicas):
    """A single device without a strategy, and the interface of the classes for strategies.

    Attributes:
        supports_jit: whether XLA may compile the loop over the steps.
    """

    supports_jit = True

    def place_parts(self, tree):
        return [tf.convert_to_tensor(parts[0]) for parts in tree]

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
    lost_process_errors = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )

    def __init__(self, strategy, batch_norm):
        self.strategy, self.batch_norm = strategy, batch_norm
        self.count = strategy.num_replicas_in_sync
        self.processes, self.process_index = processes_of(strategy)
        self.chief = self.process_index == 0

    def scope(self):
        return self.strategy.scope()

    def check_scope(self, model, optimizer):
        for variable in (*model.variables, *optimizer.variables):
            if not self.strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    '`model` and `optimizer` must be made in the scope of the strategy: '
                    f'with replicas.scope(): ... Received: {variable.path}, made outside'
                )

    def numbers_of_processes(self, number):
        if self.processes == 1:
            return [number]
        numbers = self.strategy.run(lambda: tf.constant([number]))
        return self.strategy.gather(numbers, 0).numpy().tolist()

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
            size = -(-count // self.local_count)
            # The last parts may be short or empty: they are filled up with the first images.
            numbers = (_replica_id() % self.local_count) * size + tf.range(size)
            return function(tf.gather(images, numbers % count))

        def infer(images):
            logits = self.strategy.run(infer_part, (images,))
            logits = self.strategy.experimental_local_results(logits)
            return tf.concat(logits, 0)[: tf.shape(images)[0]]

        return infer

    def place_parts(self, tree):
        return [self._on_each(parts.__getitem__) for parts in tree]

    def _on_each(self, function):
        """A tensor on each device of this process: what a function returns of its number."""

        def value(context):
            number = context.replica_id_in_sync_group % self.local_count
            return tf.convert_to_tensor(function(number))

        return self.strategy.experimental_distribute_values_from_function(value)

    def _first(self, results):
        """The results of the first device of this process."""
        return tf.nest.map_structure(
            lambda result: self.strategy.experimental_local_results(result)[0], results
        )


class MirroredReplicas(StrategyReplicas):
    """The replicas of a mirrored strategy: the loop over the steps runs on the host."""

    def place(self, tree):
        return tf.nest.map_structure(lambda array: self._on_each(lambda number: array), tree)

    def _on_each(self, function):
        """A tensor on each device of this process: what a function returns of its number."""
        devices = self.strategy.extended.worker_devices

        def copy(context):
            number = context.replica_id_in_sync_group % len(devices)
            with tf.device(devices[number]):
                return tf.identity(function(number))

        return self.strategy.experimental_distribute_values_from_function(copy)

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

"""Replicas: the devices that share each batch, and what a step does differently for several."""

from __future__ import annotations

import contextlib

import keras

from fenwicks import devices
from fenwicks._checks import positive_integer

BATCH_NORMS = ('per_replica', 'synchronized')


def replicate(count=None, batch_norm='per_replica', device='auto') -> Replicas:
    """The devices that train together, each on an equal share of every batch.

    Every device holds the whole data set and computes with the whole model. Batch size, learning
    rate and steps are those of the whole batch, however many devices there are.

    On TensorFlow, model and optimizer must be made in its `scope()`; on JAX that does nothing.

    Args:
        count: number of devices; `None` for all of their kind, of the processor only one. Where
            several processes train together, it is all of their devices.
        batch_norm: `'per_replica'`: each device normalizes its share of the batch by itself, and
            the running statistics are the mean over the devices; the devices talk once a step.
            Keras's dropout draws the same mask on each of them.
            `'synchronized'`: statistics of the whole batch, as on one device; they talk at each
            batch normalization.
        device: kind of the devices, as `devices.select_device` takes it.

    Returns:
        A `Replicas`, for the `Trainer`.

    Raises:
        ValueError: an argument breaks its rule, or there are fewer such devices.

    Example:

    ```python
    replicas = fenwicks.training.replicate()  # all GPUs, or all cores of a TPU
    with replicas.scope():
        model = fenwicks.models.resnet9()
        optimizer = fenwicks.optimizers.SGD(0.1, momentum=0.9)
        trainer = fenwicks.training.Trainer(model, optimizer, batch_size=512, replicas=replicas)
    ```
    """
    check_batch_norm(batch_norm)
    if count is not None:
        count = positive_integer('replicas', count)
    device = devices.select_device(device)
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        from fenwicks.training.replicas import tensorflow as mirroring

        return mirroring.replicate(count, batch_norm, device)
    if backend == 'jax':
        from fenwicks.training.replicas import jax as sharding

        return sharding.replicate(count, batch_norm, device)
    raise no_engine()


def at_hand() -> Replicas:
    """What a `Trainer` takes that isn't told.

    On JAX that is all accelerators, or else the device that was made the default; on TensorFlow
    the replicas of the strategy in whose scope this is called, or else one device.
    """
    devices.check_backend()
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        from fenwicks.training.replicas import tensorflow as mirroring

        return mirroring.at_hand()
    if backend == 'jax':
        from fenwicks.training.replicas import jax as sharding

        return sharding.at_hand()
    raise no_engine()


def no_engine():
    """The error on a backend without an engine."""
    return ValueError(
        'the Trainer must run on the tensorflow or the jax backend: set KERAS_BACKEND to one of '
        f'them. Received: KERAS_BACKEND={keras.backend.backend()}'
    )


def check_batch_norm(batch_norm):
    if batch_norm not in BATCH_NORMS:
        raise ValueError(
            f'`batch_norm` must be one of {", ".join(BATCH_NORMS)}. '
            f'Received: batch_norm={batch_norm}'
        )


def too_few(count, found, kind, advice=''):
    """The error when more devices are asked for than there are."""
    return ValueError(
        f'`replicas` must be at most {found}, the devices of the kind {kind} here.{advice} '
        f'Received: replicas={count}'
    )


class Replicas:
    """One device: it takes the whole batch and has nobody to agree with.

    The methods are where several devices have to agree; on one they do nothing, and cost nothing.

    Attributes:
        count: number of devices, of all processes together.
        processes: number of processes that train together.
        chief: whether this process is the one that writes files and shows progress.
        batch_norm: `'per_replica'` or `'synchronized'`; the same thing on one device.
    """

    count = 1
    processes = 1
    chief = True
    batch_norm = 'per_replica'

    def scope(self):
        """A context in which to make model and optimizer."""
        return contextlib.nullcontext()

    def check_scope(self, model, optimizer):
        """Raises unless both were made in the scope."""

    def begin_alike(self, variables):
        """Gives the variables the chief's values in every process."""

    def check_batch(self, batch_size: int, devices='these devices'):
        """Raises unless the devices, called so, can share a batch equally."""
        if batch_size % self.count:
            raise ValueError(
                f'`batch_size` must be a multiple of {self.count}, the replicas on {devices}. '
                f'Received: batch_size={batch_size}'
            )

    def images_together(self, batch_size: int) -> int:
        """How many images of a batch go through the model at once."""
        return batch_size // self.count

    def place(self, tree):
        """Arrays of this process where a program finds them: on every device."""
        return tree

    def take(self, tree):
        """Arrays that a program returned, for use on one device."""
        return tree

    def share(self, batch):
        """The part of a batch, an array `(batch, ...)`, that this device takes."""
        return batch

    def seed(self, seed):
        """A seed for what this device draws for its share, from that of the step."""
        return seed

    def mean(self, tree):
        """The mean over the devices of every float array in a tree; others they have in common."""
        return tree

    def total(self, value):
        """The sum over the devices."""
        return value

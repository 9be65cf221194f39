"""The replicas of a training: those that the user asks for, and the default ones."""

from __future__ import annotations

import keras

from fenwicks import devices
from fenwicks._checks import positive_integer
from fenwicks.training.replicas.base import Replicas, check_batch_norm


def replicate(
    count: int | None = None, batch_norm: str = 'per_replica', device: str = 'auto'
) -> Replicas:
    """Selects the devices that train together, each on an equal part of every batch.

    Every device holds the whole data set and computes with the whole model. Batch size, learning
    rate and number of steps refer to the global batch, whatever the number of devices.

    On TensorFlow, create model and optimizer in the replicas' `scope()`. On JAX it has no effect.

    Args:
        count: number of devices; `None` for all of the kind, but one CPU device. Where several
            processes train together, it must be all of their devices.
        batch_norm: `'per_replica'`: each device normalizes its part of the batch by itself, and
            the moving statistics are means over the devices, which communicate once a step.
            Keras's dropout draws the same mask on each device.
            `'synchronized'`: statistics of the global batch, as on one device; the devices
            communicate at each batch normalization.
        device: kind of the devices, as `devices.select_device` takes it.

    Returns:
        A `Replicas` for the `Trainer`.

    Raises:
        ValueError: an argument breaks its rule, or there are fewer devices.

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
        from fenwicks.training.replicas import tensorflow

        return tensorflow.replicate(count, batch_norm, device)
    if backend == 'jax':
        from fenwicks.training.replicas import jax

        return jax.replicate(count, batch_norm, device)
    raise _no_engine()


def default_replicas() -> Replicas:
    """The replicas of a `Trainer` that is given none.

    On JAX all accelerators, or the default device where one was chosen or there is only a CPU. On
    TensorFlow the replicas of the strategy in whose scope this is called, or else one device.
    """
    devices.check_backend()
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        from fenwicks.training.replicas import tensorflow

        return tensorflow.default_replicas()
    if backend == 'jax':
        from fenwicks.training.replicas import jax

        return jax.default_replicas()
    raise _no_engine()


def _no_engine():
    return ValueError(
        'the Trainer must run on the tensorflow or the jax backend: set KERAS_BACKEND to one of '
        f'them. Received: KERAS_BACKEND={keras.backend.backend()}'
    )

"""Keras's own `compile` and `fit` on a TPU, on all GPUs, or on the one device that there is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras

from fenwicks._checks import positive_integer
from fenwicks.devices.placement import Placement
from fenwicks.devices.selection import check_backend, select_device
from fenwicks.precision import choose_precision, set_precision


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Where and how Keras's `fit` trains: what `distribute` returns.

    Attributes:
        device: kind of the devices, `'cpu'`, `'gpu'` or `'tpu'`.
        count: number of devices, of all processes together.
        processes: number of processes that train together.
        chief: whether this process should write files; one of several does.
        precision: `'float32'`, `'bfloat16'` or `'float16'`, Keras's dtype policy in the scope.
        jit_compile: the argument of `compile` that these devices need.
        global_batch_size: images in a step, on all devices together.
        batch_size: the argument of `fit`. On JAX each of several processes feeds its own part of
            each batch; otherwise this is the global batch size.
        distribution: the `tf.distribute.Strategy` or `keras.distribution.DataParallel`; `None` on
            one device.
    """

    device: str
    count: int
    processes: int
    chief: bool
    precision: str
    jit_compile: bool
    global_batch_size: int
    batch_size: int
    distribution: Any

    @contextlib.contextmanager
    def scope(self) -> Iterator[Strategy]:
        """A context in which to create, compile and fit the model.

        Within it new layers compute in `precision`; afterwards Keras's dtype policy is what it was.
        """
        policy = keras.config.dtype_policy()
        with self._scope_of_distribution():
            set_precision(self.precision, self.device)
            try:
                yield self
            finally:
                keras.config.set_dtype_policy(policy)

    def _scope_of_distribution(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.distribution is None else self.distribution.scope()


def distribute(
    global_batch_size: int,
    replicas: int | None = None,
    *,
    device: str = 'auto',
    precision: str = 'auto',
) -> Strategy:
    """Selects devices for Keras's own `fit`, each of which takes an equal part of every batch.

    On TensorFlow this is a strategy of `tf.distribute`: `TPUStrategy`, `MirroredStrategy`, or
    `MultiWorkerMirroredStrategy` where `TF_CONFIG` describes several processes. Each device then
    normalizes its part of the batch by itself, unless a layer is made with `synchronized=True`. On
    JAX it is `keras.distribution.DataParallel`, and batch norm sees the whole batch.

    Call it before anything is placed on a device. The `Trainer` doesn't need it: it has replicas
    of its own, see `training.replicate`.

    Args:
        global_batch_size: images in a step, on all devices together; a multiple of their number.
        replicas: number of devices; `None` for all of the kind, but one CPU device. Where several
            processes train together, it must be all of their devices.
        device: kind of the devices, as `select_device` takes it.
        precision: as `precision.set_precision` takes it.

    Returns:
        A `Strategy`.

    Raises:
        ValueError: an argument breaks its rule, there are fewer devices, or the backend is neither
            TensorFlow nor JAX.

    Example:

    ```python
    strategy = fenwicks.devices.distribute(512)  # all cores of a TPU, all GPUs, or the CPU
    with strategy.scope():
        model = keras.Sequential([...])
        model.compile('sgd', loss, jit_compile=strategy.jit_compile)
        model.fit(images, labels, batch_size=strategy.batch_size)
    ```
    """
    size = positive_integer('global_batch_size', global_batch_size)
    if replicas is not None:
        replicas = positive_integer('replicas', replicas)
        _check_shares(size, replicas)  # before TensorFlow splits the CPU for good
    place = _placement(check_backend())
    device = select_device(device)
    precision = choose_precision(precision, device)
    placement = place(replicas, device)
    _check_shares(size, placement.count)
    return Strategy(
        device=device,
        count=placement.count,
        processes=placement.processes,
        chief=placement.chief,
        precision=precision,
        jit_compile=placement.jit_compile,
        global_batch_size=size,
        batch_size=size // placement.feeding_processes,
        distribution=placement.distribution,
    )


def _check_shares(size: int, count: int) -> None:
    if size % count:
        raise ValueError(
            f'`global_batch_size` must be a multiple of {count}, the devices that share it. '
            f'Received: global_batch_size={size}'
        )


def _placement(backend: str) -> Callable[[int | None, str], Placement]:
    if backend == 'tensorflow':
        from fenwicks.devices import tensorflow

        return tensorflow.place
    if backend == 'jax':
        from fenwicks.devices import jax

        return jax.place
    raise ValueError(
        'devices are shared on the tensorflow and the jax backend only: pip install one of them '
        f'and set KERAS_BACKEND to it. Received: KERAS_BACKEND={backend}'
    )

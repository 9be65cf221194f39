"""The interface of replicas: the devices that share each batch, and what a step asks of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from fenwicks._typing import Tensor

BATCH_NORMS = ('per_replica', 'synchronized')


def check_batch_norm(batch_norm: str) -> None:
    """Raises unless `batch_norm` is one of `BATCH_NORMS`."""
    if batch_norm not in BATCH_NORMS:
        raise ValueError(
            f'`batch_norm` must be one of {", ".join(BATCH_NORMS)}. '
            f'Received: batch_norm={batch_norm}'
        )


class Replicas:
    """A single device, and the interface of the classes for several.

    The methods mark where several devices communicate. Those of this class do nothing.

    Attributes:
        count: number of devices, of all processes together.
        processes: number of processes that train together.
        process_index: the number of this process, from 0.
        chief: whether this process writes files and shows progress; one of several does.
        batch_norm: `'per_replica'` or `'synchronized'`; they are the same on one device.
        lost_process_errors: what the framework raises where another process ended.
    """

    count = 1
    processes = 1
    process_index = 0
    chief = True
    batch_norm = 'per_replica'
    lost_process_errors: tuple[type[Exception], ...] = ()

    @property
    def local_count(self) -> int:
        """Number of devices of this process."""
        return self.count // self.processes

    @contextlib.contextmanager
    def process_errors(self) -> Iterator[None]:
        """A context in which what a framework raises where another process ended is one line.

        Raises:
            ConnectionError: another process ended.
        """
        try:
            yield
        except self.lost_process_errors as error:
            if self.processes == 1:
                raise
            raise ConnectionError(
                'all processes must live until the training ends: start all of them again, with '
                'resume=True to go on from the `checkpoint`. Received: '
                f'{type(error).__name__}, as when another process ended'
            ) from error

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which to create model and optimizer."""
        return contextlib.nullcontext()

    def check_scope(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        """Raises unless model and optimizer were created in the scope."""

    def broadcast_initial_values(self, variables: list[keras.Variable]) -> None:
        """Assigns the chief's values to the variables of every process."""

    def numbers_of_processes(self, number: int) -> list[int]:
        """The number that each of the processes gives, which all call this."""
        return [number]

    def check_batch(self, batch_size: int, devices: str = 'these devices') -> None:
        """Raises unless the replicas divide the batch.

        Args:
            batch_size: global batch size.
            devices: what the message calls the devices.

        Raises:
            ValueError: `batch_size` is no multiple of `count`.
        """
        if batch_size % self.count:
            raise ValueError(
                f'`batch_size` must be a multiple of {self.count}, the replicas on {devices}. '
                f'Received: batch_size={batch_size}'
            )

    def model_batch_size(self, batch_size: int) -> int:
        """The number of images in one call of the model, of a global batch of `batch_size`."""
        return batch_size // self.count

    def place(self, tree: Any) -> Any:
        """Copies the arrays of a tree to every device."""
        return tree

    def place_parts(self, tree: Any) -> Any:
        """Copies to each device of this process its part of arrays `(devices, rows, ...)`."""
        raise NotImplementedError

    def local_batch(self, batch: Tensor) -> Tensor:
        """This device's part of a batch, an array `(batch, ...)`."""
        return batch

    def local_loss(self, loss: Callable) -> Callable:
        """The loss function for this device's part of a batch: a mean over its images."""
        return loss

    def local_seed(self, seed: Tensor) -> Tensor:
        """This device's seed for augmentation, of the step's seed."""
        return seed

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum of a value over the devices."""
        return value

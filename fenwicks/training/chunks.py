"""Chunks of many steps of a stream: the next one is gathered and placed while one trains."""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fenwicks.training.batches import Batch
from fenwicks.training.engines.base import ChunkArrays, Placed
from fenwicks.training.streams import Stream, fetching

# From a batch to its targets: the labels as the device holds them, and weights, if there are any.
TargetsOf: TypeAlias = Callable[[Batch], tuple[np.ndarray, ...]]

DEFAULT_BUDGET = 2**30  # bytes of a device's memory for the two chunks that it holds
_PARTS = 4  # of an epoch at least: the first chunk of a training is waited for


def steps_per_chunk(
    stream: Stream, targets: tuple[np.ndarray, ...], devices: int, budget: int
) -> int:
    """The number of steps in a chunk of a stream, about equal in all chunks of an epoch.

    Args:
        stream: a `Stream`.
        targets: of its first batch.
        devices: devices of this process, which divide each batch.
        budget: bytes of a device's memory for two chunks.

    Raises:
        ValueError: two batches are larger than the budget.
    """
    images = stream.first.images
    arrays = images, *targets
    per_step = (sum(array.nbytes for array in arrays) + 4 * len(images)) // devices
    most = budget // (2 * per_step)
    if not most:
        raise ValueError(
            f'`memory_budget` must hold two batches, of {2 * per_step} bytes on each device. '
            f'Received: memory_budget={budget}'
        )
    chunks = math.ceil(stream.steps / min(most, math.ceil(stream.steps / _PARTS)))
    return math.ceil(stream.steps / chunks)


class Chunks:
    """The chunks of a stream, in the order in which a training takes them.

    One is in use; the one after it is gathered and placed by a thread meanwhile.

    Args:
        stream: a `Stream`.
        steps: steps in a chunk.
        devices: devices of this process.
        place: the engine's `place_chunk`.
        epochs: epochs in all: after the last one nothing is fetched.
        targets_of: a `TargetsOf`, which raises where the labels or weights don't fit.
    """

    def __init__(
        self,
        stream: Stream,
        steps: int,
        devices: int,
        place: Callable[[ChunkArrays], Placed],
        epochs: int,
        targets_of: TargetsOf,
    ):
        self.stream, self.steps, self.devices = stream, steps, devices
        self._place, self._epochs, self._targets_of = place, epochs, targets_of
        self._pool = concurrent.futures.ThreadPoolExecutor(1, 'fenwicks-chunks')
        self._stopped = threading.Event()
        self._current: tuple[int, int] | None = None
        self._next: tuple[tuple[int, int], concurrent.futures.Future] | None = None
        self._fetch: Callable[[int], Batch] | None = None

    def at(self, epoch: int, step: int) -> tuple[Placed | None, int]:
        """The chunk that holds a step, and how many of its steps begin with that one.

        Returns:
            The chunk on the device, or `None` where it is that of the call before; and the number.
        """
        first = step - step % self.steps
        left = min(first + self.steps, self.stream.steps) - step
        key = epoch, first
        if key == self._current:
            return None, left
        if self._next is None or self._next[0] != key:
            self._next = key, self._pool.submit(self._make, *key)
        placed = self._next[1].result()
        self._current, self._next = key, None
        following = (
            (epoch, first + self.steps) if left + step < self.stream.steps else (epoch + 1, 0)
        )
        if following[0] < self._epochs:
            self._next = following, self._pool.submit(self._make, *following)
        return placed, left

    def close(self) -> None:
        """Ends the thread, after the batch that it is fetching, and drops the chunks."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._current = self._next = self._fetch = None  # the last may hold a source's workers

    def _make(self, epoch: int, first: int) -> Placed | None:
        """Gathers and places the chunk that begins with a step."""
        stream = self.stream
        if first == 0:
            self._fetch = stream.begin_pass(epoch)
        stop = min(first + self.steps, stream.steps)
        share = stream.batch_size // self.devices
        arrays: list[np.ndarray] = []
        with fetching(stream) as fetch_all:
            for step, batch in zip(
                range(first, stop), fetch_all(self._fetch, range(first, stop)), strict=True
            ):
                if self._stopped.is_set():
                    return None
                parts = self._parts(batch, epoch, step)
                if not arrays:  # the chunk may be shorter than its arrays, which are always alike
                    rows = self.steps * share
                    arrays = [
                        np.zeros((self.devices, rows, *part.shape[1:]), part.dtype)
                        for part in parts
                    ]
                here = slice((step - first) * share, (step - first + 1) * share)
                for array, part in zip(arrays, parts, strict=True):
                    array[:, here] = part.reshape(self.devices, share, *part.shape[1:])
        if stop == stream.steps:
            stream.end_pass()
        images, indices, *targets = arrays
        return self._place(ChunkArrays(images, tuple(targets), indices, first))

    def _parts(self, batch, epoch, step):
        """Images, indices and targets of a batch; raises unless it is like the others."""
        where = f'in batch {step + 1} of epoch {epoch + 1}'
        self.stream.check(batch, where)
        try:
            targets = self._targets_of(batch)
        except ValueError as error:
            raise ValueError(f'{error} {where}') from None
        return batch.images, self._indices(batch, step), *targets

    def _indices(self, batch, step):
        if batch.indices is not None:
            return batch.indices
        # An augmentation that asks for them was refused: the source doesn't know its images.
        return np.arange(step * len(batch.images), (step + 1) * len(batch.images), dtype=np.int32)

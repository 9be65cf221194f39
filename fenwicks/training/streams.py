"""A source of batches for data that don't fit the device, as the training sees it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fenwicks.training.batches import Batch, Form


class Stream:
    """A source of batches, checked: the interface of the kinds in `stream_kinds.py`.

    Args:
        source: what `fit` was given.
        batch_size: images in a batch of this process.
        before: the stream of the same source in the `fit` before.

    Attributes:
        steps: whole batches in an epoch.
        first: the first `Batch`, or one of the same form.
        form: the `Form` of all batches.
        workers: threads that may fetch batches at the same time.
        gives_indices: whether the source says which images a batch has.
        knows_data: whether `digest` is of the data themselves.
    """

    steps: int
    first: Batch
    workers = 1
    gives_indices = False
    knows_data = False

    def __init__(self, source: Any, batch_size: int, before: Stream | None = None):
        self.source, self.batch_size = source, batch_size
        self.passes: int = 0 if before is None else before.passes  # begun so far
        self._open(before)
        self.form = Form.of(self.first)
        if not self.steps:
            raise ValueError(
                '`images` must give at least one whole batch in a pass. Received: a stream of none'
            )

    def _open(self, before: Stream | None) -> None:
        """Sets `steps`, `first`, and what else the kind knows of its source."""
        raise NotImplementedError

    def begin_pass(self, epoch: int) -> Callable[[int], Batch]:
        """A function that fetches the batch of a step of this epoch, counted from 0."""
        raise NotImplementedError

    def end_pass(self) -> None:
        """Called after the last batch of an epoch."""

    def digest(self) -> str:
        """A hash of what is known of the data without reading all of them."""
        return hashlib.sha256(f'{self.form} {self.steps}'.encode()).hexdigest()[:16]

    def check(self, batch: Batch, where: str) -> None:
        """Raises unless a batch is like the first one, with finite numbers."""
        form = Form.of(batch)
        if form != self.form:
            raise ValueError(
                f'`images` must give batches of one form, {self.form}. Received: {form} {where}'
            )
        if len(batch.images) != self.batch_size or len(batch.labels) != self.batch_size:
            raise ValueError(
                f'`images` must give batches of {self.batch_size} images. Received: '
                f'{len(batch.images)} images and {len(batch.labels)} labels {where}'
            )
        for name in ('images', 'labels'):
            array = getattr(batch, name)
            if array.dtype.kind == 'f' and not np.isfinite(array).all():
                raise ValueError(
                    f'`images` must give finite numbers. Received: infinite or NaN {name} {where}'
                )


def length_of(source: Any) -> int:
    """The number of batches in a pass."""
    try:
        # Of a PyDataset that doesn't know it, this is None.
        count = getattr(source, 'num_batches', None) or len(source)
    except (TypeError, NotImplementedError):
        raise ValueError(
            '`images` must know how many batches are in a pass: give it __len__, or a '
            'tf.data.Dataset .apply(tf.data.experimental.assert_cardinality(batches)). '
            f'Received: a {type(source).__name__} without a length'
        ) from None
    return int(count)


def ended_early(steps: int, found: int) -> ValueError:
    """The error of a source whose pass ends too early."""
    return ValueError(
        f'`images` must give as many batches in each pass as it says, {steps}. '
        f'Received: the end after {found}'
    )


@contextlib.contextmanager
def fetching(stream: Stream) -> Iterator[Callable]:
    """A `map` of functions over steps, in order, by as many threads as the stream allows."""
    if stream.workers == 1:
        yield map
        return
    pool = concurrent.futures.ThreadPoolExecutor(stream.workers)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)

"""What `Trainer.fit` takes beside arrays: sources of batches, for data that don't fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fenwicks.training.batches import Batch, as_batch, images_of
from fenwicks.training.stream_kinds import (
    DatasetStream,
    IndexedStream,
    LoaderStream,
    check_stored,
    fetch_batch,
    fetch_images,
    fetch_one_of,
)
from fenwicks.training.streams import Stream, length_of

_INFINITE = -1  # the cardinality of a `tf.data.Dataset` that repeats itself


def is_stream(images: Any, labels: Any) -> bool:
    """Whether `fit` was given a source of batches rather than arrays."""
    return labels is None and not isinstance(images, np.ndarray)


def is_source(data: Any) -> bool:
    """Whether data that may be arrays are a source of batches."""
    if isinstance(data, list | tuple) and data:
        # Batches of images alone, or with labels; not (images, labels), nor a list of images.
        pairs = isinstance(data[0], list | tuple) and data[0]
        parts = [data[0][0]] if pairs else data
        return all(len(getattr(part, 'shape', ())) == 4 for part in parts)
    several = hasattr(data, '__getitem__') or hasattr(data, '__iter__')
    held = hasattr(data, '__array__') or isinstance(data, tuple | list | dict | str)
    return hasattr(data, 'element_spec') or (several and not held)


def check_no_labels_beside(source: Any, labels: Any) -> None:
    """Raises where labels were given beside a source of batches, which has them."""
    if is_source(source) and labels is not None:
        raise ValueError(
            '`labels` must be None with a source of batches, which gives (images, labels): name '
            f'the other arguments, such as epochs=10. Received: {type(labels).__name__}'
        )


def open_stream(
    source: Any, batch_size: int, processes: int = 1, before: Stream | None = None
) -> Stream:
    """The stream of a source.

    Args:
        source: a `tf.data.Dataset`, a `keras.utils.PyDataset`, or anything with `__len__`, and
            `__getitem__` or `__iter__`, that gives batches `(images, labels)`.
        batch_size: images in a step, of all processes together.
        processes: number of processes, each of which has an equal share of each batch.
        before: the stream of the `fit` before, which may be of the same source.

    Raises:
        ValueError: it is no such source, its length isn't known, or its batches have another size.
    """
    share = batch_size // processes
    if before is not None and before.source is not source:
        before = None
    if hasattr(source, 'element_spec'):
        stream: Stream = DatasetStream(source, share, before)
    else:
        _check_gives_batches(source)
        kind = IndexedStream if hasattr(source, '__getitem__') else LoaderStream
        stream = kind(source, share, before)
    found = len(stream.first.images)
    if found != share:
        shares = f', of which each of the {processes} processes has a share' * (processes > 1)
        raise ValueError(
            f'`batch_size` must be that of the batches of the stream{shares}. Received: '
            f'batch_size={batch_size}, and batches of {found} images'
        )
    return stream


def all_batches(source: Any) -> Iterator[Batch]:
    """The batches of a pass over a source, the incomplete last one too.

    Raises:
        ValueError: the source has no end, or a batch isn't one of the Trainer's.
    """
    return _pass_over(source, as_batch, fetch_batch)


def all_images(source: Any) -> Iterator[np.ndarray]:
    """The images of a pass over a source, whose batches need no labels.

    Raises:
        ValueError: as of `all_batches`.
    """
    return _pass_over(source, images_of, fetch_images)


def _pass_over(source, read, fetch):
    if hasattr(source, 'element_spec'):
        if int(source.cardinality()) == _INFINITE:
            raise ValueError(
                '`images` must have an end: leave out .repeat(). Received: a tf.data.Dataset that '
                'repeats its batches for ever'
            )
        yield from map(read, source.as_numpy_iterator())
        return
    _check_gives_batches(source)
    if not hasattr(source, '__getitem__'):
        yield from map(read, source)
        return
    check_stored(source)
    count = length_of(source)
    for number in range(count):
        yield fetch_one_of(count, fetch, source, number)


def _check_gives_batches(source):
    """Raises unless a source gives batches in each of several passes."""
    passes = hasattr(source, '__iter__') and hasattr(source, '__len__')
    if not hasattr(source, '__getitem__') and (not passes or isinstance(source, Iterator)):
        raise ValueError(
            '`images` must be an array with `labels`, or a source of batches: a tf.data.Dataset, a '
            'keras.utils.PyDataset such as data.ImageBatches, or an object with __len__, and '
            f'__getitem__ or __iter__, such as a DataLoader. Received: {type(source).__name__}'
        )

"""Forward passes: batches of one size, so that a program is compiled once, and what comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fenwicks._checks import positive_integer

Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]


def slices(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """The images in parts of `batch_size`, the last of which may be smaller."""
    if not len(images):
        raise ValueError(f'`images` must not be empty. Received: shape={np.shape(images)}')
    batch_size = positive_integer('batch_size', batch_size)
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def of_one_size(parts: Iterator[np.ndarray]) -> tuple[int, Iterator[np.ndarray]]:
    """The number of images in the first of some parts, and batches of as many."""
    first = next(parts, None)
    if first is None or not len(first):
        raise ValueError('`images` must not be empty. Received: a source without images')
    return len(first), rebatched(itertools.chain([first], parts), len(first))


def rebatched(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The images of all parts in batches of `size`, and a last one of what is left."""
    kept: list[np.ndarray] = []
    count = 0
    for part in parts:
        kept.append(part)
        count += len(part)
        if count < size:
            continue
        whole = np.concatenate(kept) if len(kept) > 1 else part
        cut = count - count % size
        yield from (whole[start : start + size] for start in range(0, cut, size))
        kept, count = [whole[cut:]] * (count > cut), count - cut
    if count:
        yield np.concatenate(kept)


def filled(predict: Predict, batch: np.ndarray, size: int, views: int | None = None) -> np.ndarray:
    """The logits of a batch that is filled up to `size` with copies of its last image.

    Raises:
        ValueError: `predict` returns no row for each image; of as many views, where they are given.
    """
    count = len(batch)
    if count < size:
        batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
    outputs = predict(batch)
    shape = tuple(getattr(outputs, 'shape', ()))
    of_views = len(shape) == 3 and shape[:2] == (views or shape[0], size)
    if not of_views and (views or len(shape) != 2 or shape[0] != size):
        wanted = f'({views}, {size}, classes)' if views else f'({size}, classes)'
        received = f'shape={shape}' if hasattr(outputs, 'shape') else repr(type(outputs).__name__)
        raise ValueError(
            f'`predict` must return an array of logits {wanted} for {size} images. '
            f'Received: {received}'
        )
    return outputs[..., :count, :]


def checked_logits(logits: Any) -> np.ndarray:
    """The logits in float64; raises unless they are a row of numbers for each image."""
    try:
        array = np.asarray(logits)
    except (TypeError, ValueError):  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind in 'OSUTcmM':  # not those of numbers, of which bfloat16 has its own
        raise ValueError(f'`logits` must be an array of numbers. Received: dtype={array.dtype}')
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(
            f'`logits` must have the shape (count, classes). Received: shape={array.shape}'
        )
    return array.astype(np.float64)


def below_largest(logits: np.ndarray) -> np.ndarray:
    """Each logit less the largest of its row: 0 for that, also where it is infinite."""
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid='ignore'):
        return np.where(logits == largest, 0, logits - largest)

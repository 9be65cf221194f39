"""Batches of one size for forward passes, so that a compiled program is compiled once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from fenwicks._checks import positive_integer


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


def filled(predict: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, size: int) -> np.ndarray:
    """The logits of a batch that is filled up to `size` with copies of its last image."""
    count = len(batch)
    if count < size:
        batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
    return predict(batch)[..., :count, :]

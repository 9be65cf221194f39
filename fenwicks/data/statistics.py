"""Statistics of a set of images."""

from __future__ import annotations

import logging

import numpy as np

from fenwicks.data.dataset import check_arrays

_log = logging.getLogger('fenwicks')


def mean_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel mean and standard deviation of a set of images, in units of 0 to 255.

    ```
    mean = sum(x) / count
    std = sqrt(sum(x * x) / count - mean * mean)      # of the whole population
    ```

    The sums are exact integers. CIFAR-10's training set has the mean (125.31, 122.95, 113.87) and
    the standard deviation (62.99, 62.09, 66.70).

    A channel that never varies, such as an opaque alpha, gets the standard deviation 1, and a
    warning names it: normalised, it is 0 everywhere.

    Args:
        images: uint8 `(n, height, width, channels)`.

    Returns:
        `(mean, std)`, each a float64 array `(channels,)`; all of `std` is positive.

    Raises:
        ValueError: images of another shape or dtype, or none.

    >>> mean_std(np.array([0, 10], np.uint8).reshape(1, 1, 2, 1))
    (array([5.]), array([5.]))
    """
    images = np.asarray(images)
    check_arrays(images, np.zeros(len(images) if images.ndim else 0, np.int32))
    channels = images.shape[-1]
    rows = images.reshape(len(images), -1)
    total = np.zeros(rows.shape[1], np.uint64)
    squares = np.zeros_like(total)
    for start in range(0, len(rows), 1000):  # 255 * 255 fits 16 bits, 1000 of them fit 32
        chunk = rows[start : start + 1000]
        total += chunk.sum(axis=0, dtype=np.uint32)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    count = images.size // channels
    total, squares = (x.reshape(-1, channels).sum(axis=0) for x in (total, squares))
    mean = total / count
    # In Python's integers, which are exact: count * squares may have more than 64 bits.
    spread = [count * int(s) - int(t) ** 2 for t, s in zip(total, squares, strict=True)]
    constant = [channel for channel, value in enumerate(spread) if not value]
    if constant:
        _log.warning(
            'channels %s of the images never vary: their standard deviation is taken as 1', constant
        )
    std = np.array([np.sqrt(value / count**2) if value else 1.0 for value in spread])
    return mean, std

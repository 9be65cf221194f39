"""Statistics of images: mean and standard deviation, exact, also in parts; images per class."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fenwicks.data.dataset import check_images, check_labels

_log = logging.getLogger('fenwicks')
_PIECE = 2**24  # values that are summed at a time


class ChannelStatistics:
    """Per-channel mean and standard deviation of images that come in parts.

    The sums are exact integers, so that neither the order of the parts nor their sizes matter, and
    no number of images is too large.

    Example:

    >>> import numpy as np
    >>> statistics = ChannelStatistics()
    >>> for value in (0, 10):
    ...     statistics.update(np.full((1, 2, 2, 1), value, np.uint8))
    >>> statistics.mean_std()
    (array([5.]), array([5.]))
    """

    def __init__(self) -> None:
        self.count = 0
        self._total = self._squares = np.zeros(1, object)

    def update(self, images: np.ndarray) -> None:
        """Adds images to the sums.

        Args:
            images: uint8 `(n, height, width, channels)`; all parts have the same channels. May be
                a large file mapped into memory: it is read in pieces.

        Raises:
            ValueError: images of another shape or dtype, or none.
        """
        images = check_images(images)
        channels = images.shape[-1]
        if self.count and channels != len(self._total):
            raise ValueError(
                f'`images` must have {len(self._total)} channels, as those before. '
                f'Received: {channels}'
            )
        step = max(1, min(_PIECE // max(1, images[0].size), 1000))
        total = squares = np.zeros(channels, object)  # Python's integers, of any size
        for start in range(0, len(images), step):
            rows = np.asarray(images[start : start + step]).reshape(-1, images[0].size)
            # 255 * 255 fits 16 bits, and 1000 of them fit 32.
            sums = rows.sum(axis=0, dtype=np.uint32)
            of_squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
            total = total + _by_channel(sums, channels)
            squares = squares + _by_channel(of_squares, channels)
        # All at once: an interrupt leaves the statistics of the parts before.
        self._total, self._squares, self.count = (
            self._total + total,
            self._squares + squares,
            self.count + images.size // channels,
        )

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of all images so far, as `mean_std` returns them.

        Raises:
            ValueError: there were no images.
        """
        if not self.count:
            raise ValueError('`update` must be called with images before. Received: none')
        count = self.count
        mean = np.array([total / count for total in self._total])
        spread = [
            count * square - total**2
            for total, square in zip(self._total, self._squares, strict=True)
        ]
        constant = [channel for channel, value in enumerate(spread) if not value]
        if constant:
            _log.warning(
                'channels %s of the images never vary: their standard deviation is taken as 1',
                constant,
            )
        return mean, np.array([np.sqrt(value / count**2) if value else 1.0 for value in spread])


def _by_channel(sums, channels):
    return sums.reshape(-1, channels).sum(axis=0, dtype=np.uint64).astype(object)


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

    >>> import numpy as np
    >>> mean_std(np.array([0, 10], np.uint8).reshape(1, 1, 2, 1))
    (array([5.]), array([5.]))
    """
    statistics = ChannelStatistics()
    statistics.update(images)
    return statistics.mean_std()


def class_counts(labels: ArrayLike, class_names: Sequence[str]) -> dict[str, int]:
    """Number of images of each class, in the order of the classes; 0 where there is none.

    Args:
        labels: integers `(n,)`, each in `[0, len(class_names))`.
        class_names: the names of the classes.

    Returns:
        Maps each name to its number of images.

    Raises:
        ValueError: a label is out of range, or two classes have one name.

    >>> class_counts([0, 2, 0], ('cat', 'dog', 'fox'))
    {'cat': 2, 'dog': 0, 'fox': 1}
    """
    labels = np.asarray(labels)
    labels = labels if labels.size else labels.astype(np.int32)  # of [] NumPy makes floats
    check_labels(labels, len(labels) if labels.ndim else 0, len(class_names))
    if len(set(class_names)) < len(class_names):
        raise ValueError(f'`class_names` must differ. Received: {list(class_names)}')
    counts = np.bincount(labels, minlength=len(class_names))
    return {name: int(count) for name, count in zip(class_names, counts, strict=True)}

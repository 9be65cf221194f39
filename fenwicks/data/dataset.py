"""A labelled data set as arrays, and the checks that its arrays must pass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fenwicks._errors import one_line


def check_arrays(images: ArrayLike, labels: ArrayLike, num_classes: int | None = None) -> None:
    """Raises unless `images` are uint8 images and `labels` their classes as integers.

    Args:
        images: array, uint8 `(n, height, width, channels)`, n >= 1.
        labels: array of integers `(n,)`, each in `[0, num_classes)`.
        num_classes: number of classes; None skips the upper bound.

    Raises:
        ValueError: another shape or dtype, differing lengths, no images, a label out of range.

    >>> import numpy as np
    >>> check_arrays(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 3]), num_classes=3)
    Traceback (most recent call last):
    ValueError: `labels` must be in [0, 3). Received: labels from 0 to 3
    """
    check_labels(labels, len(check_images(images)), num_classes)


def check_images(images: ArrayLike) -> np.ndarray:
    """The images as an array; raises unless they are uint8 `(n, height, width, channels)`, n >= 1.

    Raises:
        ValueError: another shape or dtype, or no images.
    """
    if not hasattr(images, '__array__') and not isinstance(images, list | tuple):
        # NumPy would ask a source of batches for items until there are no more, which may be never.
        raise ValueError(f'`images` must be an array. Received: {type(images).__name__}')
    images = as_array(images)
    if not images.size:
        raise ValueError(f'`images` must not be empty. Received: shape={images.shape}')
    if images.dtype != np.uint8:
        raise ValueError(f'`images` must be uint8. Received: dtype={images.dtype}')
    if images.ndim != 4:
        raise ValueError(
            '`images` must have the shape (n, height, width, channels). '
            f'Received: shape={images.shape}'
        )
    return images


def as_array(value: ArrayLike) -> np.ndarray:
    """Images or labels as an array.

    Raises:
        ValueError: they are a list of parts of several shapes.
    """
    try:
        return np.asanyarray(value)  # a file that is mapped stays one
    except ValueError as error:  # of a tuple (images, labels), or images of several sizes
        raise ValueError(
            '`images` must be one array, of images of one size, and `labels` another. '
            f'Received: {type(value).__name__} of parts of several shapes'
        ) from error


def check_labels(labels: ArrayLike, count: int, num_classes: int | None = None) -> None:
    """Raises unless `labels` are `count` integers, each in `[0, num_classes)`.

    Args:
        labels: array of integers `(count,)`.
        count: number of images (or rows of logits) that the labels belong to.
        num_classes: number of classes; None skips the upper bound.

    Raises:
        ValueError: another shape or dtype, or a label out of range.
    """
    labels = as_array(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f'`labels` must be integers. Received: dtype={labels.dtype}')
    if labels.ndim != 1:
        raise ValueError(f'`labels` must have the shape (n,). Received: shape={labels.shape}')
    if len(labels) != count:
        raise ValueError(
            '`labels` must have the same length as the images. '
            f'Received: {count} images and {len(labels)} labels'
        )
    if not count:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        bound = 'inf' if num_classes is None else num_classes
        raise ValueError(f'`labels` must be in [0, {bound}). Received: labels from {low} to {high}')


def check_indices(
    indices: Sequence[int] | np.ndarray, count: int, name: str = 'indices'
) -> np.ndarray:
    """Indices `(k,)` of some of `count` images.

    Args:
        indices: integers in [0, count), or a boolean for each image.
        count: number of images.
        name: of the caller's argument, for the error.

    Raises:
        ValueError: they are neither, or there is none.

    >>> check_indices([True, False, True], 3)
    array([0, 2])
    """
    try:
        chosen = np.asarray(indices)
    except ValueError:  # of lists of several lengths
        chosen = np.array(None)
    if chosen.dtype == bool and chosen.shape == (count,):
        chosen = np.flatnonzero(chosen)
    whole = chosen.ndim == 1 and np.issubdtype(chosen.dtype, np.integer) and len(chosen)
    if not whole or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(
            f'`{name}` must be at least one integer in [0, {count}), or {count} booleans. '
            f'Received: {name}={one_line(repr(indices), 80)}'
        )
    return chosen


def digest_of(*arrays: np.ndarray) -> str:
    """A hash of arrays with their dtypes and shapes, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f'{array.dtype} {array.shape}'.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training and a test set of labelled images, as NumPy arrays.

    Args:
        name: a short name, such as 'cifar10'.
        train_images: uint8 `(n, height, width, channels)`.
        train_labels: int32 `(n,)`.
        test_images: uint8 `(m, height, width, channels)`.
        test_labels: int32 `(m,)`.
        class_names: the name of each class.
        source: where the arrays were read from, as a reader of logs wants to know it.

    Raises:
        ValueError: arrays that `check_arrays` refuses, or test images of another shape.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self):
        for name in ('train_images', 'train_labels', 'test_images', 'test_labels'):
            object.__setattr__(self, name, as_array(getattr(self, name)))
        object.__setattr__(self, 'class_names', tuple(map(str, self.class_names)))
        check_arrays(self.train_images, self.train_labels, self.num_classes)
        check_arrays(self.test_images, self.test_labels, self.num_classes)
        if self.test_images.shape[1:] != self.image_shape:
            raise ValueError(
                f'`test_images` must have the shape (m, {", ".join(map(str, self.image_shape))}) '
                f'of the training images. Received: shape={self.test_images.shape}'
            )

    def __repr__(self):
        return (
            f'Dataset({self.name!r}, train={len(self.train_images)}, '
            f'test={len(self.test_images)}, image_shape={self.image_shape}, '
            f'num_classes={self.num_classes}, source={self.source!r})'
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of one image."""
        return tuple(self.train_images.shape[1:])

    def digest(self) -> str:
        """A hash of all images, labels and names of classes, 16 hexadecimal digits.

        Of CIFAR-10 it takes a quarter of a second.
        """
        names = np.frombuffer(json.dumps(self.class_names).encode(), np.uint8)
        images, labels = self.train_images, self.train_labels
        return digest_of(images, labels, self.test_images, self.test_labels, names)

    def limit(self, n: int | None) -> Dataset:
        """The same data set with the first `n` training images only; the test set stays whole.

        Args:
            n: number of training images, 1 to all of them; None keeps all.

        Returns:
            A Dataset.

        Raises:
            ValueError: n is out of range.
        """
        if n is None:
            return self
        whole = isinstance(n, int | np.integer) and not isinstance(n, bool)
        if not whole or not 1 <= n <= len(self.train_images):
            raise ValueError(
                f'`limit` must be in [1, {len(self.train_images)}], '
                f'the number of training images. Received: limit={n}'
            )
        return dataclasses.replace(
            self, train_images=self.train_images[:n], train_labels=self.train_labels[:n]
        )

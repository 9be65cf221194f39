"""The embedded sample: scikit-learn's handwritten digits, made to look like CIFAR."""

from __future__ import annotations

import numpy as np

from fenwicks.data.dataset import Dataset

SIZE = 32


def _bilinear(old, new):
    """The `(new, old)` matrix that resizes one axis bilinearly (pixel centres, edges held)."""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.minimum(position.astype(int), old - 2)
    matrix = np.zeros((new, old))
    matrix[np.arange(new), low] = 1 - (position - low)
    matrix[np.arange(new), low + 1] = position - low
    return matrix


def load_digits():
    """scikit-learn's 1,797 digits, resized bilinearly from 8x8 to uint8 32x32x3.

    In each class every sixth image, in the original order, is a test image: the split never
    changes and is stratified. It takes no network and well under a second.

    Returns:
        A Dataset named 'digits'.

    >>> load_digits()
    Dataset('digits', train=1501, test=296, image_shape=(32, 32, 3), num_classes=10, ...)
    """
    from sklearn import datasets  # takes most of a second to import, so only when it is needed

    digits = datasets.load_digits()
    matrix = _bilinear(8, SIZE)
    grey = np.rint(matrix @ (digits.images * (255 / 16)) @ matrix.T).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    labels = digits.target.astype(np.int32)
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[5::6]] = True
    return Dataset(
        name='digits',
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple('0123456789'),
        source='embedded sample (scikit-learn digits)',
    )

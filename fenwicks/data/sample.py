"""The embedded sample: 1,797 handwritten digits, enlarged to the shape of CIFAR's images."""

from __future__ import annotations

import pathlib

import numpy as np

from fenwicks.augment.resizing import resize_matrix
from fenwicks.data.dataset import Dataset

SIZE = 32
_FILE = pathlib.Path(__file__).with_name('digits.npz')


def load_digits() -> Dataset:
    """1,797 handwritten digits, resized bilinearly from 8x8 to uint8 32x32x3.

    They are the test set of UCI's Optical Recognition of Handwritten Digits, in the order in which
    scikit-learn ships it. Every sixth image of a class, in that order, is a test image, so the
    split is stratified and the same for everyone. Nothing is downloaded.

    Returns:
        A Dataset named 'digits'.

    >>> load_digits()
    Dataset('digits', train=1501, test=296, image_shape=(32, 32, 3), num_classes=10, ...)

    Reference:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0).
    """
    with np.load(_FILE, allow_pickle=False) as file:
        pixels, labels = file['images'], file['labels'].astype(np.int32)  # 0 to 16; 0 to 9
    matrix = resize_matrix(8, SIZE, 'bilinear', antialias=True)
    grey = np.rint(matrix @ (pixels * (255 / 16)) @ matrix.T).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
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
        source='embedded sample (UCI digits)',
    )

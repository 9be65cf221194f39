"""What a training program depends on of its data set."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from fenwicks import data


@dataclasses.dataclass(frozen=True)
class DataShape:
    """The properties of a data set that a training program depends on.

    Args:
        train_images: number of training images.
        image_shape: `(height, width, channels)` of each.
        num_classes: number of classes.
    """

    train_images: int
    image_shape: tuple[int, int, int]
    num_classes: int

    def noise(self) -> data.Dataset:
        """Makes a data set of that shape from random pixels."""
        count = self.train_images
        noise = np.random.default_rng(0).integers(0, 256, (257, *self.image_shape), np.uint8)
        images = np.resize(noise, (count, *self.image_shape))
        labels = np.arange(count, dtype=np.int32) % self.num_classes
        names = tuple(str(label) for label in range(self.num_classes))
        return data.Dataset('noise', images, labels, images[:1], labels[:1], names, 'noise')

    @classmethod
    def named(cls, name: str) -> DataShape:
        """Looks up the shape of a data set, or parses one.

        Args:
            name: `'cifar10'`, `'cifar100'`, `'digits'`, or the numbers of images, rows, columns,
                channels and classes with an x between them.

        Raises:
            ValueError: it is neither.

        Example:

        >>> DataShape.named('50000x32x32x3x10') == DATA_SHAPES['cifar10']
        True
        """
        if name in DATA_SHAPES:
            return DATA_SHAPES[name]
        if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){4}', name):
            raise ValueError(
                f'`dataset` must be {", ".join(DATA_SHAPES)}, or images, height, width, channels '
                f'and classes such as 50000x32x32x3x10. Received: dataset={name}'
            )
        images, height, width, channels, classes = map(int, name.split('x'))
        return cls(images, (height, width, channels), classes)


DATA_SHAPES = {
    'cifar10': DataShape(50_000, (32, 32, 3), 10),
    'cifar100': DataShape(50_000, (32, 32, 3), 100),
    'digits': DataShape(1_501, (32, 32, 3), 10),
}

"""Erase a rectangle of each image."""

from __future__ import annotations

import numpy as np

from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import check_floats, check_range, namespace, per_image
from fenwicks.augment.seeds import native_integers


def cutout(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Sets a `height` x `width` rectangle of each image to zero, at its own offset.

        cutout(images, top, left, h, w)[i, top[i] : top[i] + h, left[i] : left[i] + w] = 0

    Zero is the mean of images that went through `normalize`. A rectangle may extend beyond the
    image; only the part inside is erased. `random_cutout` draws rectangles that lie inside.

    Args:
        images: Floats (batch, height, width, channels).
        top: Integers (batch,): first row of each rectangle.
        left: Integers (batch,): first column of each rectangle.
        height: Height of the rectangles, in [0, image height].
        width: Width of the rectangles, in [0, image width].

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The rectangle is larger than the image, or a shape or dtype doesn't fit.

    Example:
        >>> cutout(np.ones((1, 3, 3, 1)), np.array([1]), np.array([0]), 2, 2)[0, :, :, 0]
        array([[1., 1., 1.],
               [0., 0., 1.],
               [0., 0., 1.]])

    Reference:
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552; there the border
        may cut off a part of the square.
    """
    xp = namespace(images, top, left)
    full_height, full_width, _ = check_floats(images)
    check_range('height', height, 0, full_height, 'the image height')
    check_range('width', width, 0, full_width, 'the image width')
    rows = np.arange(full_height, dtype='int32') - per_image(xp, 'top', top, images)[:, None]
    columns = np.arange(full_width, dtype='int32') - per_image(xp, 'left', left, images)[:, None]
    rows = (rows >= 0) & (rows < height)
    columns = (columns >= 0) & (columns < width)
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return xp.where(hole, xp.zeros((), images.dtype), images)


def random_cutout(images: Tensor, seed: Seed, size: int = 8) -> Tensor:
    """Sets a `size` x `size` square of each image to zero, inside it, at a random place.

        top ~ uniform over 0 ... height - size, both ends included
        left ~ uniform over 0 ... width - size, both ends included
        random_cutout(images, seed) = cutout(images, top, left, size, size)

    Every image loses exactly `size * size` pixels; pixels near the border are erased less often.

    Args:
        images: Floats (batch, height, width, channels), normalised, so that zero is their mean.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        size: Side of the square in pixels, in [0, min(height, width)]; 0 changes nothing.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `size` is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> int(random_cutout(np.ones((2, 8, 8, 1)), seed=(0, 1), size=4).sum())
        96
    """
    height, width, _ = check_floats(images)
    check_range('size', size, 0, min(height, width), 'the image size')
    top = native_integers(images, seed, 0, height - size)
    left = native_integers(images, seed, 1, width - size)
    return cutout(images, top, left, size, size)

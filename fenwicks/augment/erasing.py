"""Erase a rectangle of each image."""

from __future__ import annotations

from fenwicks._checks import finite_number
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import cast, check_floats, check_range, namespace
from fenwicks.augment.boxes import fill, random_box, rectangle
from fenwicks.augment.seeds import draw, native_integers


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
        >>> import numpy as np
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
    rows, columns = rectangle(xp, images, top, left, height, width)
    return fill(xp, images, rows, columns, xp.zeros((), images.dtype))


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


def erase(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, value: float = 0.0
) -> Tensor:
    """Fills a rectangle of each image, of its own place and size.

        erase(x, top, ...)[i, top[i] : top[i] + height[i], left[i] : left[i] + width[i]] = value

    Args:
        images: Floats (batch, height, width, channels).
        top: Integers (batch,): first row of each rectangle.
        left: Integers (batch,): first column of each rectangle.
        height: Integers (batch,): rows of each rectangle; 0 erases nothing.
        width: Integers (batch,): columns of each rectangle; 0 erases nothing.
        value: What the rectangle is filled with; zero is the mean of normalised images.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `value` isn't a number, or a shape or dtype doesn't fit.
    """
    xp = namespace(images, top, left, height, width)
    check_floats(images)
    value = finite_number('value', value)
    rows, columns = rectangle(xp, images, top, left, height, width)
    return fill(xp, images, rows, columns, cast(xp, value, images.dtype))


def random_erasing(
    images: Tensor,
    seed: Seed,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 10 / 3),
    value: float = 0.0,
) -> Tensor:
    """Fills a rectangle of random size, shape and place in some of the images.

        share ~ uniform over `area`,  log(r) ~ uniform over the logarithms of `ratio`
        rectangle: sqrt(share * height * width * r) rows, sqrt(share * height * width / r) columns

    Both are rounded, and cut to the image's sides. The rectangle lies inside the image.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.
        probability: Share of the images that lose a rectangle, in [0, 1].
        area: Smallest and largest share of the image's area, in [0, 1].
        ratio: Smallest and largest height as a multiple of the width, above 0.
        value: What the rectangle is filled with.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A setting is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> random_erasing(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)

    Reference:
        Zhong et al. 2017, https://arxiv.org/abs/1708.04896
    """
    full_height, full_width, _ = check_floats(images)
    probability = finite_number('probability', probability, low=0, high=1)
    xp = namespace(images, seed)
    top, left, height, width = random_box(images, seed, full_height, full_width, area, ratio)
    height = xp.where(draw(images, seed, 4) < probability, height, xp.zeros_like(height))
    return erase(images, top, left, height, width, value)

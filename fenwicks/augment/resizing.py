"""Resizing with several filters, antialiased or not, as two products with constant matrices."""

from __future__ import annotations

import functools
import math

import numpy as np

from fenwicks._checks import flag, positive_integer
from fenwicks._typing import Tensor
from fenwicks.augment.arrays import (
    cast,
    check_rank,
    check_sizes,
    clip,
    dtype_name,
    in_float32,
    namespace,
    product,
)


def _triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x, a=-0.5):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x):
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _box(x):
    return ((x > -0.5) & (x <= 0.5)).astype('float64')


# Filters by name, with half of the width outside which they are zero.
_FILTERS = {
    'bilinear': (_triangle, 1.0),
    'bicubic': (_cubic, 2.0),
    'lanczos3': (_lanczos, 3.0),
    'box': (_box, 0.5),
}
METHODS = ('nearest', *_FILTERS)


def resize(
    images: Tensor, height: int, width: int, method: str = 'bilinear', antialias: bool = True
) -> Tensor:
    """Resizes images to `height` x `width`, with half-pixel centres.

        centre(i)  = (i + 0.5) * size / new_size
        weight(i, j) = filter((j + 0.5 - centre(i)) / support), normalised to a sum of 1 over j
        row i of the result = sum over j of weight(i, j) * row j of the image, columns likewise

    where `support` is 1, or `max(1, size / new_size)` with `antialias`: when shrinking, the filter
    widens so that it averages over all pixels. Then the result equals Pillow's; without, `bilinear`
    interpolates between the two nearest pixels, as in plain interpolation.

    Args:
        images: uint8 or floats (batch, height, width, channels).
        height: New height, at least 1.
        width: New width, at least 1.
        method: `'nearest'`, `'bilinear'`, `'bicubic'` (of Keys, a = -0.5), `'lanczos3'` or `'box'`.
        antialias: Whether filters widen when shrinking; `'nearest'` has no filter.

    Returns:
        Images (batch, height, width, channels) of the same dtype. Floats are computed in float32
        or wider, but TensorFlow rounds the factors on accelerators, see `crop`; `bicubic` and
        `lanczos3` may overshoot their range. uint8 are rounded and clipped after each axis, as in
        Pillow 13 (older ones resize the columns first), whose results they differ from by one
        level, and rarely by two.

    Raises:
        ValueError: A size isn't a positive integer, the method is unknown, or a shape or dtype
            doesn't fit.

    Example:
        >>> import numpy as np
        >>> images = np.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 4, 1)
        >>> resize(images, 1, 2)[0, 0, :, 0]
        array([0.71428571, 2.28571429])
        >>> resize(images, 1, 2, antialias=False)[0, 0, :, 0]
        array([0.5, 2.5])
    """
    xp = namespace(images)
    check_rank(images)
    integers = dtype_name(images) == 'uint8'
    if not integers and 'float' not in dtype_name(images):
        raise ValueError(
            f'`images` must be uint8 or floats. Received: images.dtype={dtype_name(images)}'
        )
    height, width = positive_integer('height', height), positive_integer('width', width)
    if method not in METHODS:
        raise ValueError(f'`method` must be one of {", ".join(METHODS)}. Received: method={method}')
    antialias = flag('antialias', antialias)
    full_height, full_width, _ = check_sizes(images)
    if (height, width) == (full_height, full_width):
        return images
    if method == 'nearest':
        images = _take(xp, images, _nearest(full_height, height), 1)
        return _take(xp, images, _nearest(full_width, width), 2)
    values = in_float32(xp, images)
    axes = [(2, full_width, width), (1, full_height, height)]
    # The axis that shrinks more comes first, which is less work.
    for axis, size, new_size in sorted(axes, key=lambda axis: axis[2] / axis[1]):
        if new_size != size:
            matrix = resize_matrix(size, new_size, method, antialias)
            values = _resize_axis(xp, values, axis, matrix)
            values = _to_bytes(xp, values) if integers else values
    return cast(xp, values, images.dtype)


def _resize_axis(xp, values, axis, matrix):
    """Multiplies the rows (axis 1) or columns (axis 2) of a batch by a matrix (new size, size)."""
    matrix = matrix.astype('float64' if dtype_name(values) == 'float64' else 'float32')
    if axis == 2:
        values = xp.transpose(values, (0, 2, 1, 3))
    size, other, channels = values.shape[1:]
    values = product(xp, matrix, xp.reshape(values, (-1, size, other * channels)))
    values = xp.reshape(values, (-1, len(matrix), other, channels))
    return xp.transpose(values, (0, 2, 1, 3)) if axis == 2 else values


@functools.lru_cache(64)
def resize_matrix(size: int, new_size: int, method: str, antialias: bool) -> np.ndarray:
    """The float64 matrix (new_size, size) with which `resize` multiplies an axis.

    Example:
        >>> resize_matrix(4, 2, 'box', True)
        array([[0.5, 0.5, 0. , 0. ],
               [0. , 0. , 0.5, 0.5]])
    """
    function, half_width = _FILTERS[method]
    scale = size / new_size
    support = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(new_size) + 0.5)[:, None] * scale
    pixels = np.arange(size) + 0.5
    weights = function((pixels - centres) / support)
    # Pillow considers whole pixels within the filter's width around the centre.
    first = np.floor(centres - half_width * support + 0.5)
    last = np.floor(centres + half_width * support + 0.5)
    weights = np.where((pixels > first) & (pixels < last), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def _nearest(size, new_size):
    return [min(size - 1, math.floor((i + 0.5) * size / new_size)) for i in range(new_size)]


def _take(xp, images, indices, axis):
    indices = np.asarray(indices, 'int32')
    gather = xp.gather if xp.__name__ == 'tensorflow' else xp.take
    return gather(images, indices, axis=axis)


def _to_bytes(xp, values):
    """Floats rounded and clipped to what uint8 holds, still as floats."""
    return clip(xp, xp.floor(values + 0.5), 0.0, 255.0)

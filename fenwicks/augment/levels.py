"""Operations on the levels 0...255 of pixels, as Pillow defines them, on batches of floats.

`RandAugment` and `TrivialAugment` draw from them. All take floats in 0...255 and return them.
"""

from __future__ import annotations

import numpy as np

from fenwicks._typing import Tensor
from fenwicks.augment.arrays import (
    arange,
    batch_size,
    cast,
    check_floats,
    clip,
    gather_pixels,
    in_float32,
    namespace,
    per_image,
    take,
)
from fenwicks.augment.color import to_byte_range


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest `bits` bits of each value.

    Args:
        images: Floats (batch, height, width, channels) in 0...255.
        bits: Integers (batch,), cut to 0 ... 8; 8 rounds down to whole levels.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images, bits)
    check_floats(images)
    bits = per_image(xp, 'bits', bits, images)
    bits = clip(xp, bits, 0, 8)  # frameworks differ in what lies outside of a table
    step = take(xp, 2.0 ** np.arange(8, -1, -1, dtype='float32'), bits)[:, None, None, None]
    values = cast(xp, images, 'float32')
    return cast(xp, xp.floor(values / step) * step, images.dtype)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values that are at least `threshold`: x becomes 255 - x.

    Args:
        images: Floats (batch, height, width, channels) in 0...255.
        threshold: Floats (batch,); 0 inverts all, 256 none.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images, threshold)
    check_floats(images)
    threshold = per_image(xp, 'threshold', threshold, images, kind='float')[:, None, None, None]
    values = in_float32(xp, images)
    inverted = values >= cast(xp, threshold, values.dtype)
    return cast(xp, xp.where(inverted, 255 - values, values), images.dtype)


def autocontrast(images: Tensor) -> Tensor:
    """Stretches the values of each channel of each image to 0...255.

        (x - smallest) * 255 / (largest - smallest), a constant channel as it is

    Args:
        images: Floats (batch, height, width, channels) in 0...255.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images)
    height, width, channels = check_floats(images)
    values = in_float32(xp, images)
    flat = xp.reshape(values, (-1, height * width, channels))
    tensorflow = xp.__name__ == 'tensorflow'
    low = (xp.reduce_min if tensorflow else xp.min)(flat, 1)[:, None, None]
    span = (xp.reduce_max if tensorflow else xp.max)(flat, 1)[:, None, None] - low
    stretched = (values - low) * (255 / xp.where(span > 0, span, xp.ones_like(span)))
    return cast(xp, xp.where(span > 0, stretched, values), images.dtype)


def equalize(images: Tensor) -> Tensor:
    """Spreads the levels of each channel of each image, so that all are about equally frequent.

        step = (pixels - pixels of the highest level in use) // 255
        level -> (step // 2 + pixels of lower levels) // step,   unchanged where step is 0

    Args:
        images: Floats (batch, height, width, channels) in 0...255, of which whole levels count.

    Returns:
        Images of the same shape and dtype, of whole levels where they change.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images)
    height, width, channels = check_floats(images)
    pixels = height * width
    values = cast(xp, xp.floor(cast(xp, images, 'float32')), 'int32')
    values = xp.reshape(xp.transpose(values, (0, 3, 1, 2)), (-1, pixels))
    below = _pixels_below(xp, values)
    tensorflow = xp.__name__ == 'tensorflow'
    highest = (xp.reduce_max if tensorflow else xp.max)(values, 1)[:, None]
    step = _look_up(xp, below, highest) // 255
    safe = xp.maximum(step, 1)
    levels = xp.minimum((safe // 2 + _look_up(xp, below, values)) // safe, 255)
    levels = xp.where(step > 0, levels, values)
    levels = xp.transpose(xp.reshape(levels, (-1, channels, height, width)), (0, 2, 3, 1))
    changed = xp.reshape(step > 0, (-1, 1, 1, channels))
    return xp.where(changed, cast(xp, levels, images.dtype), images)


def _pixels_below(xp, values):
    """How many of each row of `values`, integers (rows, pixels), are below 0, 1, ... 255."""
    rows = batch_size(xp, values)
    numbers = arange(xp, rows)
    flat = xp.reshape(clip(xp, values, 0, 255) + 256 * numbers[:, None], (-1,))
    if xp.__name__ == 'tensorflow':
        counts = xp.math.unsorted_segment_sum(xp.ones_like(flat), flat, rows * 256)
    elif xp is np:
        counts = np.bincount(flat, minlength=rows * 256).astype('int32')
    else:
        counts = xp.bincount(flat, length=rows * 256)
    counts = xp.reshape(counts, (-1, 256))
    return xp.cumsum(counts, 1) - counts


def _look_up(xp, table, levels):
    """The entries of each row's table at its levels, integers (rows, pixels)."""
    return gather_pixels(xp, table[:, :, None], clip(xp, levels, 0, 255))[:, :, 0]


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Moves each image away from its smoothed self, or towards it.

        smooth = convolution with [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13, border pixels as they are
        sharpness(images, factor) = smooth + factor * (images - smooth), clipped to 0...255

    Args:
        images: Floats (batch, height, width, channels) in 0...255.
        factor: Floats (batch,): 1 changes nothing, 0 smooths, 2 sharpens.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images, factor)
    height, width, _ = check_floats(images)
    factor = per_image(xp, 'factor', factor, images, kind='float')[:, None, None, None]
    values = in_float32(xp, images)
    if min(height, width) < 3:
        return images
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = (around + 4 * values[:, 1:-1, 1:-1]) / 13
    inner = np.zeros((1, height, width, 1), bool)
    inner[:, 1:-1, 1:-1] = True
    smooth = xp.where(inner, xp.pad(smooth, [[0, 0], [1, 1], [1, 1], [0, 0]]), values)
    result = smooth + cast(xp, factor, values.dtype) * (values - smooth)
    return cast(xp, to_byte_range(result), images.dtype)

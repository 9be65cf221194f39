"""Rectangles in images: which pixels they hold, and how they are drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fenwicks._checks import finite_number
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import cast, check_floats, namespace, per_image
from fenwicks.augment.seeds import draw, hashed_integers, image_seeds


def rectangle(
    xp: Any, images: Tensor, top: Any, left: Any, height: Any, width: Any
) -> tuple[Tensor, Tensor]:
    """Booleans (batch, height) and (batch, width): which rows and columns the rectangles cross.

    `height` and `width` are integers, or integers (batch,) as `top` and `left` are.
    """

    def inside(axis, name, first, size_name, size):
        first = per_image(xp, name, first, images)[:, None]
        if not isinstance(size, int | np.integer):
            size = per_image(xp, size_name, size, images)[:, None]
        places = np.arange(images.shape[axis], dtype='int32')[None] - first
        return (places >= 0) & (places < size)

    return inside(1, 'top', top, 'height', height), inside(2, 'left', left, 'width', width)


def fill(xp: Any, images: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """`values`, a number or a batch, where both `rows` and `columns` are true, else `images`."""
    height, width, channels = check_floats(images)
    # Columns and channels as one axis: TensorFlow and NumPy take several times as long to
    # broadcast a mask along three channels.
    hole = rows[:, :, None] & xp.repeat(columns, channels, 1)[:, None]
    flat = (-1, height, width * channels)
    values = values if len(values.shape) == 0 else xp.reshape(values, flat)
    filled = xp.where(hole, values, xp.reshape(images, flat))
    return xp.reshape(filled, (-1, height, width, channels))


def check_span(name: str, span: Any, **limits: float) -> tuple[float, float]:
    """`span` as two floats within the limits, the smaller first."""
    if not isinstance(span, tuple | list) or len(span) != 2:
        raise ValueError(f'`{name}` must be two numbers. Received: {name}={span!r}')
    low, high = (finite_number(name, value, **limits) for value in span)
    if low > high:
        raise ValueError(f'`{name}` must be the smaller number first. Received: {name}={span!r}')
    return low, high


def random_box(
    images: Tensor,
    seed: Seed,
    full_height: int,
    full_width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws a box inside each image, by draws 0 to 3: top, left, height, width, int32 (batch,).

    Its share of the area is uniform, and so is the logarithm of height / width; sides are rounded,
    at least 1, and cut to the image's.
    """
    check_floats(images)
    xp = namespace(images, seed)
    area = check_span('area', area, low=0, high=1)
    low, high = check_span('ratio', ratio, above=0)
    pixels = draw(images, seed, 0, *area) * np.float32(full_height * full_width)
    root = xp.exp(draw(images, seed, 1, math.log(low) / 2, math.log(high) / 2))
    sides = []
    for length, most in (
        (xp.sqrt(pixels) * root, full_height),
        (xp.sqrt(pixels) / root, full_width),
    ):
        length = cast(xp, xp.floor(length + 0.5), 'int32')
        sides.append(xp.minimum(xp.maximum(length, 1), most))
    height, width = sides
    top = hashed_integers(image_seeds(images, seed, 2), full_height + 1 - height)
    left = hashed_integers(image_seeds(images, seed, 3), full_width + 1 - width)
    return top, left, height, width

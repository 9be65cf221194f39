"""Affine transforms: rotate, zoom, shear and shift, composed into one bilinear resampling.

A transform is a matrix (batch, 3, 3) that maps the place (x, y, 1) of a pixel of the result to the
place that it is read from; x grows to the right and y downwards, in pixels from the image's centre.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fenwicks._checks import finite_number, flag
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import (
    cast,
    check_floats,
    clip,
    dtype_name,
    gather_pixels,
    in_float32,
    namespace,
    per_image,
)
from fenwicks.augment.seeds import draw

PADDINGS = ('reflect', 'nearest', 'constant')


def check_padding(padding: str) -> str:
    """A checked `padding` of `affine`."""
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise ValueError(
            f'`padding` must be one of {", ".join(PADDINGS)}. Received: padding={padding}'
        )
    return padding


def affine(images: Tensor, matrices: Tensor, padding: str = 'reflect', fill: float = 0.0) -> Tensor:
    """Resamples each image bilinearly at the places that its matrix gives.

        affine(images, m)[i](x, y) = images[i](x', y')    where (x', y', 1) = m[i] @ (x, y, 1)

    Multiply matrices to compose transforms: `compose_matrices(a, b)` applies `a` to the result of
    `b`, at the cost and blur of one resampling.

    Args:
        images: Floats (batch, height, width, channels).
        matrices: Floats (batch, 3, 3) with the last row 0, 0, 1, as from `rotation_matrix`.
        padding: What lies outside the image: its `'reflect'`ion at the border pixels, the
            `'nearest'` border pixel, or the `'constant'` `fill`.
        fill: Value outside the image with `'constant'` padding.

    Returns:
        Images of the same shape and dtype; they are computed in float32 or wider.

    Raises:
        ValueError: `padding` is unknown, `fill` is no number, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> from fenwicks.augment import shift_matrix
        >>> images = np.arange(4.0).reshape(1, 1, 4, 1)
        >>> affine(images, shift_matrix(np.array([0.5]), np.array([0.0])), 'nearest')[0, 0, :, 0]
        array([0. , 0.5, 1.5, 2.5])
    """
    xp = namespace(images, matrices)
    height, width, channels = check_floats(images)
    matrices = _check_matrices(xp, matrices, images)
    padding, fill = check_padding(padding), finite_number('fill', fill)
    values = in_float32(xp, images)
    if padding == 'constant':  # a fill outside is a zero outside of the difference to it
        values = values - fill
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    y, x = np.mgrid[:height, :width].reshape(2, 1, -1).astype('float32')
    x, y = x - np.float32(middle_x), y - np.float32(middle_y)
    from_x, from_y = (
        matrices[:, row, 0:1] * x + matrices[:, row, 1:2] * y + matrices[:, row, 2:3]
        for row in range(2)
    )
    columns = _corners(xp, from_x + np.float32(middle_x), width, padding)
    rows = _corners(xp, from_y + np.float32(middle_y), height, padding)
    flat = xp.reshape(values, (-1, height * width, channels))
    result: Any = 0.0
    for row, row_weight in rows:
        for column, column_weight in columns:
            weight = cast(xp, row_weight * column_weight, dtype_name(values))
            result = result + weight[:, :, None] * gather_pixels(xp, flat, row * width + column)
    result = xp.reshape(result, (-1, height, width, channels))
    return cast(xp, result + fill if padding == 'constant' else result, images.dtype)


def _corners(xp, places, size, padding):
    """The two pixels next to each place along an axis, and their weights."""
    places = clip(xp, places, -(2.0**22), 2.0**22)  # so that they fit in int32, with a fraction
    low = xp.floor(places)
    share = places - low
    corners = []
    for pixel, weight in ((cast(xp, low, 'int32'), 1 - share), (cast(xp, low, 'int32') + 1, share)):
        inside = clip(xp, pixel, 0, size - 1)
        if padding == 'reflect' and size > 1:
            period = 2 * (size - 1)
            inside = pixel % period
            inside = xp.where(inside < size, inside, period - inside)
        elif padding == 'constant':
            weight = weight * cast(xp, pixel == inside, 'float32')
        corners.append((inside, weight))
    return corners


def _check_matrices(xp, matrices, images):
    matrices = cast(xp, matrices, 'float32')
    batch, *sides = matrices.shape
    if list(sides) != [3, 3] or len({batch, images.shape[0]} - {None}) > 1:
        raise ValueError(
            f'`matrices` must hold one for each image, shape ({images.shape[0]}, 3, 3). '
            f'Received: matrices.shape={tuple(matrices.shape)}'
        )
    return matrices


def _matrix(xp, rows):
    """Matrices (batch, 3, 3) of two rows of three vectors (batch,) or numbers."""
    first = next(value for row in rows for value in row if not isinstance(value, float))
    entries = [xp.zeros_like(first) + value for row in (*rows, (0.0, 0.0, 1.0)) for value in row]
    return xp.reshape(xp.stack(entries, -1), (-1, 3, 3))


def _vectors(*values):
    xp = namespace(*values)
    return xp, [cast(xp, value, 'float32') for value in values]


def rotation_matrix(degrees: Tensor) -> Tensor:
    """Matrices that rotate images counterclockwise.

    Args:
        degrees: Floats (batch,).

    Returns:
        Matrices (batch, 3, 3) for `affine`.
    """
    xp, (degrees,) = _vectors(degrees)
    cos, sin = xp.cos(degrees * (math.pi / 180)), xp.sin(degrees * (math.pi / 180))
    return _matrix(xp, ((cos, -sin, 0.0), (sin, cos, 0.0)))


def zoom_matrix(factor: Tensor) -> Tensor:
    """Matrices that enlarge images about their centre.

    Args:
        factor: Positive floats (batch,): 2 doubles lengths, 1/2 halves them.

    Returns:
        Matrices (batch, 3, 3) for `affine`.
    """
    xp, (factor,) = _vectors(factor)
    return _matrix(xp, ((1 / factor, 0.0, 0.0), (0.0, 1 / factor, 0.0)))


def shear_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Matrices that shear images: a pixel moves by `x` per row and by `y` per column.

    Args:
        x: Floats (batch,): pixels to the left per row below the centre.
        y: Floats (batch,): pixels upwards per column to the right of the centre.

    Returns:
        Matrices (batch, 3, 3) for `affine`.
    """
    xp, (x, y) = _vectors(x, y)
    return _matrix(xp, ((1.0, x, 0.0), (y, 1.0, 0.0)))


def shift_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Matrices that move images by `x` pixels to the right and `y` downwards.

    Args:
        x: Floats (batch,).
        y: Floats (batch,).

    Returns:
        Matrices (batch, 3, 3) for `affine`.
    """
    xp, (x, y) = _vectors(x, y)
    return _matrix(xp, ((1.0, 0.0, -x), (0.0, 1.0, -y)))


def flip_matrix(mask: Tensor) -> Tensor:
    """Matrices that mirror images left to right where `mask` is true.

    Args:
        mask: Booleans (batch,).

    Returns:
        Matrices (batch, 3, 3) for `affine`.
    """
    xp, (mask,) = _vectors(mask)
    return _matrix(xp, ((1 - 2 * mask, 0.0, 0.0), (0.0, 1.0, 0.0)))


def compose_matrices(*matrices: Tensor) -> Tensor:
    """Multiplies matrices: `affine` then applies the last of the transforms first.

    It sums products instead of calling a matrix product, which accelerators round.

    Args:
        matrices: One or more tensors of floats (batch, 3, 3).

    Returns:
        Matrices (batch, 3, 3).
    """
    xp = namespace(*matrices)
    product, *others = reversed(matrices)
    for other in others:
        # A place of the result goes through the matrix of the last transform first.
        product = sum(product[:, :, n, None] * other[:, None, n] for n in range(3))
    return xp.reshape(product, (-1, 3, 3))


def rotate(images: Tensor, degrees: Tensor, padding: str = 'reflect') -> Tensor:
    """Rotates each image counterclockwise by its angle, of floats (batch,); see `affine`."""
    return affine(images, rotation_matrix(_floats('degrees', degrees, images)), padding)


def zoom(images: Tensor, factor: Tensor, padding: str = 'reflect') -> Tensor:
    """Enlarges each image about its centre by its factor, of floats (batch,); see `affine`."""
    return affine(images, zoom_matrix(_floats('factor', factor, images)), padding)


def shear(images: Tensor, x: Tensor, y: Tensor, padding: str = 'reflect') -> Tensor:
    """Shears each image by `x` pixels per row, `y` per column, floats (batch,); see `affine`."""
    matrices = shear_matrix(_floats('x', x, images), _floats('y', y, images))
    return affine(images, matrices, padding)


def shift(images: Tensor, x: Tensor, y: Tensor, padding: str = 'reflect') -> Tensor:
    """Moves each image by `x` pixels right and `y` down, floats (batch,); see `affine`."""
    matrices = shift_matrix(_floats('x', x, images), _floats('y', y, images))
    return affine(images, matrices, padding)


def _floats(name, values, images):
    check_floats(images)
    return per_image(namespace(images, values), name, values, images, kind='float')


def random_affine(
    images: Tensor,
    seed: Seed,
    rotate: float = 10.0,
    zoom: float = 1.1,
    shear: float = 0.0,
    shift: float = 0.0,
    flip: bool = False,
    probability: float = 1.0,
    padding: str = 'reflect',
) -> Tensor:
    """Rotates, zooms, shears, shifts and flips each image at random, in one bilinear resampling.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.
        rotate: Largest angle in degrees, at least 0, in either direction.
        zoom: Largest factor, at least 1: uniform over [1, zoom).
        shear: Largest shear, at least 0, in pixels per row, in either direction.
        shift: Largest shift as a fraction of height and width, at least 0, in either direction.
        flip: Whether to mirror images left to right with probability 1/2.
        probability: Probability, in [0, 1], with which rotation, zoom, shear and shift are applied,
            each by itself.
        padding: What lies outside the image: `'reflect'`, `'nearest'` or `'constant'`, zeros.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A setting is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> random_affine(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1), shift=0.1).shape
        (2, 8, 8, 3)
    """
    height, width, _ = check_floats(images)
    rotate, shear = finite_number('rotate', rotate, low=0), finite_number('shear', shear, low=0)
    zoom, shift = finite_number('zoom', zoom, low=1), finite_number('shift', shift, low=0)
    probability = finite_number('probability', probability, low=0, high=1)
    flip, padding = flag('flip', flip), check_padding(padding)
    xp = namespace(images, seed)

    def amount(n, low, high, otherwise=0.0):
        """A draw, or `otherwise` for the images that this transform isn't applied to."""
        applied = draw(images, seed, 2 * n) < probability
        return xp.where(applied, draw(images, seed, 2 * n + 1, low, high), np.float32(otherwise))

    matrices = []
    if flip:
        matrices.append(flip_matrix(draw(images, seed, 10) < 0.5))
    if rotate:
        matrices.append(rotation_matrix(amount(0, -rotate, rotate)))
    if zoom > 1:
        matrices.append(zoom_matrix(amount(1, 1.0, zoom, otherwise=1.0)))
    if shear:
        x = amount(2, -shear, shear)
        matrices.append(shear_matrix(x, xp.zeros_like(x)))
    if shift:
        x = amount(3, -shift * width, shift * width)
        y = amount(4, -shift * height, shift * height)
        matrices.append(shift_matrix(x, y))
    return affine(images, compose_matrices(*matrices), padding) if matrices else images


def random_rotate(images: Tensor, seed: Seed, degrees: float = 10.0) -> Tensor:
    """Rotates each image by an angle of up to `degrees` either way; see `random_affine`."""
    degrees = finite_number('degrees', degrees, low=0)
    return random_affine(images, seed, rotate=degrees, zoom=1.0)


def random_zoom(images: Tensor, seed: Seed, factor: float = 1.1) -> Tensor:
    """Enlarges each image by a factor in [1, `factor`); see `random_affine`."""
    factor = finite_number('factor', factor, low=1)
    return random_affine(images, seed, rotate=0.0, zoom=factor)


def random_shear(images: Tensor, seed: Seed, amount: float = 0.1) -> Tensor:
    """Shears each image by up to `amount` pixels per row either way; see `random_affine`."""
    amount = finite_number('amount', amount, low=0)
    return random_affine(images, seed, rotate=0.0, zoom=1.0, shear=amount)


def random_shift(images: Tensor, seed: Seed, fraction: float = 0.1) -> Tensor:
    """Moves each image by up to a `fraction` of its sides either way; see `random_affine`."""
    fraction = finite_number('fraction', fraction, low=0)
    return random_affine(images, seed, rotate=0.0, zoom=1.0, shift=fraction)

"""Mixtures of two images and of their labels: mixup and cutmix."""

from __future__ import annotations

import functools
import math

import numpy as np

from fenwicks._checks import finite_number
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import (
    arange,
    batch_size,
    cast,
    check_floats,
    dtype_name,
    in_float32,
    namespace,
    per_image,
    take,
    total,
)
from fenwicks.augment.boxes import fill, rectangle
from fenwicks.augment.seeds import draw, draw_integers

_TABLE = 4096  # intervals of the quantile function of the beta distribution


def mixup(images: Tensor, labels: Tensor, partner: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blends each image, and its labels, with those of another image of the batch.

        images[i] = share[i] * images[i] + (1 - share[i]) * images[partner[i]]    # labels likewise

    Args:
        images: Floats (batch, height, width, channels).
        labels: Floats (batch, classes): one-hot labels or probabilities.
        partner: Integers (batch,): the number of the other image, taken modulo the batch.
        share: Floats (batch,) in [0, 1].

    Returns:
        Images and labels of the same shapes and dtypes.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images, labels, partner, share)
    _check(images, labels)
    partner = per_image(xp, 'partner', partner, images) % batch_size(xp, images)
    share = per_image(xp, 'share', share, images, kind='float')
    values, other = in_float32(xp, images), in_float32(xp, take(xp, images, partner))
    weight = cast(xp, share, values.dtype)[:, None, None, None]
    blended = cast(xp, weight * values + (1 - weight) * other, images.dtype)
    return blended, _blend_labels(xp, labels, partner, share)


def random_mixup(
    images: Tensor, labels: Tensor, seed: Seed, alpha: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Blends each image and its labels with those of a random other one; see `mixup`.

        share ~ Beta(alpha, alpha), drawn for each image;  partner ~ uniform over the other images

    Args:
        images: Floats (batch, height, width, channels).
        labels: Floats (batch, classes): one-hot labels or probabilities.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        alpha: Parameter of the distribution, above 0: small ones mix little, 1 is uniform.

    Returns:
        Images and labels of the same shapes and dtypes.

    Raises:
        ValueError: `alpha` isn't positive, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> images, labels = np.ones((4, 8, 8, 3), 'float32'), np.eye(4, dtype='float32')
        >>> images, labels = random_mixup(images, labels, seed=(0, 1))
        >>> labels.sum(1)
        array([1., 1., 1., 1.], dtype=float32)

    Reference:
        Zhang et al. 2017, https://arxiv.org/abs/1710.09412
    """
    _check(images, labels)
    return mixup(images, labels, _partners(images, seed, 0), draw_beta(images, seed, 1, alpha))


def cutmix(
    images: Tensor,
    labels: Tensor,
    partner: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
) -> tuple[Tensor, Tensor]:
    """Replaces a rectangle of each image by that of another, and blends labels by area.

        share[i] = 1 - (pixels of the rectangle inside the image) / (height * width of the image)
        labels[i] = share[i] * labels[i] + (1 - share[i]) * labels[partner[i]]

    Args:
        images: Floats (batch, height, width, channels).
        labels: Floats (batch, classes): one-hot labels or probabilities.
        partner: Integers (batch,): the number of the other image, taken modulo the batch.
        top: Integers (batch,): first row of each rectangle.
        left: Integers (batch,): first column of each rectangle.
        height: Integers (batch,): rows of each rectangle.
        width: Integers (batch,): columns of each rectangle.

    Returns:
        Images and labels of the same shapes and dtypes.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp = namespace(images, labels, partner, top, left, height, width)
    _check(images, labels)
    partner = per_image(xp, 'partner', partner, images) % batch_size(xp, images)
    rows, columns = rectangle(xp, images, top, left, height, width)
    across, down = (total(xp, cast(xp, side, 'float32'), 1) for side in (rows, columns))
    share = 1 - across * down / (rows.shape[1] * columns.shape[1])
    mixed = fill(xp, images, rows, columns, take(xp, images, partner))
    return mixed, _blend_labels(xp, labels, partner, share)


def random_cutmix(
    images: Tensor, labels: Tensor, seed: Seed, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Replaces a rectangle of each image by that of a random other one; see `cutmix`.

        share ~ Beta(alpha, alpha), drawn for each image;  partner ~ uniform over the other images
        rectangle: sides sqrt(1 - share) times the image's, its centre uniform over the image

    Labels are blended by the area that really was replaced, since the border may cut rectangles.

    Args:
        images: Floats (batch, height, width, channels).
        labels: Floats (batch, classes): one-hot labels or probabilities.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        alpha: Parameter of the distribution, above 0; 1 is uniform.

    Returns:
        Images and labels of the same shapes and dtypes.

    Raises:
        ValueError: `alpha` isn't positive, or a shape or dtype doesn't fit.

    Reference:
        Yun et al. 2019, https://arxiv.org/abs/1905.04899
    """
    xp = namespace(images, labels, seed)
    _check(images, labels)
    height, width, _ = check_floats(images)
    side = xp.sqrt(1 - draw_beta(images, seed, 1, alpha))
    corner = []
    for n, size in ((2, height), (3, width)):
        length = cast(xp, xp.floor(side * size + 0.5), 'int32')
        corner.append((draw_integers(images, seed, n, size) - length // 2, length))
    (top, rows), (left, columns) = corner
    return cutmix(images, labels, _partners(images, seed, 0), top, left, rows, columns)


def draw_beta(images: Tensor, seed: Seed, n: int = 0, alpha: float = 1.0) -> Tensor:
    """Draws a number for each image from the symmetric beta distribution Beta(alpha, alpha).

    It looks a uniform draw up in a table of the quantile function, between whose 4097 entries it
    interpolates; so it is the same in every framework, and needs no rejections.

    Args:
        images: The batch, of which only the number of images and the framework are used.
        seed: Two integers for the whole batch, or (batch, 2); may be traced.
        n: Number of the draw.
        alpha: Parameter of the distribution, above 0.

    Returns:
        A float32 array or tensor (batch,), in [0, 1].

    Raises:
        ValueError: `alpha` isn't positive, or `seed` isn't two integers or (batch, 2).
    """
    xp = namespace(images, seed)
    table = beta_quantiles(finite_number('alpha', alpha, above=0)).astype('float32')
    place = draw(images, seed, n, 0.0, float(_TABLE))
    index = cast(xp, place, 'int32')
    share = place - cast(xp, index, 'float32')
    low, high = take(xp, table, index), take(xp, table, index + 1)
    return low + share * (high - low)


@functools.lru_cache(16)
def beta_quantiles(alpha: float) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha) at 0, 1/4096, ..., 1, in float64."""
    power = min(alpha, 1.0)
    if alpha <= 1:
        # Half of the distribution, in y = x**alpha, in which the density is smooth near 0.
        y = np.linspace(0, 0.5**alpha, 200_001)
        x = y ** (1 / power)
        density = (1 - x) ** (alpha - 1)
    else:
        # In x, over the six deviations in which nearly all of it lies.
        deviation = 0.5 / math.sqrt(2 * alpha + 1)
        x = y = np.linspace(max(0.0, 0.5 - 6 * deviation), 0.5, 200_001)
        with np.errstate(divide='ignore'):
            density = np.exp((alpha - 1) * np.log(4 * x * (1 - x)))
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    half = np.interp(np.linspace(0, 0.5, _TABLE // 2 + 1), mass / mass[-1] / 2, y)
    half = half ** (1 / power)
    return np.concatenate([half, 1 - half[-2::-1]])


def _partners(images, seed, n):
    """The image that is as many places further on as a draw says; never the image itself."""
    xp = namespace(images, seed)
    size = batch_size(xp, images)
    others = xp.maximum(size - 1, 1)
    return cast(xp, (arange(xp, size) + 1 + draw_integers(images, seed, n, others)) % size, 'int32')


def _blend_labels(xp, labels, partner, share):
    share = cast(xp, share, labels.dtype)[:, None]
    return share * labels + (1 - share) * take(xp, labels, partner)


def _check(images, labels):
    check_floats(images)
    shape = tuple(getattr(labels, 'shape', ()))
    if len(shape) != 2 or 'float' not in dtype_name(labels):
        raise ValueError(
            '`labels` must be floats (batch, classes): one-hot labels or probabilities. '
            f'Received: labels.shape={tuple(shape)}, labels.dtype={dtype_name(labels)}'
        )
    sizes = {*shape[:1], images.shape[0]} - {None}
    if len(sizes) > 1:
        raise ValueError(
            '`labels` must be as many as the images. '
            f'Received: labels.shape={tuple(shape)}, images.shape={tuple(images.shape)}'
        )

"""Normalizers: from pixels in 0...255 to what a network takes, and exactly back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fenwicks._typing import Tensor
from fenwicks.augment.arrays import cast, check_rank, namespace


def normalize(images: Tensor, mean: Any, std: Any, dtype: str = 'float32') -> Tensor:
    """Standardises each channel: `(images - mean) / std`, computed in float32.

    Args:
        images: uint8 or floats (batch, height, width, channels), in 0...255.
        mean: A number, or one per channel, in the images' units (0...255).
        std: A positive number, or one per channel, in the images' units (0...255).
        dtype: Name of the float dtype to return.

    Returns:
        Images of the same shape, of `dtype`.

    Raises:
        ValueError: `std` isn't positive, `dtype` isn't a float's, or a shape doesn't fit.

    Example:
        >>> normalize(np.full((1, 1, 1, 3), 150, 'uint8'), mean=[100, 150, 200], std=50)[0, 0, 0]
        array([ 1.,  0., -1.], dtype=float32)
    """
    xp = namespace(images)
    mean, std = _statistics(images, mean, std, dtype)
    return cast(xp, (cast(xp, images, 'float32') - mean) / std, dtype)


def denormalize(images: Tensor, mean: Any, std: Any, dtype: str = 'float32') -> Tensor:
    """Inverts `normalize`: `images * std + mean`, computed in float32, not rounded or clipped.

    Args:
        images: Floats (batch, height, width, channels).
        mean: As given to `normalize`.
        std: As given to `normalize`.
        dtype: Name of the float dtype to return.

    Returns:
        Images of the same shape, of `dtype`, in 0...255.

    Raises:
        ValueError: `std` isn't positive, `dtype` isn't a float's, or a shape doesn't fit.
    """
    xp = namespace(images)
    mean, std = _statistics(images, mean, std, dtype)
    return cast(xp, cast(xp, images, 'float32') * std + mean, dtype)


def _statistics(images, mean, std, dtype):
    """`mean` and `std` as float32, checked against the images' channels."""
    check_rank(images)
    if 'float' not in str(dtype):
        raise ValueError(f'`dtype` must be a float type. Received: dtype={dtype}')
    mean, std = np.asarray(mean, 'float32'), np.asarray(std, 'float32')
    for name, value in (('mean', mean), ('std', std)):
        if value.shape not in ((), (1,), (images.shape[-1],)):
            raise ValueError(
                f'`{name}` must be a number or one per channel, shape ({images.shape[-1]},). '
                f'Received: {name}.shape={value.shape}'
            )
    if not np.isfinite(mean).all():
        raise ValueError(f'`mean` must be finite. Received: mean={mean}')
    if not (np.isfinite(std) & (std > 0)).all():
        raise ValueError(f'`std` must be positive and finite. Received: std={std}')
    return mean, std

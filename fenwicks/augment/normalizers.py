"""Normalizers: from pixels in 0...255 to what a network takes, and exactly back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fenwicks._typing import Tensor
from fenwicks.augment.arrays import cast, check_rank, namespace, reverse


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
        >>> import numpy as np
        >>> normalize(np.full((1, 1, 1, 3), 150, 'uint8'), mean=[100, 150, 200], std=50)[0, 0, 0]
        array([ 1.,  0., -1.], dtype=float32)
    """
    xp = namespace(images)
    flat, mean, std = _rows(xp, images, *_statistics(images, mean, std, dtype))
    return cast(xp, xp.reshape((flat - mean) / std, _shape(xp, images)), dtype)


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
    flat, mean, std = _rows(xp, images, *_statistics(images, mean, std, dtype))
    return cast(xp, xp.reshape(flat * std + mean, _shape(xp, images)), dtype)


def _rows(xp, images, mean, std):
    """Rows of pixels as vectors, float32, and the statistics of each of their entries.

    TensorFlow and NumPy take several times as long to broadcast along three channels.
    """
    width, channels = (size or 1 for size in images.shape[2:])  # unknown ones, when traced, as 1
    mean, std = (np.tile(np.broadcast_to(each, channels), width) for each in (mean, std))
    return xp.reshape(cast(xp, images, 'float32'), (-1, width * channels)), mean, std


def _shape(xp, images):
    return xp.shape(images) if None in tuple(images.shape) else images.shape


_FLOATS = ('bfloat16', 'float16', 'float32', 'float64')


def _statistics(images, mean, std, dtype):
    check_rank(images)
    name = getattr(dtype, 'name', None) or getattr(dtype, '__name__', dtype)
    if name not in _FLOATS:
        raise ValueError(
            f'`dtype` must be a float type, of {", ".join(_FLOATS)}. Received: dtype={dtype}'
        )
    return check_statistics(mean, std, images.shape[-1])


def check_statistics(
    mean: Any, std: Any, channels: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`mean` and `std` as float32, checked against the number of channels where that is known."""
    try:
        mean, std = np.asarray(mean, 'float32'), np.asarray(std, 'float32')
    except (TypeError, ValueError):
        raise ValueError(
            f'`mean` and `std` must be numbers. Received: mean={mean!r}, std={std!r}'
        ) from None
    for name, value in (('mean', mean), ('std', std)):
        if value.shape not in ((), (1,), (channels or value.size,)):
            raise ValueError(
                f'`{name}` must be a number or one per channel, shape ({channels or "channels"},). '
                f'Received: {name}.shape={value.shape}'
            )
    if not np.isfinite(mean).all():
        raise ValueError(f'`mean` must be finite. Received: mean={mean}')
    if not (np.isfinite(std) & (std > 0)).all():
        raise ValueError(f'`std` must be positive and finite. Received: std={std}')
    return mean, std


# By the names that `keras.applications` gives its conventions; in units of 0...255.
IMAGENET = {
    'tf': (127.5, 127.5),
    'torch': ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    'caffe': ((103.939, 116.779, 123.68), 1.0),
}


def imagenet_normalize(images: Tensor, mode: str = 'tf', dtype: str = 'float32') -> Tensor:
    """Normalises as a network was when it was trained on ImageNet.

        tf:     images / 127.5 - 1
        torch:  (images - mean) / std, of each channel of ImageNet
        caffe:  BGR - mean, the channels in the opposite order

    Args:
        images: uint8 or floats (batch, height, width, 3), RGB in 0...255.
        mode: `'tf'`, `'torch'` or `'caffe'`, as `keras.applications` calls them.
        dtype: Name of the float dtype to return.

    Returns:
        Images of the same shape, of `dtype`.

    Raises:
        ValueError: `mode` is unknown, `dtype` isn't a float's, or a shape doesn't fit.

    Example:
        >>> import numpy as np
        >>> imagenet_normalize(np.full((1, 1, 1, 3), 255, 'uint8'))[0, 0, 0]
        array([1., 1., 1.], dtype=float32)
    """
    mean, std = _imagenet(images, mode)
    return normalize(_in_order(images, mode), mean, std, dtype)


def imagenet_denormalize(images: Tensor, mode: str = 'tf', dtype: str = 'float32') -> Tensor:
    """Inverts `imagenet_normalize`: RGB in 0...255, not rounded or clipped.

    Args:
        images: Floats (batch, height, width, 3).
        mode: As given to `imagenet_normalize`.
        dtype: Name of the float dtype to return.

    Returns:
        Images of the same shape, of `dtype`.

    Raises:
        ValueError: `mode` is unknown, `dtype` isn't a float's, or a shape doesn't fit.
    """
    mean, std = _imagenet(images, mode)
    pixels = denormalize(images, mean, std, dtype)
    return _in_order(pixels, mode)


def _imagenet(images, mode):
    check_rank(images)
    if not isinstance(mode, str) or mode not in IMAGENET:
        raise ValueError(f'`mode` must be one of {", ".join(IMAGENET)}. Received: mode={mode}')
    if images.shape[-1] != 3:
        raise ValueError(
            f'`images` must have 3 channels, RGB. Received: images.shape={tuple(images.shape)}'
        )
    return IMAGENET[mode]


def _in_order(images, mode):
    """RGB images with their channels as the networks of a mode take them, or back."""
    return reverse(namespace(images), images, 3) if mode == 'caffe' else images

"""Photometric transforms: change the values of pixels, not their places."""

from __future__ import annotations

from fenwicks._checks import finite_number
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import cast, check_floats, in_float32, namespace, per_image
from fenwicks.augment.seeds import draw


def jitter(images: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shifts the values of each image, then scales them.

        jitter(images, shift, scale)[i] = (images[i] + shift[i]) * scale[i]

    On normalised images the shift changes the brightness, the scale the contrast.

    Args:
        images: Floats (batch, height, width, channels), normalised.
        shift: Floats (batch,), in units of the images.
        scale: Floats (batch,).

    Returns:
        Images of the same shape and dtype; they are computed in float32 or wider.

    Raises:
        ValueError: A shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> jitter(np.ones((1, 1, 2, 1)), np.array([0.5]), np.array([2.0]))[0, 0, :, 0]
        array([3., 3.])
    """
    xp = namespace(images, shift, scale)
    check_floats(images)
    shift = per_image(xp, 'shift', shift, images, kind='float')[:, None, None, None]
    scale = per_image(xp, 'scale', scale, images, kind='float')[:, None, None, None]
    values = in_float32(xp, images)
    result = (values + cast(xp, shift, values.dtype)) * cast(xp, scale, values.dtype)
    return cast(xp, result, images.dtype)


def random_jitter(
    images: Tensor, seed: Seed, brightness: float = 0.1, contrast: float = 0.1
) -> Tensor:
    """Shifts the values of each image and scales them, at random.

        shift ~ uniform over [-brightness, brightness)
        scale ~ uniform over [1 - contrast, 1 + contrast)
        random_jitter(images, seed) = (images + shift) * scale

    Args:
        images: Floats (batch, height, width, channels), normalised.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        brightness: Largest shift, at least 0, in units of the images: of normalised images, in
            standard deviations.
        contrast: Largest change of the scale, in [0, 1].

    Returns:
        Images of the same shape and dtype; they are computed in float32 or wider.

    Raises:
        ValueError: `brightness` or `contrast` is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> random_jitter(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)
    """
    check_floats(images)
    brightness = finite_number('brightness', brightness, low=0)
    contrast = finite_number('contrast', contrast, low=0, high=1)
    shift = draw(images, seed, 0, -brightness, brightness)
    scale = draw(images, seed, 1, 1 - contrast, 1 + contrast)
    return jitter(images, shift, scale)

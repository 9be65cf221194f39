"""Photometric transforms: change the values of pixels, not their places."""

from __future__ import annotations

from fenwicks._typing import Tensor
from fenwicks.augment.arrays import cast, check_floats, clip, in_float32, namespace, per_image


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
    xp, values, shift, scale = _prepare(images, shift=shift, scale=scale)
    return cast(xp, (values + shift) * scale, images.dtype)


def brightness(images: Tensor, delta: Tensor) -> Tensor:
    """Adds a number to all values of each image.

        brightness(images, delta)[i] = images[i] + delta[i]

    Args:
        images: Floats (batch, height, width, channels).
        delta: Floats (batch,), in units of the images.

    Returns:
        Images of the same shape and dtype, not clipped.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp, values, delta = _prepare(images, delta=delta)
    return cast(xp, values + delta, images.dtype)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the distances of each image's values from the mean of their channel.

        contrast(images, factor)[i] = mean[i] + factor[i] * (images[i] - mean[i])

    Args:
        images: Floats (batch, height, width, channels).
        factor: Floats (batch,): 1 changes nothing, 0 leaves the means only.

    Returns:
        Images of the same shape and dtype, not clipped.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    xp, values, factor = _prepare(images, factor=factor)
    average = xp.reduce_mean if xp.__name__ == 'tensorflow' else xp.mean
    height, width, channels = check_floats(images)
    mean = average(xp.reshape(values, (-1, 1, height * width, channels)), 2)[:, :, None]
    return cast(xp, mean + factor * (values - mean), images.dtype)


def grey(images: Tensor) -> Tensor:
    """The luma of RGB images in all three channels: 0.299 R + 0.587 G + 0.114 B.

    Args:
        images: Floats (batch, height, width, 3).

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The images don't have 3 channels, or their dtype doesn't fit.
    """
    xp = namespace(images)
    red, green, blue = _channels(xp, images)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return cast(xp, xp.stack([luma, luma, luma], -1), images.dtype)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the distances of each image's colours from grey.

        saturation(images, factor)[i] = grey[i] + factor[i] * (images[i] - grey[i])

    Args:
        images: Floats (batch, height, width, 3), RGB.
        factor: Floats (batch,): 1 changes nothing, 0 leaves grey.

    Returns:
        Images of the same shape and dtype, not clipped.

    Raises:
        ValueError: The images don't have 3 channels, or a shape or dtype doesn't fit.
    """
    xp, values, factor = _prepare(images, factor=factor)
    luma = grey(values)
    return cast(xp, luma + factor * (values - luma), images.dtype)


def hue(images: Tensor, degrees: Tensor) -> Tensor:
    """Turns the hue of each image's colours; the largest and smallest channel keep their values.

    This is the rotation of H in HSV space, as `tf.image.adjust_hue` computes it. Values may have
    any range that is the same for the three channels.

    Args:
        images: Floats (batch, height, width, 3), RGB.
        degrees: Floats (batch,): 120 turns red into green.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The images don't have 3 channels, or a shape or dtype doesn't fit.
    """
    xp, values, degrees = _prepare(images, degrees=degrees)
    red, green, blue = _channels(xp, values)
    high = xp.maximum(red, xp.maximum(green, blue))
    low = xp.minimum(red, xp.minimum(green, blue))
    chroma = high - low
    safe = xp.where(chroma > 0, chroma, xp.ones_like(chroma))
    # The hue in sixths of a turn, from the channel that is the largest.
    sixths = xp.where(
        high == red,
        (green - blue) / safe,
        xp.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + degrees[:, :, :, 0] / 60
    turned = []
    for peak in (0.0, 2.0, 4.0):  # each channel falls off on both sides of its own hue
        distance = xp.abs((sixths - peak + 3) % 6 - 3)
        turned.append(low + chroma * clip(xp, 2 - distance, 0.0, 1.0))
    return cast(xp, xp.stack(turned, -1), images.dtype)


def distort_color(images: Tensor, delta: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    """Adds numbers to the brightness and to the two colour differences (Cb, Cr) of each image.

        R += delta + 1.402 * red
        G += delta - 0.344136 * blue - 0.714136 * red
        B += delta + 1.772 * blue

    Args:
        images: Floats (batch, height, width, 3), RGB.
        delta: Floats (batch,), in units of the images.
        blue: Floats (batch,), in units of the images.
        red: Floats (batch,), in units of the images.

    Returns:
        Images of the same shape and dtype, not clipped.

    Raises:
        ValueError: The images don't have 3 channels, or a shape or dtype doesn't fit.
    """
    xp, values, delta, blue, red = _prepare(images, delta=delta, blue=blue, red=red)
    _channels(xp, values)  # checks that there are three
    shifts = (delta + 1.402 * red, delta - 0.344136 * blue - 0.714136 * red, delta + 1.772 * blue)
    return cast(xp, values + xp.stack([shift[..., 0] for shift in shifts], -1), images.dtype)


def to_byte_range(images: Tensor) -> Tensor:
    """`images` clipped to 0...255."""
    xp = namespace(images)
    low, high = (cast(xp, value, images.dtype) for value in (0, 255))
    return clip(xp, images, low, high)


def _prepare(images, **parameters):
    """The framework, `images` in float32 or wider, and each parameter as (batch, 1, 1, 1)."""
    xp = namespace(images, *parameters.values())
    check_floats(images)
    values = in_float32(xp, images)
    shaped = [
        cast(xp, per_image(xp, name, value, images, kind='float'), values.dtype)
        for name, value in parameters.items()
    ]
    return xp, values, *(value[:, None, None, None] for value in shaped)


def _channels(xp, images):
    """Red, green and blue in float32 or wider."""
    _, _, channels = check_floats(images)
    if channels != 3:
        raise ValueError(
            f'`images` must have 3 channels, RGB. Received: images.shape={tuple(images.shape)}'
        )
    values = in_float32(xp, images)
    return values[..., 0], values[..., 1], values[..., 2]

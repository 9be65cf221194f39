"""Photometric transforms that draw: brightness, contrast, saturation and hue of each image."""

from __future__ import annotations

from fenwicks._checks import finite_number
from fenwicks._typing import Seed, Tensor
from fenwicks.augment import color
from fenwicks.augment.arrays import cast, check_floats, in_float32, namespace
from fenwicks.augment.color import to_byte_range
from fenwicks.augment.seeds import draw, fold

# Which of all `random_*` functions take pixels in 0...255, where the others take normalised images.
ON_PIXELS = ('random_brightness', 'random_color', 'random_distort_color', 'random_lighting')


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
    return color.jitter(images, shift, scale)


def random_brightness(images: Tensor, seed: Seed, amount: float = 0.2) -> Tensor:
    """Adds a random number to all values of each image in 0...255; the result isn't clipped.

        delta ~ uniform over [-amount / 2, amount / 2) * 255

    Args:
        images: Floats (batch, height, width, channels) in 0...255.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        amount: Strength, in [0, 1).

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `amount` is out of range, or a shape or dtype doesn't fit.
    """
    check_floats(images)
    amount = finite_number('amount', amount, low=0, below=1)
    return color.brightness(images, draw(images, seed, 0, -amount * 127.5, amount * 127.5))


def random_contrast(images: Tensor, seed: Seed, amount: float = 0.2) -> Tensor:
    """Changes the contrast of each image by a random factor; the result isn't clipped.

        factor ~ uniform over [1 - amount, 1 / (1 - amount))

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.
        amount: Strength, in [0, 1).

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `amount` is out of range, or a shape or dtype doesn't fit.
    """
    check_floats(images)
    amount = finite_number('amount', amount, low=0, below=1)
    return color.contrast(images, draw(images, seed, 0, 1 - amount, 1 / (1 - amount)))


def random_lighting(images: Tensor, seed: Seed, amount: float = 0.2) -> Tensor:
    """Changes brightness and contrast of images in 0...255 at random, and clips to that range.

    It is `random_brightness`, then `random_contrast`, each of them clipped to 0...255.

    Args:
        images: Floats (batch, height, width, channels) in 0...255.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        amount: Strength, in [0, 1).

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `amount` is out of range, or a shape or dtype doesn't fit.
    """
    amount = finite_number('amount', amount, low=0, below=1)
    values = random_brightness(_floats(images), fold(seed, 0), amount)
    values = random_contrast(to_byte_range(values), fold(seed, 1), amount)
    return _like(images, to_byte_range(values))


def random_distort_color(
    images: Tensor, seed: Seed, delta: float = 32.0, blue: float = 25.5, red: float = 25.5
) -> Tensor:
    """Shifts brightness and colour of images in 0...255 at random, and clips to that range.

    Args:
        images: Floats (batch, height, width, 3), RGB, in 0...255.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        delta: Largest change of the brightness either way, at least 0.
        blue: Largest change of the blue difference Cb either way, at least 0.
        red: Largest change of the red difference Cr either way, at least 0.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A setting is out of range, or a shape or dtype doesn't fit.
    """
    check_floats(images)
    limits = {'delta': delta, 'blue': blue, 'red': red}
    draws = []
    for n, (name, value) in enumerate(limits.items()):
        value = finite_number(name, value, low=0)
        draws.append(draw(images, seed, n, -value, value))
    return _like(images, to_byte_range(color.distort_color(_floats(images), *draws)))


def random_color(
    images: Tensor,
    seed: Seed,
    brightness: float = 32.0,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 36.0,
) -> Tensor:
    """Changes brightness, saturation, hue and contrast of images in 0...255, and clips the result.

    Args:
        images: Floats (batch, height, width, 3), RGB, in 0...255.
        seed: Two integers for the batch, or (batch, 2); may be traced.
        brightness: Largest number added or subtracted, at least 0.
        contrast: Largest change of the factor of contrast from 1, in [0, 1].
        saturation: Largest change of the factor of saturation from 1, in [0, 1].
        hue: Largest turn of the hue in degrees either way, in [0, 180].

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A setting is out of range, or a shape or dtype doesn't fit.
    """
    delta = finite_number('brightness', brightness, low=0)
    degrees = finite_number('hue', hue, low=0, high=180)
    factors = {
        name: finite_number(name, value, low=0, high=1)
        for name, value in (('contrast', contrast), ('saturation', saturation))
    }
    values = color.brightness(_floats(images), draw(images, seed, 0, -delta, delta))
    values = color.saturation(values, _factor(images, seed, 1, factors['saturation']))
    values = color.hue(values, draw(images, seed, 2, -degrees, degrees))
    values = color.contrast(values, _factor(images, seed, 3, factors['contrast']))
    return _like(images, to_byte_range(values))


def _factor(images, seed, n, change):
    return draw(images, seed, n, 1 - change, 1 + change)


def _floats(images):
    check_floats(images)
    return in_float32(namespace(images), images)


def _like(images, values):
    return cast(namespace(images), values, images.dtype)

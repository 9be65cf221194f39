"""RandAugment and TrivialAugment: draw an operation and its strength for each image."""

from __future__ import annotations

from collections.abc import Callable

from fenwicks._checks import finite_number, positive_integer
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import cast, check_floats, in_float32, namespace, where
from fenwicks.augment.color import contrast, saturation, to_byte_range
from fenwicks.augment.geometry import (
    affine,
    check_padding,
    compose_matrices,
    rotation_matrix,
    shear_matrix,
    shift_matrix,
)
from fenwicks.augment.levels import autocontrast, equalize, posterize, sharpness, solarize
from fenwicks.augment.seeds import draw, draw_integers, fold

OPERATIONS = (
    'identity',
    'shear_x',
    'shear_y',
    'shift_x',
    'shift_y',
    'rotate',
    'brightness',
    'saturation',
    'contrast',
    'sharpness',
    'posterize',
    'solarize',
    'autocontrast',
    'equalize',
)


class _Policy:
    """The callable that the functions below return.

    Args:
        factory, settings: the function and its arguments.
        operations: number of operations in a row.
        magnitude: strength in [0, 1], or `None` to draw one for each image.
        shear, shift, degrees, enhance, bits: what strength 1 means: pixels per row, share of the
            sides, degrees, change of a factor from 1, bits removed.
        padding: what lies outside the image.
    """

    def __init__(
        self,
        factory,
        settings,
        operations,
        magnitude,
        shear,
        shift,
        degrees,
        enhance,
        bits,
        padding,
    ):
        check_padding(padding)
        self.factory, self.settings = factory, settings
        self.operations, self.magnitude = operations, magnitude
        self.shear, self.shift, self.degrees = shear, shift, degrees
        self.enhance, self.bits, self.padding = enhance, bits, padding

    def __call__(self, images: Tensor, seed: Seed) -> Tensor:
        check_floats(images)
        xp = namespace(images, seed)
        values = in_float32(xp, images)
        for n in range(self.operations):
            values = self._one(xp, values, fold(seed, n))
        return cast(xp, values, images.dtype)

    def _one(self, xp, images, seed):
        """Applies one operation to each image."""
        operation = draw_integers(images, seed, 0, len(OPERATIONS))
        strength = draw(images, seed, 1)
        if self.magnitude is not None:
            strength = xp.zeros_like(strength) + self.magnitude
        sign = xp.where(draw(images, seed, 2) < 0.5, -1.0, 1.0)
        sign = cast(xp, sign, 'float32')

        def amount(name, most):
            """A signed strength where the operation is `name`, else 0."""
            chosen = cast(xp, operation == OPERATIONS.index(name), 'float32')
            return chosen * sign * strength * most

        # Operations that move pixels share one resampling; the matrix of the others is identity.
        height, width, _ = check_floats(images)
        matrices = compose_matrices(
            shear_matrix(amount('shear_x', self.shear), amount('shear_y', self.shear)),
            shift_matrix(
                amount('shift_x', self.shift * width), amount('shift_y', self.shift * height)
            ),
            rotation_matrix(amount('rotate', self.degrees)),
        )
        result = affine(images, matrices, self.padding)
        factor = 1 + sign * strength * self.enhance
        bits = 8 - cast(xp, xp.floor(strength * self.bits + 0.5), 'int32')
        changed = {
            'brightness': brightness_factor(images, factor),
            'saturation': to_byte_range(saturation(images, factor)),
            'contrast': to_byte_range(contrast(images, factor)),
            'sharpness': sharpness(images, factor),
            'posterize': posterize(images, bits),
            'solarize': solarize(images, 255 - strength * 255),
            'autocontrast': autocontrast(images),
            'equalize': equalize(images),
        }
        for name, values in changed.items():
            result = where(xp, operation == OPERATIONS.index(name), values, result)
        return result


def brightness_factor(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the values of each image in 0...255 by its factor, and clips."""
    xp = namespace(images, factor)
    return to_byte_range(images * cast(xp, factor, images.dtype)[:, None, None, None])


def rand_augment(
    operations: int = 2, magnitude: float = 9.0, padding: str = 'constant'
) -> Callable[[Tensor, Seed], Tensor]:
    """RandAugment: applies `operations` random operations of one strength to each image.

    The operations are those of the paper: identity, shears, shifts and rotation (bilinear, up to
    0.3 pixels per row, 150 / 331 of a side, 30 degrees), brightness, saturation, contrast and
    sharpness (factors up to 1 +- 0.9), posterize (up to 4 bits less), solarize, autocontrast and
    equalize. Strength is `magnitude` of 30. Images are RGB in 0...255; wrap the policy by
    `on_pixels` for normalised ones. All operations are computed for the whole batch.

    Args:
        operations: Number of operations in a row, at least 1.
        magnitude: Strength, in [0, 30].
        padding: What lies outside the image: `'constant'`, zeros, `'reflect'` or `'nearest'`.

    Returns:
        A callable `f(images, seed) -> images`, which can be pickled.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> import numpy as np
        >>> images = np.full((2, 8, 8, 3), 100, 'float32')
        >>> rand_augment()(images, seed=(0, 1)).shape
        (2, 8, 8, 3)

    Reference:
        Cubuk et al. 2019, https://arxiv.org/abs/1909.13719
    """
    operations = positive_integer('operations', operations)
    magnitude = finite_number('magnitude', magnitude, low=0, high=30)
    settings = {'operations': operations, 'magnitude': magnitude, 'padding': padding}
    return _Policy(
        'rand_augment',
        settings,
        operations,
        magnitude=magnitude / 30,
        shear=0.3,
        shift=150 / 331,
        degrees=30.0,
        enhance=0.9,
        bits=4,
        padding=padding,
    )


def trivial_augment(padding: str = 'constant') -> Callable[[Tensor, Seed], Tensor]:
    """TrivialAugment: applies one random operation of random strength to each image.

    The operations are those of `rand_augment` in wide ranges: shears up to 0.99 pixels per row,
    shifts up to 32 / 224 of a side, 135 degrees, factors up to 1 +- 0.99, up to 6 bits less.
    Images are RGB in 0...255; wrap the policy by `on_pixels` for normalised ones.

    Args:
        padding: What lies outside the image: `'constant'`, zeros, `'reflect'` or `'nearest'`.

    Returns:
        A callable `f(images, seed) -> images`, which can be pickled.

    Raises:
        ValueError: `padding` is unknown.

    Example:
        >>> import numpy as np
        >>> images = np.full((2, 8, 8, 3), 100, 'float32')
        >>> trivial_augment()(images, seed=(0, 1)).shape
        (2, 8, 8, 3)

    Reference:
        Müller and Hutter 2021, https://arxiv.org/abs/2103.10158
    """
    return _Policy(
        'trivial_augment',
        {'padding': padding},
        operations=1,
        magnitude=None,
        shear=0.99,
        shift=32 / 224,
        degrees=135.0,
        enhance=0.99,
        bits=6,
        padding=padding,
    )

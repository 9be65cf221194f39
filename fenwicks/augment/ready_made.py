"""Ready-made lists of transforms, from pixels in 0...255 to what a network takes."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fenwicks._checks import check_callable, finite_number, flag, positive_integer
from fenwicks._typing import Tensor
from fenwicks.augment.choices import apply, without_seed
from fenwicks.augment.color import to_byte_range
from fenwicks.augment.color_draws import random_brightness, random_contrast, random_distort_color
from fenwicks.augment.crops import central_part, random_resized_crop
from fenwicks.augment.flips import random_dihedral, random_flip
from fenwicks.augment.geometry import random_affine
from fenwicks.augment.normalizers import imagenet_normalize
from fenwicks.augment.resizing import resize


def inception_transforms(
    height: int,
    width: int,
    training: bool = True,
    flip_vertical: bool = False,
    central_fraction: float = 1.0,
    normalizer: Callable[[Tensor], Tensor] = imagenet_normalize,
) -> list[Callable]:
    """The transforms with which Inception-v3 is trained and evaluated on ImageNet.

    - Training: a crop of random area (5 % to all) and aspect ratio, resized; flips; colour
      distortion; `normalizer`.
    - Evaluation: the central part of the image, resized; `normalizer`.

    Args:
        height: Height of the result.
        width: Width of the result.
        training: Whether the list is for training.
        flip_vertical: Whether training also uses the other symmetries of the square.
        central_fraction: Part of each side that evaluation keeps, in (0, 1].
        normalizer: A callable `f(images) -> images` from pixels in 0...255.

    Returns:
        A list of callables `f(images, seed) -> images` for `compose`; the first takes floats in
        0...255 (batch, any height, any width, 3).

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> import numpy as np
        >>> from fenwicks.augment import compose
        >>> augment = compose(inception_transforms(8, 8))
        >>> augment(np.full((2, 12, 16, 3), 100, 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)
    """
    height, width = positive_integer('height', height), positive_integer('width', width)
    fraction = finite_number('central_fraction', central_fraction, above=0, high=1)
    training, flip_vertical = flag('training', training), flag('flip_vertical', flip_vertical)
    check_callable('normalizer', normalizer)
    if not training:
        transforms: list[Callable] = []
        if fraction < 1:
            transforms.append(functools.partial(central_part, fraction=fraction))
        transforms += [functools.partial(resize, height=height, width=width), normalizer]
        return [without_seed(transform) for transform in transforms]
    crop = functools.partial(random_resized_crop, height=height, width=width, area=(0.05, 1.0))
    flip = random_dihedral if flip_vertical else random_flip
    return [crop, flip, random_distort_color, without_seed(normalizer)]


def fastai_transforms(
    height: int,
    width: int,
    training: bool = True,
    flip: bool = True,
    flip_vertical: bool = False,
    rotate: float = 10.0,
    zoom: float = 1.1,
    lighting: float = 0.2,
    affine_probability: float = 0.75,
    lighting_probability: float = 0.75,
    normalizer: Callable[[Tensor], Tensor] = imagenet_normalize,
) -> list[Callable]:
    """The transforms of fast.ai's `get_transforms`, without its perspective warping.

    - Training: resized; symmetries of the square, or flips, rotation and zoom in one resampling;
      brightness and contrast, each by itself; `normalizer`.
    - Evaluation: resized; `normalizer`.

    Args:
        height: Height of the result.
        width: Width of the result.
        training: Whether the list is for training.
        flip: Whether to mirror images left to right.
        flip_vertical: Whether to use the other symmetries of the square too; needs square images.
        rotate: Largest angle in degrees.
        zoom: Largest factor, at least 1.
        lighting: Strength of the changes of brightness and contrast, in [0, 1).
        affine_probability: Probability of rotation, and of zoom.
        lighting_probability: Probability of a change of brightness, and of contrast.
        normalizer: A callable `f(images) -> images` from pixels in 0...255.

    Returns:
        A list of callables `f(images, seed) -> images` for `compose`; the first takes floats in
        0...255 (batch, any height, any width, 3).

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> import numpy as np
        >>> from fenwicks.augment import compose
        >>> augment = compose(fastai_transforms(8, 8))
        >>> augment(np.full((2, 12, 16, 3), 100, 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)
    """
    height, width = positive_integer('height', height), positive_integer('width', width)
    lighting = finite_number('lighting', lighting, low=0, below=1)
    rotate, zoom = finite_number('rotate', rotate, low=0), finite_number('zoom', zoom, low=1)
    probability = finite_number('affine_probability', affine_probability, low=0, high=1)
    of_lighting = finite_number('lighting_probability', lighting_probability, low=0, high=1)
    training, flip = flag('training', training), flag('flip', flip)
    flip_vertical = flag('flip_vertical', flip_vertical)
    check_callable('normalizer', normalizer)
    chain: list[Callable] = [without_seed(functools.partial(resize, height=height, width=width))]
    if training:
        if flip and flip_vertical:
            chain.append(random_dihedral)
        chain.append(
            functools.partial(
                random_affine,
                rotate=rotate,
                zoom=zoom,
                flip=flip and not flip_vertical,
                probability=probability,
            )
        )
        if lighting:
            for change in (random_brightness, random_contrast):
                change = functools.partial(change, amount=lighting)
                chain.append(apply(change, of_lighting))
        chain.append(without_seed(to_byte_range))
    return [*chain, without_seed(normalizer)]

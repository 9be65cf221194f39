"""Random choices for each image: whether a transform is applied, and which of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fenwicks._checks import check_callable, finite_number, sequence
from fenwicks.augment.arrays import (
    check_floats,
    check_kept,
    check_rank,
    dtype_name,
    namespace,
    where,
)
from fenwicks.augment.chain import check_callables, check_without_context
from fenwicks.augment.normalizers import check_statistics, denormalize, normalize
from fenwicks.augment.seeds import draw, fold


def apply(transform: Callable, probability: float = 0.5) -> Callable:
    """Applies a random transform to some images of a batch, chosen one by one.

        apply(f, p)(x, seed)[i] = f(x, fold(seed, 1))[i] with probability p, else x[i]

    Args:
        transform: A callable `f(images, seed) -> images` that keeps the images' shape and dtype.
        probability: Probability for each image, in [0, 1].

    Returns:
        A callable `f(images, seed) -> images`, which can be pickled if the transform can.

    Raises:
        ValueError: `probability` is out of range, or the transform needs more than a seed.

    Example:
        >>> import numpy as np
        >>> from fenwicks.augment import random_rotate_90
        >>> turn = apply(random_rotate_90, probability=0.1)
        >>> turn(np.ones((4, 8, 8, 3), 'float32'), seed=(0, 1)).shape
        (4, 8, 8, 3)
    """
    check_without_context(transform)
    return _Apply(transform, finite_number('probability', probability, low=0, high=1))


class _Apply:
    """The callable that `apply` returns."""

    factory = 'apply'

    def __init__(self, transform, probability):
        self.transform, self.probability = transform, probability

    @property
    def settings(self):
        return {'transform': self.transform, 'probability': self.probability}

    def __call__(self, images, seed):
        check_rank(images)
        chosen = draw(images, seed, 0) < self.probability
        xp = namespace(images, chosen)
        changed = self.transform(images, fold(seed, 1))
        check_kept('transform', images, changed)
        return where(xp, chosen, changed, images)


def choice(transforms: Sequence[Callable], weights: Sequence[float] | None = None) -> Callable:
    """Applies one of several random transforms to each image.

        choice([f_0, f_1])(x, seed)[i] = f_k(x, fold(seed, k + 1))[i],  k drawn for image i

    All transforms are computed for the whole batch, and the results selected from.

    Args:
        transforms: One or more callables `f(images, seed) -> images` that keep the images' shape
            and dtype.
        weights: Numbers in proportion to the probabilities; `None` for equal ones.

    Returns:
        A callable `f(images, seed) -> images`, which can be pickled if the transforms can.

    Raises:
        ValueError: There are no transforms, one isn't callable or needs more than a seed, or the
            weights aren't as many, negative, or all zero.

    Example:
        >>> import numpy as np
        >>> from fenwicks.augment import random_cutout, random_flip
        >>> either = choice([random_flip, random_cutout], weights=[3, 1])
        >>> either(np.ones((4, 16, 16, 3), 'float32'), seed=(0, 1)).shape
        (4, 16, 16, 3)
    """
    transforms = check_callables(transforms)
    for transform in transforms:
        check_without_context(transform)
    if not transforms:
        raise ValueError('`transforms` must hold at least one. Received: none')
    if weights is None:
        weights = [1.0] * len(transforms)
    given = sequence('weights', weights, 'numbers')
    weights = [finite_number('weights', weight, low=0) for weight in given]
    if len(weights) != len(transforms) or not sum(weights):
        raise ValueError(
            f'`weights` must be {len(transforms)} numbers, not all zero. '
            f'Received: weights={weights}'
        )
    return _Choice(transforms, weights)


class _Choice:
    """The callable that `choice` returns."""

    factory = 'choice'

    def __init__(self, transforms, weights):
        self.transforms, self.weights = transforms, weights
        self.bounds = [float(bound) for bound in np.cumsum(weights)[:-1] / sum(weights)]

    @property
    def settings(self):
        return {'transforms': self.transforms, 'weights': self.weights}

    def __call__(self, images, seed):
        check_rank(images)
        place = draw(images, seed, 0)
        xp = namespace(images, place)
        result = self._made(len(self.bounds), images, seed)
        # From the last to the first, so that the first whose bound is above the draw wins.
        for n in reversed(range(len(self.bounds))):
            result = where(xp, place < self.bounds[n], self._made(n, images, seed), result)
        return result

    def _made(self, n, images, seed):
        changed = self.transforms[n](images, fold(seed, n + 1))
        check_kept('transforms', images, changed)
        return changed


def on_pixels(transform: Callable, mean: Any, std: Any) -> Callable:
    """Makes a transform of images in 0...255 one of normalised images.

        on_pixels(f, mean, std)(x, seed) = normalize(f(denormalize(x, mean, std), seed), mean, std)

    The `Trainer` and `fenwicks.data.train_dataset` augment after they normalise, whereas the
    policies and the transforms that clip work on pixels.

    Args:
        transform: A callable `f(images, seed) -> images` on floats in 0...255.
        mean: As given to `normalize`.
        std: As given to `normalize`.

    Returns:
        A callable `f(images, seed) -> images`, which can be pickled if the transform can.

    Raises:
        ValueError: The transform needs more than a seed, or `mean` or `std` breaks its rule.
    """
    check_without_context(transform)
    check_statistics(mean, std)
    return _OnPixels(transform, mean, std)


class _OnPixels:
    """The callable that `on_pixels` returns."""

    factory = 'on_pixels'

    def __init__(self, transform, mean, std):
        self.transform, self.mean, self.std = transform, mean, std

    @property
    def settings(self):
        return {'transform': self.transform, 'mean': self.mean, 'std': self.std}

    def __call__(self, images, seed):
        check_floats(images)
        pixels = denormalize(images, self.mean, self.std)
        return normalize(self.transform(pixels, seed), self.mean, self.std, dtype_name(images))


def without_seed(function: Callable) -> Callable:
    """Makes a function of images, such as `normalize` with its settings, a link of a chain.

    Args:
        function: A callable `f(images) -> images`.

    Returns:
        A callable `f(images, seed) -> images` that ignores the seed.

    Raises:
        ValueError: `function` isn't callable.
    """
    check_callable('function', function)
    return _WithoutSeed(function)


class _WithoutSeed:
    """The callable that `without_seed` returns."""

    factory = 'without_seed'

    def __init__(self, function):
        self.function = function

    @property
    def settings(self):
        return {'function': self.function}

    def __call__(self, images, seed):
        del seed
        return self.function(images)

"""Chains of transforms, groups of images that share draws, and what of a training each asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from fenwicks._checks import positive_integer
from fenwicks.augment.seeds import fold, lot

FACTS = ('epoch', 'indices', 'run_seed')


def compose(transforms: Sequence[Callable]) -> Callable:
    """Chains random transforms into one, each drawing from a seed of its own.

        augment(images, seed) = f_1(f_0(images, fold(seed, 0)), fold(seed, 1))    # of two

    A transform that has parameters named `epoch` (the epoch's number), `indices` (the images'
    numbers in the data set) or `run_seed` (two integers of its own, the same throughout a
    training) gets those as well. The chain then has all three, which the `Trainer` and
    `fenwicks.data.train_dataset` see and hand over.

    Args:
        transforms: Callables `f(images, seed) -> images`, applied in this order; bind their
            settings with `functools.partial(random_crop, padding=4)`.

    Returns:
        A callable `augment(images, seed) -> images`, or
        `augment(images, seed, epoch, indices, run_seed) -> images`.

    Raises:
        ValueError: One of `transforms` isn't callable.

    Example:
        >>> import numpy as np
        >>> from functools import partial
        >>> from fenwicks.augment import random_crop, random_flip
        >>> augment = compose([partial(random_crop, padding=2), random_flip])
        >>> augment(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)
    """
    transforms = tuple(transforms)
    for transform in transforms:
        if not callable(transform):
            raise ValueError(f'`transforms` must be callables. Received: {transform!r}')
    informed = [with_facts(transform) for transform in transforms]

    def augment_with_facts(images, seed, epoch, indices, run_seed):
        for n, transform in enumerate(informed):
            its_run_seed = None if run_seed is None else fold(run_seed, n)
            images = transform(images, fold(seed, n), epoch, indices, its_run_seed)
        return images

    def augment(images, seed):
        return augment_with_facts(images, seed, None, None, None)

    return augment_with_facts if any(map(facts_of, transforms)) else augment


def in_groups(transform: Callable, groups: int = 200) -> Callable:
    """A random transform whose draws are shared by groups of images, drawn by lot in each epoch.

        group[i] ~ uniform over 0 ... groups - 1, anew in each epoch
        in_groups(transform)(images, ...)[i] = transform(images, seed of group[i])[i]

    So there are at most `groups` different draws in an epoch, while the images of a batch are from
    all over the groups: what a step learns from is nearly as varied as before.

    Args:
        transform: A callable `f(images, seed) -> images` that takes a seed for each image,
            (batch, 2), as the `random_*` of this module do.
        groups: Number of groups, at least 1.

    Returns:
        A callable `f(images, seed, epoch, indices, run_seed) -> images`, for the `Trainer` or
        `fenwicks.data.train_dataset`. Its first seed isn't used: the step doesn't matter.

    Raises:
        ValueError: `groups` isn't a positive integer, or the transform asks for more than a seed.

    Example:
        >>> import numpy as np
        >>> from fenwicks.augment import random_flip
        >>> flip = in_groups(random_flip, groups=2)
        >>> flip(np.ones((4, 8, 8, 3), 'float32'), None, 0, np.arange(4), (0, 1)).shape
        (4, 8, 8, 3)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/
    """
    groups = positive_integer('groups', groups)
    if facts_of(transform):
        raise ValueError(
            '`transform` of groups must take images and a seed. '
            f'Received: one that asks for {", ".join(facts_of(transform))}'
        )

    def transform_in_groups(images, seed, epoch, indices, run_seed):
        of_epoch = fold(run_seed, epoch)
        group = lot(fold(fold(of_epoch, 0), indices), groups)
        return transform(images, fold(fold(of_epoch, 1), group))

    return transform_in_groups


def facts_of(transform: Callable) -> tuple[str, ...]:
    """Which of `epoch`, `indices` and `run_seed` a transform has as parameters.

    Example:
        >>> from fenwicks.augment import alternating_flip, random_flip
        >>> facts_of(random_flip)
        ()
        >>> facts_of(alternating_flip)
        ('epoch', 'indices', 'run_seed')
    """
    try:
        parameters = inspect.signature(transform).parameters
    except (TypeError, ValueError):  # of some callables written in C nothing is known
        return ()
    return tuple(fact for fact in FACTS if fact in parameters)


def with_facts(transform: Callable) -> Callable:
    """`transform` as a callable `(images, seed, epoch, indices, run_seed)`, whatever it asks for.

    What it asks for is looked up here, once, not on each call.
    """
    asked = facts_of(transform)

    def informed(images, seed, epoch, indices, run_seed):
        facts = {'epoch': epoch, 'indices': indices, 'run_seed': run_seed}
        return transform(images, seed, **{fact: facts[fact] for fact in asked})

    return informed

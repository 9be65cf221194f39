"""Combines transforms: chains, draws shared by groups of images, and the training's context.

What these functions return are small classes, not closures, so that data loaders can pickle them
for other processes. Those that a Keras layer can save have `factory`, the name of the function that
made them, and `settings`, its arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

from fenwicks._checks import check_callable, positive_integer, sequence
from fenwicks._errors import one_line
from fenwicks.augment.seeds import fold, hashed_integers

CONTEXT = ('epoch', 'indices', 'run_seed')


def compose(transforms: Sequence[Callable]) -> Callable:
    """Chains random transforms into one, each with a seed of its own.

        augment(images, seed) = f_1(f_0(images, fold(seed, 0)), fold(seed, 1))    # of two

    The chain has parameters for the training's context, `epoch`, `indices` and `run_seed`, if one
    of the transforms has; see `fenwicks.augment` for what they mean.

    Where one of the transforms takes labels, as `random_mixup` does, the chain is of images and
    labels, `augment(images, labels, seed) -> (images, labels)`, for the `Trainer`. It takes the
    context too, after the seed.

    Args:
        transforms: Callables `f(images, seed) -> images`, or `f(images, labels, seed) -> (images,
            labels)`, applied in this order; bind their settings with
            `functools.partial(random_crop, padding=4)`.

    Returns:
        A callable `augment(images, seed) -> images`, or
        `augment(images, seed, epoch, indices, run_seed) -> images`. It can be pickled if the
        transforms can.

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
    transforms = check_callables(transforms)
    if any(map(takes_labels, transforms)):
        return _LabelChain(transforms)
    needs_context = any(map(context_arguments, transforms))
    return (_ContextChain if needs_context else _Chain)(transforms)


def check_callables(transforms: Sequence[Callable]) -> tuple[Callable, ...]:
    """`transforms` as a tuple; raises unless all of them are callable."""
    transforms = sequence('transforms', transforms, 'callables')
    for transform in transforms:
        if not callable(transform):
            raise ValueError(f'`transforms` must be callables. Received: {transform!r}')
    return transforms


class _Chain:
    """Transforms of which none needs the training's context."""

    factory = 'compose'

    def __init__(self, transforms):
        self.transforms = transforms

    @property
    def settings(self):
        return {'transforms': self.transforms}

    def __call__(self, images, seed):
        for n, transform in enumerate(self.transforms):
            images = transform(images, fold(seed, n))
        return images


class _ContextChain:
    """Transforms of which at least one needs the training's context."""

    def __init__(self, transforms):
        self.transforms = tuple(map(with_context, transforms))

    def __call__(self, images, seed, epoch, indices, run_seed):
        for n, transform in enumerate(self.transforms):
            transform_seed = None if run_seed is None else fold(run_seed, n)
            images = transform(images, fold(seed, n), epoch, indices, transform_seed)
        return images


class _LabelChain:
    """Transforms of which at least one changes labels too."""

    def __init__(self, transforms):
        self.transforms = tuple(map(with_labels, transforms))
        self.needed = {
            name: transform
            for transform in transforms
            for name, parameter in _parameters(transform).items()
            if name in CONTEXT and parameter.default is parameter.empty
        }

    def __call__(self, images, labels, seed, epoch=None, indices=None, run_seed=None):
        given = _context(CONTEXT, epoch, indices, run_seed)
        for name, transform in self.needed.items():
            if given[name] is None:
                raise ValueError(
                    f'`{name}` must be given, since {one_line(repr(transform), 100)} needs it'
                )
        for n, transform in enumerate(self.transforms):
            transform_seed = None if run_seed is None else fold(run_seed, n)
            images, labels = transform(
                images, labels, fold(seed, n), epoch, indices, transform_seed
            )
        return images, labels


def in_groups(transform: Callable, groups: int = 200) -> Callable:
    """Makes groups of images share a transform's draws; each epoch forms new groups at random.

        group[i] ~ uniform over 0 ... groups - 1, drawn anew in each epoch
        in_groups(transform)(images, ...)[i] = transform(images, seed of group[i])[i]

    An epoch has at most `groups` different draws, while a batch holds images of all groups, so
    that the batches are nearly as varied as with a draw for each image.

    Args:
        transform: A callable `f(images, seed) -> images` that takes a seed for each image,
            (batch, 2), as every `random_*` function of `fenwicks.augment` does.
        groups: Number of groups, at least 1.

    Returns:
        A callable `f(images, seed, epoch, indices, run_seed) -> images`, for the `Trainer` or
        `fenwicks.data.train_dataset`. It ignores `seed`: draws depend on the epoch, not the step.

    Raises:
        ValueError: `groups` isn't a positive integer, or the transform needs more than a seed.

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
    check_without_context(transform)
    return _InGroups(transform, groups)


def check_without_context(transform: Callable) -> None:
    """Raises unless a transform is a callable that needs neither labels nor the training's
    context."""
    check_callable('transform', transform)
    further = ('labels',) * takes_labels(transform) + context_arguments(transform)
    if further:
        raise ValueError(
            '`transform` must take images and a seed only. '
            f'Received: one that also needs {", ".join(further)}'
        )


class _InGroups:
    """The callable that `in_groups` returns."""

    def __init__(self, transform, groups):
        self.transform, self.groups = transform, groups

    def __call__(self, images, seed, epoch, indices, run_seed):
        epoch_seed = fold(run_seed, epoch)
        group = hashed_integers(fold(fold(epoch_seed, 0), indices), self.groups)
        return self.transform(images, fold(fold(epoch_seed, 1), group))


def context_arguments(transform: Callable) -> tuple[str, ...]:
    """Lists which of `epoch`, `indices` and `run_seed` a transform has as parameters.

    Args:
        transform: A callable. One without a Python signature counts as having none of them; nor
            has one those that `functools.partial` bound by name.

    Returns:
        The names, in the order above.

    Example:
        >>> from fenwicks.augment import alternating_flip, random_flip
        >>> context_arguments(random_flip)
        ()
        >>> context_arguments(alternating_flip)
        ('epoch', 'indices', 'run_seed')
    """
    return tuple(name for name in CONTEXT if name in _parameters(transform))


def _parameters(transform):
    """The parameters of a callable by name, but for those that partials bound by name."""
    try:
        parameters = inspect.signature(transform).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return {}
    bound = set()
    while isinstance(transform, functools.partial):
        bound |= set(transform.keywords)
        transform = transform.func
    return {name: each for name, each in parameters.items() if name not in bound}


def takes_labels(transform: Callable) -> bool:
    """Whether a transform is one of images and labels, `f(images, labels, seed)`.

    Args:
        transform: A callable. One without a Python signature counts as one of images alone.

    Returns:
        Whether it has a parameter `labels`.

    Example:
        >>> from fenwicks.augment import random_flip, random_mixup
        >>> takes_labels(random_mixup), takes_labels(random_flip)
        (True, False)
    """
    return 'labels' in _parameters(transform)


def with_labels(transform: Callable) -> Callable:
    """Gives any transform the signature `(images, labels, seed, epoch, indices, run_seed)`.

    As `with_context`, for training loops in which labels may change with the images.

    Args:
        transform: A callable `f(images, seed)` or `f(images, labels, seed)` that may have `epoch`,
            `indices` and `run_seed` as further parameters.

    Returns:
        A callable that returns images and labels: the labels as they are, where the transform is
        one of images alone.

    Raises:
        ValueError: it isn't callable.
    """
    if takes_labels(transform):
        return _WithLabels(transform, context_arguments(transform))
    return _BesideLabels(with_context(transform))


class _WithLabels:
    """The callable that `with_labels` returns for a transform of images and labels."""

    def __init__(self, transform, arguments):
        self.transform, self.arguments = transform, arguments

    def __call__(self, images, labels, seed, epoch=None, indices=None, run_seed=None):
        context = _context(self.arguments, epoch, indices, run_seed)
        return self.transform(images, labels, seed, **context)


class _BesideLabels:
    """The callable that `with_labels` returns for a transform of images alone."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, images, labels, seed, epoch=None, indices=None, run_seed=None):
        return self.transform(images, seed, epoch, indices, run_seed), labels


def with_context(transform: Callable) -> Callable:
    """Gives any transform the signature `(images, seed, epoch, indices, run_seed)`.

    The transform's own parameters are looked up once, here, not on each call. A training loop
    calls this on the user's `augment` and then needs no cases.

    Args:
        transform: A callable `f(images, seed)` that may have `epoch`, `indices` and `run_seed` as
            further parameters.

    Returns:
        A callable that passes on those of the five arguments that `transform` takes.

    Raises:
        ValueError: the transform is one of images and labels, or isn't callable.
    """
    check_callable('augment', transform)
    if takes_labels(transform):
        raise ValueError(
            '`augment` must be of images alone here: the Trainer takes those of labels, too. '
            f'Received: augment={transform!r}'
        )
    return _WithContext(transform, context_arguments(transform))


class _WithContext:
    """The callable that `with_context` returns."""

    def __init__(self, transform, arguments):
        self.transform, self.arguments = transform, arguments

    def __call__(self, images, seed, epoch, indices, run_seed):
        return self.transform(images, seed, **_context(self.arguments, epoch, indices, run_seed))


def _context(names, *values):
    """The training's context, given in the order of `CONTEXT`, as keyword arguments of names."""
    given = dict(zip(CONTEXT, values, strict=True))
    return {name: given[name] for name in names}

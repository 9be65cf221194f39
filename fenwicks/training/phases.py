"""The phases of a training: the size of the images, and which variables are trained, by steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import keras

from fenwicks import _keras_optimizers
from fenwicks._checks import finite_number, integer, positive_integer
from fenwicks._errors import one_line
from fenwicks.optimizers.groups import matches_none
from fenwicks.optimizers.patterns import check_match, matches

# Pairs of the epoch, from 0, from which on images have a size, and that size in pixels.
ImageSizes = tuple[tuple[int, int], ...]
# Pairs of the epoch from which on variables aren't trained, and the pattern of their paths.
Freeze = tuple[tuple[float, str], ...]
_ROUNDING = 1e-6  # of a step


class Phase(NamedTuple):
    """What one compiled program trains on.

    Attributes:
        size: of the images in pixels; `None` for their own.
        frozen: patterns of the variables that aren't trained.
    """

    size: int | None
    frozen: tuple[str, ...]


class Phases:
    """Which phase a step is in.

    Args:
        image_sizes: checked pairs of epoch and size.
        freeze: checked pairs of epoch and pattern.

    Attributes:
        all: the different ones, in their order.
    """

    def __init__(self, image_sizes: ImageSizes, freeze: Freeze):
        starts = sorted({0.0, *(epoch for epoch, _ in (*image_sizes, *freeze))})

        def phase(start):
            sizes = [size for epoch, size in image_sizes if epoch <= start]
            frozen = tuple(match for epoch, match in freeze if epoch <= start)
            return Phase(sizes[-1] if sizes else None, frozen)

        self._starts = [(start, phase(start)) for start in starts]
        self.all = tuple(dict.fromkeys(phase for _, phase in self._starts))

    def of_epoch(self, epoch: int, steps: int) -> list[tuple[int, Phase]]:
        """The phases of an epoch of `steps` steps, each with the step with which it begins.

        Example:

        >>> [first for first, _ in Phases((), ((0.25, 'bias'),)).of_epoch(0, 10)]
        [0, 3]
        >>> [first for first, _ in Phases((), ((1.1, 'bias'),)).of_epoch(1, 10)]
        [0, 1]
        """
        epoch = integer('epoch', epoch, low=0)
        found: dict[int, Phase] = {}
        for start, phase in self._starts:
            # Of the whole product, since 1.1 - 1 is a little more than 0.1.
            first = max(0, math.ceil(start * steps - _ROUNDING) - epoch * steps)
            if first < steps:
                found[first] = phase
        return list(found.items())

    def programs(self, total_steps: int, steps_per_epoch: int) -> list[tuple[int, int, int]]:
        """The programs of a training: an epoch and a step at which each is in use, and its steps.

        Example:

        >>> Phases(((0, 24), (2, 32)), ()).programs(total_steps=25, steps_per_epoch=10)
        [(0, 0, 20), (2, 0, 5)]
        """
        found: dict[Phase, tuple[int, int, int]] = {}
        for epoch in range(math.ceil(total_steps / steps_per_epoch)):
            phases = self.of_epoch(epoch, steps_per_epoch)
            end = min(steps_per_epoch, total_steps - epoch * steps_per_epoch)
            ends = [min(first, end) for first, _ in phases[1:]] + [end]
            for (first, phase), last in zip(phases, ends, strict=True):
                if last > first:
                    at = found.get(phase, (epoch, first, 0))
                    found[phase] = (*at[:2], at[2] + last - first)
        return list(found.values())


def check_image_sizes(image_sizes: Sequence[tuple[int, int]], model: keras.Model) -> ImageSizes:
    """Checks a Trainer's `image_sizes`.

    Raises:
        ValueError: they aren't pairs, the first isn't for epoch 0, their epochs don't increase, or
            the model doesn't take images of a size.
    """
    rule = '`image_sizes` must be pairs (epoch, size), from epoch 0 on and with increasing epochs'
    try:
        pairs = [(integer('epoch', e), positive_integer('size', size)) for e, size in image_sizes]
    except (TypeError, ValueError):
        raise ValueError(f'{rule}. Received: image_sizes={image_sizes!r}') from None
    epochs = [epoch for epoch, _ in pairs]
    if pairs and (epochs[0] != 0 or epochs != sorted(set(epochs))):
        raise ValueError(f'{rule}. Received: image_sizes={image_sizes!r}')
    for size in {size for _, size in pairs}:
        _check_size(model, size)
    return tuple(pairs)


def _check_size(model, size):
    shape = getattr(model, 'input_shape', None)  # a subclass of Model has none
    if shape is None:
        return
    rule = 'must be sizes that the model takes'
    if any(side not in (None, size) for side in shape[1:3]):
        raise ValueError(
            f'`image_sizes` {rule}: give it an input of (None, None, channels) and a global '
            f'pooling. Received: size {size} for a model of {shape[1]}x{shape[2]} pixels'
        )
    try:
        model(keras.KerasTensor((1, size, size, shape[3]), 'float32'), training=False)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'`image_sizes` {rule}. Received: size {size} ({one_line(error, 200)})'
        ) from None


def check_freeze(
    freeze: Sequence[tuple[float, str]],
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
) -> Freeze:
    """Checks a Trainer's `freeze`.

    Raises:
        ValueError: it isn't pairs, an epoch is negative, a pattern matches no variable that the
            model trains, all of them are frozen, or the optimizer has to update all of them.
    """
    try:
        pairs = tuple((finite_number('epoch', epoch, low=0), match) for epoch, match in freeze)
    except (TypeError, ValueError):
        raise ValueError(
            f'`freeze` must be pairs (epoch, match) with an epoch >= 0. Received: freeze={freeze!r}'
        ) from None
    paths = [variable.path for variable in model.trainable_variables]
    for _, match in pairs:
        check_match('freeze', match)
        if not any(matches(match, path) for path in paths):
            raise ValueError(
                '`freeze` must match at least one trainable variable. '
                f'Received: match={match!r}, {matches_none(match, paths)}'
            )
    check_leaves_some(pairs, model)
    if pairs and _keras_optimizers.is_multi_optimizer(optimizer):
        raise ValueError(
            '`freeze` must be empty with a MultiOptimizer, which updates all of its weights. '
            f'Received: freeze={freeze!r}'
        )
    if pairs and any(each.use_ema for each in _keras_optimizers.updating_optimizers(optimizer)):
        raise ValueError(
            '`freeze` must be empty with an optimizer that has use_ema, whose averages would move '
            'the frozen weights: pass averaging=fenwicks.optimizers.EMA(...) to the Trainer. '
            f'Received: freeze={freeze!r}'
        )
    return pairs


def check_leaves_some(freeze: Freeze, model: keras.Model) -> None:
    """Raises a `ValueError` where a checked `freeze` matches all that the model trains."""
    paths = [variable.path for variable in model.trainable_variables]
    if freeze and all(any(matches(match, path) for _, match in freeze) for path in paths):
        raise ValueError(
            f'`freeze` must leave variables to train. Received: freeze={freeze!r}, which matches '
            f'all {len(paths)} of them'
        )

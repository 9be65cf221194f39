"""Rules for averaging weights (EMA, lookahead), as pure functions of lists of tensors."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import keras
from keras import ops

from fenwicks import _keras
from fenwicks._checks import finite_number, instance, integer, no_class, positive_integer
from fenwicks._typing import Step, Tensor

_log = logging.getLogger('fenwicks')


def averaged_variables(model: keras.Model | keras.layers.Layer) -> list[keras.Variable]:
    """Returns the variables of a model that are averaged: all float weights.

    These are the trainable weights and the moving statistics of batch norm, since averaged weights
    need statistics of their own. Frozen weights (patch whitening) are among them and equal their
    average exactly. Integer states, those of random generators, are left out.

    Args:
        model: a built Keras model or layer.

    Returns:
        A list of variables, in the order of `model.weights`.

    Raises:
        ValueError: the model is none, or is not built, so that it has no variables yet.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    >>> [variable.name for variable in averaged_variables(model)]
    ['gamma', 'beta', 'moving_mean', 'moving_variance']
    """
    instance('model', model, keras.layers.Layer, 'a Keras model or layer')
    if not model.built:
        raise ValueError(
            '`model` must be built, so that its variables exist: call it on a batch, or give it an '
            f'Input. Received: model={model.name}'
        )
    return float_variables(model)


def float_variables(model: keras.Model | keras.layers.Layer) -> list[keras.Variable]:
    """The float weights that a model has so far."""
    return [v for v in model.weights if keras.backend.is_float_dtype(v.dtype)]


def frozen_variables(model: keras.Model | keras.layers.Layer) -> list[keras.Variable]:
    """The variables of the layers that aren't trained: no step changes them."""
    # A layer comes after those that it is in, and is trained or frozen by its own word.
    trained = {
        id(variable): layer.trainable
        for layer in _keras.flatten_layers(model)
        for variable in layer.variables
    }
    return [variable for variable in model.variables if not trained[id(variable)]]


def initial_averages(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies `values` (tensors or variables) to start averages from, in float32 or float64.

    They are copied because the compiled steps of some backends reuse the memory of their inputs.
    """
    return [ops.copy(ops.cast(value, _wide(value))) for value in values]


class Rule(Protocol):
    """What a rule for averaging has: `EMA`, `Lookahead`, or one of your own."""

    every: int
    replaces_values: ClassVar[bool]  # whether `update` changes the values that it is given
    # Whether the averages depend on the values with which training begins.
    needs_initial_values: ClassVar[bool]

    def update(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], step: Step
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Returns the averages and the values after an update."""


@dataclass(frozen=True)
class EMA:
    """Exponential moving average of the weights, updated every few steps; training is unaffected.

    ```
    r = decay**every
    a = (value + r * value_before + r**2 * value_before_that + ...) / (1 + r + r**2 + ...)
    ```

    After the n-th update this is a sum of n values. The initial weights are not among them: a long
    training would forget them anyway, and a short one would end with an average made mostly of
    them. `decay` is per training step, so that another `every` changes the cost and not how fast
    the average forgets.

    Args:
        decay: float in [0, 1), the share of the average that one training step keeps.
        every: positive integer, training steps from one update to the next.

    Raises:
        ValueError: an argument is out of its range.

    Example:

    >>> rule = EMA(decay=0.5, every=1)
    >>> averages, values = rule.update([0.0], [1.0], step=0)
    >>> averages, values = rule.update(averages, [4.0], step=1)
    >>> float(averages[0]), values  # (4 + 1/2) / (1 + 1/2)
    (3.0, [4.0])

    Reference: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992;
    every fifth step, with the statistics of batch norm: Page, "How to train your ResNet", 2019.
    """

    decay: float = 0.99
    every: int = 5
    replaces_values: ClassVar[bool] = False
    needs_initial_values: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # Frozen, so assigned past the dataclass: plain numbers for NumPy's.
        object.__setattr__(self, 'decay', finite_number('decay', self.decay, low=0, below=1))
        object.__setattr__(self, 'every', positive_integer('every', self.every))

    def update(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], step: Step
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Updates the averages with the values; pure, for use in compiled functions too.

        Args:
            averages: list of tensors, before the first update `initial_averages(values)`.
            values: list of tensors of the same shapes, after a training step.
            step: the number of that step, counted from 0 over the whole training. Call it only
                where `(step + 1) % every == 0`.

        Returns:
            `(averages, values)`: the new averages, and the values unchanged; dtypes are kept.
        """
        kept = self.decay**self.every
        updates = ops.cast((step + 1) // self.every, 'float32')
        # 1 - kept**updates, exact where `kept` is near 1.
        total = -ops.expm1(updates * (math.log(kept) if kept else -math.inf))
        return _towards(averages, values, (1 - kept) / total), values


@dataclass(frozen=True)
class Lookahead:
    """Lookahead: an average follows the weights, which are reset to it every few steps.

    ```
    s = strength(step + 1)
    a = s * a + (1 - s) * value
    value = a
    ```

    A schedule that rises from near 0 to near 1 leaves the beginning of a training as it is and
    averages its end; so does `start`. The averages after the last step are the result.

    Args:
        strength: float in [0, 1), the share of the average that is kept; or a function, such as a
            schedule, from the number of training steps made (1 after the first) to that share.
        every: positive integer, training steps from one update to the next.
        start: integer >= 0, number of training steps up to which the average is the present value
            itself, so that nothing changes.

    Raises:
        ValueError: an argument is out of its range.

    Example:

    >>> from fenwicks.schedules import PowerRise
    >>> rule = Lookahead(PowerRise(0.95**5, total_steps=1000, power=3), every=5)
    >>> averages, values = Lookahead(0.5).update([1.0], [5.0], step=4)
    >>> float(averages[0]), float(values[0])
    (3.0, 3.0)

    Reference: Zhang, Lucas, Hinton, Ba, "Lookahead optimizer: k steps forward, 1 step back", 2019;
    the rising strength: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    """

    strength: float | Callable
    every: int = 5
    start: int = 0
    replaces_values: ClassVar[bool] = True
    needs_initial_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        no_class('strength', self.strength)
        if not callable(self.strength):
            strength = finite_number('strength', self.strength, low=0, below=1)
            object.__setattr__(self, 'strength', strength)
        object.__setattr__(self, 'every', positive_integer('every', self.every))
        object.__setattr__(self, 'start', integer('start', self.start, low=0))

    def update(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], step: Step
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Updates the averages with the values and resets the values to them; pure.

        Args:
            averages, values, step: as for `EMA.update`.

        Returns:
            `(averages, values)`, which are equal up to the rounding to their dtypes.
        """
        keep = self.strength(step + 1) if callable(self.strength) else self.strength
        averages = _towards(averages, values, 1 - keep)
        if self.start:
            averages = [
                ops.where(step + 1 > self.start, average, ops.cast(value, _dtype(average)))
                for average, value in zip(averages, values, strict=True)
            ]
        # Copies, so that a backend that reuses the memory of the values leaves the averages alone.
        values = [
            ops.copy(ops.cast(average, _dtype(value)))
            for average, value in zip(averages, values, strict=True)
        ]
        return averages, values


def check_rule(name: str, rule: Any) -> None:
    """Raises a ValueError unless the argument of this name is a rule for averaging."""
    no_class(name, rule)
    if not all(hasattr(rule, part) for part in ('every', 'update', 'replaces_values')):
        raise ValueError(
            f'`{name}` must be a rule such as optimizers.EMA, with `every`, `update` and '
            f'`replaces_values`. Received: {name}={rule!r}'
        )


def warn_if_none(rule: Rule, steps: int) -> None:
    """Warns where a training has ended, after so many steps, before its first average."""
    # Up to there Lookahead's averages are the values.
    start = rule.start if isinstance(rule, Lookahead) else 0
    updates = steps // rule.every
    if steps < 1 or start < updates * rule.every:
        return
    name, limit = 'every', f'the {steps} steps of the training'
    if updates:
        last = updates * rule.every - 1
        name, limit = 'start', f'{last}, for an average within the {steps} steps of the training'
    _log.warning(
        'no averages yet, so the weights are those of the last step: `%s` should be at most %s. '
        'Received: %s=%d',
        name,
        limit,
        name,
        getattr(rule, name),
    )


def _dtype(value):
    return keras.backend.standardize_dtype(getattr(value, 'dtype', 'float32'))


def _wide(value):
    """The dtype to accumulate in."""
    return 'float64' if _dtype(value) == 'float64' else 'float32'


def _towards(averages, values, share):
    """`average + share * (value - average)`, which leaves an equal value exactly as it is."""
    result = []
    for average, value in zip(averages, values, strict=True):
        wide = _wide(average)
        start = ops.cast(average, wide)
        moved = start + ops.cast(share, wide) * (ops.cast(value, wide) - start)
        result.append(ops.cast(moved, _dtype(average)))
    return result

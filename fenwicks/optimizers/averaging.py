"""Weight averaging: rules (EMA, lookahead) on lists of tensors, and a callback for stock `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import keras
from keras import ops

from fenwicks._checks import finite_number, positive_integer
from fenwicks._typing import Step, Tensor


def averaged_variables(model: keras.Model | keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a model that an average is taken of: every float weight.

    Trainable weights, and with them the running statistics of batch norm: averaged weights need
    the statistics of their own kind. Fixed weights (patch whitening) may be among them, their
    average is they themselves, bit for bit. The integer states of random generators are not.

    Args:
        model: a built Keras model or layer.

    Returns:
        A list of variables, in the order of `model.weights`.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    >>> [variable.name for variable in averaged_variables(model)]
    ['gamma', 'beta', 'moving_mean', 'moving_variance']
    """
    return [v for v in model.weights if keras.backend.is_float_dtype(v.dtype)]


def initial_averages(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies of `values` (tensors or variables) to start averages from, in float32 at least.

    True copies: the compiled steps of some backends use the memory of their inputs again.
    """
    return [ops.copy(ops.cast(value, _wide(value))) for value in values]


class Rule(Protocol):
    """What a rule for averaging has: `EMA`, `Lookahead`, or one of your own."""

    every: int
    replaces_values: ClassVar[bool]  # whether `update` changes the values that it is given

    def update(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], step: Step
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the averages and the values after an update."""


@dataclass(frozen=True)
class EMA:
    """Exponential moving average, taken every few steps; the weights themselves go their own way.

    ```
    r = decay**every
    a = (value + r * value_before + r**2 * value_before_that + ...) / (1 + r + r**2 + ...)
    ```

    after the n-th update a sum of n values: the weights with which training began are not among
    them. In a long training they would be forgotten; in one of a few steps they would be most of
    the average. Taken every step with the same `decay` it forgets as quickly, at `every` times the
    work.

    Args:
        decay: float in [0, 1), the share of the average that one training step keeps.
        every: positive integer, steps of training from one update to the next.

    Raises:
        ValueError: if an argument is out of its range.

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

    def __post_init__(self) -> None:
        finite_number('decay', self.decay, low=0, below=1)
        positive_integer('every', self.every)

    def update(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], step: Step
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Takes the values into the averages; pure, fit for a compiled function.

        Args:
            averages: list of tensors, in the beginning `initial_averages(values)`.
            values: list of tensors of the same shapes, after a training step.
            step: the number of that step, counted from 0 over the whole training. Call only where
                `(step + 1) % every == 0`.

        Returns:
            `(averages, values)`, in the dtypes in which they came.
        """
        kept = self.decay**self.every
        updates = ops.cast((step + 1) // self.every, 'float32')
        # 1 - kept**updates, exact where `kept` is near 1.
        total = -ops.expm1(updates * (math.log(kept) if kept else -math.inf))
        return _towards(averages, values, (1 - kept) / total), values


@dataclass(frozen=True)
class Lookahead:
    """Lookahead: a slow average follows the weights, which are set back to it every few steps.

    ```
    s = strength(step + 1)
    a = s * a + (1 - s) * value
    value = a
    ```

    A schedule that rises from near 0 to near 1 leaves the beginning of a training alone and
    averages its end. After the last step the averages are the result.

    Args:
        strength: float in [0, 1), the share of the average that is kept; or a function, for
            instance a schedule, from the number of training steps made (1 after the first) to it.
        every: positive integer, steps of training from one update to the next.

    Raises:
        ValueError: if an argument is out of its range.

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
    replaces_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.strength):
            finite_number('strength', self.strength, low=0, below=1)
        positive_integer('every', self.every)

    def update(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], step: Step
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Takes the values into the averages and sets them back; fit for a compiled function.

        Args:
            averages, values, step: as for `EMA.update`.

        Returns:
            `(averages, values)`, in the dtypes in which they came.
        """
        keep = self.strength(step + 1) if callable(self.strength) else self.strength
        averages = _towards(averages, values, 1 - keep)
        # Copies, so that a backend which reuses the memory of the values spares the averages.
        values = [
            ops.copy(ops.cast(average, _dtype(value)))
            for average, value in zip(averages, values, strict=True)
        ]
        return averages, values


def check_rule(name: str, rule: Any) -> None:
    """Raises unless the argument called so is a rule for averaging."""
    if not all(hasattr(rule, part) for part in ('every', 'update', 'replaces_values')):
        raise ValueError(
            f'`{name}` must be a rule such as optimizers.EMA, with `every`, `update` and '
            f'`replaces_values`. Received: {name}={rule!r}'
        )


class WeightAveraging(keras.callbacks.Callback):
    """Averages the weights while Keras's own `fit` trains them, and evaluates the averages.

    After every `rule.every`-th batch the averages are updated. Evaluation during `fit` sees the
    averaged model, training its own weights. After `fit` the averages are in place, and
    `restore()` brings the last training weights back.

    A further `fit` with the same callback goes on: from the training weights, with the averages
    and the number of steps where they were. A new callback starts anew from the model as it is.

    Args:
        rule: `EMA(...)` or `Lookahead(...)`, or another object with `every`, `update` and
            `replaces_values` (whether `update` changes the values that it is given).
        swap_at_end: bool, whether the averages are in place after `fit`. If not, `use_averages()`
            puts them there.

    Raises:
        ValueError: if `rule` is no rule; or, when `fit` starts, if `rule.every` is not a multiple
            of the model's `steps_per_execution`, or the callback has averaged another model.

    Example:

    ```python
    averaging = fenwicks.optimizers.WeightAveraging(fenwicks.optimizers.EMA(0.99, every=5))
    model.fit(images, labels, epochs=10, callbacks=[averaging])
    model.evaluate(test_images, test_labels)  # the averaged model
    averaging.restore()
    model.evaluate(test_images, test_labels)  # the weights of the last step
    ```
    """

    def __init__(self, rule: Rule, swap_at_end: bool = True) -> None:
        super().__init__()
        check_rule('rule', rule)
        self.rule = rule
        self.swap_at_end = bool(swap_at_end)
        self.step = 0
        self._variables = None
        self._averages = None
        self._raw = None  # the training weights, while the averages are in their place

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the averages, or goes on with them."""
        together = getattr(self.model, 'steps_per_execution', 1)
        if self.rule.every % together:
            raise ValueError(
                "`every` must be a multiple of the model's steps_per_execution. "
                f'Received: every={self.rule.every}, steps_per_execution={together}'
            )
        variables = averaged_variables(self.model)
        if self._variables is None:
            self._variables = variables
            self._averages = initial_averages(variables)
        elif [id(v) for v in variables] != [id(v) for v in self._variables]:
            raise ValueError(
                'a WeightAveraging callback must stay with its model: make another one. '
                f'Received: model={self.model.name}'
            )
        self.restore()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the steps made before this epoch."""
        self._epoch_start = self.step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Updates the averages after every `every`-th step."""
        before, self.step = self.step, self._epoch_start + batch + 1
        # Several steps may have run in one execution, fewer at the end of an epoch.
        if before // self.rule.every == self.step // self.rule.every:
            return
        self._sync()
        values = [ops.convert_to_tensor(variable) for variable in self._variables]
        self._averages, values = self.rule.update(self._averages, values, self.step - 1)
        if self.rule.replaces_values:
            self._assign(values)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Puts the averages in place."""
        self._swapped_for_test = self._raw is None and self._averages is not None
        if self._swapped_for_test:
            self.use_averages()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Puts the training weights back, if they were in place before."""
        if self._swapped_for_test:
            self.restore()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves the averages in place, if so chosen."""
        if self.swap_at_end:
            self.use_averages()

    def use_averages(self) -> None:
        """Puts the averages in place of the training weights, which are kept for `restore`.

        Before the first update there is nothing to average: the weights stay.

        Raises:
            ValueError: if there are no averages yet.
        """
        if self._averages is None:
            raise ValueError('averages come with `fit`: train the model with this callback first')
        if self._raw is None and self.step >= self.rule.every:
            self._sync()
            self._raw = [ops.copy(ops.convert_to_tensor(v)) for v in self._variables]
            self._assign([ops.copy(average) for average in self._averages])

    def restore(self) -> None:
        """Puts the training weights back in place; nothing where they are in place already."""
        if self._raw is not None:
            self._assign(self._raw)
            self._raw = None

    def _assign(self, values):
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(ops.cast(value, variable.dtype))

    def _sync(self):
        # On JAX the state of the model is with the compiled step while `fit` runs.
        if hasattr(self.model, 'jax_state_sync'):
            self.model.jax_state_sync()


def _dtype(value):
    return keras.backend.standardize_dtype(getattr(value, 'dtype', 'float32'))


def _wide(value):
    """The dtype to accumulate in."""
    return 'float64' if _dtype(value) == 'float64' else 'float32'


def _towards(averages, values, share):
    """`average + share * (value - average)`: an equal value stays exactly so."""
    result = []
    for average, value in zip(averages, values, strict=True):
        wide = _wide(average)
        start = ops.cast(average, wide)
        moved = start + ops.cast(share, wide) * (ops.cast(value, wide) - start)
        result.append(ops.cast(moved, _dtype(average)))
    return result

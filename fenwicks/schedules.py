"""Learning-rate schedules: pure functions of the step.

Step `k` counts the updates made so far: `schedule(0)` is the rate of the first update and
`schedule(k)` that of the (k+1)-th, as Keras counts `optimizer.iterations`. The last of
`total_steps` updates reads step `total_steps - 1`, and so never uses a final knot at `total_steps`.

`keras.optimizers.schedules` has the plain decays: `PolynomialDecay` (linear), `ExponentialDecay`,
`CosineDecay`. `Warmup` puts a linear rise before any of them.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from fenwicks._checks import finite_number, integer, sequence
from fenwicks._typing import Config, Step, Tensor


def _number(name: str, value: Any, **limits: float) -> float:
    """`finite_number`, which leaves whole numbers whole: steps are printed and saved as given."""
    checked = finite_number(name, value, **limits)
    return int(value) if isinstance(value, numbers.Integral) else checked


def _is_plain(step: Step) -> bool:
    return isinstance(step, (int, float, np.number, np.ndarray))


def _plain(values: Any) -> float | np.ndarray:
    """A float for a scalar, a NumPy array otherwise."""
    values = np.asarray(values)
    return float(values) if values.ndim == 0 else values


@keras.saving.register_keras_serializable(package='fenwicks')
class PiecewiseLinear(LearningRateSchedule):
    """Linear interpolation between knots, constant before the first knot and after the last.

    ```
    between (s0, v0) and (s1, v1):  t = (step - s0) / (s1 - s0);  value = (1 - t) * v0 + t * v1
    ```

    Args:
        knots: sequence of at least two pairs `(step, value)`: steps strictly increasing, which
            need not be whole numbers (a fraction of an epoch may not be), and values >= 0.

    Call arguments:
        step: the number of updates made so far: a tensor or variable of any numeric type and any
            shape, a Python or NumPy number, or a NumPy array.

    Returns:
        A float32 tensor of the step's shape; a float for a Python or NumPy number, and a NumPy
        array for a NumPy array, ready to print and to plot.

    Raises:
        ValueError: there are fewer than two knots, a knot is not a pair of finite numbers, the
            steps don't increase, or a value is negative.

    Example:

    >>> schedule = PiecewiseLinear([(0, 0.0), (100, 0.4), (500, 0.0)])
    >>> [schedule(step) for step in (0, 50, 100, 300, 500, 600)]
    [0.0, 0.2, 0.4, 0.2, 0.0, 0.0]
    """

    def __init__(self, knots: Sequence[tuple[float, float]]) -> None:
        self.knots = _check_knots(knots)

    def __call__(self, step: Step) -> Tensor:
        if _is_plain(step):
            steps, values = zip(*self.knots, strict=True)
            return _plain(np.interp(step, steps, values))
        step = ops.cast(step, 'float32')
        value = ops.full_like(step, self.knots[0][1])
        for (step0, value0), (step1, value1) in pairwise(self.knots):
            # Both weights are computed from distances, neither as 1 - the other: exact at the
            # knots, and never below zero at the end by a rounding error.
            weight0 = ops.clip((step1 - step) / (step1 - step0), 0.0, 1.0)
            weight1 = ops.clip((step - step0) / (step1 - step0), 0.0, 1.0)
            value = ops.where(step > step0, weight0 * value0 + weight1 * value1, value)
        return value

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {'knots': [list(knot) for knot in self.knots]}


def _check_knots(knots: Any) -> tuple[tuple[float, float], ...]:
    """Returns the knots as a tuple of pairs of plain floats, or raises a ValueError."""
    try:
        checked = tuple(
            (finite_number('knots', step), finite_number('knots', value)) for step, value in knots
        )
    except (TypeError, ValueError):
        checked = ()
    if len(checked) < 2:
        raise ValueError(
            f'`knots` must be two or more pairs (step, value) of finite numbers. Received: {knots=}'
        )
    if any(step0 >= step1 for (step0, _), (step1, _) in pairwise(checked)):
        raise ValueError(f'`knots` must have strictly increasing steps. Received: {knots=}')
    if any(value < 0 for _, value in checked):
        raise ValueError(f'`knots` must have values >= 0. Received: {knots=}')
    return checked


@keras.saving.register_keras_serializable(package='fenwicks')
class OneCycle(PiecewiseLinear):
    """A linear rise from 0 to the peak, then a linear fall: the one-cycle schedule.

    ```
    step < warmup_steps:  value = peak * step / warmup_steps
    afterwards:           value falls linearly from peak to `final` at total_steps, and stays there
    ```

    Args:
        peak: float >= 0, the value at `warmup_steps`.
        total_steps: number of updates in the whole training.
        warmup_steps: number of updates in the rise, in [0, total_steps). With 0 the first update
            uses the peak.
        final: float >= 0, the value at `total_steps` and beyond.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: `warmup_steps` is not in [0, total_steps), or `peak` or `final` is negative.

    Example:

    >>> schedule = OneCycle(peak=0.4, total_steps=240, warmup_steps=50)
    >>> schedule(0), schedule(25), schedule(50), schedule(240)
    (0.0, 0.2, 0.4, 0.0)

    Reference: Smith, "A disciplined approach to neural network hyper-parameters: part 1", 2018; the
    shape is that of Page's "How to train your ResNet", 2018.
    """

    def __init__(
        self, peak: float, total_steps: float, warmup_steps: float, final: float = 0.0
    ) -> None:
        peak = _number('peak', peak, low=0)
        final = _number('final', final, low=0)
        total_steps = _number('total_steps', total_steps)
        warmup_steps = _number('warmup_steps', warmup_steps)
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                '`warmup_steps` must be in [0, total_steps). '
                f'Received: warmup_steps={warmup_steps}, total_steps={total_steps}'
            )
        rise = [(0, 0.0)] if warmup_steps else []
        super().__init__([*rise, (warmup_steps, peak), (total_steps, final)])
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.final = final

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {
            'peak': self.peak,
            'total_steps': self.total_steps,
            'warmup_steps': self.warmup_steps,
            'final': self.final,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class PowerRise(LearningRateSchedule):
    """A rise from 0 to the peak in proportion to a power of the step, then constant.

    ```
    value = peak * min(step / total_steps, 1) ** power
    ```

    `PowerRise(0.95**5, total_steps, power=3)` is the strength of `fenwicks.optimizers.Lookahead` in
    a CIFAR-10 record of 2024: near 0 for most of the training, steep at its end.

    Args:
        peak: float >= 0, the value at `total_steps` and beyond.
        total_steps: number of steps in the rise, > 0.
        power: float > 0; 1 is a straight line.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: an argument is out of its range.

    Example:

    >>> schedule = PowerRise(0.8, total_steps=100, power=3)
    >>> schedule(0), schedule(50), schedule(100), schedule(200)
    (0.0, 0.1, 0.8, 0.8)
    """

    def __init__(self, peak: float, total_steps: float, power: float) -> None:
        self.peak = _number('peak', peak, low=0)
        self.total_steps = _number('total_steps', total_steps, above=0)
        self.power = _number('power', power, above=0)

    def __call__(self, step: Step) -> Tensor:
        if _is_plain(step):
            t = np.clip(np.asarray(step, dtype='float64') / self.total_steps, 0.0, 1.0)
            return _plain(self.peak * t**self.power)
        t = ops.clip(ops.cast(step, 'float32') / self.total_steps, 0.0, 1.0)
        return self.peak * t**self.power

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {'peak': self.peak, 'total_steps': self.total_steps, 'power': self.power}


@keras.saving.register_keras_serializable(package='fenwicks')
class Warmup(LearningRateSchedule):
    """A linear rise, then another schedule, which starts at its own step 0.

    ```
    step < warmup_steps:  t = step / warmup_steps;  value = (1 - t) * initial + t * schedule(0)
    afterwards:           value = schedule(step - warmup_steps)
    ```

    Args:
        schedule: any `LearningRateSchedule`, or a number >= 0 for a constant rate.
        warmup_steps: number of updates in the rise, > 0.
        initial: float >= 0, the value at step 0 and before.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: `warmup_steps` is not above 0, `initial` is negative, or `schedule` is neither
            a schedule nor a number >= 0.

    Example:

    >>> from fenwicks.schedules import PiecewiseLinear
    >>> schedule = Warmup(PiecewiseLinear([(0, 0.4), (100, 0.0)]), warmup_steps=20)
    >>> schedule(0), schedule(10), schedule(20), schedule(70), schedule(120)
    (0.0, 0.2, 0.4, 0.2, 0.0)

    Reference: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
    """

    def __init__(
        self,
        schedule: LearningRateSchedule | float,
        warmup_steps: float,
        initial: float = 0.0,
    ) -> None:
        if not isinstance(schedule, LearningRateSchedule):
            if isinstance(schedule, bool) or not isinstance(schedule, numbers.Real):
                raise ValueError(
                    '`schedule` must be a LearningRateSchedule or a finite number >= 0. '
                    f'Received: schedule={schedule!r}'
                )
            schedule = _number('schedule', schedule, low=0)
        self.schedule = schedule
        self.warmup_steps = _number('warmup_steps', warmup_steps, above=0)
        self.initial = _number('initial', initial, low=0)

    def __call__(self, step: Step) -> Tensor:
        if _is_plain(step):
            step = np.asarray(step, dtype='float64')
            t = np.clip(step / self.warmup_steps, 0.0, 1.0)
            after = self._after(np.maximum(step - self.warmup_steps, 0.0))
            after = np.asarray(ops.convert_to_numpy(after), dtype='float64')
            return _plain(np.where(t < 1, (1 - t) * self.initial + t * after, after))
        step = ops.cast(step, 'float32')
        t = ops.clip(step / self.warmup_steps, 0.0, 1.0)
        # During the rise the clipped step is 0, so `after` is schedule(0), where the rise ends.
        after = ops.cast(self._after(ops.maximum(step - self.warmup_steps, 0.0)), 'float32')
        return (1.0 - t) * self.initial + t * after

    def _after(self, step):
        return self.schedule(step) if callable(self.schedule) else self.schedule

    def get_config(self) -> Config:
        """The constructor's arguments, the schedule serialised."""
        return {
            'schedule': keras.saving.serialize_keras_object(self.schedule),
            'warmup_steps': self.warmup_steps,
            'initial': self.initial,
        }

    @classmethod
    def from_config(cls, config: Config) -> Warmup:
        """A schedule from the dictionary that `get_config` returned."""
        schedule = keras.saving.deserialize_keras_object(config['schedule'])
        return cls(**{**config, 'schedule': schedule})


@keras.saving.register_keras_serializable(package='fenwicks')
class AtSteps(LearningRateSchedule):
    """1 at some steps, 0 at all others: `value = 1 if step in steps else 0`.

    Args:
        steps: sequence of integers >= 0.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: a step isn't an integer >= 0.

    Example:

    >>> schedule = AtSteps([1, 3])
    >>> [schedule(step) for step in range(5)]
    [0.0, 1.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, steps: Sequence[int]) -> None:
        steps = sequence('steps', steps, 'integers')
        self.steps = tuple(integer('steps', step, low=0) for step in steps)

    def __call__(self, step: Step) -> Tensor:
        if _is_plain(step):
            return _plain(np.isin(step, self.steps).astype('float64'))
        step = ops.expand_dims(ops.convert_to_tensor(step), -1)
        dtype = keras.backend.standardize_dtype(step.dtype)
        if 'int' in dtype:  # exact, where float32 is not beyond 2**24
            steps = np.array([each for each in self.steps if each <= np.iinfo(dtype).max], dtype)
        else:
            step, steps = ops.cast(step, 'float32'), np.array(self.steps, 'float32')
        return ops.cast(ops.any(step == ops.convert_to_tensor(steps), axis=-1), 'float32')

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {'steps': list(self.steps)}

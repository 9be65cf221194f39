"""Learning-rate schedules: pure functions of the step.

Step `k` counts the updates already made: `schedule(0)` is the rate of the first update and
`schedule(k)` that of the (k+1)-th, as Keras counts `optimizer.iterations`. A schedule over
`total_steps` updates is last read at `total_steps - 1`, so the value of a final knot at
`total_steps` is approached but not used.

Keras has the plain decays, which need no copy here: `keras.optimizers.schedules.PolynomialDecay`
with `power=1.0` decays linearly, `ExponentialDecay` exponentially, `CosineDecay` along a cosine.
`Warmup` puts a linear rise before any of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


def _is_plain(step) -> bool:
    return isinstance(step, (int, float, np.number, np.ndarray))


def _plain(values):
    """A float for a scalar, a NumPy array otherwise."""
    values = np.asarray(values)
    return float(values) if values.ndim == 0 else values


@keras.saving.register_keras_serializable(package='fenwicks')
class PiecewiseLinear(LearningRateSchedule):
    """Straight lines between knots, constant before the first knot and after the last.

    ```
    between (s0, v0) and (s1, v1):  t = (step - s0) / (s1 - s0);  value = (1 - t) * v0 + t * v1
    ```

    Args:
        knots: sequence of at least two pairs `(step, value)`, steps strictly increasing (whole or
            not: a fraction of an epoch need not be a whole number of steps), values >= 0.

    Call arguments:
        step: the number of updates made so far. A tensor or variable of any number type, a Python
            or a NumPy number, or an array of steps.

    Returns:
        A float32 tensor of the step's shape; for Python and NumPy steps a float or a NumPy array,
        ready to print and to plot.

    Raises:
        ValueError: if there are fewer than two knots, if a knot is not a pair of finite numbers, if
            steps don't increase, or if a value is negative.

    Example:

    >>> schedule = PiecewiseLinear([(0, 0.0), (100, 0.4), (500, 0.0)])
    >>> [schedule(step) for step in (0, 50, 100, 300, 500, 600)]
    [0.0, 0.2, 0.4, 0.2, 0.0, 0.0]
    """

    def __init__(self, knots: Sequence[tuple[float, float]]):
        self.knots = _check_knots(knots)

    def __call__(self, step):
        if _is_plain(step):
            return _plain(np.interp(step, *zip(*self.knots, strict=True)))
        step = ops.cast(step, 'float32')
        value = ops.full_like(step, self.knots[0][1])
        for (step0, value0), (step1, value1) in pairwise(self.knots):
            # Each end's weight comes from the distance to the other, not from 1 - the other's
            # weight: exact at the knots, and never a rounding error below zero at the end.
            weight0 = ops.clip((step1 - step) / (step1 - step0), 0.0, 1.0)
            weight1 = ops.clip((step - step0) / (step1 - step0), 0.0, 1.0)
            value = ops.where(step > step0, weight0 * value0 + weight1 * value1, value)
        return value

    def get_config(self):
        """The constructor's arguments."""
        return {'knots': [list(knot) for knot in self.knots]}


def _check_knots(knots):
    """The knots as a tuple of pairs, or a ValueError."""
    try:
        checked = tuple((float(step), float(value)) for step, value in knots)
        finite = all(math.isfinite(number) for knot in checked for number in knot)
    except (TypeError, ValueError):
        checked, finite = (), False
    if len(checked) < 2 or not finite:
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
    """A linear rise from 0 to the peak, then a linear fall.

    ```
    step < warmup_steps:  value = peak * step / warmup_steps
    afterwards:           value falls linearly from peak to `final` at total_steps, and stays there
    ```

    Args:
        peak: float >= 0, the highest value, reached at `warmup_steps`.
        total_steps: number of updates in the whole training.
        warmup_steps: number of updates in the rise, in [0, total_steps). With 0 the first update
            already uses the peak.
        final: float >= 0, the value at `total_steps` and beyond.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: if `warmup_steps` is not in [0, total_steps), or `peak` or `final` is negative.

    Example:

    >>> schedule = OneCycle(peak=0.4, total_steps=240, warmup_steps=50)
    >>> schedule(0), schedule(25), schedule(50), schedule(240)
    (0.0, 0.2, 0.4, 0.0)

    Reference: Smith, "A disciplined approach to neural network hyper-parameters: part 1", 2018; the
    shape is that of Page's "How to train your ResNet", 2018.
    """

    def __init__(self, peak, total_steps, warmup_steps, final=0.0):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                '`warmup_steps` must be in [0, total_steps). '
                f'Received: warmup_steps={warmup_steps}, total_steps={total_steps}'
            )
        for name, value in (('peak', peak), ('final', final)):
            if not 0 <= value < math.inf:
                raise ValueError(f'`{name}` must be a finite number >= 0. Received: {name}={value}')
        rise = [(0, 0.0)] if warmup_steps else []
        super().__init__([*rise, (warmup_steps, peak), (total_steps, final)])
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.final = final

    def get_config(self):
        """The constructor's arguments."""
        return {
            'peak': self.peak,
            'total_steps': self.total_steps,
            'warmup_steps': self.warmup_steps,
            'final': self.final,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class PowerRise(LearningRateSchedule):
    """A rise from 0 to the peak along a power of the step, then constant.

    ```
    value = peak * min(step / total_steps, 1) ** power
    ```

    Slow at first, steep at the end: the strength of `fenwicks.optimizers.Lookahead` in the records
    of 2024 is `PowerRise(0.95**5, total_steps, power=3)`.

    Args:
        peak: float >= 0, the value at `total_steps` and beyond.
        total_steps: number of steps in the rise, > 0.
        power: float > 0; 1 is a straight line.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> schedule = PowerRise(0.8, total_steps=100, power=3)
    >>> schedule(0), schedule(50), schedule(100), schedule(200)
    (0.0, 0.1, 0.8, 0.8)
    """

    def __init__(self, peak, total_steps, power):
        if not 0 <= peak < math.inf:
            raise ValueError(f'`peak` must be a finite number >= 0. Received: {peak=}')
        if not 0 < total_steps < math.inf:
            raise ValueError(f'`total_steps` must be above 0. Received: {total_steps=}')
        if not 0 < power < math.inf:
            raise ValueError(f'`power` must be a finite number above 0. Received: {power=}')
        self.peak = peak
        self.total_steps = total_steps
        self.power = power

    def __call__(self, step):
        if _is_plain(step):
            t = np.clip(np.asarray(step, dtype='float64') / self.total_steps, 0.0, 1.0)
            return _plain(self.peak * t**self.power)
        t = ops.clip(ops.cast(step, 'float32') / self.total_steps, 0.0, 1.0)
        return self.peak * t**self.power

    def get_config(self):
        """The constructor's arguments."""
        return {'peak': self.peak, 'total_steps': self.total_steps, 'power': self.power}


@keras.saving.register_keras_serializable(package='fenwicks')
class Warmup(LearningRateSchedule):
    """A linear rise, then another schedule from its own step 0.

    ```
    step < warmup_steps:  t = step / warmup_steps;  value = (1 - t) * initial + t * schedule(0)
    afterwards:           value = schedule(step - warmup_steps)
    ```

    Args:
        schedule: a `LearningRateSchedule`, Keras's or one of these; or a number, held constant.
        warmup_steps: number of updates in the rise, > 0.
        initial: float >= 0, the value at step 0.

    Call arguments:
        step: as for `PiecewiseLinear`.

    Returns:
        As for `PiecewiseLinear`.

    Raises:
        ValueError: if `warmup_steps` is not above 0, `initial` is negative, or `schedule` is
            neither a schedule nor a number >= 0.

    Example:

    >>> schedule = Warmup(PiecewiseLinear([(0, 0.4), (100, 0.0)]), warmup_steps=20)
    >>> schedule(0), schedule(10), schedule(20), schedule(70), schedule(120)
    (0.0, 0.2, 0.4, 0.2, 0.0)

    Reference: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
    """

    def __init__(self, schedule, warmup_steps, initial=0.0):
        is_number = isinstance(schedule, (int, float)) and 0 <= schedule < math.inf
        if not is_number and not isinstance(schedule, LearningRateSchedule):
            raise ValueError(
                '`schedule` must be a LearningRateSchedule or a finite number >= 0. '
                f'Received: schedule={schedule!r}'
            )
        if not 0 < warmup_steps < math.inf:
            raise ValueError(f'`warmup_steps` must be above 0. Received: {warmup_steps=}')
        if not 0 <= initial < math.inf:
            raise ValueError(f'`initial` must be a finite number >= 0. Received: {initial=}')
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.initial = initial

    def __call__(self, step):
        if _is_plain(step):
            step = np.asarray(step, dtype='float64')
            t = np.minimum(step / self.warmup_steps, 1.0)
            after = self._after(np.maximum(step - self.warmup_steps, 0.0))
            after = np.asarray(ops.convert_to_numpy(after), dtype='float64')
            return _plain(np.where(t < 1, (1 - t) * self.initial + t * after, after))
        step = ops.cast(step, 'float32')
        t = ops.minimum(step / self.warmup_steps, 1.0)
        # During the rise the clipped step is 0, so this is schedule(0), the value to rise to.
        after = ops.cast(self._after(ops.maximum(step - self.warmup_steps, 0.0)), 'float32')
        return (1.0 - t) * self.initial + t * after

    def _after(self, step):
        return self.schedule(step) if callable(self.schedule) else self.schedule

    def get_config(self):
        """The constructor's arguments, the schedule serialised."""
        return {
            'schedule': keras.saving.serialize_keras_object(self.schedule),
            'warmup_steps': self.warmup_steps,
            'initial': self.initial,
        }

    @classmethod
    def from_config(cls, config):
        """A schedule from the dictionary that `get_config` returned."""
        schedule = keras.saving.deserialize_keras_object(config['schedule'])
        return cls(**{**config, 'schedule': schedule})

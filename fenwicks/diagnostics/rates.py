"""Copies of optimizers whose learning rates grow exponentially, step by step."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from fenwicks._errors import one_line
from fenwicks._typing import Config, Step, Tensor

# Where a schedule is looked at for its peak: its knots, if it has some, and these steps.
_STEPS = (0, *(2**n for n in range(21)))


@keras.saving.register_keras_serializable(package='fenwicks')
class _Sweep(LearningRateSchedule):
    """From `start` at step 0 to `stop` at step `steps - 1`, by equal factors, and on."""

    def __init__(self, start: float, stop: float, steps: int):
        self.start, self.stop, self.steps = start, stop, steps

    def __call__(self, step: Step) -> Tensor:
        done = ops.cast(step, 'float32') / (self.steps - 1)
        return self.start * ops.exp(math.log(self.stop / self.start) * done)

    def get_config(self) -> Config:
        return {'start': self.start, 'stop': self.stop, 'steps': self.steps}


def with_sweep(
    optimizer: keras.optimizers.Optimizer, start: float, stop: float, steps: int
) -> keras.optimizers.Optimizer:
    """A new optimizer with the same settings, whose rate sweeps from `start` to `stop`.

    Rates within it, of other optimizers and of parameter groups, sweep too: each keeps its ratio to
    the main rate, at the step at which that is greatest.

    Raises:
        ValueError: the optimizer can't be made again from its configuration.
    """
    try:
        return _swept(keras.saving.serialize_keras_object(optimizer), start, stop, steps)
    except (TypeError, ValueError) as error:  # of Keras, on several lines and with the whole config
        raise ValueError(
            '`trainer` must have an optimizer whose rates are numbers or schedules; a schedule of '
            'yours, as an optimizer, needs keras.saving.register_keras_serializable. '
            f'Received: optimizer={optimizer!r} ({_first_sentence(error)})'
        ) from error


def _first_sentence(error):
    return one_line(error).partition('. ')[0]


def _swept(config, start, stop, steps):
    """An optimizer from its configuration, with sweeps in the place of its rates."""
    rates = list(_rates(config['config']))
    if not rates:
        raise ValueError('its `get_config` must return its learning_rate')
    owner, key = rates[0]
    main, candidates = _value_of(owner[key]), _candidates(owner[key])
    peak = max(candidates, key=main)
    for each in _dicts(config['config']):
        if 'match' in each and isinstance(each.get('learning_rate'), dict):
            # A group's factor that is a schedule stays as it is at the peak.
            each['learning_rate'] = _value_of(each['learning_rate'])(peak)
    for owner, key in rates:
        ratio = 1.0 if main(peak) == 0 else _value_of(owner[key])(peak) / main(peak)
        if ratio > 0:
            sweep = _Sweep(ratio * start, ratio * stop, steps)
            owner[key] = keras.saving.serialize_keras_object(sweep)
        else:
            owner[key] = 0.0
    return keras.saving.deserialize_keras_object(config)


def _rates(config: Any):
    """Pairs of a dict and a key under which it holds a rate; the main one first.

    An optimizer's configuration is known by its `clipnorm`, that of a group by its `match`.
    """
    for each in _dicts(config):
        if 'clipnorm' in each and 'learning_rate' in each:
            yield each, 'learning_rate'
        if 'match' in each and each.get('schedule') is not None:
            yield each, 'schedule'


def _dicts(config: Any):
    """The dicts in a configuration, each before those in it."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for value in config:
            yield from _dicts(value)


def _value_of(rate: Any):
    """A function from the step to the value of a serialized rate."""
    if isinstance(rate, dict):
        rate = keras.saving.deserialize_keras_object(rate)
    if isinstance(rate, LearningRateSchedule):
        return lambda step: float(ops.convert_to_numpy(rate(step)))
    if callable(rate):
        return lambda step: float(ops.convert_to_numpy(rate()))
    return lambda step: float(rate)


def _candidates(rate: Any):
    """The steps at which a serialized rate may be greatest."""
    schedule = keras.saving.deserialize_keras_object(rate) if isinstance(rate, dict) else None
    return [*_STEPS, *(int(step) for step, _ in getattr(schedule, 'knots', ()))]

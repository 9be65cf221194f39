"""The averages of a model's weights that a `Trainer` keeps."""

from __future__ import annotations

import contextlib
from typing import Any, TypeAlias

import keras
import numpy as np

from fenwicks import _keras_optimizers
from fenwicks.optimizers import averaging
from fenwicks.training.interrupts import deferred_interrupts

# A rule of `fenwicks.optimizers.averaging`, or an object with its `every`, `update` and
# `replaces_values`.
AveragingRule: TypeAlias = Any


class Averages:
    """Averages of a model's weights and batch-norm statistics, as variables.

    Args:
        rule: a rule of `fenwicks.optimizers.averaging`, or `None` for no averages.
        model: a built Keras model.
        in_one_call: makes a function that reads and assigns variables one call to the framework.
    """

    def __init__(self, rule, model, in_one_call):
        if rule is not None:
            averaging.check_rule('averaging', rule)
        self.rule = rule
        self.sources = [] if rule is None else averaging.averaged_variables(model)
        self.variables = [
            keras.Variable(value, dtype=value.dtype, trainable=False, name='average')
            for value in averaging.initial_averages(self.sources)
        ]
        self._raw: list | None = None  # the weights, while the averages are in their place
        self._values = in_one_call(self._value_of_each)
        self._assign = in_one_call(self._assign_each)

    def restart(self, sources=None):
        """Sets the averages, or those of some variables, to the present weights."""
        chosen = set(map(id, self.sources if sources is None else sources))
        for average, source in zip(self.variables, self.sources, strict=True):
            if id(source) in chosen:
                average.assign(averaging.initial_averages([source])[0])

    def restart_frozen(self, variables):
        """Sets the averages of variables that are frozen now to their values.

        A rule that resets the values to the averages would move them otherwise. An average that is
        equal to its value leaves it exactly as it is.
        """
        if self.rule is not None and self.rule.replaces_values:
            self.restart(variables)

    def check_not_in_place(self):
        """Raises while the averages are in the place of the weights."""
        if self._raw is not None:
            raise ValueError(
                'the Trainer must have its own weights to train: leave `averaged()` first'
            )

    @contextlib.contextmanager
    def in_place(self, steps):
        """A context in which the averages are in the place of the model's weights.

        Args:
            steps: steps trained so far. Before the first update the weights stay.
        """
        # In place already for a prediction within `averaged()`.
        if self.rule is None or self._raw is not None or steps < self.rule.every:
            yield
            return
        try:
            with deferred_interrupts():  # all are in place, or none
                self._raw = self._values()
                self._assign([average.value for average in self.variables])
            yield
        finally:
            with deferred_interrupts():
                raw, self._raw = self._raw, None
                if raw is not None:
                    self._assign(raw)

    def places(self, model):
        """The variables that lists of weights are for, by what they hold."""
        return {'weights': model.weights, 'averages': self.variables}

    def get_weights(self, model):
        """The model's own weights, also while the averages are in place, and the averages.

        Args:
            model: the model whose weights are averaged.

        Returns:
            A list of arrays for `model.weights`, and one for `variables`.
        """
        raw_of = dict(zip(map(id, self.sources), self._raw or (), strict=False))
        weights = [raw_of.get(id(weight), weight) for weight in model.weights]
        return [_numpy(weight) for weight in weights], [_numpy(v) for v in self.variables]

    def set_weights(self, model, weights, averages):
        """Sets what `get_weights` returned; averages that are in place stay in place.

        Raises:
            ValueError: it is of another model.
        """
        _check_like('weights', weights, model.weights)
        _check_like('averages', averages, self.variables)
        value_of = dict(zip(map(id, model.weights), weights, strict=True))
        in_place = set(map(id, self.sources)) if self._raw is not None else set()
        with deferred_interrupts():
            for variable, value in zip(self.variables, averages, strict=True):
                variable.assign(value)
            for weight in model.weights:
                if id(weight) not in in_place:
                    weight.assign(value_of[id(weight)])
            if self._raw is not None:
                values = [value_of[id(source)] for source in self.sources]
                self._raw = [keras.ops.convert_to_tensor(value) for value in values]
                self._assign([average.value for average in self.variables])

    def adopt_restored(self):
        """Makes weights that were put in the averages' place both the weights and the averages.

        Call it while the averages are in place; it does nothing where they still are.
        """
        if self._raw is None or self._hold_averages():
            return
        self._raw = self._values()
        self.restart()  # with copies: a program that reuses their memory must not find one twice

    def _hold_averages(self):
        return all(
            np.array_equal(_numpy(source), _numpy(keras.ops.cast(average.value, source.dtype)))
            for source, average in zip(self.sources, self.variables, strict=True)
        )

    def _value_of_each(self):
        return [keras.ops.convert_to_tensor(source) for source in self.sources]

    def _assign_each(self, values):
        for source, value in zip(self.sources, values, strict=True):
            source.assign(keras.ops.cast(value, source.dtype))


def finalize(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> bool:
    """Puts the averages of an optimizer of Keras with `use_ema` in the weights' place.

    Returns:
        Whether it has any.
    """
    averaging = [each for each in _keras_optimizers.updating_optimizers(optimizer) if each.use_ema]
    if averaging and not any(_numpy(each.iterations) for each in averaging):
        return False  # before the first update they are zeros
    optimizer.finalize_variable_values(model.trainable_variables)
    if averaging:
        for weight in model.trainable_variables:  # a copy, not the average's memory
            weight.assign(keras.ops.copy(weight.value))
    return bool(averaging)


def _check_like(name, values, variables):
    """Raises unless there is an array for each variable, of its shape."""
    wanted = [tuple(variable.shape) for variable in variables]
    try:
        found = [tuple(np.shape(value)) for value in values]
    except (TypeError, ValueError):
        found = None
    if found != wanted:
        differing = [pair for pair in zip(found or (), wanted, strict=False) if pair[0] != pair[1]]
        received = type(values).__name__ if found is None else f'{len(found)} of them'
        if differing:
            received += f', of which one has the shape {differing[0][0]}, not {differing[0][1]}'
        raise ValueError(
            f'`{name}` must be the {len(wanted)} arrays that get_weights returned of this model. '
            f'Received: {received}'
        )


def _numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))

"""The averages of a model's weights that a `Trainer` keeps."""

from __future__ import annotations

import contextlib
from typing import Any, TypeAlias

import keras

from fenwicks.optimizers import averaging

# A rule of `fenwicks.optimizers.averaging`, or an object with its `every`, `update` and
# `replaces_values`.
AveragingRule: TypeAlias = Any


class Averages:
    """Averages of a model's weights and batch-norm statistics, as variables.

    Args:
        rule: a rule of `fenwicks.optimizers.averaging`, or `None` for no averages.
        model: a built Keras model.
    """

    def __init__(self, rule, model):
        if rule is not None:
            averaging.check_rule('averaging', rule)
        self.rule = rule
        self.sources = [] if rule is None else averaging.averaged_variables(model)
        self.variables = [
            keras.Variable(value, dtype=value.dtype, trainable=False, name='average')
            for value in averaging.initial_averages(self.sources)
        ]
        self._in_place = False

    def restart(self):
        """Sets the averages to the present weights."""
        for average, value in zip(
            self.variables, averaging.initial_averages(self.sources), strict=True
        ):
            average.assign(value)

    def check_not_in_place(self):
        """Raises while the averages are in the place of the weights."""
        if self._in_place:
            raise ValueError(
                'the Trainer must have its own weights to train: leave `averaged()` first'
            )

    @contextlib.contextmanager
    def in_place(self, steps):
        """A context in which the averages are in the place of the model's weights.

        Args:
            steps: steps trained so far. Before the first update the weights stay.
        """
        # `_in_place` is set already for a prediction within `averaged()`.
        if self.rule is None or self._in_place or steps < self.rule.every:
            yield
            return
        raw = averaging.initial_averages(self.sources)
        self._in_place = True
        try:
            self._assign(average.value for average in self.variables)
            yield
        finally:
            self._assign(raw)
            self._in_place = False

    def _assign(self, values):
        for source, value in zip(self.sources, values, strict=True):
            source.assign(keras.ops.cast(value, source.dtype))

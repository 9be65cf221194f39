"""Layers that are frozen or unfrozen, and other schedules, between two calls of `fit`."""

from __future__ import annotations

import collections
import warnings
from typing import Any

import keras

from fenwicks import _keras, _keras_optimizers


class Compiled:
    """What compiled steps hold of a model and its optimizer, and don't follow when it changes.

    Args:
        optimizer: a built optimizer.
        model: its model.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, model: keras.Model):
        self._optimizer, self._model = optimizer, model
        self._at_first = self._present()

    def changed(self) -> list[str]:
        """What is another than when this object was made."""
        return [
            what
            for (what, now), before in zip(
                self._present().items(), self._at_first.values(), strict=True
            )
            if len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True))
        ]

    def check(self) -> None:
        """Raises a `ValueError` where something has changed."""
        changed = self.changed()
        if changed:
            raise ValueError(
                'callbacks must leave what the compiled steps hold as it is: change it between two '
                f'calls of `fit`. Received: {" and ".join(changed)}'
            )

    def _present(self) -> dict[str, list[Any]]:
        """Objects by what they are; they are compared, and kept, themselves."""
        parts = _keras_optimizers.updating_optimizers(self._optimizer)
        parts = [*parts, *(getattr(each, 'others', None) for each in parts)]  # of Muon
        held = [part for part in parts if isinstance(part, keras.optimizers.Optimizer)]
        return {
            'another learning rate schedule': list(
                map(_keras_optimizers.constant_or_schedule, held)
            ),
            'layers frozen or unfrozen': [
                *self._model.trainable_variables,
                # A batch norm without trainable variables has moving statistics.
                *(layer.trainable for layer in _keras.flatten_layers(self._model)),
            ],
        }


def follow_trainable(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> bool:
    """Builds an optimizer anew where other weights of its model are trainable than when it was.

    It keeps its count of updates, its learning rate, and what it holds of the weights that stay
    trainable; for others it begins anew, also for those that were frozen in between.

    Args:
        optimizer: built for weights of the model.
        model: a built Keras model.

    Returns:
        Whether it was built anew: its variables are others then.

    Raises:
        ValueError: it is a `MultiOptimizer`, which assigns each weight to one of its own once; or
            two weights have one path, by which what it holds of a weight is found again.
    """
    weights = model.trainable_variables
    if list(map(id, _keras_optimizers.optimized_variables(optimizer))) == list(map(id, weights)):
        return False
    if _keras_optimizers.is_multi_optimizer(optimizer):
        raise ValueError(
            '`model` must keep its trainable weights under a MultiOptimizer: make another one, and '
            f'another Trainer. Received: {optimizer.name}, made for other weights'
        )
    both = {
        id(each): each for each in (*_keras_optimizers.optimized_variables(optimizer), *weights)
    }
    for path, count in collections.Counter(each.path for each in both.values()).items():
        if count > 1:
            raise ValueError(
                '`model` must have weights of different paths where layers are frozen or unfrozen '
                'between two calls of `fit`: give its layers, and the models within it, names of '
                f'their own. Received: {count} weights at {path}'
            )
    with warnings.catch_warnings():
        # That the parameter groups of new weights are found by their paths.
        warnings.filterwarnings('ignore', message='the parameter groups were saved')
        _keras_optimizers.rebuild(optimizer, weights)
    return True

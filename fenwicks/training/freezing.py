"""Layers that are frozen or unfrozen between two calls of `fit`."""

from __future__ import annotations

import collections
import warnings

import keras

from fenwicks import _keras


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
    if list(map(id, _keras.optimized_variables(optimizer))) == list(map(id, weights)):
        return False
    if _keras.is_multi_optimizer(optimizer):
        raise ValueError(
            '`model` must keep its trainable weights under a MultiOptimizer: make another one, and '
            f'another Trainer. Received: {optimizer.name}, made for other weights'
        )
    both = {id(each): each for each in (*_keras.optimized_variables(optimizer), *weights)}
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
        _keras.rebuild(optimizer, weights)
    return True

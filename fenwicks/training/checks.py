"""Checks of the arguments of a `Trainer`; each raises a ValueError of one line."""

from __future__ import annotations

import numbers

import keras
import numpy as np

from fenwicks import _keras, data
from fenwicks.training.replicas.base import Replicas


def check(model, optimizer, loss, seed, seconds_per_call, replicas):
    """Raises unless each argument of a Trainer keeps its rule."""
    if not model.built:
        raise ValueError('`model` must be built: give it an input shape or call it once')
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            f'`optimizer` must be a Keras optimizer. Received: optimizer={optimizer!r}'
        )
    if loss is not None and not callable(loss):
        raise ValueError(f'`loss` must be a keras.losses.Loss. Received: loss={loss!r}')
    if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**31:
        raise ValueError(f'`seed` must be an integer in [0, 2**31). Received: seed={seed!r}')
    if not isinstance(replicas, Replicas | None):
        raise ValueError(
            f'`replicas` must come from training.replicate. Received: replicas={replicas!r}'
        )
    if seconds_per_call is not None and not seconds_per_call > 0:
        raise ValueError(
            f'`seconds_per_call` must be positive. Received: seconds_per_call={seconds_per_call}'
        )


def check_sharing(replicas, loss, seconds_per_call):
    """Raises where the arguments are for one device, or one process, only."""
    if replicas.count > 1 and getattr(loss, 'reduction', None) == 'sum':
        raise ValueError(
            '`loss` must be a mean over the batch for several replicas, which average it. '
            'Received: reduction=sum'
        )
    if replicas.processes > 1 and seconds_per_call is not None:
        raise ValueError(
            '`seconds_per_call` must be None where several processes train together, which '
            f'take the same steps in each call. Received: seconds_per_call={seconds_per_call}'
        )


def build(optimizer, model):
    """Builds a new optimizer for the model; raises where it was built for another one."""
    weights = model.trainable_variables
    if not optimizer.built:
        optimizer.build(weights)
    elif list(map(id, _keras.optimized_variables(optimizer))) != list(map(id, weights)):
        raise ValueError(
            '`optimizer` must be new, or that of this model, whose trainable weights must stay the '
            f'same: make another one, and a Trainer. Received: {optimizer.name}, made for others'
        )


def updating(optimizer):
    """The optimizers that update weights: this one, or those inside it."""
    inner = getattr(optimizer, 'inner_optimizer', None)
    return getattr(inner or optimizer, 'optimizers', [inner or optimizer])


def check_data(model, images, labels):
    """Raises unless the model takes these images and has a logit for every label."""
    check_images(model, images)
    inputs = keras.KerasTensor((1, *np.shape(images)[1:]), 'float32')
    data.check_arrays(images, labels, model(inputs, training=False).shape[-1])


def check_images(model, images):
    """Raises unless the model takes these images."""
    data.check_arrays(images, np.zeros(len(images), np.int32))
    shape = np.shape(images)[1:]
    # A subclass of Model has no `input_shape`.
    takes = getattr(model, 'input_shape', (None, *shape))[1:]
    if len(takes) != len(shape) or any(
        side not in (None, given) for side, given in zip(takes, shape, strict=True)
    ):
        raise ValueError(
            f'`images` must have the shape (count, {", ".join(map(str, takes))}) that the '
            f'model takes. Received: shape={np.shape(images)}'
        )

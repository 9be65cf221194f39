"""Whether a model returns what its loss is of: logits, or probabilities.

It is told by values, since layers of all kinds may come after a softmax, and functions be one.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from fenwicks import _keras
from fenwicks.training import checks, targets
from fenwicks.training.engines.base import Engine, Loss

_ROWS = 16  # of random numbers: that few logits all look like probabilities by chance is improbable
_SCALE = 100  # of these numbers: by it a sigmoid is nearly 0 or 1, and a logit is neither


def check_outputs(
    model: keras.Model, loss: Loss, engine: Engine, image_shape: tuple[int, ...], dtype: Any
) -> None:
    """Raises where the loss is of logits and the model returns probabilities, or vice versa.

    The last layers alone, from the last with weights on, are computed with random numbers, which
    takes milliseconds. The whole model is only where they are against the loss, as a layer may be
    with what it never gets, or where they aren't known, as of a subclass. Nothing is changed by it.

    Args:
        model: a built Keras model.
        loss: the Trainer's.
        engine: predicts with the model.
        image_shape: `(height, width, channels)` of the training images.
        dtype: theirs, uint8 or float32.

    Raises:
        ValueError: they don't go together.
    """
    of_logits = targets.of_logits(loss)
    if of_logits is None:
        return
    numbers = np.random.default_rng(0)
    outputs = _keras.outputs_of_last_layers(model, _ROWS, lambda shape: _normal(numbers, shape))
    found = None if outputs is None else are_probabilities(outputs)
    if outputs is not None and found is not of_logits:
        return
    shape = (_ROWS, *image_shape)
    images = _normal(numbers, shape) if dtype != np.uint8 else numbers.integers(0, 256, shape)
    outputs = engine.predict(images.astype(dtype), [lambda images: images * _SCALE])[0]
    if are_probabilities(outputs) is not of_logits:
        return
    span = f'outputs from {outputs.min():.3g} to {outputs.max():.3g} for random images'
    if of_logits:
        raise ValueError(f'{checks.NO_LOGITS}. Received: {model.name} with {span}')
    name = getattr(loss, 'name', loss)
    raise ValueError(
        f'{checks.NO_PROBABILITIES}. Received: {name} of probabilities, and a model with {span}'
    )


def are_probabilities(outputs: np.ndarray) -> bool | None:
    """Whether outputs `(rows, outputs)` for large random numbers come from a softmax or a sigmoid;
    `None` where they may.

    Example:

    >>> are_probabilities(np.array([[0.25, 0.75], [0.5, 0.5]]))
    True
    >>> are_probabilities(np.array([[0.25, 3.0], [-1.5, 0.5]]))
    False
    """
    if not np.isfinite(outputs).all():
        return None
    low, high = outputs.min(), outputs.max()
    if low < 0 or high > 1.01 or high == 0:  # half precision rounds, and zeros are of a new head
        return False
    of_softmax = outputs.shape[1] > 1 and (np.abs(outputs.sum(axis=1) - 1) < 0.01).all()
    return True if of_softmax or (low < 0.05 and high > 0.95) else None


def _normal(numbers, shape):
    return _SCALE * numbers.standard_normal(shape, np.float32)

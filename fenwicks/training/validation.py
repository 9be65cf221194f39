"""Validation during a training: all images, on the device, at the ends of epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fenwicks._checks import positive_integer
from fenwicks.training.batches import Form
from fenwicks.training.engines.base import Engine, Loss
from fenwicks.training.inference import BATCH_SIZE
from fenwicks.training.metrics import MetricSet, warn_unless_finite
from fenwicks.training.sources import all_batches, is_source
from fenwicks.training.targets import accuracy as share_of_right


class Validation:
    """A set of images that is placed on the device once and scored after epochs.

    Args:
        engine: the `Engine` that scores it.
        metrics: its `MetricSet`.
        loss: of the Trainer.
        images: uint8 `(count, height, width, channels)`, or float32 as a source gives them.
        targets: tuple of the labels and, where there are any, the weights of the images.
        every: positive integer, epochs from one validation to the next; or the epochs, from 1, to
            validate after.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: MetricSet,
        loss: Loss,
        images: np.ndarray,
        targets: tuple[np.ndarray, ...],
        every: int | list[int],
    ):
        self.engine, self.metrics, self.loss, self.every = engine, metrics, loss, every
        self._labels, *_ = targets
        self._held = engine.hold(images, targets)

    def is_due(self, epoch: int) -> bool:
        """Whether an epoch, from 0, is validated."""
        if isinstance(self.every, list):
            return epoch + 1 in self.every
        return (epoch + 1) % self.every == 0

    def score(self) -> dict[str, Any]:
        """The loss and the metrics over all images, with the model's present weights."""
        loss, correct, results = self.engine.score(self._held, BATCH_SIZE)
        warn_unless_finite({'loss': loss})
        accuracy = share_of_right(self.loss, self._labels, correct, len(self._labels))
        share = {} if accuracy is None else {'accuracy': accuracy}
        return {'loss': loss, **share, **self.metrics.named(results)}


def arrays_of(validation_data: Any) -> Any:
    """All batches of a source as `(images, labels)` or `(images, labels, sample_weight)`; anything
    else as it is.

    Raises:
        ValueError: the batches aren't alike, or there is none.
    """
    if not is_source(validation_data):
        return validation_data
    try:
        batches = list(all_batches(validation_data))
    except ValueError as error:
        raise ValueError(f'`validation_data` must be like the training data: {error}') from None
    forms = list(dict.fromkeys(map(Form.of, batches)))
    if len(forms) != 1:
        raise ValueError(
            '`validation_data` must give batches of one form. '
            f'Received: {"; ".join(map(str, forms)) or "no batch"}'
        )
    parts = [(each.images, each.labels, each.weights) for each in batches]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True) if part[0] is not None)


def check_frequency(validation_freq: Any) -> int | list[int]:
    """A checked `validation_freq`, as Keras's `fit` has it."""
    if isinstance(validation_freq, list | tuple | set | range):
        return [positive_integer('validation_freq', epoch) for epoch in validation_freq]
    return positive_integer('validation_freq', validation_freq)

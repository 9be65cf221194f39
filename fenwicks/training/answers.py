"""How many of a model's answers are right."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from fenwicks._typing import Tensor
from fenwicks.training.targets import BINARY, CLASSES, of_logits


def counter(kind: str, loss: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of the model's outputs and the labels that counts correct answers, as int32.

    Args:
        kind: of the loss, see `targets.kind_of`.
        loss: of the Trainer.
    """
    if kind == BINARY:
        return functools.partial(_right_of_each, 0.0 if of_logits(loss) else 0.5)
    return _right_classes if kind == CLASSES else _right_classes_if_any


def _right_of_each(threshold, outputs, labels):
    """The number of outputs on the same side as their label."""
    labels = ops.reshape(ops.cast(labels, 'float32'), outputs.shape)
    found = (outputs > ops.cast(threshold, outputs.dtype)) == (labels > 0.5)
    return ops.cast(ops.count_nonzero(found), 'int32')


def _right_classes(outputs, labels):
    """The number of images whose label, or most probable one, has the largest logit."""
    if len(labels.shape) > 1:
        labels = ops.argmax(labels, -1)
    found = ops.argmax(outputs, -1) == ops.cast(labels, 'int32')
    return ops.cast(ops.count_nonzero(found), 'int32')


def _right_classes_if_any(outputs, labels):
    return _right_classes(outputs, labels) if len(labels.shape) == 1 else ops.zeros((), 'int32')

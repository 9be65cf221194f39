"""What a training has reached, epoch by epoch, in Keras's form."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import keras

# Of a record: when and how fast an epoch was trained, not what was reached.
_ABOUT = frozenset({'epoch', 'seconds', 'images_per_second'})


class History(keras.callbacks.History):
    """The history of a training, as Keras's `fit` returns it.

    Args:
        records: list with a dict for each epoch, see `Trainer.fit`.
        params: dict of `epochs` and `steps`.

    Attributes:
        epoch: list of the epochs' numbers, from 0.
        history: for each name the list of its values: `loss`, `accuracy`, the metrics,
            `learning_rate`, the same of the validation with `val_` before it, and what callbacks
            have added to their `logs`.

    Example:

    >>> history = History([{'epoch': 1, 'train_loss': 2.0}, {'epoch': 2, 'train_loss': 1.5}])
    >>> history.history, history.epoch
    ({'loss': [2.0, 1.5]}, [0, 1])
    """

    def __init__(self, records: Sequence[dict[str, Any]], params: dict[str, Any] | None = None):
        super().__init__()
        self.set_params(params or {})
        self.epoch = [record['epoch'] - 1 for record in records]
        for record in records:
            for name, value in record.items():
                if name not in _ABOUT:
                    self.history.setdefault(name.removeprefix('train_'), []).append(value)


def logs_of(record: dict[str, Any]) -> dict[str, Any]:
    """What callbacks see of an epoch, from its record: `train_loss` is `loss` to them."""
    return {
        name.removeprefix('train_'): value
        for name, value in record.items()
        if name not in _ABOUT and name != 'learning_rate'
    }


def note_additions(record: dict[str, Any], logs: dict[str, Any]) -> None:
    """Adds to a record what callbacks have added to the logs: numbers of another name."""
    known = {*record, *(name.removeprefix('train_') for name in record)}
    for name, value in logs.items():
        if not isinstance(value, numbers.Real):
            continue
        if name in record and value is not record[name] and value != record[name]:
            warnings.warn(
                'callbacks should add numbers of other names to the logs, of which the records '
                f'have none of their own. Received: {name}={value}',
                stacklevel=3,
            )
        if name not in known:
            record[name] = float(value)

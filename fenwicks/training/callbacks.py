"""Callbacks for `Trainer.fit` that Keras lacks.

Keras's own callbacks that work from the ends of epochs go there as well; these know the Trainer,
and work in no other `fit`.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import numpy as np

from fenwicks._checks import finite_number


class TrainerCallback(keras.callbacks.Callback):
    """A callback that knows the `Trainer`, as `trainer`, beside its `model`.

    For callbacks of your own: override `on_epoch_end` and the like.
    """

    trainer: Any = None

    def set_trainer(self, trainer: Any) -> None:
        """Called by `Trainer.fit` before the training begins."""
        self.trainer = trainer


class _Monitor(TrainerCallback):
    """A callback that looks at one number of the logs, in epochs that have it."""

    monitor: str
    _found = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier training."""
        self._found = False

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warns if no epoch had the number."""
        if not self._found:
            warnings.warn(
                f'{type(self).__name__} did nothing: no epoch had {self.monitor}, which takes '
                '`validation_data`, and an epoch of `validation_freq`',
                stacklevel=2,
            )

    def _monitored(self, logs):
        """The number; `None` in an epoch without validation."""
        logs = logs or {}
        value = logs.get(self.monitor)
        validated = any(name.startswith('val_') for name in logs)
        if value is None and (validated or not self.monitor.startswith('val_')):
            raise ValueError(
                f'`monitor` must be one of {", ".join(logs)}. Received: monitor={self.monitor!r}'
            )
        self._found = self._found or value is not None
        return value


class BestWeights(_Monitor):
    """Keeps the best weights together with their averages, and puts both back at the end.

    `keras.callbacks.EarlyStopping(restore_best_weights=True)` makes the best averages the weights
    and the averages of the Trainer. After this callback the Trainer is where it was at the end of
    its best epoch, but for the optimizer's state.

    Args:
        monitor: the name in the logs of what is compared.
        mode: `'min'`, `'max'`, or `'auto'`: the least of a loss, the greatest of anything else.

    Attributes:
        best: the best value, `None` before the first.
        best_epoch: its epoch, from 0.

    Raises:
        ValueError: `mode` is none of the three; or, after an epoch, there is no such name.

    Example:

    ```python
    best = fenwicks.training.callbacks.BestWeights('val_accuracy')
    trainer.fit(images, labels, epochs=10, validation_data=held_out, callbacks=[best])
    ```
    """

    def __init__(self, monitor: str = 'val_accuracy', mode: str = 'auto') -> None:
        super().__init__()
        if mode not in ('auto', 'min', 'max'):
            raise ValueError(f"`mode` must be 'auto', 'min' or 'max'. Received: mode={mode!r}")
        self.monitor, self.mode = monitor, mode
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.best_weights: list[np.ndarray] = []
        self.best_averages: list[np.ndarray] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets the weights of an earlier training."""
        super().on_train_begin(logs)
        self.best = self.best_epoch = None
        self.best_weights, self.best_averages = [], []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights and averages of an epoch that is better than all before."""
        value = self._monitored(logs)
        if value is not None and self._is_better(value):
            self.best, self.best_epoch = value, epoch
            self.best_weights, self.best_averages = self.trainer.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the best weights and averages back."""
        super().on_train_end(logs)
        if self.best_weights:
            self.trainer.set_weights(self.best_weights, self.best_averages)

    def _is_better(self, value):
        if self.best is None:
            return not math.isnan(value)
        least = self.mode == 'min' or (self.mode == 'auto' and self.monitor.endswith('loss'))
        return value < self.best if least else value > self.best


class StopAtAccuracy(_Monitor):
    """Stops the training when an accuracy is reached, and notes how long that took.

    Args:
        target: the accuracy, in (0, 1].
        monitor: its name in the logs.

    Attributes:
        reached_epoch: the epoch at whose end it was reached, from 0; `None` before.
        train_seconds: of training until then, validation and compilation apart; `None` before.

    Raises:
        ValueError: `target` is out of its range; or, after an epoch, there is no such name.

    Example:

    ```python
    stop = fenwicks.training.callbacks.StopAtAccuracy(0.94)
    trainer.fit(images, labels, epochs=20, validation_data=held_out, callbacks=[stop])
    print(stop.train_seconds)
    ```
    """

    def __init__(self, target: float, monitor: str = 'val_accuracy') -> None:
        super().__init__()
        self.target = finite_number('target', target, above=0, high=1)
        self.monitor = monitor
        self.reached_epoch: int | None = None
        self.train_seconds: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier training."""
        super().on_train_begin(logs)
        self.reached_epoch = self.train_seconds = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the training if the accuracy is reached."""
        value = self._monitored(logs)
        if value is not None and value >= self.target and self.reached_epoch is None:
            self.reached_epoch, self.train_seconds = epoch, self.trainer.train_seconds
            self.model.stop_training = True


class LearningRateLogger(TrainerCallback):
    """Adds the learning rate after the epoch's last step to the logs, for the callbacks after it.

    Example:

    ```python
    log_rate = fenwicks.training.callbacks.LearningRateLogger()
    trainer.fit(images, labels, 10, callbacks=[log_rate, keras.callbacks.CSVLogger('log.csv')])
    ```
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds `learning_rate`."""
        if logs is not None:
            logs['learning_rate'] = self.trainer.records[-1]['learning_rate']

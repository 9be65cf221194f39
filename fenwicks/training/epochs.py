"""The epochs of a training: how many steps a call of the compiled loop takes, and their records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from fenwicks import _keras_optimizers
from fenwicks.training.engines.select import in_one_call
from fenwicks.training.interrupts import Interrupts
from fenwicks.training.phase_engines import PhaseEngines
from fenwicks.training.progress import Progress
from fenwicks.training.selection import trained_images
from fenwicks.training.state import State


class DivergedError(FloatingPointError):
    """The training loss, or a number of the training's state, is no longer finite.

    Attributes:
        step: the step of the epoch after which it was noticed, from 0.
    """

    def __init__(self, message: str, step: int = 0):
        super().__init__(message)
        self.step = step


class Epochs:
    """Runs epochs in calls of the engines' compiled loops.

    The first call of all is one step. Further calls take as many steps as fit into
    `seconds_per_call`, at the speed so far.

    Args:
        engines: the `PhaseEngines`.
        state: where the training is.
        seconds_per_call: seconds between two reports to the progress bar; `math.inf` for one call
            an epoch.
        variables: the training's.
        learning_rate: function without arguments that returns the present learning rate.
        accuracy: function of the number of correct answers and of images that returns the share, or
            `None` where no answer is right or wrong.
        progress: the bar to move after each call.
        interrupts: checked after each call: raises the Ctrl-C whose exception was lost.
    """

    def __init__(
        self,
        engines: PhaseEngines,
        state: State,
        seconds_per_call: float,
        variables: Sequence[keras.Variable],
        learning_rate: Callable[[], float],
        accuracy: Callable[[int, int], float | None],
        progress: Progress,
        interrupts: Interrupts,
    ):
        self.engines, self.state, self.seconds_per_call = engines, state, seconds_per_call
        self.variables, self.learning_rate, self.accuracy = variables, learning_rate, accuracy
        self.progress, self.interrupts = progress, interrupts
        settings = engines.settings
        self.batch_size = settings.batch_size
        part = settings.replicas.model_batch_size(self.batch_size) // settings.accumulate
        self._trained_images = trained_images(settings.model, self.batch_size, part)

    def train(self, epoch: int, steps: int) -> dict[str, Any]:
        """Trains for an epoch.

        Args:
            epoch: its number, from 0.
            steps: steps in it.

        Returns:
            The epoch's record, see `Trainer.fit`.

        Raises:
            DivergedError: the loss or a number of the state is not finite.
        """
        records = self.state.records
        expected = self.batch_size / records[-1]['images_per_second'] if records else 0.0
        loss_sum, correct, step, seconds, rate = 0.0, 0, 0, 0.0, 0.0
        while step < steps:
            started = time.perf_counter()
            left = min(steps - step, self.engines.prepare(epoch, step))
            self.state.half_trained = True
            count = self._steps_of_call(seconds / step if step else expected, left)
            totals = self.engines.run(epoch, step, step + count, self.state.steps_taken, loss_sum)
            seconds += time.perf_counter() - started
            self.interrupts.check()
            if self.state.first_step_at is None:
                self.state.first_step_at = time.perf_counter()
            loss_sum = totals.loss_sum
            step, correct = step + totals.steps, correct + totals.correct
            rate = self.learning_rate()
            if not (math.isfinite(totals.last_loss) and totals.finite):
                raise self._diverged(totals, epoch, step, rate)
            accuracy = self.accuracy(correct, step * self._trained_images)
            images = totals.steps * self.batch_size
            self.progress.advance(epoch, images, loss_sum / step, accuracy, rate)
        return {
            'epoch': epoch + 1,
            'train_loss': loss_sum / steps,
            **({} if accuracy is None else {'train_accuracy': accuracy}),
            'learning_rate': rate,
            'seconds': seconds,
            'images_per_second': steps * self.batch_size / seconds,
        }

    def _diverged(self, totals, epoch, step, rate):
        if not math.isfinite(totals.last_loss) and epoch == 0 and step == 1:
            return DivergedError(
                'the training loss must be finite at the first step, before any update: look at '
                'what `normalize`, `augment`, the model and the loss return. '
                f'Received: loss {totals.last_loss} at epoch 1, step 1'
            )
        advice = 'lower the learning rate'
        if not math.isfinite(rate):
            advice = 'look at the optimizer and its schedule'
        elif epoch == 0 and step == 1:
            advice += ', or look at what `normalize` and `augment` return'
        what, which = 'loss', ''
        if math.isfinite(totals.last_loss):
            variable = first_not_finite(self.variables)
            what = 'weights' if variable is None or variable.trainable else 'state'
            which = '' if variable is None else f', {variable.path} not finite'
        return DivergedError(
            f'the training {what} must stay finite: {advice}. Received: '
            f'loss {totals.last_loss} at epoch {epoch + 1}, step {step}, '
            f'learning rate {rate:.4g}{which}',
            step - 1,
        )

    def _steps_of_call(self, seconds_per_step, left):
        """The number of steps of the next call, of those left in the epoch."""
        if self.state.first_step_at is None:
            return 1
        if math.isinf(self.seconds_per_call):
            return left
        return max(1, int(min(self.seconds_per_call / seconds_per_step, left)))


class LearningRate:
    """Reads the learning rate of an optimizer; of a `MultiOptimizer` that of its first."""

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer, *_ = _keras_optimizers.updating_optimizers(optimizer)
        self._held: Any = None  # the variable or the schedule that `_read` reads
        self._read: Callable[[], Any]

    def __call__(self) -> float:
        held = _keras_optimizers.constant_or_schedule(self._optimizer)
        if held is not self._held:  # a callback may set another schedule
            self._held = held
            self._read = in_one_call(
                lambda: keras.ops.convert_to_tensor(self._optimizer.learning_rate)
            )
        return float(keras.ops.convert_to_numpy(self._read()))


def first_not_finite(variables: Sequence[keras.Variable]) -> keras.Variable | None:
    """The first variable that holds infinities or NaN, of those that are trained if one does."""
    for variable in sorted(variables, key=lambda variable: not variable.trainable):
        if keras.backend.is_float_dtype(variable.dtype):
            floats = keras.ops.cast(variable, 'float32')
            if not np.isfinite(keras.ops.convert_to_numpy(floats)).all():
                return variable
    return None

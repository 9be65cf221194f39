"""The epochs of a training: how many steps a call of the compiled loop takes, and their records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras

from fenwicks.training.interrupts import Interrupts
from fenwicks.training.phase_engines import PhaseEngines
from fenwicks.training.progress import Progress


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
        batch_size: images in a step.
        seconds_per_call: seconds between two reports to the progress bar; `math.inf` for one call
            an epoch.
        learning_rate: function without arguments that returns the present learning rate.
        not_finite: function without arguments that returns a variable that isn't finite, or `None`.
        accuracy: function of the number of correct answers and of images that returns the share, or
            `None` where no answer is right or wrong.
        trained_images: images of a step that train the model, whose answers are counted.

    Attributes:
        first_step_at: `time.perf_counter()` at the end of the first step, `None` before it.
    """

    def __init__(
        self,
        engines: PhaseEngines,
        batch_size: int,
        seconds_per_call: float,
        learning_rate: Callable[[], float],
        not_finite: Callable[[], keras.Variable | None],
        accuracy: Callable[[int, int], float | None],
        trained_images: int,
    ):
        self.engines, self.batch_size = engines, batch_size
        self.seconds_per_call, self.learning_rate = seconds_per_call, learning_rate
        self.not_finite, self.accuracy = not_finite, accuracy
        self.trained_images = trained_images
        self.first_step_at: float | None = None

    def train(
        self,
        epoch: int,
        steps: int,
        steps_before: int,
        seconds_per_step: float,
        progress: Progress,
        interrupts: Interrupts,
    ) -> dict:
        """Trains for an epoch.

        Args:
            epoch: its number, from 0.
            steps: steps in it.
            steps_before: steps that the Trainer took before it.
            seconds_per_step: of the epoch before; 0 if unknown.
            progress: the bar to move after each call.
            interrupts: checked after each call: raises the Ctrl-C whose exception was lost.

        Returns:
            The epoch's record, see `Trainer.fit`.

        Raises:
            DivergedError: the loss or a number of the state is not finite.
        """
        loss_sum, correct, step, seconds, rate = 0.0, 0, 0, 0.0, 0.0
        while step < steps:
            started = time.perf_counter()
            left = min(steps - step, self.engines.prepare(epoch, step))
            count = self._steps_of_call(seconds / step if step else seconds_per_step, left)
            totals = self.engines.run(epoch, step, step + count, steps_before, loss_sum)
            seconds += time.perf_counter() - started
            interrupts.check()
            if self.first_step_at is None:
                self.first_step_at = time.perf_counter()
            loss_sum = totals.loss_sum
            step, correct = step + totals.steps, correct + totals.correct
            rate = self.learning_rate()
            if not (math.isfinite(totals.last_loss) and totals.finite):
                raise self._diverged(totals, epoch, step, rate)
            accuracy = self.accuracy(correct, step * self.trained_images)
            progress.advance(epoch, totals.steps * self.batch_size, loss_sum / step, accuracy, rate)
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
            variable = self.not_finite()
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
        if self.first_step_at is None:
            return 1
        if math.isinf(self.seconds_per_call):
            return left
        return max(1, int(min(self.seconds_per_call / seconds_per_step, left)))

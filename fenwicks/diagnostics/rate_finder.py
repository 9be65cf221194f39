"""The learning-rate finder: a sweep over rates in the Trainer's compiled loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import keras
import numpy as np

from fenwicks._checks import finite_number, integer
from fenwicks.diagnostics.rates import with_sweep
from fenwicks.training import Trainer

# Losses before this step say little: the average over few of them is noise.
_SETTLED = 0.1


@dataclasses.dataclass(frozen=True)
class RateSweep:
    """What `find_learning_rate` found.

    Attributes:
        learning_rates: the rates, one a step, float64 `(steps,)`.
        losses: the losses of those steps, before their updates, float64 `(steps,)`.
        smoothed: averages of the losses up to each step, float64 `(steps,)`.
        suggestion: the suggested peak learning rate; `None` where the losses suggest none.
        reason: a sentence that says why.
        diverged: whether the sweep ended because the loss exploded.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    reason: str
    diverged: bool


def find_learning_rate(
    trainer: Trainer,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    start: float = 1e-5,
    stop: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    divergence: float = 4.0,
) -> RateSweep:
    """Trains for some steps, each with a greater learning rate, and suggests a rate.

    ```
    rate(i)     = start * (stop / start) ** (i / (steps - 1))
    smoothed(i) = (1 - smoothing) * sum_j smoothing**j * loss(i - j) / (1 - smoothing**(i + 1))
    suggestion  = rate of the least smoothed loss / 10
    ```

    The steps are those of the Trainer, its augmentation, replicas and precision included, without
    its averages. They are taken by a copy of its optimizer; groups of parameters, and optimizers
    within an optimizer, keep their rates' ratios to the main one at its peak. Afterwards the model,
    with the states of its random generators, is exactly what it was before. The Trainer, its
    optimizer and its averages are never touched.

    The sweep ends early where the smoothed loss isn't finite, or exceeds its least value by more
    than `divergence - 1` times that value's size.

    Args:
        trainer: a `Trainer`, trained or not.
        images: uint8 `(count, height, width, channels)`.
        labels: integer `(count,)`.
        start: the first rate, above 0.
        stop: the last rate, above `start`.
        steps: number of rates, at least 10. Beyond an epoch the images are shuffled again.
        smoothing: in [0, 1), the share of the smoothed loss that a step keeps.
        divergence: above 1.

    Returns:
        A `RateSweep`. `plots.learning_rate_finder(found.learning_rates, found.smoothed,
        found.suggestion, measured=found.losses)` draws it.

    Raises:
        ValueError: an argument breaks its rule.

    Example:

    >>> import numpy as np
    >>> from fenwicks import models, optimizers, training
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3)).astype('uint8')
    >>> labels = images.mean((1, 2, 3)).argsort().argsort() // 32  # dark and bright
    >>> model = models.resnet9((8, 8, 3), 2, widths=(4, 4, 4, 4))
    >>> trainer = training.Trainer(model, optimizers.SGD(0.1, momentum=0.9), batch_size=16)
    >>> found = find_learning_rate(trainer, images, labels, steps=20)
    >>> len(found.learning_rates) == len(found.losses) <= 20
    True

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks,
        https://arxiv.org/abs/1506.01186
    """
    if not isinstance(trainer, Trainer):
        raise ValueError(f'`trainer` must be a training.Trainer. Received: trainer={trainer!r}')
    start = finite_number('start', start, above=0)
    stop = finite_number('stop', stop, above=start)
    steps = integer('steps', steps, low=10)
    smoothing = finite_number('smoothing', smoothing, low=0, below=1)
    divergence = finite_number('divergence', divergence, above=1)
    rates = start * (stop / start) ** (np.arange(steps) / (steps - 1))
    with _restored(trainer.model):
        losses, smoothed, diverged = _sweep(
            _copy(trainer, start, stop, steps), images, labels, steps, smoothing, divergence
        )
    rates = rates[: len(losses)]
    suggestion, reason = _suggest(rates, smoothed, diverged, steps)
    return RateSweep(rates, losses, smoothed, suggestion, reason, diverged)


def _copy(trainer, start, stop, steps):
    """A Trainer of the same model, whose optimizer's rate grows step by step."""
    with trainer.replicas.scope():
        return Trainer(
            trainer.model,
            with_sweep(trainer.optimizer, start, stop, steps),
            trainer.loss,
            batch_size=trainer.batch_size,
            normalize=trainer.normalize,
            augment=trainer.augment,
            seed=trainer.seed,
            replicas=trainer.replicas,
            jit_compile=trainer.jit_compile,
            image_sizes=trainer.image_sizes,
            accumulate=trainer.accumulate,
            memory_budget=trainer.memory_budget,
            freeze=trainer.freeze,
        )


def _sweep(trainer, images, labels, steps, smoothing, divergence):
    """Losses and smoothed losses of the steps, and whether they exploded."""
    trainer.load(images, labels)
    trainer.compile()
    per_epoch = len(images) // trainer.batch_size
    losses, smoothed, total = [], [], 0.0
    for step in range(steps):
        epoch, within = divmod(step, per_epoch)
        totals = trainer.run_steps(epoch, within, within + 1)
        losses.append(totals.last_loss)
        total = smoothing * total + (1 - smoothing) * totals.last_loss
        smoothed.append(total / (1 - smoothing ** (step + 1)))
        least = min(smoothed)
        if not (totals.finite and smoothed[-1] <= least + (divergence - 1) * abs(least)):
            return np.array(losses), np.array(smoothed), True
    return np.array(losses), np.array(smoothed), False


@contextlib.contextmanager
def _restored(model: keras.Model) -> Iterator[None]:
    """A context after which the model's variables have the values that they had before."""
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]

    def assign():
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)

    assign()  # arrays of their own: on JAX a training gives away those that it begins with
    try:
        yield
    finally:
        assign()


def _suggest(rates, smoothed, diverged, steps):
    """A rate, or `None`, and why; of so many `steps` some may not have been taken."""
    lowest = int(np.nanargmin(smoothed)) if np.isfinite(smoothed).any() else 0
    first, least = smoothed[0], smoothed[lowest]
    if not math.isfinite(least) or lowest == 0:
        return None, (
            f'the loss did not fall below {first:.4g}, its value at the rate {rates[0]:.3g}: begin '
            'with a smaller `start`, or take more `steps`'
        )
    if lowest <= _SETTLED * steps:
        return None, (
            f'the loss was least at the rate {rates[lowest]:.3g}, too early to say more: begin '
            'with a smaller `start`, or take more `steps`'
        )
    suggestion = float(rates[lowest] / 10)
    reason = (
        f'a tenth of {rates[lowest]:.3g}, the rate at which the smoothed loss was least: '
        f'{least:.4g}, down from {first:.4g}'
    )
    if lowest == len(rates) - 1 and not diverged:
        reason += '; the loss still fell at the last rate, so a greater `stop` may suggest more'
    return suggestion, reason

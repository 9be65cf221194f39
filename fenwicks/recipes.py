"""Recipes: every setting of a training as data, in the order in which the data flows.

No framework is imported here; `fenwicks.assemble` turns a recipe into a model and a trainer.
"""

from __future__ import annotations

import dataclasses
import math
import numbers

SMALL_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of a training run.

    Attributes:
        name: what `--recipe` calls it.
        crop_padding: pixels of reflected border before the random crop back; 0 for no crop.
        flip: whether each image is mirrored with probability one half.
        cutout: side of the square that is zeroed in each image, in pixels; 0 for none.
        widths: filters of the network's four stages.
        logit_scale: constant factor on the logits.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).
        momentum: Nesterov momentum of SGD, in [0, 1).
        weight_decay: coupled weight decay, for a loss that is a mean over the batch.
        batch_size: images in a step.
        epochs: passes over the training images; the remainder of each pass is dropped.
        knots: `(epoch, learning rate)` corners of the piecewise-linear schedule; the last one lies
            at the last epoch.
    """

    name: str
    crop_padding: int
    flip: bool
    cutout: int
    widths: tuple[int, int, int, int]
    logit_scale: float
    label_smoothing: float
    momentum: float
    weight_decay: float
    batch_size: int
    epochs: int
    knots: tuple[tuple[float, float], ...]

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe in another number of epochs, its schedule stretched to fit."""
        _check_positive_integer('epochs', epochs)
        stretch = epochs / self.epochs
        knots = tuple((epoch * stretch, rate) for epoch, rate in self.knots)
        return dataclasses.replace(self, epochs=epochs, knots=knots)

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The same recipe with another batch size, learning rates unchanged."""
        _check_positive_integer('batch_size', batch_size)
        return dataclasses.replace(self, batch_size=batch_size)

    def for_small_data(self) -> Recipe:
        """The same recipe for a thousand images or so: small batches, at rates in proportion.

        With its own batch size an epoch would be two or three steps.
        """
        share = SMALL_BATCH / self.batch_size
        knots = tuple((epoch, rate * share) for epoch, rate in self.knots)
        return dataclasses.replace(self, batch_size=SMALL_BATCH, knots=knots)

    def steps_per_epoch(self, train_images: int) -> int:
        """Whole batches in a pass over `train_images` images."""
        if self.batch_size > train_images:
            raise ValueError(
                f'`batch_size` must be at most the {train_images} training images. '
                f'Received: batch_size={self.batch_size}'
            )
        return train_images // self.batch_size

    def step_knots(self, steps_per_epoch: int) -> list[tuple[int, float]]:
        """The schedule's corners as `(step, learning rate)`, for `PiecewiseLinear`.

        Corners of a very short run that fall on one step are one step apart instead, so that
        even a single epoch of two steps keeps its shape.
        """
        knots: list[tuple[int, float]] = []
        for epoch, rate in self.knots:
            step = math.floor(epoch * steps_per_epoch + 0.5)
            knots.append((max(step, knots[-1][0] + 1) if knots else step, rate))
        return knots


# The second tutorial of the original Fenwicks: 94.24 % (one run) on a Colab TPU v2-8.
FENWICKS24 = Recipe(
    name='fenwicks24',
    crop_padding=4,
    flip=True,
    cutout=8,
    widths=(64, 128, 256, 512),
    logit_scale=0.125,
    label_smoothing=0.0,
    momentum=0.9,
    weight_decay=0.000125,
    batch_size=512,
    epochs=24,
    knots=((0, 0.0), (5, 0.4), (24, 0.0)),
)

RECIPES = {recipe.name: recipe for recipe in (FENWICKS24,)}


def get(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in RECIPES:
        raise ValueError(f'`recipe` must be one of {", ".join(RECIPES)}. Received: recipe={name}')
    return RECIPES[name]


def _check_positive_integer(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f'`{name}` must be a positive integer. Received: {name}={value!r}')

"""The contest's entry of 2018, with which posts 1 to 3 begin: its network, optimizer and rates."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from fenwicks import data, layers, models, optimizers, schedules

WIDTHS = {'preact_resnet18': (1, 2, 4, 4), 'resnet9': (1, 2, 4, 8)}  # of the stages, relative

# Knots of a schedule: an epoch, of which the last is the end, and the rate as a share of its peak.
CONTEST = ((0, 0.0), (15, 1.0), (30, 0.05), (35, 0.0))
TRIANGLE = ((0, 0.0), (8, 1.0), (30, 0.0))  # post 3's: an earlier peak, and a straight fall to 0


def random_scales(
    norm: type[layers.BatchNormalization] = layers.BatchNormalization,
) -> layers.BatchNormalization:
    """A template of norms whose scales begin between 0 and 1, as PyTorch's did in 2018."""
    return norm(gamma_initializer=keras.initializers.RandomUniform(0.0, 1.0))


def network(
    name: str,
    width: int,
    dataset: data.Dataset,
    norm: type[layers.BatchNormalization] = layers.BatchNormalization,
) -> keras.Model:
    """A network with random scales.

    Args:
        name: a key of `WIDTHS`; the contest's is `preact_resnet18`.
        width: channels of its first stage, 64 in the posts.
        dataset: whose images it takes.
        norm: the layer that normalizes.
    """
    return getattr(models, name)(
        dataset.image_shape,
        dataset.num_classes,
        [width * n for n in WIDTHS[name]],
        normalization=random_scales(norm),
    )


def optimizer(
    peak: float, total_steps: float, shape: Sequence[tuple[float, float]] = CONTEST
) -> optimizers.SGD:
    """The contest's SGD, whose rate follows a shape that is stretched to a number of steps.

    Args:
        peak: the largest rate, for a mean loss.
        total_steps: of the training.
        shape: knots, such as `CONTEST`.
    """
    end = shape[-1][0]
    schedule = schedules.PiecewiseLinear(
        [(total_steps * epoch / end, peak * share) for epoch, share in shape]
    )
    return optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-4)

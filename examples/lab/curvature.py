"""The loss around the initialisation of a network: curvature, directions, stable rates."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from fenwicks import data, diagnostics, layers, losses, models

LENGTHS = [2.0**power for power in range(-9, 2)]  # of a walk, over the length of the kernels
RANDOM = 4  # directions to compare with
POWERS = (1, 2, 3)  # mean, variance, skew


def networks(width: int, dataset: data.Dataset, inputs: np.ndarray) -> dict[str, keras.Model]:
    """ResNet-9 with batch norm, with its statistics fixed at those of `inputs`, and without."""

    def make(normalization):
        widths = [width * n for n in (1, 2, 4, 8)]
        return models.resnet9(
            dataset.image_shape, dataset.num_classes, widths, normalization=normalization
        )

    # A momentum of 0: the moving statistics are those of the last batch.
    norm = make(layers.BatchNormalization(momentum=0.0))
    norm(inputs, training=True)
    frozen = make(layers.FrozenBatchNormalization())
    frozen.set_weights(norm.get_weights())
    none = make(keras.layers.Identity())
    kernels = [w for w in norm.trainable_variables if w.path.endswith('kernel')]
    none.set_weights([ops.convert_to_numpy(kernel) for kernel in kernels])
    return {'norm': norm, 'frozen': frozen, 'none': none}


def examine(
    model: keras.Model,
    inputs: np.ndarray,
    labels: np.ndarray,
    classes: int,
    settings: dict[str, Any],
    seed: int,
    training: bool,
) -> dict[str, Any]:
    """What the loss of a network looks like where it stands; its weights stay."""
    loss = diagnostics.Hessian(model, losses.CrossEntropy(), inputs, labels, training=training)
    found = diagnostics.leading_eigenpairs(
        loss.product,
        loss.size,
        settings['eigenvalues'],
        tolerance=1e-3,
        max_products=settings['products'],
        seed=seed,
    )
    basis = output_gradients(model, inputs, classes, training)
    means = basis[:classes]
    random = np.random.default_rng(seed).standard_normal((RANDOM, loss.size))
    predicted = float(2 / found.values[0])
    return {
        'eigenvalues': found.values.tolist(),
        'residuals': found.residuals.tolist(),
        'products': found.products,
        'shares': diagnostics.subspace_overlap(found.vectors, basis).tolist(),
        'lengths': LENGTHS,
        'losses': walks(loss, means),
        'random_losses': walks(loss, random),
        'predicted': predicted,
        'measured': largest_stable_rate(loss, predicted, settings['steps']),
    }


def output_gradients(model, inputs, classes, training):
    """Gradients of the mean, the variance and the skew of each output, a row each."""
    rows = []
    for power in POWERS:
        marks = np.eye(classes, dtype='float32')
        labels = np.tile(marks[0], (len(inputs), 1))
        statistic = diagnostics.Hessian(model, of_outputs(power), inputs, labels, training=training)
        for mark in marks:  # in the place of the labels
            statistic.labels = np.tile(mark, (len(inputs), 1))
            rows.append(statistic.gradient())
    return np.array(rows)


def of_outputs(power):
    """A loss that is the mean, the variance or the skew of the output that the labels mark."""

    def statistic(marks, outputs):
        numbers = ops.sum(ops.cast(marks, outputs.dtype) * outputs, axis=-1)
        if power == 1:
            return ops.mean(numbers)
        moved = numbers - ops.mean(numbers)
        variance = ops.mean(ops.square(moved))
        if power == 2:
            return variance
        return ops.mean(moved**3) / (variance + 1e-12) ** 1.5

    return statistic


def walks(loss, directions):
    """The loss after a walk of each of `LENGTHS`, in the mean over the directions."""
    before = loss.model.get_weights()
    kernels = [v for v in loss.model.trainable_variables if v.path.endswith('kernel')]
    unit = math.sqrt(sum(float(ops.sum(ops.square(kernel))) for kernel in kernels))
    found = []
    for length in LENGTHS:
        after = []
        for direction in directions:
            move(loss, direction * (length * unit / np.linalg.norm(direction)))
            after.append(value(loss))
            loss.model.set_weights(before)
        found.append(float(np.mean(after)))
    return [value(loss), *found]


def largest_stable_rate(loss, predicted, steps):
    """The largest of `predicted` times powers of 2 with which gradient descent lowers the loss.

    None if it does with none of them.
    """
    before = loss.model.get_weights()
    stable = None
    for power in range(-4, 9):
        rate = predicted * 2.0**power
        lowered = descend(loss, rate, steps)
        loss.model.set_weights(before)
        if not lowered:
            break
        stable = rate
    return stable


def descend(loss, rate, steps):
    """Whether steps down the gradient of all images end with a smaller loss."""
    first = value(loss)
    for _ in range(steps):
        move(loss, -rate * loss.gradient())
        if not value(loss) < 2 * first:  # NaN, too
            return False
    return value(loss) < first


def move(loss, step):
    """Adds a step, of the length of all trainable weights, to the weights."""
    variables = loss.model.trainable_variables
    ends = np.cumsum([math.prod(variable.shape) for variable in variables])[:-1]
    for variable, part in zip(variables, np.split(step, ends), strict=True):
        part = part.reshape(variable.shape).astype('float32')
        variable.assign(ops.convert_to_numpy(variable) + part)


def value(loss):
    return float(loss.total_loss(loss.inputs, loss.labels))

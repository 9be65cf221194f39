"""Batch norm: does it take away the steep directions of the loss, and so allow larger rates?

    python examples/lab/07_batch_norm.py --data_dir=FOLDER        # small, on two cores
    python examples/lab/07_batch_norm.py --full                   # on a GPU

Three networks with the same kernels, at initialisation: with batch norm; with the norm's statistics
fixed at those of the first batch, so that the network computes the same function; and without. Of
each: the leading eigenvalues of the Hessian, the share of their eigenvectors in the span of the
gradients of the outputs' mean, variance and skew, and the largest stable rate of gradient descent,
predicted as 2 over the leading eigenvalue and measured.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-7-batch-norm/.

Small: not measured yet.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import math
import statistics

import keras
import numpy as np
from keras import ops

from fenwicks import augment, data, diagnostics, layers, losses, models

VARIANTS = ('norm', 'frozen', 'none')
STEEPER = 3.0  # the leading eigenvalue of `frozen` over that of `norm`, and the rates likewise
NEAR = 4.0  # the measured over the predicted rate, or the other way round
SHARE = 0.5  # of the leading eigenvectors of `frozen` in the span


def variants(settings):
    return [{'network': name} for name in VARIANTS]


def networks(settings, dataset, inputs):
    """The three networks, by name."""

    def make(normalization):
        widths = [settings['width'] * n for n in (1, 2, 4, 8)]
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


def train(settings, variant, seed, dataset):
    mean, std = data.mean_std(dataset.train_images)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(dataset.train_images), settings['limit'], replace=False)
    inputs = augment.normalize(dataset.train_images[chosen], mean=mean, std=std)
    inputs = ops.convert_to_numpy(inputs)
    model = networks(settings, dataset, inputs)[variant['network']]
    labels = np.asarray(dataset.train_labels[chosen], 'int32')
    with_statistics = variant['network'] == 'norm'

    hessian = diagnostics.Hessian(
        model, losses.CrossEntropy(), inputs, labels, training=with_statistics
    )
    found = diagnostics.leading_eigenpairs(
        hessian.product,
        hessian.size,
        settings['eigenvalues'],
        tolerance=1e-3,
        max_products=settings['products'],
        seed=seed,
    )
    basis = []
    for power in (1, 2, 3):
        channels = np.eye(dataset.num_classes, dtype='float32')
        statistic = diagnostics.Hessian(
            model, of_outputs(power), inputs, channels[labels], training=with_statistics
        )
        for channel in channels:  # in the place of the labels
            statistic.labels = np.tile(channel, (len(inputs), 1))
            basis.append(statistic.gradient())
    return {
        'eigenvalues': found.values.tolist(),
        'residuals': found.residuals.tolist(),
        'products': found.products,
        'shares': diagnostics.subspace_overlap(found.vectors, np.array(basis)).tolist(),
        'predicted': 2 / found.values[0],
        'measured': largest_stable_rate(model, hessian, 2 / found.values[0], settings['steps']),
    }


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


def largest_stable_rate(model, hessian, predicted, steps):
    """The largest of `predicted` times powers of 2 with which gradient descent lowers the loss."""
    before = model.get_weights()
    stable = math.nan
    for power in range(-4, 9):
        rate = predicted * 2.0**power
        lowered = descend(model, hessian, rate, steps)
        model.set_weights(before)
        if not lowered:
            break
        stable = rate
    return stable


def descend(model, hessian, rate, steps):
    """Whether steps down the gradient of all images end with a smaller loss."""
    first = loss_of(hessian)
    sizes = [int(np.prod(v.shape)) for v in model.trainable_variables]
    for _ in range(steps):
        parts = np.split(hessian.gradient(), np.cumsum(sizes)[:-1])
        for variable, part in zip(model.trainable_variables, parts, strict=True):
            step = (rate * part).reshape(variable.shape).astype('float32')
            variable.assign(ops.convert_to_numpy(variable) - step)
        if not loss_of(hessian) < 2 * first:  # NaN, too
            return False
    return loss_of(hessian) < first


def loss_of(hessian):
    return float(hessian.total_loss(hessian.inputs, hessian.labels))


def means(runs, value):
    """Of each network the geometric mean of a value over the seeds."""
    logs = {name: [] for name in VARIANTS}
    for run in runs:
        logs[run['network']].append(math.log(value(run)))
    return {name: math.exp(statistics.mean(each)) for name, each in logs.items() if each}


def judge(runs):
    if {run['network'] for run in runs} != set(VARIANTS):
        return frame.Verdict(False, 'runs are missing')
    if not all(run['eigenvalues'][0] > 0 and math.isfinite(run['measured']) for run in runs):
        return frame.Verdict(False, 'a network has no positive eigenvalue, or no stable rate')
    leading = means(runs, lambda run: run['eigenvalues'][0])
    measured = means(runs, lambda run: run['measured'])
    predicted = means(runs, lambda run: run['predicted'])
    steeper = leading['frozen'] / leading['norm']
    faster = measured['norm'] / measured['frozen']
    ratios = {name: measured[name] / predicted[name] for name in VARIANTS}
    shares = [share for run in runs if run['network'] == 'frozen' for share in run['shares']]
    share = statistics.mean(shares)
    said = (
        f'the leading eigenvalue is {steeper:.1f} times as large with frozen statistics, the '
        f'largest stable rate {faster:.1f} times as large with norm; measured over predicted '
        + ', '.join(f'{name} {ratio:.2f}' for name, ratio in ratios.items())
        + f'; {100 * share:.0f} % of the leading eigenvectors lie in the span'
    )
    near = all(1 / NEAR <= ratio <= NEAR for ratio in ratios.values())
    return frame.Verdict(steeper >= STEEPER and faster >= STEEPER and near and share >= SHARE, said)


def draw(runs):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from fenwicks.plots import canvas

    theme = canvas.find_theme('light')
    figure = Figure(figsize=(9.6, 3.6), layout='constrained', facecolor='white')
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        canvas.prepare(axes, 'light', (0, 0))
        canvas.grid(axes, theme)
    for number, name in enumerate(VARIANTS):
        style = canvas.line_style(number, theme)
        for place, run in enumerate(run for run in runs if run['network'] == name):
            label = name if not place else None
            marker = canvas.MARKERS[number]
            ranks = range(1, len(run['eigenvalues']) + 1)
            left.plot(ranks, run['eigenvalues'], marker=marker, label=label, **style)
            right.plot(
                run['predicted'], run['measured'], marker=marker, label=label,
                linestyle='', color=style['color'],
            )  # fmt: skip
    ends = [run[key] for run in runs for key in ('predicted', 'measured')]
    line = [min(ends) / 2, max(ends) * 2]
    right.plot(line, line, color=theme.ink, linewidth=1, linestyle=':', label='as predicted')
    left.set(xlabel='rank', ylabel='eigenvalue of the Hessian', yscale='log')
    right.set(xlabel='2 / leading eigenvalue', ylabel='largest stable rate, measured')
    right.set(xscale='log', yscale='log')
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        canvas.legend(axes, theme)
    return figure


EXPERIMENT = frame.Experiment(
    name='07_batch_norm',
    question='Why does batch norm allow larger learning rates?',
    source='https://myrtle.ai/learn/how-to-train-your-resnet-7-batch-norm/',
    claims=(
        frame.Claim(
            'without it the Hessian has a few large eigenvalues, whose eigenvectors lie in the '
            "span of the gradients of the outputs' mean, variance and skew; batch norm takes them "
            'away',
            f'in the geometric mean over the seeds the leading eigenvalue of `frozen` is {STEEPER} '
            'times that of `norm` at least, and the largest stable rate of `norm` as many times '
            f'that of `frozen`; measured and predicted rates differ by a factor of {NEAR} at most; '
            f'and {SHARE} of the leading eigenvectors of `frozen`, by squared length, lie in the '
            'span',
            judge,
        ),
    ),
    small={
        'seeds': 3, 'limit': 128, 'width': 4, 'eigenvalues': 5, 'products': 60, 'steps': 20,
    },
    full={
        'seeds': 5, 'limit': 512, 'width': 16, 'eigenvalues': 10, 'products': 120, 'steps': 50,
    },
    variants=variants,
    train=train,
    draw=draw,
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

"""Batch norm: does it take away the steep directions of the loss, and so allow larger rates?

    python examples/lab/07_batch_norm.py --data_dir=FOLDER        # small, on two cores
    python examples/lab/07_batch_norm.py --full                   # on a GPU

First, plain networks of many dense layers, at initialisation: how much of their outputs varies with
the image, layer by layer, with ReLU alone, without it, with batch norm, and with batch norm whose
statistics are frozen at those of other images.

Then three ResNet-9s with the same kernels, at initialisation: with batch norm; with the norm's
statistics fixed at those of the first batch, so that the network computes the same function; and
without. Of each: the loss after walks along the gradients of the outputs' means, and along random
directions; the leading eigenvalues of the Hessian; the share of their eigenvectors in the span of
the gradients of the outputs' mean, variance and skew; and the largest stable rate of gradient
descent, predicted as 2 over the leading eigenvalue and measured.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-7-batch-norm/.

Small: 2 of 5 claims held, n=5, 7.0 min, others ran beside on Intel(R) Xeon(R) Processor (amx_bf16),
2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import math
import statistics

import curvature
import estimates
import keras
import numpy as np
import panels
from keras import ops

from fenwicks import augment, data, diagnostics, layers

PLAIN = ('relu', 'linear', 'norm', 'frozen')
NETWORKS = ('norm', 'frozen', 'none')
CONSTANT, VARYING = 0.1, 0.3  # of the outputs' mean square, at most and at least
STEEPER = 3.0  # `frozen` over `norm`: leading eigenvalues; the other way round: rates and walks
FARTHER = 4.0  # a random walk over one along the gradients, until the loss has doubled
NEAR = 4.0  # the measured over the predicted rate, or the other way round
SHARE = 0.5  # of the leading eigenvectors of `frozen` in the span


def variants(settings):
    return [
        *({'part': 'depth', 'network': name} for name in PLAIN),
        *({'part': 'curvature', 'network': name} for name in NETWORKS),
    ]


def train(settings, variant, seed, dataset):
    mean, std = data.mean_std(dataset.train_images)
    count = settings['images']
    chosen = np.random.default_rng(seed).choice(len(dataset.train_images), 2 * count, replace=False)
    pixels = augment.normalize(dataset.train_images[chosen], mean=mean, std=std)
    inputs, others = np.split(ops.convert_to_numpy(pixels), 2)
    if variant['part'] == 'depth':
        return by_depth(settings, variant['network'], inputs, others)
    name = variant['network']
    model = curvature.networks(settings['width'], dataset, inputs)[name]
    labels = np.asarray(dataset.train_labels[chosen[:count]], 'int32')
    classes = dataset.num_classes
    return curvature.examine(model, inputs, labels, classes, settings, seed, name == 'norm')


def by_depth(settings, name, inputs, others):
    """The share of each layer's mean square that varies with the image, for `inputs`.

    Frozen statistics are those of `others`. All images get one contrast, which layers of ReLUs
    without a norm pass on to their outputs as it is.
    """
    inputs, others = map(of_one_contrast, (inputs, others))
    shape = inputs.shape[1:]
    model = plain(settings, name, shape)
    if name == 'frozen':
        norm = plain(settings, 'norm', shape)
        norm(others, training=True)
        model.set_weights(norm.get_weights())
    found = diagnostics.output_statistics(model, inputs, training=name == 'norm')
    return {'varying': [each.varying for each in found if each.layer.startswith('end_')]}


def of_one_contrast(inputs):
    return inputs / np.sqrt((inputs**2).mean(axis=(1, 2, 3), keepdims=True))


def plain(settings, name, shape):
    """A network of dense layers: with ReLU but for `linear`, with a norm for the last two."""
    norms = {
        'norm': lambda: [keras.layers.BatchNormalization(momentum=0.0, epsilon=1e-5)],
        'frozen': lambda: [layers.FrozenBatchNormalization()],
    }
    initializer, activation = 'he_normal', 'relu'
    if name == 'linear':
        initializer, activation = 'lecun_normal', 'linear'
    parts = [keras.Input(shape), keras.layers.Flatten()]
    for number in range(settings['depth']):
        dense = {'use_bias': False, 'kernel_initializer': initializer}
        parts += [
            keras.layers.Dense(settings['units'], **dense),
            *norms.get(name, list)(),
            keras.layers.Activation(activation, name=f'end_{number}'),
        ]
    return keras.Sequential(parts)


def of(runs, part, name):
    """The runs of a network, in the order of their seeds."""
    found = [run for run in runs if (run['part'], run['network']) == (part, name)]
    return sorted(found, key=lambda run: run['seed'])


def values(runs, name, value):
    return [value(run) for run in of(runs, 'curvature', name)]


def known(value):
    """A number of the log, in which null stands for those that aren't finite."""
    return math.nan if value is None else value


def leading(run):
    return run['eigenvalues'][0]


def doubled(run, losses='losses'):
    """The length of a walk after which the loss has doubled; twice the longest where it hasn't."""
    first, *after = map(known, run[losses])
    pairs = zip(run['lengths'], after, strict=True)
    return next((length for length, loss in pairs if not loss < 2 * first), 2 * run['lengths'][-1])


def factor(found):
    """A ratio, and the factor by which it may err if that is known, in words."""
    ratio, error = found
    return f'{ratio:.3g}' + (f' (within a factor of {error:.2g})' if math.isfinite(error) else '')


def judge_depth(runs):
    last = {
        name: estimates.mean_and_error([run['varying'][-1] for run in of(runs, 'depth', name)])
        for name in PLAIN
    }
    depth = len(of(runs, 'depth', 'relu')[0]['varying'])
    said = ', '.join(f'{name} {estimates.text(*found)}' for name, found in last.items())
    held = last['relu'][0] <= CONSTANT and all(last[name][0] >= VARYING for name in PLAIN[1:])
    return frame.Verdict(held, f'varying share after {depth} layers: {said}')


def judge_walks(runs):
    along, random = (
        values(runs, 'frozen', lambda run, key=key: doubled(run, key))
        for key in ('losses', 'random_losses')
    )
    with_norm = values(runs, 'norm', doubled)
    farther, norm = estimates.ratio(random, along), estimates.ratio(with_norm, along)
    said = (
        f'with frozen statistics the loss doubles after a walk of {statistics.median(along):.2g} '
        f"of the kernels' length (median); a random walk takes {factor(farther)} times, and one "
        f'with norm {factor(norm)} times as far'
    )
    return frame.Verdict(farther[0] >= FARTHER and norm[0] >= STEEPER, said)


def judge_eigenvalues(runs):
    if not all(found > 0 for name in NETWORKS for found in values(runs, name, leading)):
        return frame.Verdict(False, 'a network has no positive eigenvalue')
    one, *others = (values(runs, name, leading) for name in NETWORKS)
    frozen, none = (estimates.ratio(other, one) for other in others)
    said = (
        f'the leading eigenvalue is {factor(frozen)} times as large with frozen statistics as '
        f'with norm, {factor(none)} times without'
    )
    return frame.Verdict(frozen[0] >= STEEPER, said)


def judge_shares(runs):
    shares = {
        name: estimates.mean_and_error(
            values(runs, name, lambda run: statistics.mean(run['shares']))
        )
        for name in NETWORKS
    }
    said = ', '.join(f'{name} {estimates.text(*found)}' for name, found in shares.items())
    count = len(of(runs, 'curvature', 'norm')[0]['eigenvalues'])
    said = f'the share of the {count} leading eigenvectors in the span: {said}'
    return frame.Verdict(shares['frozen'][0] >= SHARE, said)


def judge_rates(runs):
    rates = {
        name: values(runs, name, lambda run: (run['predicted'], known(run['measured'])))
        for name in NETWORKS
    }
    lacking = {
        name: sum(not all(math.isfinite(rate) and rate > 0 for rate in pair) for pair in pairs)
        for name, pairs in rates.items()
    }
    if lacking['norm'] or lacking['frozen']:
        return frame.Verdict(False, 'a network has no positive eigenvalue, or no stable rate')
    found = {
        name: list(zip(*pairs, strict=True)) for name, pairs in rates.items() if not lacking[name]
    }
    ratios = {
        name: estimates.ratio(measured, predicted) for name, (predicted, measured) in found.items()
    }
    faster = estimates.ratio(found['norm'][1], found['frozen'][1])
    said = (
        f'the largest stable rate is {factor(faster)} times as large with norm as with frozen '
        'statistics; measured over predicted: '
        + ', '.join(f'{name} {factor(ratio)}' for name, ratio in ratios.items())
    )
    if lacking['none']:
        said += f'; {lacking["none"]} of {len(rates["none"])} runs without norm have no stable rate'
    near = all(1 / NEAR <= ratio <= NEAR for ratio, _ in ratios.values())
    return frame.Verdict(faster[0] >= STEEPER and near and not lacking['none'], said)


def draw(runs):
    figure, (depth, walk, spectrum, rates), theme = panels.new((10.5, 8), rows=2)
    for number, name in enumerate(PLAIN):
        shares = np.mean([run['varying'] for run in of(runs, 'depth', name)], axis=0)
        line = {**panels.style(number), 'marker': '', 'label': name}
        depth.plot(range(1, len(shares) + 1), shares, **line)
    panels.finish(
        depth,
        'deep plain networks: how much depends on the image',
        legend={'loc': 'center right'},
        xlabel='layer',
        ylabel="share of the outputs' mean square that varies",
        ylim=(0, 1.05),
    )
    for number, name in enumerate(NETWORKS):
        style, found = panels.style(number), of(runs, 'curvature', name)
        plain_style = {**style, 'linestyle': ''}
        for losses, line in (('losses', '-'), ('random_losses', ':')):
            mean = np.mean([[*map(known, run[losses][1:])] for run in found], axis=0)
            label = name if losses == 'losses' else f'{name}, random'
            walk.plot(found[0]['lengths'], mean, label=label, **{**style, 'linestyle': line})
        for place, run in enumerate(found):
            label = name if not place else None
            ranks = range(1, len(run['eigenvalues']) + 1)
            spectrum.plot(ranks, run['eigenvalues'], label=label, markersize=4, **style)
            rates.plot(run['predicted'], known(run['measured']), label=label, **plain_style)
    panels.finish(
        walk,
        "walks along the gradients of the outputs' means",
        legend={'loc': 'upper left'},
        xlabel="length of the walk, as a share of the kernels' norm",
        ylabel='loss',
        xscale='log',
        yscale='log',
        ylim=(1, 1e5),
    )
    panels.finish(
        spectrum,
        'leading eigenvalues of the Hessian',
        legend={},
        xlabel='rank',
        ylabel='eigenvalue',
        yscale='log',
    )
    spectrum.xaxis.get_major_locator().set_params(integer=True)
    whole = [run for run in runs if run['part'] == 'curvature']
    ends = [run[key] for run in whole for key in ('predicted', 'measured') if run[key] is not None]
    line = [min(ends) / 2, max(ends) * 2]
    rates.plot(line, line, color=theme.ink, linewidth=1, linestyle=':', label='as predicted')
    panels.finish(
        rates,
        'largest stable rate of gradient descent',
        legend={'loc': 'upper left'},
        xlabel='predicted: 2 / leading eigenvalue',
        ylabel='measured',
        xscale='log',
        yscale='log',
    )
    return figure


EXPERIMENT = frame.Experiment(
    name='07_batch_norm',
    question='Why does batch norm allow larger learning rates?',
    source='https://myrtle.ai/learn/how-to-train-your-resnet-7-batch-norm/',
    claims=(
        frame.Claim(
            'deep plain networks of ReLUs compute nearly constant functions at initialisation; '
            'linear ones do not, and neither do those with batch norm, also if it is frozen',
            'in the mean over the seeds the share of the last outputs\' mean square that varies '
            f'within a channel is {CONSTANT} at most for `relu`, and {VARYING} at least for '
            '`linear`, `norm` and `frozen`',
            judge_depth,
        ),
        frame.Claim(
            "bad configurations are near by: along the gradients of the outputs' means; batch norm "
            'moves them away',
            'in the geometric mean over the seeds, along random directions the loss of `frozen` '
            f'doubles after walks {FARTHER} times as long at least as along the gradients, and '
            f'along those of `norm` after walks {STEEPER} times as long as along those of `frozen`',
            judge_walks,
        ),
        frame.Claim(
            'without it the Hessian has a few large eigenvalues, which batch norm takes away',
            'in the geometric mean over the seeds the leading eigenvalue of `frozen` is '
            f'{STEEPER} times that of `norm` at least',
            judge_eigenvalues,
        ),
        frame.Claim(
            "their eigenvectors lie in the span of the gradients of the outputs' mean, variance "
            'and skew',
            f'in the mean over the seeds {SHARE} of the leading eigenvectors of `frozen` at least, '
            'by squared length, lie in the span',
            judge_shares,
        ),
        frame.Claim(
            'that allows larger rates, by as much as the eigenvalues say',
            'in the geometric mean over the seeds the largest stable rate of `norm` is '
            f'{STEEPER} times that of `frozen` at least, and those measured and predicted differ '
            f'by a factor of {NEAR} at most',
            judge_rates,
        ),
    ),
    small={
        'seeds': 5, 'limit': 5000, 'images': 128, 'width': 4, 'eigenvalues': 5, 'products': 60,
        'steps': 20, 'depth': 40, 'units': 200,
    },
    full={
        'seeds': 5, 'limit': 50_000, 'images': 512, 'width': 16, 'eigenvalues': 10,
        'products': 120, 'steps': 50, 'depth': 80, 'units': 500,
    },
    variants=variants,
    train=train,
    draw=draw,
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

"""Hyper-parameters: does coordinate descent end on a plateau, and is its valley rate * decay?

    python examples/lab/05_hyper_parameters.py --data_dir=FOLDER      # small, on two cores
    python examples/lab/05_hyper_parameters.py --full                 # on a GPU

From a poor start the peak rate, 1 - momentum, the weight decay and the batch size are doubled or
halved, one after the other, as long as the accuracy on images held out of the training set grows;
then all neighbours of the end, at twice and half of each, are trained. Beside it a grid of rates
and decays, on which the product rate * decay / (1 - momentum) is constant along diagonals, and its
middle row with another momentum.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-5-hyperparameters/.

Small: 3 of 4 claims held, n=3, 19 min on Intel(R) Xeon(R) Processor (amx_bf16), 2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import math
import statistics

import descent
import estimates
import fitting
import numpy as np
import panels

from fenwicks import models, optimizers, schedules

NAMES = {'loss_of_momentum': '1 - momentum', 'batch_size': 'batch size'}
WARMUP = 0.2  # of the steps
FLAT = 1.0  # points of test accuracy that the neighbours of the end lose at most, in the mean
ALONG = 0.5  # the change along the valley over that across it, at most


def variants(settings):
    """The grid, from the smallest product to the largest, and its middle row once more."""
    half = settings['cells'] // 2
    middle = settings['middle']
    lost, other = middle['loss_of_momentum'], settings['other_loss_of_momentum']
    powers = [settings['factor'] ** n for n in range(-half, half + 1)]
    cells = [
        {
            'part': 'grid',
            'row': row,
            'column': column,
            **descent.point(
                middle['rate'] * across, lost, middle['decay'] * up, middle['batch_size']
            ),
        }
        for row, up in enumerate(powers)
        for column, across in enumerate(powers)
    ]
    again = [
        {
            'part': 'other momentum',
            'column': column,
            **descent.point(
                middle['rate'] * across * other / lost, other, middle['decay'], middle['batch_size']
            ),
        }
        for column, across in enumerate(powers)
    ]
    return cells + again


def more(settings, runs):
    """The next point of the search of a seed; where it has ended, the neighbours of the end."""
    tried = of(runs, 'search')
    last, ended = descent.search(
        settings['start'],
        settings['bounds'],
        {descent.key(run): run['held_out'] for run in tried},
        settings['sweeps'],
    )
    if not ended:
        return [{'part': 'search', **last}]
    return [
        {'part': 'neighbour', **each}
        for each in descent.neighbours(last, settings['bounds'])
        if not any(descent.key(run) == descent.key(each) for run in tried)
    ]


def train(settings, variant, seed, dataset):
    """Trains on all but the last images of the training set, which score the search."""
    kept = len(dataset.train_images) - settings['held_out']
    held_out = dataset.train_images[kept:], dataset.train_labels[kept:]
    shown = dataset.limit(kept)
    batch_size = int(variant['batch_size'])
    total_steps = settings['epochs'] * fitting.steps_per_epoch(shown, batch_size)
    optimizer = optimizers.SGD(
        schedules.OneCycle(variant['rate'], total_steps, round(WARMUP * total_steps)),
        momentum=1 - variant['loss_of_momentum'],
        nesterov=True,
        weight_decay=variant['decay'],
    )
    widths = [settings['width'] * n for n in (1, 2, 4, 8)]
    return fitting.fit(
        models.resnet9(dataset.image_shape, dataset.num_classes, widths),
        optimizer, settings, seed, shown,
        batch_size=batch_size, cutout=settings['cutout'], held_out=held_out,
    )  # fmt: skip


def of(runs, *parts):
    return [run for run in runs if run['part'] in parts]


def seeds_of(runs):
    """The runs of each seed."""
    return [
        [run for run in runs if run['seed'] == seed]
        for seed in sorted({run['seed'] for run in runs})
    ]


def ends(runs):
    """The first and the best run of the search of a seed."""
    found = of(runs, 'search')
    return found[0], max(found, key=lambda run: -1 if run['held_out'] is None else run['held_out'])


def around(runs):
    """The runs of a seed that are one doubling or halving away from the best of the search."""
    _, best = ends(runs)
    return [run for run in of(runs, 'search', 'neighbour') if descent.are_neighbours(run, best)]


def judge_search(runs):
    first, best = zip(*map(ends, seeds_of(runs)), strict=True)
    gain, error = estimates.difference(estimates.percents(best), estimates.percents(first))
    count = statistics.mean(len(of(each, 'search')) for each in seeds_of(runs))
    settings = '; '.join(
        ', '.join(f'{NAMES.get(name, name)} {run[name]:g}' for name in descent.COORDINATES)
        for run in best
    )
    said = (
        f'{estimates.text(gain, error)} points in {count:.0f} runs, to '
        f'{estimates.mean_percent(best)} %; it ended at {settings}'
    )
    return frame.Verdict(gain > error, said + estimates.diverged(of(runs, 'search')))


def judge_flat(runs):
    drops, largest, near = [], [], []
    for each in seeds_of(runs):
        near += around(each)
        top, *lower = estimates.percents([ends(each)[1], *around(each)])
        drops.append(top - statistics.mean(lower))
        largest.append(top - min(lower))
    drop, error = estimates.mean_and_error(drops)
    said = (
        f'the neighbours lose {estimates.text(drop, error)} points in the mean, the worst one of '
        f'each seed {statistics.mean(largest):.2f}'
    )
    return frame.Verdict(drop <= FLAT, said + estimates.diverged(near))


def heat(runs):
    """Mean percent of the cells of the grid, `(decay, rate)`."""
    cells = of(runs, 'grid')
    size = 1 + max(run['column'] for run in cells)
    found = np.empty((size, size))
    for place in np.ndindex(size, size):
        here = [run for run in cells if (run['row'], run['column']) == place]
        found[place] = statistics.mean(estimates.percents(here))
    return found


def rows(runs):
    """Mean percents of the middle row, with its momentum and with the other."""
    cells = heat(runs)
    again = [
        [run for run in of(runs, 'other momentum') if run['column'] == column]
        for column in range(len(cells))
    ]
    other = [statistics.mean(estimates.percents(here)) for here in again]
    return cells[len(cells) // 2], np.array(other)


def judge_valley(runs):
    """Steps of a factor in both, in opposite directions and in the same."""
    cells = [heat(each) for each in seeds_of(runs)]
    along = [np.abs(each[1:, :-1] - each[:-1, 1:]).mean() for each in cells]
    across = [np.abs(each[1:, 1:] - each[:-1, :-1]).mean() for each in cells]
    return compared(along, across, 'along the valley', 'across it', of(runs, 'grid'))


def judge_momentum(runs):
    both = [rows(each) for each in seeds_of(runs)]
    between = [np.abs(row - other).mean() for row, other in both]
    along = [np.abs(np.diff(row)).mean() for row, _ in both]
    words = 'to the other momentum', 'to the next rate'
    return compared(between, along, *words, of(runs, 'grid', 'other momentum'))


def compared(small, large, one, other, runs):
    """The verdict on changes of the accuracy, a small and a large one for each seed."""
    ratios = [a / b if b else math.nan for a, b in zip(small, large, strict=True)]
    ratio, error = estimates.mean_and_error(ratios)
    said = (
        f'{np.mean(small):.2f} points {one}, {np.mean(large):.2f} {other}: a ratio of '
        f'{estimates.text(ratio, error)}'
    )
    return frame.Verdict(bool(ratio <= ALONG), said + estimates.diverged(runs))


def draw(runs):
    figure, (left, middle, right), theme = panels.new((12.5, 4), ratios=(5, 5, 4.5))
    draw_search(left, runs)
    draw_heat(middle, theme, runs)
    draw_rows(right, runs)
    return figure


def draw_search(axes, runs):
    """The accuracy of each run of the search, and of the best so far by the held-out images."""
    for number, each in enumerate(seeds_of(runs)):
        style = panels.style(number)
        found = of(each, 'search')
        best = [ends(found[: place + 1])[1] for place in range(len(found))]
        places = range(1, len(found) + 1)
        tried = {**style, 'linestyle': '', 'markersize': 4, 'markerfacecolor': 'white'}
        axes.plot(places, estimates.percents(found), **tried)
        line = {**style, 'marker': '', 'label': f'seed {each[0]["seed"]}'}
        axes.step(places, estimates.percents(best), where='post', **line)
    panels.finish(
        axes,
        'each run, and the best by the held-out images',
        legend={'loc': 'lower right'},
        xlabel='run of the search',
        ylabel='test accuracy, %',
    )


def draw_heat(axes, theme, runs):
    """The grid, darker where it is better, with a line along the middle of the valley."""
    cells, grid = heat(runs), of(runs, 'grid')
    axes.grid(visible=False)
    image = axes.imshow(cells, origin='lower', cmap='Greys', aspect='auto')
    dark = cells.min() + 0.55 * (cells.max() - cells.min())
    for (row, column), value in np.ndenumerate(cells):
        axes.text(
            column, row, f'{value:.1f}', ha='center', va='center', fontsize=8,
            color=theme.paper if value > dark else theme.ink,
            bbox={'color': image.cmap(image.norm(value)), 'pad': 1},
        )  # fmt: skip
    places = range(len(cells))
    axes.plot(places, places[::-1], color=theme.series[1], linewidth=1.5, linestyle='--')
    for axis, place, name in ((axes.xaxis, 'column', 'rate'), (axes.yaxis, 'row', 'decay')):
        values = {run[place]: run[name] for run in grid}
        axis.set_ticks(places, [f'{values[n]:.3g}' for n in places])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    panels.finish(
        axes,
        'test accuracy, %; dashed: rate x decay is constant',
        xlabel=f'peak rate, with momentum {1 - grid[0]["loss_of_momentum"]:g}',
        ylabel='weight decay',
    )


def draw_rows(axes, runs):
    """The middle row with both momenta, by the rate that a gradient has in all."""
    size = len(heat(runs))
    middle = [run for run in of(runs, 'grid') if run['row'] == size // 2]
    parts = (middle, of(runs, 'other momentum'))
    for number, (part, values) in enumerate(zip(parts, rows(runs), strict=True)):
        rates = {run['column']: run['rate'] / run['loss_of_momentum'] for run in part}
        label = f'momentum {1 - part[0]["loss_of_momentum"]:g}'
        axes.plot([rates[n] for n in range(size)], values, label=label, **panels.style(number))
    panels.finish(
        axes,
        'the middle row, another momentum',
        legend={'loc': 'lower center'},
        xscale='log',
        xlabel='peak rate / (1 - momentum)',
        ylabel='test accuracy, %',
    )


EXPERIMENT = frame.Experiment(
    name='05_hyper_parameters',
    question='Does coordinate descent end on a plateau, and which of its settings count?',
    source='https://myrtle.ai/learn/how-to-train-your-resnet-5-hyperparameters/',
    claims=(
        frame.Claim(
            'doubling and halving one parameter at a time leads to a good setting in few runs',
            'in the mean over the seeds the test accuracy at the end of the search is above that '
            'at its start by more than two standard errors of the difference',
            judge_search,
        ),
        frame.Claim(
            'the region around it is flat',
            'in the mean over the seeds the settings that differ from the end by a doubling or '
            f'halving of one parameter lose {FLAT} points of test accuracy at most',
            judge_flat,
        ),
        frame.Claim(
            'of rate and decay it is the product that counts: a flat valley leads along equal '
            'rate * decay',
            'in the mean over the seeds the mean absolute change of test accuracy between cells of '
            'the grid that differ by a factor in rate and decay, in opposite directions, is '
            f'{ALONG} times that of a factor in the same direction at most',
            judge_valley,
        ),
        frame.Claim(
            'momentum counts only in rate / (1 - momentum)',
            'in the mean over the seeds, at equal rate / (1 - momentum) and decay, the mean '
            'absolute change of test accuracy '
            f'from one momentum to the other is {ALONG} times that from one rate to the next at '
            'most',
            judge_momentum,
        ),
    ),
    small={
        'seeds': 3, 'limit': 5120, 'held_out': 1024, 'epochs': 4, 'width': 8, 'cutout': 0,
        'cells': 5, 'factor': 3, 'other_loss_of_momentum': 0.4,
        'middle': {'rate': 0.4, 'loss_of_momentum': 0.1, 'decay': 0.01, 'batch_size': 128},
        'start': {'rate': 0.05, 'loss_of_momentum': 0.4, 'decay': 5e-4, 'batch_size': 256},
        'bounds': {
            'rate': [0.001, 8], 'loss_of_momentum': [0.0125, 0.8], 'decay': [1e-6, 0.5],
            'batch_size': [64, 1024],
        },
        'sweeps': 2,
    },
    full={
        'seeds': 3, 'limit': 50_000, 'held_out': 5000, 'epochs': 24, 'width': 64, 'cutout': 8,
        'cells': 5, 'factor': 2, 'other_loss_of_momentum': 0.4,
        'middle': {'rate': 0.4, 'loss_of_momentum': 0.1, 'decay': 5e-4, 'batch_size': 512},
        'start': {'rate': 0.05, 'loss_of_momentum': 0.2, 'decay': 1.25e-4, 'batch_size': 512},
        'bounds': {
            'rate': [0.001, 8], 'loss_of_momentum': [0.0125, 0.8], 'decay': [1e-6, 0.5],
            'batch_size': [128, 2048],
        },
        'sweeps': 3,
    },
    variants=variants,
    train=train,
    draw=draw,
    more=more,
    precision='auto', needs_all=True,
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

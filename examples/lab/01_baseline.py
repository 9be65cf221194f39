"""Baseline: what do the second batch norm and ReLU cost with which the contest's network begins?

    python examples/lab/01_baseline.py --data_dir=FOLDER    # small, on two cores
    python examples/lab/01_baseline.py --full               # on a GPU

The network that won DAWNBench's contest on one GPU, a ResNet-18, normalizes and activates twice in
a row: after its first convolution, and again where its first residual block begins. Here it is
trained as it was, and cleaned of the first pair, by the contest's schedule; and steps of the two
are timed in turn, of the published width in both sizes.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-1-baseline/.

Small: 2 of 2 claims held, n=6, 9.3 min on Intel(R) Xeon(R) Processor (amx_bf16), 2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import comparing
import dawnbench
import estimates
import fitting
import panels
import timing

from fenwicks import models

NETWORKS = ('cleaned', 'repeated')
MARGIN = 1.05  # times as many errors as the other network count as equal


def variants(settings):
    return [{'network': name} for name in NETWORKS] + [{'network': 'both, timed'}]


def make_network(name, width, dataset):
    return models.preact_resnet18(
        dataset.image_shape,
        dataset.num_classes,
        [width * n for n in dawnbench.WIDTHS['preact_resnet18']],
        stem_activation=name == 'repeated',
        normalization=dawnbench.random_scales(),
    )


def train(settings, variant, seed, dataset):
    batch_size, steps = settings['batch_size'], settings['timed_steps']
    if variant['network'] not in NETWORKS:
        trainers = {
            name: timing.prepare(
                make_network(name, settings['timed_width'], dataset),
                batch_size,
                steps,
                seed,
                dataset,
            )
            for name in NETWORKS
        }
        return {'seconds': timing.in_turns(trainers, steps, settings['turns'])}
    total_steps = settings['epochs'] * fitting.steps_per_epoch(dataset, batch_size)
    model = make_network(variant['network'], settings['width'], dataset)
    optimizer = dawnbench.optimizer(settings['peak'], total_steps)
    return fitting.fit(model, optimizer, settings, seed, dataset)


def of(runs, name):
    return [run for run in runs if run['network'] == name]


def timed(runs):
    return [run for run in runs if run['network'] not in NETWORKS]


def judge_time(runs):
    mean, error = estimates.mean_and_error(timing.ratios(timed(runs), 'repeated', 'cleaned'))
    return frame.Verdict(
        mean - error > 1,
        f'a step with them takes {estimates.text(mean, error, 3)} times as long as one without',
    )


def judge_accuracy(runs):
    pair = [of(runs, name) for name in NETWORKS]
    ratio, factor = comparing.times_the_errors(*pair)
    return frame.Verdict(
        ratio * factor <= MARGIN,
        f'without them it makes {comparing.times(ratio, factor)} as many errors: '
        f'{estimates.mean_percent(pair[0])} % of the test images are right, beside '
        f'{estimates.mean_percent(pair[1])} %{estimates.diverged(pair[0] + pair[1])}',
    )


def draw(runs):
    figure, (learning, time, accuracy), theme = panels.new((12, 3.8), (2, 1, 1))
    for number, name in enumerate(NETWORKS):
        style = {**panels.style(number), 'marker': '', 'alpha': 0.8}
        for place, run in enumerate(of(runs, name)):
            epochs = range(1, len(run['train_losses']) + 1)
            label = None if place else name
            learning.plot(epochs, run['train_losses'], label=label, **style)
        comparing.dots(accuracy, number, estimates.percents(of(runs, name)), number)
        turns = [1000 * each for run in timed(runs) for each in run['seconds'][name]]
        comparing.dots(time, number, turns, number)
    draw_rates(learning.twinx(), of(runs, NETWORKS[0]), theme)
    panels.finish(
        learning,
        "training loss, and the rate by the contest's schedule",
        {'loc': 'lower left'},
        xlabel='epoch',
        ylabel='training loss',
    )
    panels.finish(time, 'time of a step', ylabel='ms')
    panels.finish(accuracy, 'test accuracy', ylabel='% of the test images')
    for axes in (time, accuracy):
        axes.set_xticks(range(len(NETWORKS)), NETWORKS)
        axes.set_xlim(-0.6, len(NETWORKS) - 0.4)
    return figure


def draw_rates(axes, runs, theme):
    """The learning rate after each epoch, of the run that came furthest."""
    schedule = max((run['learning_rates'] for run in runs), key=len)
    axes.plot(range(1, len(schedule) + 1), schedule, color=theme.ink, linestyle=':')
    for epoch, rate in enumerate(schedule, 1):
        if rate == max(schedule):
            axes.text(epoch, rate, ' rate', color=theme.ink, va='bottom')
    axes.spines[['left', 'top', 'bottom']].set_visible(False)  # those of the losses are below
    axes.set(ylabel='learning rate', ylim=(0, 1.15 * max(schedule, default=1.0)))


EXPERIMENT = frame.Experiment(
    name='01_baseline',
    question="What do the second batch norm and ReLU cost with which the contest's network begins?",
    source='https://myrtle.ai/learn/how-to-train-your-resnet-1-baseline/',
    claims=(
        frame.Claim(
            'the repeated batch norm and ReLU cost time (to leave them out was one of the changes '
            'that cut the training from 341 to 297 s)',
            'in the mean over pairs of turns a step with them takes longer than one without, by '
            'more than two standard errors',
            judge_time,
        ),
        frame.Claim(
            'the network is as accurate without them',
            f'without them it makes at most {MARGIN} times as many errors on the test images, two '
            'standard errors included',
            judge_accuracy,
        ),
    ),
    small={
        'seeds': 6, 'limit': 5120, 'batch_size': 128, 'epochs': 14, 'width': 8, 'peak': 0.1,
        'timed_width': 64, 'timed_steps': 1, 'turns': 6,
    },
    full={
        'seeds': 5, 'limit': 50_000, 'batch_size': 128, 'epochs': 35, 'width': 64, 'peak': 0.1,
        'timed_width': 64, 'timed_steps': 50, 'turns': 6,
    },
    variants=variants,
    train=train,
    draw=draw,
    precision='auto',
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

"""Weight decay: do the norms settle in a predicted balance, and is the rate per layer all it sets?

    python examples/lab/06_weight_decay.py --data_dir=FOLDER      # small, on two cores
    python examples/lab/06_weight_decay.py --full                 # on a GPU

Three trainings differ in the kernels before a batch norm, whose length the network ignores, and
with LARS in the classifier's, too: SGD with weight decay; LARS with one rate for all layers,
`sqrt(2 * rate * decay)`, the turn of each step that the balance predicts; and SGD without decay
whose rate grows so that the network goes through the same functions, step by step.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-6-weight-decay/.

Small: 2 of 3 claims held, n=3, 7.8 min, others ran beside on Intel(R) Xeon(R) Processor (amx_bf16),
2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import math
import statistics
from functools import partial

import comparing
import estimates
import numpy as np
import panels

from fenwicks import augment, data, diagnostics, losses, models, optimizers, schedules, training

KERNELS = r'.*conv/kernel'
VARIANTS = ('sgd', 'lars', 'growing')
NEAR = (0.8, 1.25)  # measured turn of a step over the predicted one
POINTS = 1.0  # of accuracy, that count as equal whatever the error


def variants(settings):
    return [{'optimizer': name} for name in VARIANTS]


def plateau(settings, total_steps):
    """The rate of SGD: constant for three quarters of the steps, then falling to 0."""
    knots = [(0, settings['rate']), (0.75 * total_steps, settings['rate']), (total_steps, 0.0)]
    return schedules.PiecewiseLinear(knots)


def each_step(values):
    return schedules.PiecewiseLinear(list(enumerate(values)))


def growing_rates(rates, decay):
    """Rates without decay that pass through the same functions as `rates` with it.

    A step with decay shrinks the weights by `1 - rate * decay`. Where the loss ignores their
    length, weights that are `c` times as long have a gradient of `1 / c`.
    """
    grown, length = [], 1.0
    for rate in rates:
        longer = length / (1 - rate * decay)
        grown.append(rate * length * longer)
        length = longer
    return grown


def make_optimizer(name, settings, total_steps):
    schedule, decay = plateau(settings, total_steps), settings['decay']
    rates = [float(schedule(step)) for step in range(total_steps)]
    if name == 'sgd':
        return optimizers.SGD(schedule, weight_decay=decay)
    if name == 'growing':
        grown = each_step(growing_rates(rates, decay))
        group = optimizers.ParameterGroup(KERNELS, weight_decay=0.0, schedule=grown)
        return optimizers.SGD(schedule, weight_decay=decay, groups=[group])
    group = optimizers.ParameterGroup
    return optimizers.LARS(
        each_step([math.sqrt(2 * rate * decay) for rate in rates]),
        momentum=0.0,
        weight_decay=decay,
        trust_coefficient=1.0,
        groups=[
            group('kernel', weight_decay=0.0),
            group('bias', schedule=schedule),
            group('scale', schedule=schedule),
        ],
    )


def train(settings, variant, seed, dataset):
    mean, std = data.mean_std(dataset.train_images)
    widths = [settings['width'] * n for n in (1, 2, 4, 8)]
    model = models.resnet9(dataset.image_shape, dataset.num_classes, widths=widths)
    steps = len(dataset.train_images) // settings['batch_size']
    trainer = training.Trainer(
        model,
        make_optimizer(variant['optimizer'], settings, steps * settings['epochs']),
        losses.CrossEntropy(),
        batch_size=settings['batch_size'],
        normalize=partial(augment.normalize, mean=mean, std=std),
        augment=augment.compose([partial(augment.random_crop, padding=4), augment.random_flip]),
        seed=seed,
    )
    trainer.load(dataset.train_images, dataset.train_labels)
    trainer.compile()
    norms, turns = watch(model), []
    measured = settings['epochs'] * 3 // 4 - 1  # the last epoch of the plateau
    for epoch in range(settings['epochs']):
        single = watch(model) if epoch == measured else None
        size = 1 if single else steps
        for start in range(0, steps, size):
            totals = trainer.run_steps(epoch, start, start + size)
            if not (totals.finite and math.isfinite(totals.last_loss)):
                return {'accuracy': None, 'norms': [], 'turns': []}
            if single:
                single.on_epoch_end(start)
        if single:
            angles = np.array([record['angle'] for record in single.history])
            turns = np.sqrt((angles**2).mean(axis=0)).tolist()
        norms.on_epoch_end(epoch)
    score = trainer.evaluate(dataset.test_images, dataset.test_labels)
    return {
        'accuracy': score.accuracy,
        'layers': norms.paths,
        'norms': [norms.initial, *(record['norm'] for record in norms.history)],
        'turns': turns,
        'predicted': math.sqrt(2 * settings['rate'] * settings['decay']),
    }


def watch(model):
    norms = diagnostics.WeightNorms(KERNELS)
    norms.set_model(model)
    norms.on_train_begin()
    return norms


def same_accuracy(name):
    return (
        f'the mean accuracy of `{name}` differs from that of `sgd` by two standard errors or '
        f'{POINTS} points at most, and no run diverged'
    )


def judge_accuracy(name, runs):
    accuracies = [
        [run['accuracy'] for run in runs if run['optimizer'] == optimizer]
        for optimizer in (name, 'sgd')
    ]
    if not all(accuracies) or any(None in found for found in accuracies):
        return frame.Verdict(False, f'a run diverged or is missing: {accuracies}')
    difference, error = (100 * value for value in estimates.difference(*accuracies))
    margin = max(error, POINTS) if math.isfinite(error) else POINTS
    said = f'{name} is {difference:+.2f} ± {error:.2f} points from sgd'
    return frame.Verdict(abs(difference) <= margin, said)


def judge_turns(runs):
    ratios = [
        turn / run['predicted']
        for run in runs
        if run['optimizer'] == 'sgd' and run['accuracy'] is not None
        for turn in run['turns']
    ]
    if not ratios:
        return frame.Verdict(False, 'each run of sgd diverged or is missing')
    middle = statistics.median(ratios)
    low, high = statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else ratios * 2
    return frame.Verdict(
        NEAR[0] <= middle <= NEAR[1],
        f'a step turns the kernels {middle:.2f} times as far as predicted '
        f'(median; half of them {low:.2f} to {high:.2f})',
    )


def draw(runs):
    figure, (norms, turns, accuracy), theme = panels.new((12, 3.8), (2, 2, 1))
    for number, name in enumerate(VARIANTS):
        of_name = [run for run in runs if run['optimizer'] == name]
        comparing.dots(accuracy, number, estimates.percents(of_name), number)
        whole = [run for run in of_name if run['norms']]
        if not whole:  # all diverged
            continue
        of_layers = np.array([run['norms'] for run in whole])  # (seeds, epochs, layers)
        style = panels.style(number)
        norms.plot(of_layers.mean(axis=(0, 2)), label=name, **{**style, 'marker': ''})
        layers = range(1, of_layers.shape[2] + 1)
        turned = [
            estimates.mean_and_error(each)
            for each in zip(*(run['turns'] for run in whole), strict=True)
        ]
        means, errors = zip(*turned, strict=True)
        turns.errorbar(layers, means, yerr=errors, label=name, capsize=2, **style)
    for predicted in {run['predicted'] for run in runs if run['norms']}:
        turns.axhline(predicted, color=theme.ink, linewidth=1, linestyle=':', label='predicted')
    panels.finish(
        norms,
        'norm of a kernel, mean over layers and seeds',
        {},
        xlabel='epoch',
        ylabel='norm',
        yscale='log',
    )
    panels.finish(
        turns,
        'how far a step turns a kernel, end of the plateau',
        {},
        xlabel='layer',
        ylabel='angle, radians',
    )
    turns.margins(y=0.12)
    turns.set_ylim(bottom=0)
    panels.finish(accuracy, 'test accuracy', ylabel='% of the test images')
    accuracy.set_xticks(range(len(VARIANTS)), VARIANTS)
    accuracy.set_xlim(-0.6, len(VARIANTS) - 0.4)
    return figure


EXPERIMENT = frame.Experiment(
    name='06_weight_decay',
    question='What does weight decay do where batch norm hides the length of the weights?',
    source='https://myrtle.ai/learn/how-to-train-your-resnet-6-weight-decay/',
    claims=(
        frame.Claim(
            'weights before a batch norm settle in a balance of decay and updates, which sets how '
            'far a step turns them',
            'the median turn of a step of `sgd`, over layers and seeds, is '
            f'{NEAR[0]} to {NEAR[1]} times sqrt(2 * rate * decay) at the end of the plateau',
            judge_turns,
        ),
        frame.Claim(
            'LARS with one rate for all layers trains as well',
            same_accuracy('lars'),
            partial(judge_accuracy, 'lars'),
        ),
        frame.Claim(
            'SGD without decay, whose rate grows to match, trains as well',
            same_accuracy('growing'),
            partial(judge_accuracy, 'growing'),
        ),
    ),
    small={
        'seeds': 3, 'limit': 5120, 'batch_size': 128, 'epochs': 8, 'width': 8,
        'rate': 0.5, 'decay': 0.01,
    },
    full={
        'seeds': 5, 'limit': 50_000, 'batch_size': 512, 'epochs': 24, 'width': 64,
        'rate': 1.0, 'decay': 0.002,
    },
    variants=variants,
    train=train,
    draw=draw,
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

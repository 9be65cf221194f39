"""Architecture: what does each step from ResNet-18's shortest path to ResNet-9 buy, in what time?

    python examples/lab/04_architecture.py --data_dir=FOLDER      # small, on two cores
    python examples/lab/04_architecture.py --full                 # on a GPU

Five backbones of four convolutions, each with one change to the one before: the shortest path
through a ResNet-18 (its downsampling convolutions); 3x3 instead of 1x1 kernels; stride 1 and max
pooling instead of stride 2; a global max pooling, and twice the channels before it, instead of a
maximum and a mean; batch norm's scales at 1 and logits times 0.125 instead of uniform random
scales. Then the 15 networks on the last backbone: with another convolution, or a residual block,
after each subset of its three poolings, trained for a shorter and a longer time.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/.

Small: 4 of 6 claims held, n=3, 17 min, others ran beside on Intel(R) Xeon(R) Processor (amx_bf16),
2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import itertools
import math
import statistics

import dawnbench
import estimates
import fitting
import keras
import panels

from fenwicks import layers, models, optimizers, schedules

# Each backbone: what it changed, and what the post reports of it after 20 epochs, in percent.
STEPS = {
    'shortest path': 55.9,
    '3x3 kernels': 85.6,
    'max pooling': 89.7,
    'global max': 90.7,
    'scale': 91.1,
}
STAGES = (1, 2, 3)
SUBSETS = [list(s) for n in STAGES for s in itertools.combinations(STAGES, n)]
BACKBONE = {'extra': [], 'residual': []}
FAMILY = [
    BACKBONE,
    *({'extra': subset, 'residual': []} for subset in SUBSETS),
    *({'extra': [], 'residual': subset} for subset in SUBSETS),
]
RESNET9 = {'extra': [], 'residual': [1, 3]}
WARMUP = 0.2  # of the steps
KINDS = {
    'scale': (0, 'backbone'),
    'extra': (3, 'extra convolution'),
    'residual': (1, 'residual block'),
}


def variants(settings):
    """The backbones, the last of which begins the family, and the family twice."""
    short, long = settings['epochs']
    steps = [{'step': name, 'epochs': short} for name in STEPS if name != 'scale']
    return steps + [{**network, 'epochs': epochs} for epochs in (short, long) for network in FAMILY]


def build(settings, variant, dataset):
    """The network of a variant."""
    width = settings['width']
    widths = [width * n for n in (1, 2, 4, 8)]
    shape, classes = dataset.image_shape, dataset.num_classes
    if 'step' not in variant:
        chosen = {key: variant[key] for key in ('extra', 'residual')}
        return models.backbone(shape, classes, widths, **chosen)
    random_scales = dawnbench.random_scales()
    if variant['step'] == 'global max':
        return models.backbone(shape, classes, widths, normalization=random_scales, logit_scale=1.0)
    style = {'kernel_initializer': layers.init_pytorch, 'normalization': random_scales}
    kernel = 1 if variant['step'] == 'shortest path' else 3
    stages = [
        layers.ConvBlk(filters, **style)
        if variant['step'] == 'max pooling'
        else layers.ConvBN(filters, kernel_size=kernel, strides=2, **style)
        for filters in (2 * width, 4 * width, 4 * width)
    ]
    head = [layers.GlobalPools2D(), layers.Classifier(classes, layers.init_pytorch)]
    return keras.Sequential([keras.Input(shape), layers.ConvBN(width, **style), *stages, *head])


def train(settings, variant, seed, dataset):
    epochs = variant['epochs']
    total_steps = epochs * fitting.steps_per_epoch(dataset, settings['batch_size'])
    schedule = schedules.OneCycle(settings['rate'], total_steps, round(WARMUP * total_steps))
    optimizer = optimizers.SGD(
        schedule, momentum=0.9, nesterov=True, weight_decay=settings['decay']
    )
    model = build(settings, variant, dataset)
    weights = sum(math.prod(v.shape) for v in model.trainable_variables)
    found = fitting.fit(
        model, optimizer, settings, seed, dataset, epochs=epochs, cutout=settings['cutout']
    )
    return {**found, 'weights': weights}


def name_of(run):
    """The network of a run, without its epochs."""
    if 'step' in run:
        return run['step']
    if not (run['extra'] or run['residual']):
        return 'scale'
    kind = 'extra' if run['extra'] else 'residual'
    return f'{kind} {"+".join(map(str, run[kind]))}'


def of(runs, network, epochs):
    """The runs of a network, in the order of their seeds."""
    found = [run for run in runs if (name_of(run), run['epochs']) == (network, epochs)]
    return sorted(found, key=lambda run: run['seed'])


def budgets(runs):
    """The shorter and the longer number of epochs."""
    return sorted({run['epochs'] for run in runs})


def judge_step(step, runs):
    names = list(STEPS)
    before = names[names.index(step) - 1]
    short = budgets(runs)[0]
    one, other = (of(runs, name, short) for name in (step, before))
    gain, error = estimates.difference(*map(estimates.percents, (one, other)))
    found = f'{estimates.text(gain, error)} points, to {estimates.mean_percent(one)} %'
    return frame.Verdict(gain > error, found + estimates.diverged([*one, *other]))


def judge_resnet9(runs):
    short = budgets(runs)[0]
    names = [name_of(network) for network in FAMILY]
    means = {name: statistics.mean(estimates.percents(of(runs, name, short))) for name in names}
    best = max(means, key=lambda name: means[name])
    ours = name_of(RESNET9)
    chosen, backbone, first = (of(runs, name, short) for name in (ours, 'scale', best))
    gain, error = estimates.difference(*map(estimates.percents, (chosen, backbone)))
    behind, margin = estimates.difference(*map(estimates.percents, (first, chosen)))
    rank = sorted(means.values(), reverse=True).index(means[ours]) + 1
    said = (
        f'{estimates.text(gain, error)} points above the backbone, to '
        f'{estimates.mean_percent(chosen)} %, number {rank} of {len(names)}'
    )
    if best != ours:
        said += f'; the best, {best}, is {estimates.text(behind, margin)} points above it'
    holds = gain > error and (best == ours or behind <= margin)
    return frame.Verdict(holds, said + estimates.diverged(runs))


def judge_depth(runs):
    """Points for each doubling of the time: along the family, and along the epochs."""
    short, long = budgets(runs)
    names = [name_of(network) for network in FAMILY]
    times, late_times = (
        [math.log2(seconds_of(of(runs, name, epochs))) for name in names]
        for epochs in (short, long)
    )
    longer = statistics.mean(late_times) - statistics.mean(times)
    if longer == 0 or min(times) == max(times):
        return frame.Verdict(False, 'the trainings are too short: all of them take the same time')
    depth, epochs = [], []
    for seed in sorted({run['seed'] for run in runs}):
        of_seed = [run for run in runs if run['seed'] == seed]
        brief, whole = (
            [estimates.percents(of(of_seed, name, budget))[0] for name in names]
            for budget in (short, long)
        )
        depth.append(statistics.linear_regression(times, brief).slope)
        gains = [late - early for early, late in zip(brief, whole, strict=True)]
        epochs.append(statistics.mean(gains) / longer)
    more, error = estimates.mean_and_error([d - e for d, e in zip(depth, epochs, strict=True)])
    said = (
        f'for twice the time depth buys {statistics.mean(depth):.2f} points and epochs '
        f'{statistics.mean(epochs):.2f}: a difference of {estimates.text(more, error)}'
    )
    return frame.Verdict(more > error, said + estimates.diverged(runs))


def seconds_of(runs):
    """The median time of training, of the runs that came to their end, if there are any."""
    whole = [run for run in runs if run['accuracy'] is not None] or runs
    return statistics.median(run['train_seconds'] for run in whole)


def draw(runs):
    figure, (left, right), theme = panels.new((11, 4.6), ratios=(2, 3))
    draw_steps(left, theme, runs)
    draw_family(right, theme, runs)
    return figure


def draw_steps(axes, theme, runs):
    """The backbones, one beside the other, and what the post reports of them."""
    places = range(len(STEPS))
    numbers = [point_of(of(runs, name, budgets(runs)[0])) for name in STEPS]
    axes.bar(
        places, [mean for _, mean, _ in numbers], color=theme.series[0], alpha=0.75, label='here'
    )
    for place, (_, mean, error) in zip(places, numbers, strict=True):
        axes.errorbar(place, mean, yerr=error, color=theme.ink, capsize=4)
    axes.plot(places, list(STEPS.values()), 'D', color=theme.series[1], label='the post, 20 epochs')
    axes.set_xticks(places, [name.replace(' ', '\n') for name in STEPS])
    legend = {'loc': 'lower right'}
    panels.finish(
        axes, 'the backbone, step by step', legend, ylabel='test accuracy, %', ylim=(0, 100)
    )


def draw_family(axes, theme, runs):
    """Accuracy against time, from the shorter to the longer training of each network."""
    from matplotlib.lines import Line2D

    short, long = budgets(runs)
    labelled: dict[bool, list] = {True: [], False: []}
    for network in FAMILY:
        name = name_of(network)
        style = {**panels.style(KINDS[name.split()[0]][0]), 'linestyle': ''}
        points = [point_of(of(runs, name, epochs)) for epochs in (short, long)]
        seconds, percents, _ = zip(*points, strict=True)
        axes.plot(seconds, percents, color=style['color'], linewidth=0.6)
        for (x, y, error), face in zip(points, (style['color'], theme.paper), strict=True):
            axes.errorbar(x, y, yerr=error, color=style['color'], alpha=0.4, elinewidth=0.8)
            axes.plot(x, y, markerfacecolor=face, markersize=5, **style)
        right = name.startswith('residual')
        x, y, _ = points[0]
        # Labels of points that lie close together stand above one another.
        near = sum(abs(x - a) < 0.4 and abs(y - b) < 0.8 for a, b in labelled[right])
        labelled[right].append((x, y))
        axes.annotate(
            name.partition(' ')[2], (x, y), textcoords='offset points', fontsize=7, color=theme.ink,
            xytext=(5, -8 - 8 * near) if right else (-4, 4 + 8 * near),
            ha='left' if right else 'right',
        )  # fmt: skip
    handles = [
        Line2D([], [], label=label, **{**panels.style(number), 'linestyle': ''})
        for number, label in KINDS.values()
    ]
    for face, epochs in ((theme.ink, short), (theme.paper, long)):
        look = {'color': theme.ink, 'markerfacecolor': face, 'marker': 'o', 'linestyle': ''}
        handles.append(Line2D([], [], label=f'{epochs} epochs', **look))
    panels.finish(
        axes,
        'depth and epochs; the numbers say after which poolings',
        legend={'handles': handles, 'loc': 'lower right'},
        xlabel='training, s',
        ylabel='test accuracy, %',
    )


def point_of(runs):
    """Median seconds, mean percent and its error, if there is one, of the runs of a network."""
    mean, error = estimates.mean_and_error(estimates.percents(runs))
    return seconds_of(runs), mean, error if math.isfinite(error) else None


def gain_of(step, text):
    return frame.Claim(
        text,
        f'in the mean over the seeds the test accuracy of "{step}" is higher than that of the '
        'backbone before it, by more than two standard errors of the difference',
        lambda runs: judge_step(step, runs),
    )


EXPERIMENT = frame.Experiment(
    name='04_architecture',
    question="What does each step from ResNet-18's shortest path to ResNet-9 buy, in what time?",
    source='https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/',
    claims=(
        gain_of('3x3 kernels', '3x3 kernels with stride 2 in the place of 1x1, which ignore three '
                'pixels of four, make the shortest path far better (55.9 to 85.6 %)'),
        gain_of('max pooling', 'stride 1 and max pooling in the place of stride 2 make it better '
                '(85.6 to 89.7 %)'),
        gain_of('global max', 'a global max pooling of twice the channels, in the place of a '
                'maximum and a mean, makes it better (89.7 to 90.7 %)'),
        gain_of('scale', "batch norm's scales at 1 and logits times 0.125, in the place of random "
                'scales, make it better (90.7 to 91.1 %)'),
        frame.Claim(
            'of the 15 networks, that with residual blocks after the first and the third pooling, '
            'ResNet-9, is the best (93.8 %)',
            'after the shorter training its mean test accuracy is above that of the backbone by '
            'more than two standard errors of the difference, and no other network is above it by '
            'more than that',
            judge_resnet9,
        ),
        frame.Claim(
            'depth buys more accuracy than epochs do, for the same time',
            'test accuracy grows with the logarithm of the training time: along the 15 networks '
            'after the shorter training (the slope of a regression), more than from the shorter to '
            'the longer training (in the mean over the networks), by more than two standard errors '
            'over the seeds',
            judge_depth,
        ),
    ),
    small={
        'seeds': 3, 'limit': 5120, 'batch_size': 128, 'epochs': [4, 5], 'width': 16,
        'rate': 0.2, 'decay': 5e-4, 'cutout': 0,
    },
    full={
        'seeds': 10, 'limit': 50_000, 'batch_size': 512, 'epochs': [20, 22], 'width': 64,
        'rate': 0.4, 'decay': 5e-4, 'cutout': 8,
    },
    variants=variants,
    train=train,
    draw=draw,
    precision='auto',
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

"""Mini-batches: does the curvature of the loss limit the learning rate, or what is forgotten?

    python examples/lab/02_mini_batches.py --data_dir=FOLDER      # small, on two cores
    python examples/lab/02_mini_batches.py --full                 # on a GPU

One budget of examples is trained on in batches of several sizes, at several rates, from a large
training set and from a small one, which is passed over more often. Rates are given for the smallest
batches and grow with the batch, so that an example counts as much in each. If curvature is the
limit, large batches reach it at a lower rate of an example, since it bounds a step. If forgetting
is, all batches have one best rate of an example, and a smaller set, of which less is to be kept in
mind, has a higher one. The rate rises for a quarter of the budget, stays for a half, and falls to
0. At the end of the plateau the network is asked for its loss on the examples that it saw last, on
those that it saw at the beginning of the same epoch, and on others.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-2-mini-batches/.

Small: 2 of 4 claims held, n=3, 23 min, others ran beside on Intel(R) Xeon(R) Processor (amx_bf16),
2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import math
import statistics

import comparing
import dawnbench
import estimates
import fitting
import numpy as np
import panels
from keras import ops

from fenwicks import data, losses, training

SHAPE = ((0, 0.0), (1, 1.0), (3, 1.0), (4, 0.0))  # of the rate; the plateau ends at 3
PROBE = 4  # a quarter of an epoch: what was just seen, and what was seen first
MARGIN = 1.05  # times as many errors as with the smallest batches count as equal
SETS = ('large', 'small')
ASKED = {
    'just_seen': 'just seen',
    'epoch_ago': 'seen an epoch ago',
    'never_seen': 'never seen',
}


def variants(settings):
    smallest, *_, largest = sizes = settings['batch_sizes']
    return [
        {'set': name, 'batch_size': batch_size, 'rate': rate}
        for name, chosen in (('large', sizes), ('small', [smallest, largest]))
        for batch_size in chosen
        for rate in settings['rates']
    ]


def train(settings, variant, seed, dataset):
    """The losses of a training; None from where it diverged."""
    batch_size = variant['batch_size']
    subset = dataset.limit(settings[variant['set']])
    images, labels = subset.train_images, subset.train_labels
    batches = data.ImageBatches(
        images, labels, batch_size, shuffle=True, seed=seed, drop_remainder=True
    )
    epochs = settings['budget'] // len(images)
    plateau = epochs * SHAPE[2][0] // SHAPE[3][0]
    peak = variant['rate'] * batch_size / settings['batch_sizes'][0]
    model = dawnbench.network(settings['network'], settings['width'], subset)
    optimizer = dawnbench.optimizer(peak, epochs * len(batches), SHAPE)
    trainer = fitting.make_trainer(model, optimizer, batch_size, seed, subset)
    found = dict.fromkeys([*ASKED, 'train_loss', 'accuracy'])
    try:
        trainer.fit(batches, epochs=plateau, verbose=0)
        found |= ask(trainer, batches, plateau - 1, dataset)
        trainer.fit(batches, epochs=epochs, verbose=0)
        count = settings['small']  # of either set
        found['train_loss'] = trainer.evaluate(images[:count], labels[:count]).loss
        found['accuracy'] = trainer.evaluate(dataset.test_images, dataset.test_labels).accuracy
    except training.DivergedError:
        pass
    return {name: value if is_finite(value) else None for name, value in found.items()}


def ask(trainer, batches, epoch, dataset):
    """The losses on the last examples of an epoch that just ended, on its first, and on others."""
    batches.epoch = epoch  # whose order is wanted
    order = np.concatenate([batches.stored_batch(i)[2] for i in range(len(batches))])
    count = len(order) // PROBE
    found = {
        name: loss_in_training(trainer, batches.images[chosen], batches.labels[chosen])
        for name, chosen in (('just_seen', order[-count:]), ('epoch_ago', order[:count]))
    }
    unseen = loss_in_training(trainer, dataset.test_images[:count], dataset.test_labels[:count])
    return {**found, 'never_seen': unseen}


def is_finite(value):
    return value is not None and math.isfinite(value)


def loss_in_training(trainer, images, labels):
    """The loss with batch norm's statistics of batches of these images.

    The moving statistics lag behind weights that move fast, which would hide what is asked.
    """
    model, before = trainer.model, trainer.model.get_weights()
    size, found = min(trainer.batch_size, len(images)), []
    for start in range(0, len(images) - size + 1, size):
        part = slice(start, start + size)
        logits = model(trainer.normalize(images[part]), training=True)
        found.append(float(ops.convert_to_numpy(losses.CrossEntropy()(labels[part], logits))))
    model.set_weights(before)
    return statistics.mean(found)


def cell(runs, name, batch_size, rate):
    """The runs on a set, with batches of a size, at a rate."""
    wanted = {'set': name, 'batch_size': batch_size, 'rate': rate}
    return [run for run in runs if wanted.items() <= run.items()]


def batch_sizes(runs, name='large'):
    """Those of a set; the small one has the smallest and the largest only."""
    return sorted({run['batch_size'] for run in runs if run['set'] == name})


def rates(runs):
    return sorted({run['rate'] for run in runs})


def mean_of(runs, key):
    """The mean of a loss; infinite where a run diverged before."""
    found = [run[key] for run in runs]
    return math.inf if None in found else statistics.mean(found)


def final_loss(runs):
    return mean_of(runs, 'train_loss')


def best_rate(runs, name, batch_size):
    """The rate of the lowest training loss at the end; None where all rates diverged."""
    found = [(final_loss(cell(runs, name, batch_size, rate)), rate) for rate in rates(runs)]
    loss, rate = min(found)
    return rate if math.isfinite(loss) else None


def say_best(runs, name):
    """The best rate by size of the batch, and the same in words."""
    found = {size: best_rate(runs, name, size) for size in batch_sizes(runs, name)}
    return found, ', '.join(f'{rate or "none"} with {size}' for size, rate in found.items())


def count_diverged(runs):
    return f'{sum(run["train_loss"] is None for run in runs)} of {len(runs)} runs diverged'


def judge_batches(runs):
    smallest, *larger = batch_sizes(runs)
    rate = best_rate(runs, 'large', smallest)
    base = cell(runs, 'large', smallest, rate)
    if not base:
        return frame.Verdict(False, f'there is no rate for batches of {smallest}')
    said, held = [f'with batches of {smallest} {estimates.mean_percent(base)} % are right'], True
    for batch_size in larger:
        other = cell(runs, 'large', batch_size, rate)
        ratio, factor = comparing.times_the_errors(other, base)
        held &= ratio * factor <= MARGIN
        said.append(
            f'with {batch_size} {estimates.mean_percent(other)} %, '
            f'{comparing.times(ratio, factor)} as many errors'
        )
    return frame.Verdict(held, f'at {rate}, ' + '; '.join(said) + f' ({count_diverged(runs)})')


def gaps(runs):
    """By how much the loss on what was seen an epoch ago is larger than on what was just seen."""
    pairs = [(run['epoch_ago'], run['just_seen']) for run in runs]
    return [one - other for one, other in pairs if one is not None and other is not None]


def judge_forgetting(runs):
    smallest = batch_sizes(runs)[0]
    best, lowest = best_rate(runs, 'large', smallest), rates(runs)[0]
    at_best, at_lowest = (gaps(cell(runs, 'large', smallest, rate)) for rate in (best, lowest))
    if not at_best or not at_lowest:
        return frame.Verdict(False, 'all runs diverged before they were asked')
    (gap, error), (base, base_error) = map(estimates.mean_and_error, (at_best, at_lowest))
    return frame.Verdict(
        gap - error > 0 and gap > base,
        f'the loss is larger by {estimates.text(gap, error, 3)} at the best rate, {best}, and by '
        f'{estimates.text(base, base_error, 3)} at the lowest, {lowest}',
    )


def judge_rate_of_an_example(runs):
    found, said = say_best(runs, 'large')
    same = len(set(found.values())) == 1 and None not in found.values()
    return frame.Verdict(same, f'on the large set it is {said}')


def judge_regimes(runs):
    (large, said_large), (small, said) = (say_best(runs, name) for name in SETS)
    smallest, *_, largest = batch_sizes(runs)
    known = None not in (large[smallest], small[smallest], small[largest])
    return frame.Verdict(
        known and large[smallest] < small[smallest] and small[largest] < small[smallest],
        f'on the small set it is {said}; on the large set {said_large}',
    )


def draw(runs):
    figure, axes, _ = panels.new((13, 3.9), (1, 1, 1))
    smallest = batch_sizes(runs)[0]
    common = {'xlabel': f'peak rate, for batches of {smallest}', 'xscale': 'log'}
    for panel, name in zip(axes, SETS, strict=False):
        for number, size in enumerate(batch_sizes(runs)):
            if size in batch_sizes(runs, name):
                found = [(rate, final_loss(cell(runs, name, size, rate))) for rate in rates(runs)]
                draw_curve(panel, found, f'batches of {size}', number)
        title = f'the {name} set: loss after the whole schedule'
        panels.finish(panel, title, {}, ylabel='training loss', yscale='log', **common)
    for number, (key, label) in enumerate(ASKED.items()):
        found = [(rate, mean_of(cell(runs, 'large', smallest, rate), key)) for rate in rates(runs)]
        draw_curve(axes[2], found, label, number, mark_best=False)
    title = f'the large set, batches of {smallest}: end of the plateau'
    panels.finish(axes[2], title, {}, ylabel='loss on examples', **common)
    return figure


def draw_curve(axes, points, label, number, mark_best=True):
    """A line through the finite points, the lowest in a ring, and crosses above for the others."""
    style = panels.style(number)
    known = [point for point in points if math.isfinite(point[1])]
    if known:
        axes.plot(*zip(*known, strict=True), label=label, **style)
    if known and mark_best:
        ring = {**style, 'marker': 'o', 'linestyle': '', 'fillstyle': 'none', 'markersize': 13}
        axes.plot(*min(known, key=lambda point: point[1]), **ring)
    lost = [rate for rate, loss in points if not math.isfinite(loss)]
    if lost:
        cross = {**style, 'marker': 'x', 'linestyle': '', 'label': f'{label}, diverged'}
        height = [0.97 - 0.04 * number] * len(lost)
        axes.plot(lost, height, transform=axes.get_xaxis_transform(), **cross)


EXPERIMENT = frame.Experiment(
    name='02_mini_batches',
    question='Does the curvature of the loss limit the learning rate, or what is forgotten?',
    source='https://myrtle.ai/learn/how-to-train-your-resnet-2-mini-batches/',
    claims=(
        frame.Claim(
            'batches four and six times as large, with rates in proportion, train as well '
            '(256 s with 512 instead of 297 s with 128)',
            'on the large set, at the rate that is best for the smallest batches, the larger ones '
            f'make at most {MARGIN} times as many errors on the test images, two standard errors '
            'included',
            judge_batches,
        ),
        frame.Claim(
            'at the rates that train best, examples seen an epoch ago are partly forgotten',
            'on the large set, with the smallest batches at their best rate, the loss on the first '
            'quarter of the last epoch of the plateau is larger than that on its last quarter, by '
            'more than two standard errors and by more than at the lowest rate',
            judge_forgetting,
        ),
        frame.Claim(
            'the limit is one of the rate of an example, whatever the size of the batches',
            'on the large set the rate with the lowest training loss is the same for all sizes, '
            'relative to the batch',
            judge_rate_of_an_example,
        ),
        frame.Claim(
            'where there is little to forget, curvature is the limit',
            'with the smallest batches the best rate of the small set is higher than that of the '
            'large one, and with the largest batches that of the small set is lower than with the '
            'smallest',
            judge_regimes,
        ),
    ),
    small={
        'seeds': 3, 'limit': 2304, 'large': 2304, 'small': 384, 'budget': 27_648,
        'batch_sizes': [32, 128, 192], 'rates': [0.02, 0.08, 0.32, 1.28],
        'network': 'resnet9', 'width': 8,
    },
    full={
        'seeds': 3, 'limit': 49_152, 'large': 49_152, 'small': 6144, 'budget': 393_216,
        'batch_sizes': [128, 512, 768], 'rates': [0.025, 0.05, 0.1, 0.2, 0.4, 0.8],
        'network': 'preact_resnet18', 'width': 64,
    },
    variants=variants,
    train=train,
    draw=draw,
    needs_all=True,
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

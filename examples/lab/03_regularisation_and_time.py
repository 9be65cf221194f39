"""Regularisation and time: where does a step's time go, and what do cutout and schedule save?

    python examples/lab/03_regularisation_and_time.py --data_dir=FOLDER    # small, on two cores
    python examples/lab/03_regularisation_and_time.py --full               # on a GPU

All in half precision as in the post, but bfloat16. Time: steps of the network at its published
width, for batches of several sizes, are timed in turn with batch norm's weights in single and in
half precision; with TensorFlow on a CPU a profile divides each by kind of operation. Accuracy:
trainings of 35 and of 30 epochs with and without cutout, by the contest's schedule and by one with
an earlier peak and a straight fall, and with batch norm's weights in half precision.

Claimed in https://myrtle.ai/learn/how-to-train-your-resnet-3-regularisation/.

Small: 1 of 5 claims held, n=5, 13 min on Intel(R) Xeon(R) Processor (amx_bf16), 2 cores.

Full: not measured yet.
"""

from __future__ import annotations

import frame

import pathlib
import statistics
import sys
from functools import partial

import comparing
import dawnbench
import estimates
import fitting
import keras
import panels
import timing

from fenwicks import layers

# Where `op_times` is, the profile of a step by kind of operation.
sys.path.append(str(pathlib.Path(frame.__file__).resolve().parent.parent / 'benchmarks'))

SHAPES = {'contest': dawnbench.CONTEST, 'triangle': dawnbench.TRIANGLE}
MARGIN = 1.05  # times as many errors count as equal
KINDS = {  # of the table, and how those of a profile begin that belong to them
    'convolution': 'convolution',
    'batch norm': 'batch norm',
    'activation': 'activation',
    'pooling': 'pooling',
    'optimizer': 'optimizer',
    'data': 'augmentation',
}
HATCHES = ('', '///', '...', 'xxx', '|||', '\\\\\\', '')


class HalfBatchNormalization(layers.BatchNormalization):
    """Batch normalization whose weights and statistics are in the precision of the arithmetic."""

    def add_weight(self, *args, **settings):
        return super().add_weight(*args, **{**settings, 'dtype': self.compute_dtype})


WEIGHTS = {'single': layers.BatchNormalization, 'half': HalfBatchNormalization}
ARMS = {
    name: dict(zip(('epochs', 'cutout', 'schedule', 'weights'), values, strict=True))
    for name, values in {
        'plain': ('long', False, 'contest', 'single'),
        'half norms': ('long', False, 'contest', 'half'),
        'cutout': ('long', True, 'contest', 'single'),
        'earlier peak': ('long', True, 'triangle', 'single'),
        'shorter': ('short', True, 'triangle', 'single'),
        'shorter, plain': ('short', False, 'triangle', 'single'),
    }.items()
}


def variants(settings):
    timed = [{'timed_batch_size': size} for size in settings['timed_batch_sizes']]
    return timed + list(ARMS.values())


def train(settings, variant, seed, dataset):
    if 'timed_batch_size' in variant:
        return time_steps(settings, variant['timed_batch_size'], seed, dataset)
    epochs = settings[variant['epochs']]
    steps = epochs * fitting.steps_per_epoch(dataset, settings['batch_size'])
    return fitting.fit(
        dawnbench.network(
            settings['network'], settings['width'], dataset, WEIGHTS[variant['weights']]
        ),
        dawnbench.optimizer(settings['peak'], steps, SHAPES[variant['schedule']]),
        settings,
        seed,
        dataset,
        epochs=epochs,
        cutout=settings['cutout'] if variant['cutout'] else 0,
    )


def time_steps(settings, batch_size, seed, dataset):
    """Seconds of a step with norms of either precision and, where a profile can be taken, of what
    they consist."""
    profiler, steps = find_profiler(), settings['timed_steps']
    trainers, scopes = {}, {}
    for name, norm in WEIGHTS.items():
        model = dawnbench.network(settings['network'], settings['timed_width'], dataset, norm)
        if profiler:
            scopes[name] = profiler.note_scopes(model)
        trainers[name] = timing.prepare(model, batch_size, steps, seed, dataset)
    found = {'seconds': timing.in_turns(trainers, steps, settings['turns'])}
    if profiler:
        found['milliseconds'] = {
            name: table(profiler.profile_steps(trainer, scopes[name], 0, steps)[1])
            for name, trainer in trainers.items()
        }
    return found


def find_profiler():
    """The module that profiles steps; None but for TensorFlow on a CPU."""
    if keras.backend.backend() != 'tensorflow':
        return None
    import op_times
    import tensorflow as tf

    on_cpu = all(device.device_type == 'CPU' for device in tf.config.get_visible_devices())
    return op_times if on_cpu else None


def table(milliseconds):
    """The milliseconds of a profile's kinds by those of `KINDS`, and of the rest together."""
    found = {
        kind: sum(spent for name, spent in milliseconds.items() if name.startswith(start))
        for kind, start in KINDS.items()
    }
    return {**found, 'rest': sum(milliseconds.values()) - sum(found.values())}


def arm(runs, name):
    return [run for run in runs if ARMS[name].items() <= run.items()]


def timed(runs):
    return [run for run in runs if 'seconds' in run]


def shares(runs, weights):
    """The share of each kind of operation in a step, the mean over the runs."""
    found = [run['milliseconds'][weights] for run in runs]
    return {
        kind: statistics.mean(each[kind] / sum(each.values()) for each in found)
        for kind in found[0]
    }


def sizes(runs):
    return sorted({run['timed_batch_size'] for run in timed(runs)})


def of_size(runs, size):
    return [run for run in timed(runs) if run['timed_batch_size'] == size]


def judge_kinds(runs):
    if not all('milliseconds' in run for run in timed(runs)):
        return frame.Verdict(False, 'no profile was taken: that needs TensorFlow on a CPU')
    held, said = True, []
    for size in sizes(runs):
        found = shares(of_size(runs, size), 'single')
        others = [found[kind] for kind in ('activation', 'pooling')]
        held &= found['batch norm'] > max(*others, found['optimizer'] + found['data'])
        parts = ', '.join(f'{kind} {100 * share:.1f}' for kind, share in found.items())
        said.append(f'batches of {size}: {parts}')
    return frame.Verdict(held, 'shares of a step in percent, with ' + '; with '.join(said))


def judge_precision(runs):
    mean, error = estimates.mean_and_error(timing.ratios(timed(runs), 'half', 'single'))
    single, half = arm(runs, 'plain'), arm(runs, 'half norms')
    return frame.Verdict(
        mean - error > 1,
        f'with the weights in half precision a step takes {estimates.text(mean, error, 3)} times '
        f'as long; trained so {estimates.mean_percent(half)} % of the test images are right, '
        f'beside {estimates.mean_percent(single)} %{estimates.diverged(single + half)}',
    )


def compare(runs, name, other):
    """The errors of an arm over those of another: the ratio, its factor, and a sentence."""
    one, base = arm(runs, name), arm(runs, other)
    ratio, factor = comparing.times_the_errors(one, base)
    said = (
        f'`{name}` makes {comparing.times(ratio, factor)} the errors of `{other}`: '
        f'{estimates.mean_percent(one)} % of the test images are right, beside '
        f'{estimates.mean_percent(base)} %{estimates.diverged(one + base)}'
    )
    return ratio, factor, said


def judge_fewer(pairs, runs):
    found = [compare(runs, *pair) for pair in pairs]
    held = all(ratio * factor < 1 for ratio, factor, _ in found)
    return frame.Verdict(held, '; '.join(said for *_, said in found))


def judge_shorter(runs):
    ratio, factor, said = compare(runs, 'shorter', 'plain')
    return frame.Verdict(ratio * factor <= MARGIN, said)


def draw(runs):
    figure, (kinds, precision, accuracy), theme = panels.new((13, 4.2), (1.5, 0.8, 1.3))
    places, labels = [], []
    for number, size in enumerate(sizes(runs)):
        for half, weights in enumerate(WEIGHTS):
            place = number + 0.4 * half
            draw_bar(
                kinds, place, of_size(runs, size), weights, size, label=not places, theme=theme
            )
            places.append(place)
            labels.append(f'{size}\n{weights}')
        comparing.dots(precision, number, timing.ratios(of_size(runs, size), 'half', 'single'), 0)
    kinds.set_xticks(places, labels, fontsize=8)
    precision.axhline(1, color=theme.ink, linestyle=':')
    precision.set_xticks(range(len(sizes(runs))), sizes(runs))
    for number, name in enumerate(ARMS):
        comparing.dots(accuracy, number, estimates.percents(arm(runs, name)), number)
    accuracy.set_xticks(range(len(ARMS)), ARMS, fontsize=8, rotation=30, ha='right')
    panels.finish(
        kinds,
        "where a step's time goes, by size of the batch",
        {'loc': 'upper left', 'bbox_to_anchor': (1, 1)},
        xlabel="images in a batch; precision of batch norm's weights",
        ylabel='µs an image',
    )
    panels.finish(
        precision,
        'a step with norms in half\nover one with norms in single',
        xlabel='images in a batch',
        ylabel='ratio',
        xlim=(-0.6, len(sizes(runs)) - 0.4),
    )
    panels.finish(accuracy, 'test accuracy', ylabel='% of the test images')
    return figure


def draw_bar(axes, place, runs, weights, size, label, theme):
    """The microseconds of an image, by kind of operation where that is known."""
    whole = statistics.median(second for run in runs for second in run['seconds'][weights])
    known = all('milliseconds' in run for run in runs)
    parts = shares(runs, weights) if known else {'whole step': 1.0}
    bottom = 0.0
    for number, (kind, share) in enumerate(parts.items()):
        height = 1e6 * whole / size * share
        axes.bar(
            place,
            height,
            0.36,
            bottom,
            label=kind if label else None,
            color=theme.faint if kind == 'rest' else theme.series[number % len(theme.series)],
            hatch=HATCHES[number],
            edgecolor=theme.paper,
            linewidth=0.5,
        )
        if share > 0.07:
            box = {'facecolor': theme.paper, 'edgecolor': 'none', 'pad': 0.8}
            text = {'ha': 'center', 'va': 'center', 'fontsize': 7, 'bbox': box}
            axes.text(place, bottom + height / 2, f'{100 * share:.0f} %', **text)
        bottom += height


EXPERIMENT = frame.Experiment(
    name='03_regularisation_and_time',
    question='Where does the time of a step go, and what do cutout and the schedule save?',
    source='https://myrtle.ai/learn/how-to-train-your-resnet-3-regularisation/',
    claims=(
        frame.Claim(
            'after the convolutions batch norm takes most of the time, optimizer and data little',
            'for each size of batch, with weights in single precision, batch norm takes more of a '
            'step than the activations, than the poolings, and than optimizer and data together',
            judge_kinds,
        ),
        frame.Claim(
            "steps are faster with batch norm's weights in single than in half precision "
            '(35 epochs in 186 instead of 256 s)',
            'in the mean over turns and sizes of batches a step in half takes longer, by more than '
            'two standard errors',
            judge_precision,
        ),
        frame.Claim(
            'cutout makes the network more accurate, in 35 epochs as in 30 (94.3 % in 35)',
            'with cutout it makes fewer errors on the test images, by more than two standard '
            'errors, in both lengths',
            partial(judge_fewer, [('cutout', 'plain'), ('shorter', 'shorter, plain')]),
        ),
        frame.Claim(
            "an earlier peak and a straight fall of the rate do better than the contest's schedule "
            '(94.5 instead of 94.3 %)',
            'in 35 epochs with cutout they make fewer errors, by more than two standard errors',
            partial(judge_fewer, [('earlier peak', 'cutout')]),
        ),
        frame.Claim(
            'with both, 30 epochs do as well as 35 without (94.1 %)',
            f'they make at most {MARGIN} times as many errors, two standard errors included',
            judge_shorter,
        ),
    ),
    small={
        'seeds': 5, 'limit': 2048, 'batch_size': 128, 'long': 35, 'short': 30, 'peak': 0.1,
        'network': 'resnet9', 'width': 8, 'cutout': 8,
        'timed_batch_sizes': [32, 128, 512], 'timed_width': 64, 'timed_steps': 1, 'turns': 2,
    },
    full={
        'seeds': 5, 'limit': 50_000, 'batch_size': 512, 'long': 35, 'short': 30, 'peak': 0.4,
        'network': 'preact_resnet18', 'width': 64, 'cutout': 8,
        'timed_batch_sizes': [128, 256, 512, 768], 'timed_width': 64, 'timed_steps': 20, 'turns': 6,
    },
    variants=variants,
    train=train,
    draw=draw,
    precision='bfloat16',
)  # fmt: skip

if __name__ == '__main__':
    frame.start(EXPERIMENT)

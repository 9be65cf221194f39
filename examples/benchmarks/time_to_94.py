"""Compares the record recipe in fenwicks with plain PyTorch on the same machine.

    pip install torch==2.13.0     # the other side of the comparison; any recent version will do
    python examples/benchmarks/time_to_94.py --precision=bfloat16 --runs=5
    python examples/benchmarks/time_to_94.py --steps=2 --rounds=3     # projected, in minutes

Each training runs in its own process, and each round reverses the order of the sides, so that
changes of the machine's speed affect both. The seconds are those of the training steps, including
shuffle and augmentation; compilation, preparation and evaluation are logged separately. With
`--steps` nothing is trained to the end. Both sides stay in memory and take that many steps in turn,
at the start of the training and after the whitening layer's bias has stopped learning; the seconds
of the whole training are projected from these. `--log` appends a JSON line for each training.
"""

from __future__ import annotations

import quiet  # noqa: F401

import contextlib
import datetime
import importlib.util
import math
import statistics

import trainings
import turns
from absl import flags

from fenwicks import command, runlog

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_enum('recipe', 'speed94', trainings.PYTORCH_RECIPES, 'What both sides train.')
flags.DEFINE_integer(
    'runs', 1, 'Trainings of each side, with seeds seed, seed + 1, ...', lower_bound=1
)
flags.DEFINE_integer('seed', 0, 'Of weights, shuffle and augmentation.')
flags.DEFINE_integer(
    'steps',
    None,
    'Take this many steps a turn and project the whole training.',
    lower_bound=1,
)
flags.DEFINE_integer('rounds', 3, 'With --steps: how many turns each side takes.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the results to.')
flags.DEFINE_enum('side', None, trainings.SIDES, 'Internal: be one side of the comparison.')


def main():
    if not importlib.util.find_spec('torch'):
        raise ImportError('the comparison needs PyTorch: pip install torch')
    if FLAGS.side:
        turns.serve(make_side)
        return
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    compare(project() if FLAGS.steps else train())


def make_side():
    """The functions of a side that the parent may call."""
    recipe = trainings.find_recipe(FLAGS.recipe, FLAGS)
    training = trainings.make(FLAGS.side, recipe, trainings.load_dataset(FLAGS), FLAGS, FLAGS.seed)
    return {
        'run': training.run,
        'describe': training.describe,
        'total_steps': training.total_steps,
        'take_steps': training.take_steps,
        'memory': training.memory,
    }


def side(name, seed):
    arguments = [f'--recipe={FLAGS.recipe}', f'--seed={seed}', *trainings.given_flags(FLAGS)]
    return turns.Side(name, __file__, arguments)


def train():
    """Trains both sides to the end, `--runs` times, and returns their results."""
    results = []
    session = f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S}'
    for run in range(FLAGS.runs):
        for name in trainings.SIDES[:: 1 if run % 2 == 0 else -1]:
            with side(name, FLAGS.seed + run) as one:
                result = one.ask('run')
            results.append({'benchmark': 'time_to_94', 'side': name, 'session': session, **result})
            print(trainings.say_run(result), flush=True)
            log(results[-1])
    return results


def project():
    """Takes some steps of each side in turn and projects the seconds of the whole training."""
    recipe = trainings.find_recipe(FLAGS.recipe, FLAGS)
    session = f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S}'
    # Steps take PyTorch longer while the whitening layer's bias has a gradient.
    early = recipe.whitening_bias_epochs / recipe.epochs
    later_epoch = math.ceil(recipe.whitening_bias_epochs)
    parts = {0: early, later_epoch: 1 - early} if later_epoch < recipe.epochs else {0: 1.0}
    results = []
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(side(name, FLAGS.seed)) for name in trainings.SIDES]
        seconds = {one.name: dict.fromkeys(parts, 0.0) for one in sides}
        for epoch in parts:
            for one in sides:
                one.ask('take_steps', epoch=epoch, count=1)  # to warm up
            rounds = [
                [one.ask('take_steps', epoch=epoch, count=FLAGS.steps) for one in sides]
                for _ in range(FLAGS.rounds)
            ]
            for one, spent in zip(sides, zip(*rounds, strict=True), strict=True):
                seconds[one.name][epoch] = statistics.median(spent) / FLAGS.steps
        for one in sides:
            total_steps = one.ask('total_steps')
            step_seconds = [seconds[one.name][epoch] for epoch in parts]
            mean = sum(share * s for share, s in zip(parts.values(), step_seconds, strict=True))
            results.append(
                {
                    'benchmark': 'time_to_94',
                    'side': one.name,
                    'session': session,
                    'projected': True,
                    **one.ask('describe'),
                    'steps': FLAGS.steps,
                    'rounds': FLAGS.rounds,
                    'step_seconds': step_seconds,
                    'train_seconds': total_steps * mean,
                    **one.ask('memory'),
                }
            )
            log(results[-1])
    return results


def compare(results):
    """Prints the seconds of both sides and their ratio."""
    medians = {}
    for name in trainings.SIDES:
        runs = [result for result in results if result['side'] == name]
        medians[name] = statistics.median(result['train_seconds'] for result in runs)
        peak = max(result['peak_memory_mb'] for result in runs) / 1024
        text = f'{name:9} {medians[name]:8.1f} s of training'
        if runs[0].get('projected'):
            steps = ', '.join(f'{s:.3f}' for s in runs[0]['step_seconds'])
            text += f', projected from steps of {steps} s'
        else:
            accuracies = [100 * result['test_accuracy'] for result in runs]
            text += f', {runlog.mean_and_error(accuracies)} % over {len(runs)}'
        print(f'{text}, {peak:.1f} GiB')
    ratio = medians['fenwicks'] / medians['pytorch']
    first = results[0]
    print(
        f'fenwicks takes {ratio:.2f} times as long as PyTorch: {first["recipe"]}, '
        f'{first["precision"]}, {first["hardware"]}'
    )


def log(result):
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'time_to_94.py')

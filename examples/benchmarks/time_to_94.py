"""Compares the record recipe in fenwicks with plain PyTorch on the same machine.

    pip install torch==2.13.0     # the other side of the comparison; any recent version will do
    python examples/benchmarks/time_to_94.py --precision=bfloat16 --runs=5
    python examples/benchmarks/time_to_94.py --steps=2 --rounds=3     # projected, in minutes

Each training runs in its own process, and each round reverses the order of the sides, so that
changes of the machine's speed affect both. The seconds are those of the training steps, including
shuffle and augmentation; compilation, preparation and evaluation are logged separately. With
`--steps` nothing is trained to the end. Both sides stay in memory and take that many steps in turn,
in each part of the training whose steps take another time: while the whitening layer's bias learns
and after it, and for each size of image. The seconds of the whole training are projected from
these. `--log` appends a JSON line for each training.

    python examples/benchmarks/time_to_94.py --recipe=speed94_muon
    python examples/benchmarks/time_to_94.py --recipe=speed94_muon --set image_sizes=24,28,32

PyTorch's side is the published recipe `speed94_muon`. The first of these gives the same recipe to
both sides, the second the growing images too.
"""

from __future__ import annotations

import startup  # noqa: F401

import contextlib
import datetime
import importlib.util
import itertools
import statistics

import trainings
import turns
from absl import flags

from fenwicks import command, recipes, runlog

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_enum('recipe', 'speed94', recipes.PRESETS, 'What both sides train.')
flags.DEFINE_enum(
    'pytorch_recipe',
    None,
    trainings.PYTORCH_RECIPES,
    "What PyTorch's side trains instead, without the changes that flags make. The first of these "
    'where it knows no recipe of the name --recipe.',
)
flags.DEFINE_integer(
    'runs', 1, 'Trainings of each side, with seeds seed, seed + 1, ...', lower_bound=1
)
flags.DEFINE_integer('seed', 0, 'Of weights, shuffle and augmentation.', lower_bound=0)
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
        'parts': training.parts,
        'take_steps': training.take_steps,
        'memory': training.memory,
    }


def side(name, seed):
    recipe, others = FLAGS.recipe, trainings.given_flags(FLAGS)
    known = trainings.PYTORCH_RECIPES
    instead = FLAGS.pytorch_recipe or (None if recipe in known else known[0])
    if name == 'pytorch' and instead:
        recipe, others = instead, trainings.given_flags(FLAGS, changes=False)
    return turns.Side(name, __file__, [f'--recipe={recipe}', f'--seed={seed}', *others])


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
    session = f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S}'
    results = []
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(side(name, FLAGS.seed)) for name in trainings.SIDES]
        parts = {one.name: one.ask('parts') for one in sides}
        seconds = {one.name: [] for one in sides}
        # Sides with other parts take turns as long as both have some.
        for together in itertools.zip_longest(*parts.values()):
            turn = [(one, part) for one, part in zip(sides, together, strict=True) if part]
            for one, (epoch, step, _) in turn:
                one.ask('take_steps', epoch=epoch, step=step, count=1)  # to warm up
            rounds = [
                [seconds_a_step(one, *part) for one, part in turn] for _ in range(FLAGS.rounds)
            ]
            for (one, _), spent in zip(turn, zip(*rounds, strict=True), strict=True):
                seconds[one.name].append(statistics.median(spent))
        for one in sides:
            counts = [count for _, _, count in parts[one.name]]
            step_seconds = seconds[one.name]
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
                    'steps_of_parts': counts,
                    'train_seconds': sum(n * s for n, s in zip(counts, step_seconds, strict=True)),
                    **one.ask('memory'),
                }
            )
            log(results[-1])
    return results


def seconds_a_step(one, epoch, step, count):
    """Seconds of a step of a side, in a part of its training that has `count` steps."""
    count = min(count, FLAGS.steps)
    return one.ask('take_steps', epoch=epoch, step=step, count=count) / count


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
    ours, theirs = (
        next(result for result in results if result['side'] == name) for name in trainings.SIDES
    )
    trained = ours['recipe']
    if theirs['recipe'] != trained:
        trained += f' beside {theirs["recipe"]}'
    print(
        f'fenwicks takes {ratio:.2f} times as long as PyTorch: {trained}, '
        f'{ours["precision"]}, {ours["hardware"]}'
    )


def log(result):
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'time_to_94.py')

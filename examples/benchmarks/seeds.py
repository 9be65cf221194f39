"""Trains recipes with one seed after another until the time is up.

    python examples/benchmarks/seeds.py --recipes=speed94 --runs=5 --log=runs.jsonl
    python examples/benchmarks/seeds.py --recipes=fenwicks24,page10 --minutes=5
    python examples/benchmarks/seeds.py --side=pytorch --recipes=speed94_muon --minutes=2

The recipes alternate, so that all have nearly the same number of runs when time is up. A run is
skipped if it would end too late, judged by the longest run of its recipe so far; the first run of
each recipe is never skipped. `--log` appends a JSON line after each run; a later call continues
with `--seed`.
"""

from __future__ import annotations

import startup  # noqa: F401

import statistics
import time

import trainings
from absl import flags

from fenwicks import command, runlog

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_list('recipes', ['speed94'], 'Names of recipes, separated by commas.')
flags.DEFINE_enum('side', 'fenwicks', trainings.SIDES, 'Which implementation trains.')
flags.DEFINE_integer('runs', 1000, 'Largest number of seeds per recipe.', lower_bound=1)
flags.DEFINE_float('minutes', None, 'Start no run that would end later than this.')
flags.DEFINE_integer('seed', 0, 'The first seed.', lower_bound=0)
flags.DEFINE_string('log', None, 'JSON-lines file to append the results to.')


def main():
    if FLAGS.minutes is not None and not FLAGS.minutes > 0:
        raise ValueError(f'`minutes` must be positive. Received: minutes={FLAGS.minutes}')
    if not FLAGS.recipes:
        raise ValueError('`recipes` must name one at least. Received: recipes=')
    began = time.monotonic()
    end = began + 60 * FLAGS.minutes if FLAGS.minutes is not None else float('inf')
    chosen = [trainings.find_recipe(name, FLAGS) for name in FLAGS.recipes]
    dataset = trainings.load_dataset(FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    longest = {recipe.name: 0.0 for recipe in chosen}
    results = {recipe.name: [] for recipe in chosen}
    for run in range(FLAGS.runs):
        for recipe in chosen:
            started = time.monotonic()
            if run and started + longest[recipe.name] > end:
                continue
            training = trainings.make(FLAGS.side, recipe, dataset, FLAGS, FLAGS.seed + run)
            result = {'benchmark': 'seeds', 'side': FLAGS.side, **training.run()}
            del training  # and its memory on the device
            if FLAGS.log:
                runlog.append_line(FLAGS.log, result)
            results[recipe.name].append(result)
            longest[recipe.name] = max(longest[recipe.name], time.monotonic() - started)
            print(trainings.say_run(result), flush=True)
        if time.monotonic() + min(longest.values()) > end:
            break
    for runs in results.values():
        print(summary(runs))


def summary(results):
    """One line about the runs of one setting."""
    accuracies = [100 * result['test_accuracy'] for result in results]
    seconds = statistics.median(result['train_seconds'] for result in results)
    return (
        f'{results[0]["recipe"]}, {results[0]["backend"]}: {runlog.mean_and_error(accuracies)} % '
        f'over {len(results)}, median {seconds:.1f} s of training'
    )


if __name__ == '__main__':
    command.run(main, 'seeds.py')

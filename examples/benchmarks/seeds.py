"""Trains recipes with one seed after another, until the time is up.

    python examples/benchmarks/seeds.py --recipes=speed94 --runs=5 --log=runs.jsonl
    python examples/benchmarks/seeds.py --recipes=fenwicks24,page10 --minutes=5
    python examples/benchmarks/seeds.py --side=pytorch --recipes=speed94 --minutes=2

The recipes take turns, so that each has nearly as many runs as the others when time is up. A run
that would not end in time, judged by the longest of its recipe so far, isn't begun; the first of
each recipe always is. `--log` appends a JSON line for each run as it ends, and a later call goes
on with `--seed`.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import trainings
from absl import flags

from fenwicks import command, runlog

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_list('recipes', ['speed94'], 'Names of recipes, by commas.')
flags.DEFINE_enum('side', 'fenwicks', trainings.SIDES, 'What trains.')
flags.DEFINE_integer('runs', 1000, 'Seeds of each recipe at most.', lower_bound=1)
flags.DEFINE_float('minutes', None, 'Begin no run that would end later than this.')
flags.DEFINE_integer('seed', 0, 'The first seed.')
flags.DEFINE_string('log', None, 'JSON-lines file to append the results to.')


def main():
    if FLAGS.minutes is not None and not FLAGS.minutes > 0:
        raise ValueError(f'`minutes` must be positive. Received: minutes={FLAGS.minutes}')
    began = time.monotonic()
    end = began + 60 * FLAGS.minutes if FLAGS.minutes is not None else float('inf')
    chosen = [trainings.find_recipe(name, FLAGS) for name in FLAGS.recipes]
    dataset = trainings.load_dataset(FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    longest = dict.fromkeys(FLAGS.recipes, 0.0)
    results = {name: [] for name in FLAGS.recipes}
    for run in range(FLAGS.runs):
        for recipe in chosen:
            started = time.monotonic()
            if run and started + longest[recipe.name] > end:
                continue
            training = trainings.make(FLAGS.side, recipe, dataset, FLAGS, FLAGS.seed + run)
            result = {'benchmark': 'seeds', 'side': FLAGS.side, **training.run()}
            del training  # and its memory on the device
            results[recipe.name].append(result)
            longest[recipe.name] = max(longest[recipe.name], time.monotonic() - started)
            print(trainings.say_run(result), flush=True)
            if FLAGS.log:
                runlog.append_line(FLAGS.log, result)
        if time.monotonic() + min(longest.values()) > end:
            break
    for own in results.values():
        print(trainings.summary(own))


if __name__ == '__main__':
    command.run(main, 'seeds.py')

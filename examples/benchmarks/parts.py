"""Seconds of a step in each part of a training: sizes of images, and the whitening's bias.

    python examples/benchmarks/parts.py --recipe=speed94_2026 --precision=bfloat16
    python examples/benchmarks/parts.py --recipe=speed94 --steps=5 --rounds=5 --log=parts.jsonl

A training has a program for each size of its images, and one more from where the bias of the
whitening layer stops learning: it computes neither the bias's gradient nor what only that needs.
Each part is timed in turn with the same steps of a training in which the bias never stops. Prints a
row for each part, and the seconds of all steps of the training projected from them. No number of
the network is worth anything: the steps are taken out of their order.
"""

from __future__ import annotations

import startup  # noqa: F401

import dataclasses
import statistics

import trainings
from absl import flags

from fenwicks import command, recipes, runlog

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_enum('recipe', 'speed94_2026', recipes.PRESETS, 'Whose steps are timed.')
flags.DEFINE_integer('steps', 3, 'Steps of a turn, at most.', lower_bound=1)
flags.DEFINE_integer('rounds', 3, 'Turns of each part.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')


def main():
    recipe = trainings.find_recipe(FLAGS.recipe, FLAGS)
    dataset = trainings.load_dataset(FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    never = dataclasses.replace(recipe, whitening_bias_epochs=recipe.epochs)
    stopping, learning = (
        trainings.make('fenwicks', each, dataset, FLAGS) for each in (recipe, never)
    )
    rows, parts = [], []
    for epoch, step, steps in stopping.parts():
        count = min(FLAGS.steps, steps)
        turns = [
            [one.take_steps(epoch, step, count) / count for one in (stopping, learning)]
            for _ in range(FLAGS.rounds + 1)
        ][1:]  # the first compiles
        seconds, slower = (statistics.median(column) for column in zip(*turns, strict=True))
        size = [side for start, side in recipe.image_size_epochs() if start <= epoch]
        parts.append(
            {
                'epoch': epoch,
                'step': step,
                'steps': steps,
                'size': size[-1] if size else dataset.image_shape[0],
                'seconds': seconds,
                'seconds_with_a_learning_bias': slower,
            }
        )
        shown = [parts[-1]['size'], f'{epoch}, {step}', steps, f'{seconds:.3f}', f'{slower:.3f}']
        rows.append([*shown, f'{seconds / slower:.3f}'])
    whole, slower = (
        sum(part['steps'] * part[key] for part in parts)
        for key in ('seconds', 'seconds_with_a_learning_bias')
    )
    rows.append(['all', '', stopping.total_steps(), f'{whole:.1f}', f'{slower:.1f}'])
    rows[-1].append(f'{whole / slower:.3f}')
    header = ['size', 'from epoch, step', 'steps', 's a step', 'bias learning', 'ratio']
    print(runlog.markdown(header, rows))
    if FLAGS.log:
        line = {'benchmark': 'parts', **stopping.describe(), 'parts': parts, 'train_seconds': whole}
        runlog.append_line(FLAGS.log, line)


if __name__ == '__main__':
    command.run(main, 'parts.py')

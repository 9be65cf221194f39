"""What rounding costs: the same seeds in bfloat16 by two kinds of convolution, and in float32.

    python examples/benchmarks/rounding_study.py --log=rounding_study.jsonl --seeds=0,1,2,3

The arms, on TensorFlow and a processor:

    sliding    bfloat16, all convolutions by sliding windows
    winograd   bfloat16, gradients of wide convolutions by Winograd's algorithm
    float32    everything in float32, wide convolutions by Winograd's algorithm

Each seed begins with the same weights and sees the same images in the same order in all arms, so
the differences are paired. Each run is appended to the log when it ends; the same command goes on.
"""

from __future__ import annotations

import startup  # noqa: F401

import keras
import logged
import resumable
import trainings
from absl import flags

from fenwicks import command, recipes, runlog
from fenwicks.kernels import device
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_enum('recipe', 'speed94', recipes.PRESETS, 'What is trained.')
flags.DEFINE_list('seeds', ['0', '1', '2', '3'], 'Seeds of each arm, by commas.')
flags.DEFINE_list('arms', ['sliding', 'winograd', 'float32'], 'Which arms, by commas.')
flags.DEFINE_string('log', 'rounding_study.jsonl', 'JSON-lines file of the runs; it is added to.')

# Precision, and whether the processor counts as one with AMX, on which sliding windows are faster.
ARMS = {
    'sliding': ('bfloat16', True),
    'winograd': ('bfloat16', False),
    'float32': ('float32', False),
}


def main():
    if keras.backend.backend() != 'tensorflow':
        raise ValueError(
            'the convolutions are those of TensorFlow: set KERAS_BACKEND=tensorflow. '
            f'Received: KERAS_BACKEND={keras.backend.backend()}'
        )
    for name in FLAGS.arms:
        if name not in ARMS:
            raise ValueError(f'`arms` must be of {", ".join(ARMS)}. Received: arms={name}')
    seeds = resumable.seeds_of(FLAGS.seeds)
    recipe = recipe_flags.changed(recipes.get(FLAGS.recipe), FLAGS, scale_rate=True)
    dataset = trainings.load_dataset(FLAGS)
    arms = {name: arm(name, recipe, dataset) for name in FLAGS.arms}
    print(table(resumable.train_missing(FLAGS.log, arms, seeds, 'arm', dataset)))


def arm(name, recipe, dataset):
    """What each training of an arm has in common, and the training as a function of its seed."""
    precision, has_amx = ARMS[name]
    FLAGS.precision = precision
    planned = resumable.planned(recipe, FLAGS)

    def train(seed):
        FLAGS.precision = precision
        with device.override(has_amx=has_amx):
            training = trainings.make('fenwicks', recipe, dataset, FLAGS, seed)
            return {'benchmark': 'rounding_study', **training.run()}

    return planned, train


def table(lines):
    by_arm = {name: [line for line in lines if line['arm'] == name] for name in ARMS}
    exact = by_arm['float32']
    rows = [
        [
            name,
            len(logged.finished(runs)),
            resumable.accuracy(runs),
            '-' if name == 'float32' else logged.paired(runs, exact),
            '-' if name == 'float32' else logged.paired(runs, exact, 'test_accuracy_plain'),
        ]
        for name, runs in by_arm.items()
        if runs
    ]
    header = ['arm', 'n', 'test accuracy, %', 'from float32, points', 'the same without views']
    return runlog.markdown(header, rows)


if __name__ == '__main__':
    command.run(main, 'rounding_study.py')

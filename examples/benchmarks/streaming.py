"""Measures what streaming costs beside data on the device, and what a step of `fit` costs.

    python examples/benchmarks/streaming.py --data_dir=~/cifar
    KERAS_BACKEND=jax python examples/benchmarks/streaming.py --part=overhead

`--part=streaming` trains the recipe on the first images of CIFAR-10 twice, in turn: from arrays on
the device, and from `ImageBatches` over a file of decoded images that is mapped into memory, as
`decode_images` leaves one. Each turn is a whole call of `fit` of one epoch: what is done before its
first step counts as well.

`--part=overhead` trains a dense network, so small that a step is nothing but its overhead, with the
Trainer, with Keras's `fit`, and with `fit` of a model compiled with `steps_per_execution`, in turn.

The script prints a JSON object for each part; `--log` appends them to a JSON-lines file. On two
cores it takes about four minutes on TensorFlow. Run nothing beside it.
"""

from __future__ import annotations

import startup  # noqa: F401

import json
import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
from absl import flags

from fenwicks import (
    assemble,
    command,
    data,
    devices,
    hardware,
    precision,
    recipes,
    runlog,
    training,
)
from fenwicks.data import image_cache

FLAGS = flags.FLAGS
flags.DEFINE_enum('part', 'both', ['both', 'streaming', 'overhead'], 'What to measure.')
flags.DEFINE_enum('recipe', 'speed94', recipes.PRESETS, 'Of the streaming part.')
flags.DEFINE_float('width', 1.0, 'Factor on the widths of its network.', lower_bound=0.01)
flags.DEFINE_integer('limit', 8_000, 'How many of its images are used.', lower_bound=1)
flags.DEFINE_integer('rounds', 3, 'How many turns each side of it takes.', lower_bound=1)
flags.DEFINE_string('dataset', 'cifar10', 'What it is trained on.')
flags.DEFINE_string('data_dir', None, 'Folder of the data set; by default it is searched for.')
flags.DEFINE_integer('dense_images', 20_000, 'Images of the dense network.', lower_bound=64)
flags.DEFINE_integer('dense_rounds', 5, 'How many turns each side of it takes.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the results to.')

DENSE_BATCH = 32
STEPS_PER_EXECUTION = 50


def seconds_of(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def in_turn(sides, rounds):
    """Seconds of each call: a list for each side. The first round warms up and isn't counted."""
    seconds = [[seconds_of(side) for side in sides] for _ in range(rounds + 1)]
    return [list(each) for each in zip(*seconds[1:], strict=True)]


def mapped(images, folder):
    """The images in a file that is mapped into memory."""
    path = pathlib.Path(folder) / 'images'
    image_cache.write_cache(path, images, images.shape[1:], dict)
    return image_cache.read_cache(path)[0]


def compare_streaming(device):
    """One trainer on arrays, one on a stream, in turn."""
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir).limit(FLAGS.limit)
    chosen = precision.set_precision('auto', device)
    recipe = recipes.get(FLAGS.recipe).with_width(FLAGS.width).with_epochs(FLAGS.rounds + 1)
    trainers = [assemble.build_trainer(recipe, dataset, precision=chosen) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        batches = data.ImageBatches(
            mapped(dataset.train_images, folder),
            dataset.train_labels,
            recipe.batch_size,
            shuffle=True,
            drop_remainder=True,
        )
        sides = [
            Training(trainers[0], dataset.train_images, dataset.train_labels),
            Training(trainers[1], batches),
        ]
        resident, streamed = in_turn(sides, FLAGS.rounds)
    images = len(batches) * recipe.batch_size
    return {
        'benchmark': 'streaming',
        'recipe': recipe.name,
        'dataset': dataset.name,
        'widths': list(recipe.widths),
        'precision': chosen,
        'batch_size': recipe.batch_size,
        'steps_per_epoch': len(batches),
        'rounds': FLAGS.rounds,
        'resident_images_per_second': round(images / statistics.median(resident), 1),
        'streamed_images_per_second': round(images / statistics.median(streamed), 1),
        # Within each round, so that changes of the machine's speed cancel.
        'ratio': round(
            statistics.median(a / b for a, b in zip(resident, streamed, strict=True)), 3
        ),
        'timed': 'whole calls of fit, of an epoch each',
    }


class Training:
    """Trains for one more epoch with each call."""

    def __init__(self, trainer, *source):
        self.trainer, self.source, self.epochs = trainer, source, 0

    def __call__(self):
        self.epochs += 1
        self.trainer.fit(*self.source, epochs=self.epochs)


def dense_network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation='relu'),
            keras.layers.Dense(10),
        ]
    )


def compare_overhead(device):
    """The Trainer and Keras's `fit`, on one network, data and optimizer."""
    keras.config.set_dtype_policy('float32')
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (FLAGS.dense_images, 8, 8, 1), np.uint8)
    labels = random.integers(0, 10, FLAGS.dense_images, np.int32)
    trainer = training.Trainer(
        dense_network(),
        keras.optimizers.SGD(0.01, momentum=0.9),
        batch_size=DENSE_BATCH,
        normalize=lambda batch: keras.ops.cast(batch, 'float32'),  # the network divides by 255
    )
    sides = [Training(trainer, images, labels)]
    whole = len(images) // DENSE_BATCH * DENSE_BATCH
    for steps in (1, STEPS_PER_EXECUTION):
        model = dense_network()
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=['accuracy'],
            steps_per_execution=steps,
        )
        sides.append(fitting(model, images[:whole], labels[:whole]))
    seconds = in_turn(sides, FLAGS.dense_rounds)
    names = ('trainer', 'fit', 'fit_with_steps_per_execution')
    steps = len(images) // DENSE_BATCH
    medians = [statistics.median(each) for each in seconds]
    return {
        'benchmark': 'overhead',
        'network': 'dense, 64-16-10',
        'batch_size': DENSE_BATCH,
        'steps_per_epoch': steps,
        'steps_per_execution': STEPS_PER_EXECUTION,
        'rounds': FLAGS.dense_rounds,
        'microseconds_per_step': {
            name: round(1e6 * median / steps, 1)
            for name, median in zip(names, medians, strict=True)
        },
        'times_as_fast': {
            name: round(statistics.median(a / b for a, b in zip(other, seconds[0], strict=True)), 2)
            for name, other in zip(names[1:], seconds[1:], strict=True)
        },
        'timed': 'whole calls of fit, of an epoch each',
    }


def fitting(model, images, labels):
    return lambda: model.fit(images, labels, batch_size=DENSE_BATCH, verbose=0)


def main():
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    device = devices.select_device()
    parts = {'streaming': compare_streaming, 'overhead': compare_overhead}
    for name, part in parts.items():
        if FLAGS.part in (name, 'both'):
            result = {
                **part(device),
                'backend': keras.backend.backend(),
                'hardware': hardware.describe(device, training.default_replicas().count),
                **hardware.provenance(),
            }
            print(json.dumps(result))
            if FLAGS.log:
                runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'streaming.py')

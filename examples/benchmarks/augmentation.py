"""Times augmentations of a batch, beside Keras's layers and a step of ResNet-9.

    python examples/benchmarks/augmentation.py --log=augmentation.jsonl

Each augmentation becomes a TensorFlow graph, as in the Trainer on a CPU; the graphs are timed in
turn. The chain of fenwicks rotates, zooms and shifts in one resampling, flips, crops and cuts out;
Keras's is RandomRotation, RandomZoom and RandomTranslation, three resamplings. The step is one of
`fenwicks24_gpu` on as many images, its own augmentation included. Prints a table; `--log` appends a
JSON line.
"""

from __future__ import annotations

import startup  # noqa: F401

import functools
import statistics
import time

import keras
from absl import flags

from fenwicks import (
    assemble,
    augment,
    command,
    devices,
    hardware,
    precision,
    recipes,
    runlog,
    tpu,
)

FLAGS = flags.FLAGS
flags.DEFINE_integer('batch_size', 512, 'Images in a batch.', lower_bound=1)
flags.DEFINE_float('width', 1.0, "Factor on the network's number of filters.")
flags.DEFINE_integer('rounds', 10, 'How often each is timed.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')

SIZE = (32, 32, 3)


def fenwicks_chain():
    """Affine, flip, crop and cutout."""
    return augment.compose(
        [
            functools.partial(augment.random_affine, rotate=10, zoom=1.1, shift=0.1),
            augment.random_flip,
            functools.partial(augment.random_crop, padding=4),
            functools.partial(augment.random_cutout, size=8),
        ]
    )


def keras_chain():
    """Keras's rotation, zoom and translation."""
    layers = [
        keras.layers.RandomRotation(10 / 360),
        keras.layers.RandomZoom(0.1),
        keras.layers.RandomTranslation(0.1, 0.1),
    ]

    def chain(images, seed):
        del seed
        for layer in layers:
            images = layer(images, training=True)
        return images

    return chain


def compiled(transform):
    """A function without arguments that transforms a batch of noise."""
    import tensorflow as tf

    images = tf.random.normal((FLAGS.batch_size, *SIZE))
    function = tf.function(transform, autograph=False)
    return lambda: function(images, tf.constant([1, 2])).numpy()


def training_step():
    """A function without arguments that takes a step of ResNet-9."""
    precision.set_precision('float32')
    dataset = tpu.DataShape(FLAGS.batch_size, SIZE, 10).noise()
    recipe = recipes.get('fenwicks24_gpu').with_width(FLAGS.width)
    trainer = assemble.build_trainer(recipe.with_batch_size(FLAGS.batch_size), dataset)
    trainer.load(dataset.train_images, dataset.train_labels)
    return lambda: trainer.run_steps(0, 0, 1)


def main():
    if keras.backend.backend() != 'tensorflow':
        raise ValueError(
            'augmentations are timed on the tensorflow backend. '
            f'Received: KERAS_BACKEND={keras.backend.backend()}'
        )
    provenance = hardware.provenance()
    devices.select_device('cpu')
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    timed = {
        'fenwicks: affine, flip, crop, cutout': compiled(fenwicks_chain()),
        'fenwicks: affine alone': compiled(augment.random_affine),
        'Keras: rotation, zoom, translation': compiled(keras_chain()),
        'step of ResNet-9, float32': training_step(),
    }
    seconds = {name: [] for name in timed}
    for work in timed.values():
        work()  # compiles
    for _ in range(FLAGS.rounds):
        for name, work in timed.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    *_, step = medians.values()
    rows = [[name, f'{1e3 * t:.1f}', f'{t / step:.1%}'] for name, t in medians.items()]
    print(runlog.markdown([f'batch of {FLAGS.batch_size}', 'ms', 'of a step'], rows))
    if FLAGS.log:
        result = {
            'benchmark': 'augmentation',
            'batch_size': FLAGS.batch_size,
            'width': FLAGS.width,
            'rounds': FLAGS.rounds,
            'milliseconds': {name: 1e3 * t for name, t in medians.items()},
            'hardware': hardware.describe(),
            **provenance,
        }
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'augmentation.py')

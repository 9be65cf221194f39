"""Measures the host's work per epoch, during which an accelerator is idle.

    python examples/benchmarks/host_work.py --recipe=page10
    KERAS_BACKEND=jax python examples/benchmarks/host_work.py --recipe=page10

It calls the program of an epoch as the Trainer does, but for no steps, with the recipe's network at
a sixteenth of its width. That network has the same number of variables, which the host passes to
the program and takes back, and little to compute. On JAX it is the program for accelerators, which
contains the loop over the steps. The time of the program itself, for no steps, is included. The
script prints one JSON object; `--log` appends it to a JSON-lines file.

`fit_milliseconds` is what `fit` adds to that in each epoch with a validation and three callbacks:
the time from epoch to epoch without those of the programs that train and that validate.
`validation_milliseconds` is that of the latter, of one image: an accelerator works meanwhile.
"""

from __future__ import annotations

import startup  # noqa: F401

import itertools
import json
import os
import statistics
import time

import keras
from absl import flags

from fenwicks import assemble, command, devices, hardware, runlog, tpu, training
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
recipe_flags.define('speed94')
flags.adopt_module_key_flags(recipe_flags)
flags.DEFINE_integer('calls', 100, 'How many epochs are called.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')


def dataset_of(recipe):
    """Two batches of noise: of one, XLA would augment the images before the loop over the steps."""
    return tpu.DataShape(2 * recipe.batch_size, (32, 32, 3), 10).noise()


def trainer_of(recipe, dataset):
    """A trainer with the data on the device, whose loop is one program."""
    recipe = recipe.with_width(1 / 16)
    on_jax = keras.backend.backend() == 'jax'
    trainer = assemble.build_trainer(recipe, dataset, jit_compile=True if on_jax else None)
    trainer.load(dataset.train_images, dataset.train_labels)
    trainer.compile()
    return trainer


def measure(trainer, calls):
    """Seconds of each call of the program of an epoch for no steps."""
    seconds = []
    for epoch in range(calls):
        began = time.perf_counter()
        trainer.run_steps(epoch, 0, 0)
        seconds.append(time.perf_counter() - began)
    return seconds


def measure_fit(trainer, dataset, epochs):
    """Seconds of each epoch of a `fit` with callbacks, without its programs; and of validation."""
    begun, validations = [], []
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: begun.append(time.perf_counter()),
            on_test_begin=lambda *_: validations.append(-time.perf_counter()),
            on_test_end=lambda *_: validations.append(validations.pop() + time.perf_counter()),
        ),
        keras.callbacks.EarlyStopping('val_loss', patience=epochs),
        training.callbacks.LearningRateLogger(),
        keras.callbacks.CSVLogger(os.devnull),
    ]
    held_out = dataset.train_images[:1], dataset.train_labels[:1]
    trainer.fit(
        dataset.train_images,
        dataset.train_labels,
        epochs + 1,
        validation_data=held_out,
        callbacks=callbacks,
        verbose=0,
    )
    walls = [after - before for before, after in itertools.pairwise(begun)]
    steps = [record['seconds'] for record in trainer.records]
    parts = zip(walls, steps, validations, strict=False)
    rests = [wall - taken - validated for wall, taken, validated in parts]
    return rests[1:], validations[1:]  # all is compiled


def main():
    recipe = recipe_flags.chosen(FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    device = devices.select_device()
    dataset = dataset_of(recipe)
    trainer = trainer_of(recipe, dataset)
    seconds = measure(trainer, FLAGS.calls)
    fit_seconds, validation = measure_fit(trainer_of(recipe, dataset), dataset, FLAGS.calls + 1)
    result = {
        'recipe': recipe.name,
        'backend': keras.backend.backend(),
        'variables': len(trainer.variables),
        'milliseconds': round(1000 * statistics.median(seconds), 3),
        'slowest_milliseconds': round(1000 * max(seconds), 3),
        'fit_milliseconds': round(1000 * statistics.median(fit_seconds), 3),
        'validation_milliseconds': round(1000 * statistics.median(validation), 3),
        'n': FLAGS.calls,
        'hardware': hardware.describe(device, trainer.replicas.count),
        **hardware.provenance(),
        'timed': 'the program of an epoch, called for no steps',
    }
    print(json.dumps(result))
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'host_work.py')

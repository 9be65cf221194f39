"""Measures the host's work per epoch, during which an accelerator is idle.

    python examples/benchmarks/host_work.py --recipe=page10
    KERAS_BACKEND=jax python examples/benchmarks/host_work.py --recipe=page10

It calls the program of an epoch as the Trainer does, but for no steps, with the recipe's network at
a sixteenth of its width. That network has the same number of variables, which the host passes to
the program and takes back, and little to compute. On JAX it is the program for accelerators, which
contains the loop over the steps. The time of the program itself, for no steps, is included. The
script prints one JSON object; `--log` appends it to a JSON-lines file.
"""

from __future__ import annotations

import quiet  # noqa: F401

import json
import statistics
import time

import keras
from absl import flags

from fenwicks import assemble, command, devices, hardware, runlog, tpu
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
recipe_flags.define('speed94')
flags.adopt_module_key_flags(recipe_flags)
flags.DEFINE_integer('calls', 100, 'How many epochs are called.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')


def trainer_of(recipe):
    """A trainer with one batch of data on the device, whose loop is one program."""
    recipe = recipe.with_width(1 / 16)
    dataset = tpu.DataShape(recipe.batch_size, (32, 32, 3), 10).noise()
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


def main():
    recipe = recipe_flags.chosen(FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    device = devices.select_device()
    trainer = trainer_of(recipe)
    seconds = measure(trainer, FLAGS.calls)
    result = {
        'recipe': recipe.name,
        'backend': keras.backend.backend(),
        'variables': len(trainer.variables),
        'milliseconds': round(1000 * statistics.median(seconds), 3),
        'slowest_milliseconds': round(1000 * max(seconds), 3),
        'n': FLAGS.calls,
        'hardware': hardware.describe(device),
        **hardware.provenance(),
        'timed': 'the program of an epoch, called for no steps',
    }
    print(json.dumps(result))
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'host_work.py')

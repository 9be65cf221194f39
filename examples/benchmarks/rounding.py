"""How far the gradients of a narrow precision are from float32's, weight by weight.

    python examples/benchmarks/rounding.py --recipe=speed94 --dataset=cifar10

Two trainings of one seed compute the gradients of one batch, the first images of the data set: one
in float32, one in `--precision`. The relative error of a weight is the norm of the difference over
the norm of float32's. Rounding may cost a few percent, evenly; a weight that stands out has a sum
that was rounded on its way, or small differences of large numbers in front of it. It runs on the
TensorFlow backend. Prints a table; `--log` appends a line to a JSON-lines file.
"""

from __future__ import annotations

import startup  # noqa: F401

import keras
import numpy as np
from absl import flags

from fenwicks import assemble, command, data, devices, hardware, runlog
from fenwicks import precision as precisions
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
recipe_flags.define('speed94')
flags.adopt_module_key_flags(recipe_flags)
flags.DEFINE_enum('precision', 'bfloat16', ['bfloat16', 'float16'], 'Compared with float32.')
flags.DEFINE_string('dataset', 'auto', 'As of examples/cifar10.py.')
flags.DEFINE_string('data_dir', None, 'As of examples/cifar10.py.')
flags.DEFINE_integer('seed', 0, 'Of the initial weights.', lower_bound=0)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')


def gradients(recipe, dataset, precision, seed):
    """The gradients of the first batch, float64 NumPy arrays by the weights' paths."""
    keras.backend.clear_session()
    precisions.set_precision(precision)
    trainer = assemble.build_trainer(recipe, dataset, precision=precision, seed=seed)
    batch = slice(recipe.batch_size)
    loss, found = trainer.gradients(dataset.train_images[batch], dataset.train_labels[batch])
    if not np.isfinite(loss):
        raise ValueError(f'the loss must be finite. Received: {loss} in {precision}')
    paths = [weight.path for weight in trainer.model.trainable_variables]
    return {path: g.astype('float64') for path, g in zip(paths, found, strict=True)}


def relative_errors(gradients, reference):
    """By the weights' paths: the norm of the difference over the norm of the reference."""
    return {
        path: float(np.linalg.norm(gradients[path] - exact) / np.linalg.norm(exact))
        for path, exact in reference.items()
    }


def main():
    devices.check_backend()
    if keras.backend.backend() != 'tensorflow':
        raise ValueError(
            'rounding is looked at on TensorFlow: set KERAS_BACKEND=tensorflow. '
            f'Received: KERAS_BACKEND={keras.backend.backend()}'
        )
    recipe = recipe_flags.chosen(FLAGS)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    recipe = recipe_flags.for_dataset(recipe, dataset.name, FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    reference = gradients(recipe, dataset, 'float32', FLAGS.seed)
    errors = relative_errors(gradients(recipe, dataset, FLAGS.precision, FLAGS.seed), reference)
    rows = [[f'`{path}`', f'{100 * error:.1f}'] for path, error in errors.items()]
    print(runlog.markdown(['gradient of', f'{FLAGS.precision}, off by %'], rows))
    result = {
        'recipe': recipe.name,
        'widths': list(recipe.widths),
        'dataset': dataset.name,
        'batch_size': recipe.batch_size,
        'seed': FLAGS.seed,
        'precision': FLAGS.precision,
        'relative_errors': errors,
        'hardware': hardware.describe(devices.select_device()),
        **hardware.provenance(),
    }
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'rounding.py')

"""Estimates memory and time of a recipe's training on TPUs, without a TPU.

    python -m fenwicks.tpu --recipe=fenwicks24 --topology=v5e:1x1,v5e:2x4,v6e:1x1,v2:2x2

It needs Linux on x86-64, jax and libtpu (`pip install jax libtpu`), and one and a half to
seventeen minutes of a processor core for each topology. `--tensorflow=PYTHON` estimates the
TensorFlow engine's program instead.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import tempfile

from absl import flags

from fenwicks import command, hardware, runlog
from fenwicks import precision as precisions
from fenwicks.recipes import flags as recipe_flags
from fenwicks.tpu import table
from fenwicks.tpu.chips import LIBTPU_ENVIRONMENT

# float16 needs a scaling of the loss that the recipes' optimizers don't have, and gains nothing.
_PRECISIONS = tuple(name for name in precisions.PRECISIONS if name != 'float16')
FLAGS = flags.FLAGS
recipe_flags.define('fenwicks24')
flags.adopt_module_key_flags(recipe_flags)
flags.DEFINE_list(
    'topology',
    ['v5e:1x1'],
    'TPUs, separated by commas: v5e:1x1, v5e:2x4, v6e:1x1, v2:2x2 ...',
    allow_overwrite=False,
)
flags.DEFINE_string(
    'dataset', 'cifar10', 'cifar10, cifar100, digits, or a shape: 50000x32x32x3x10 has 10 classes.'
)
flags.DEFINE_string('precision', 'auto', f'One of {", ".join(_PRECISIONS)}.')
flags.DEFINE_string('batch_norm', 'per_replica', 'per_replica or synchronized.')
flags.DEFINE_string(
    'tensorflow',
    None,
    "Python of an environment with tensorflow-tpu: estimates the TensorFlow engine's program, on "
    'topologies of one device; see fenwicks/tpu/tensorflow_program.py.',
)
flags.DEFINE_bool('json', False, 'Print one JSON object per topology instead of the table.')
flags.DEFINE_string('log', None, 'JSON-lines file to append the results to.')
flags.DEFINE_string(
    'cache',
    '~/.cache/fenwicks/tpu',
    "Folder that keeps the compiler's figures; empty for none.",
)


def main():
    check_compiler()
    if too_big := estimate_all():
        raise MemoryError(
            f'the program must fit the memory of the TPU. Received: {", ".join(too_big)}'
        )


def check_compiler():
    """Raises unless jax and libtpu are installed, and keeps JAX off any TPU of this machine."""
    missing = [name for name in ('jax', 'libtpu') if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'the compiler for TPUs must be installed: pip install {" ".join(missing)}'
        )
    import jax

    jax.config.update('jax_platforms', 'cpu')


def estimate_all():
    """Prints the estimate of each topology; describes in words those that the program exceeds."""
    from fenwicks import tpu

    provenance = hardware.provenance()  # the clone may change while it compiles
    shape = tpu.DataShape.named(FLAGS.dataset)
    recipe = recipe_flags.for_dataset(recipe_flags.chosen(FLAGS), FLAGS.dataset, FLAGS)
    steps = recipe.steps_per_epoch(shape.train_images)
    if FLAGS.precision not in _PRECISIONS:
        raise ValueError(
            f'`precision` must be one of {", ".join(_PRECISIONS)}. '
            f'Received: precision={FLAGS.precision}'
        )
    precision = precisions.set_precision(FLAGS.precision, 'tpu')
    if not FLAGS.topology:
        raise ValueError('`topology` must name TPUs, such as v5e:1x1. Received: topology=')
    for topology in FLAGS.topology:  # bad ones are reported before the first compilation
        devices, _ = tpu.replicas_on(topology, recipe, FLAGS.batch_norm)
        if FLAGS.tensorflow:
            tpu.check_single_device(topology, devices)
    settings = {
        'backend': 'tensorflow' if FLAGS.tensorflow else 'jax',
        'recipe': recipe.name,
        'dataset': FLAGS.dataset,
        'train_images': shape.train_images,
        'epochs': recipe.epochs,
        'steps_per_epoch': steps,
        'batch_size': recipe.batch_size,
        'precision': precision,
        'batch_norm': FLAGS.batch_norm,
    }
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    cache = pathlib.Path(FLAGS.cache).expanduser() if FLAGS.cache else None
    if cache is not None:
        runlog.check_writable(cache, 'cache')
    programs, versions = (
        tensorflow_programs(recipe, shape, precision) if FLAGS.tensorflow else (None, {})
    )
    if not FLAGS.json:
        print(
            f'{recipe.name} on {FLAGS.dataset}: {recipe.epochs} epochs of {steps} steps of '
            f'{recipe.batch_size} images, {precision}\n\n{table.HEADER}',
            flush=True,
        )
    too_big = []
    for topology in FLAGS.topology:
        found = tpu.estimate(
            recipe,
            topology,
            shape,
            precision=precision,
            batch_norm=FLAGS.batch_norm,
            cache=cache,
            programs=programs,
        )
        entry = table.log_entry(found, settings, provenance, versions)
        print(json.dumps(entry) if FLAGS.json else table.row(found), flush=True)
        if FLAGS.log:
            runlog.append_line(FLAGS.log, entry)
        if not found.fits:
            too_big.append(f'{topology}, for {table.memory(found)} GiB')
    if not FLAGS.json:
        print(f'\n{table.NOTE}')
    return too_big


def tensorflow_programs(recipe, shape, precision):
    """The TensorFlow engine's programs, lowered by the Python of `--tensorflow`."""
    from fenwicks import tpu

    programs, versions = [], {}
    for epoch, step, _ in tpu.program_steps(recipe, shape):
        program, versions = tensorflow_program(recipe, precision, epoch, step)
        programs.append(program)
    return programs, versions


def tensorflow_program(recipe, precision, epoch, step):
    """The program that takes a step, and versions of what lowered it."""
    settings = {
        'recipe': dataclasses.asdict(recipe),
        'dataset': FLAGS.dataset,
        'precision': precision,
        'epoch': epoch,
        'step': step,
    }
    wrong = (
        '`tensorflow` must be the Python of an environment with tensorflow-tpu and the '
        f'requirements of fenwicks. Received: tensorflow={FLAGS.tensorflow}'
    )
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / 'program'
        # This fenwicks alone: where it is installed, its folder has this Python's packages, too.
        link = pathlib.Path(folder) / 'packages' / 'fenwicks'
        link.parent.mkdir()
        link.symlink_to(pathlib.Path(__file__).resolve().parents[1])
        environment = {**os.environ, **LIBTPU_ENVIRONMENT}
        environment |= {'KERAS_BACKEND': 'tensorflow', 'PYTHONPATH': str(link.parent)}
        environment.pop('TPU_LIBRARY_PATH', None)  # JAX's libtpu makes TensorFlow abort
        python = os.path.expanduser(FLAGS.tensorflow)
        try:
            run = subprocess.run(
                [python, '-m', 'fenwicks.tpu.tensorflow_program', str(out)],
                input=json.dumps(settings),
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise ValueError(f'{wrong}, {error.strerror}') from None
        if run.returncode:
            said = run.stderr.strip().splitlines() or [f'exit status {run.returncode}']
            raise ValueError(f'{wrong}, {said[-1]}')
        try:
            versions = json.loads(run.stdout.splitlines()[-1])
            return out.read_bytes(), {'tensorflow-tpu': versions['tensorflow-tpu']}
        except (IndexError, KeyError, TypeError, ValueError, OSError):
            raise ValueError(f'{wrong}, which wrote no program') from None


if __name__ == '__main__':
    command.run(main, 'fenwicks.tpu')

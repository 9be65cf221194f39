"""Lowers a program of the TensorFlow engine for a TPU to StableHLO, without a TPU.

    python -m fenwicks.tpu.tensorflow_program OUT < SETTINGS

It runs in a separate environment with the last TensorFlow that supports TPUs, since jax, which
compiles the program, requires another libtpu:

    pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 fenwicks

`python -m fenwicks.tpu --tensorflow=PYTHON` starts it with KERAS_BACKEND=tensorflow and sends the
settings, a JSON object with `recipe` (the recipe's fields), `dataset` and `precision` (the flags),
and `epoch` and `step`, which say which program. It prints a JSON object of versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import sys
from typing import Any


def main(out):
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    from fenwicks import assemble, precision, tpu
    from fenwicks.kernels import device
    from fenwicks.recipes import Recipe

    settings = json.loads(sys.stdin.read())
    recipe = Recipe.from_dict(settings['recipe'])
    chosen = precision.set_precision(settings['precision'], 'tpu')
    shape = tpu.DataShape.named(settings['dataset'])
    with device.override(on_cpu=False):  # the TPU's program, not this processor's
        trainer = assemble.build_trainer(recipe, shape.noise(), precision=chosen)
        pathlib.Path(out).write_bytes(lower(trainer, shape, settings['epoch'], settings['step']))
    print(json.dumps({'tensorflow-tpu': importlib.metadata.version('tensorflow-tpu')}))


def lower(trainer: Any, shape: Any, epoch: int = 0, step: int = 0) -> bytes:
    """Lowers a program of `Trainer.program`, its arguments flattened.

    Args:
        trainer: a `Trainer` on TensorFlow, which can't train afterwards.
        shape: the `DataShape` of the training data.
        epoch, step: that the program takes.

    Returns:
        A serialized StableHLO module.
    """
    program, arguments = trainer.program(shape.train_images, shape.image_shape, epoch, step)
    lowered = flattened(program, arguments)
    return lowered(stage='stablehlo_serialized', platform_name='TPU')


def flattened(program: Any, arguments: Any) -> Any:
    """The compiler's view of a `tf.function`, its arguments flattened: TensorFlow takes no lists.

    Args:
        program: a `tf.function`.
        arguments: nested `tf.TensorSpec`s.
    """
    import tensorflow as tf

    def function(*leaves):
        return program.python_function(*tf.nest.pack_sequence_as(arguments, leaves))

    compiled = tf.function(function, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(*tf.nest.flatten(arguments))


if __name__ == '__main__':
    main(*sys.argv[1:])

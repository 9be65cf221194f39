"""Lowers the TensorFlow engine's program for a TPU to StableHLO, without a TPU.

    python -m fenwicks.tpu.tensorflow_program OUT < SETTINGS

It runs in a separate environment with the last TensorFlow that supports TPUs, since jax, which
compiles the program, requires another libtpu:

    pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 fenwicks

`python -m fenwicks.tpu --tensorflow=PYTHON` starts it with KERAS_BACKEND=tensorflow and sends the
settings, a JSON object with `recipe` (the recipe's fields), `dataset` and `precision` (the flags).
It prints a JSON object of versions.

TensorFlow lowers a function for a TPU that isn't present only if the function captures no variable.
So the steps are those of the engine, but the values of the variables pass through the loop as
tensors, which Keras's `StatelessScope` puts in the variables' place.
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
    # JSON has no tuples.
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in settings['recipe'].items()
    }
    chosen = precision.set_precision(settings['precision'], 'tpu')
    shape = tpu.DataShape.named(settings['dataset'])
    with device.override(on_cpu=False):  # the TPU's program, not this processor's
        trainer = assemble.build_trainer(Recipe(**fields), shape.noise(), precision=chosen)
        pathlib.Path(out).write_bytes(lower(trainer._engine, shape))
    print(json.dumps({'tensorflow-tpu': importlib.metadata.version('tensorflow-tpu')}))


def lower(engine: Any, shape: Any) -> bytes:
    """Lowers the program of an epoch; its arguments are the state, the data and `run`'s arguments.

    Args:
        engine: a `TensorFlowEngine`.
        shape: the `DataShape` of the training data.

    Returns:
        A serialized StableHLO module.
    """
    import tensorflow as tf

    function, state = program(engine)
    arguments = [tf.TensorSpec(value.shape, value.dtype) for value in state]
    arguments += [
        tf.TensorSpec((shape.train_images, *shape.image_shape), tf.uint8),
        tf.TensorSpec((shape.train_images,), tf.int32),
        *(tf.TensorSpec((), dtype) for dtype in (tf.int32, tf.int32, tf.int32, tf.float32)),
    ]
    compiled = tf.function(function, jit_compile=True, autograph=False)
    lowered = compiled.experimental_get_compiler_ir(*arguments)
    return lowered(stage='stablehlo_serialized', platform_name='TPU')


def program(engine):
    """The engine's epoch as a pure function of state and data, and the initial state.

    The function returns the new state, then the values that `Engine.run` returns, except the last.
    """
    import keras
    import tensorflow as tf

    from fenwicks import augment
    from fenwicks.training.engines.tensorflow import hits

    _unbind(engine.optimizer)
    variables = [*engine.model.variables, *engine.optimizer.variables, *engine.averages.variables]
    dtypes = [variable.dtype for variable in variables]

    def narrow(values):  # JAX, which compiles the program, has no 64-bit integers
        return [tf.cast(value, tf.int32) if value.dtype == tf.int64 else value for value in values]

    def epoch_of_steps(*arguments):
        *state, images, labels, epoch, start, stop, loss_sum = arguments
        order = engine.order(labels.shape[0], epoch)
        first_step = epoch * (labels.shape[0] // engine.batch_size)

        def goes_on(step, loss_sum, correct, last_loss, *state):
            return (step < stop) & tf.math.is_finite(last_loss)

        def train_step(step, loss_sum, correct, last_loss, *state):
            values = [tf.cast(x, dtype) for x, dtype in zip(state, dtypes, strict=True)]
            batch = engine.batch(order, step)
            step_seed = augment.fold(engine.epoch_seed(epoch), step)
            inputs = engine.inputs(tf.gather(images, batch), batch, epoch, step_seed)
            targets = tf.gather(labels, batch)
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                gradients, loss, logits = engine.gradients(inputs, targets)
                engine.optimizer.apply(gradients)
                _average(engine.averages, first_step + step)
                state = narrow([tf.convert_to_tensor(v.value) for v in variables])
            return step + 1, loss_sum + loss, correct + hits(logits, targets), loss, *state

        counts = (start, loss_sum, tf.zeros([], tf.int32), tf.zeros([], tf.float32))
        end, loss_sum, correct, last_loss, *state = tf.while_loop(
            goes_on, train_step, (*counts, *state), parallel_iterations=1
        )
        return *state, loss_sum, correct, end - start, last_loss

    return epoch_of_steps, narrow([tf.convert_to_tensor(v.value) for v in variables])


def _unbind(optimizer):
    """Gives an optimizer Keras's backend-neutral methods; TensorFlow's capture variables."""
    base = next(kind for kind in type(optimizer).__mro__ if kind.__name__ == 'BaseOptimizer')
    for name in ('assign', 'assign_add', 'assign_sub', '_var_key', '_backend_update_step'):
        setattr(optimizer, name, getattr(base, name).__get__(optimizer))
    if optimizer.built:
        optimizer._trainable_variables_indices = {
            optimizer._var_key(variable): index
            for index, variable in enumerate(optimizer._trainable_variables)
        }
    if getattr(optimizer, 'others', None) is not None:  # of Muon
        _unbind(optimizer.others)


def _average(averages, step):
    """The engine's averaging with a select instead of a branch, whose assignments would be lost."""
    import tensorflow as tf

    rule = averages.rule
    if rule is None:
        return
    due = (step + 1) % rule.every == 0
    old = [
        [tf.convert_to_tensor(variable.value) for variable in part]
        for part in (averages.variables, averages.sources)
    ]
    new = rule.update(*old, step)
    parts = (averages.variables, averages.sources if rule.replaces_values else [])
    for part, old_values, new_values in zip(parts, old, new, strict=True):
        for variable, before, after in zip(part, old_values, new_values, strict=False):
            variable.assign(tf.where(due, tf.cast(after, before.dtype), before))


if __name__ == '__main__':
    main(*sys.argv[1:])

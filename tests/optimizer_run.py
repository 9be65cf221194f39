"""Steps of an optimizer on a few variables, as training loops make them; for the tests."""

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()
# Eager, and all the ways in which an engine compiles a step.
COMPILED = {'tensorflow': [False, 'graph', 'xla'], 'jax': [False, 'xla']}.get(BACKEND, [False])


def variables_of(shapes, seed=1, dtype='float32'):
    """Variables with the paths and shapes of the dict, the same at each call."""
    rng = np.random.default_rng(seed)
    variables = []
    for path, shape in shapes.items():
        scope, name = path.split('/')
        with keras.name_scope(scope):
            value = rng.standard_normal(shape).astype('float32')
            variables.append(keras.Variable(value, name=name, dtype=dtype))
    assert [variable.path for variable in variables] == list(shapes)
    return variables


def gradients(step, values):
    """Noise plus a pull towards zero, so that an error in the weights feeds on itself."""
    rng = np.random.default_rng(100 + step)
    return [0.3 * v + rng.standard_normal(v.shape).astype('float32') for v in values]


def numpy_of(tensors):
    return [np.array(ops.convert_to_numpy(ops.cast(tensor, 'float32'))) for tensor in tensors]


def train(optimizer, variables, steps, compiled=False, gradients=gradients):
    """Steps as a training loop would make them; returns the final weights."""
    optimizer.build(variables)
    apply = optimizer.apply
    if compiled and BACKEND == 'tensorflow':
        import tensorflow as tf

        apply = tf.function(
            lambda grads: optimizer.apply(grads, variables), jit_compile=compiled == 'xla'
        )
    elif compiled and BACKEND == 'jax':
        import jax

        stateless = jax.jit(optimizer.stateless_apply)

        def apply(grads):
            values, state = stateless(
                [v.value for v in optimizer.variables], grads, [v.value for v in variables]
            )
            for variable, value in zip(
                [*variables, *optimizer.variables], values + state, strict=True
            ):
                variable.assign(value)

    for step in range(steps):
        values = numpy_of(variables)
        apply([ops.convert_to_tensor(g) for g in gradients(step, values)])
    return numpy_of(variables)


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **{'rtol': 1e-4, 'atol': 1e-5, **tolerance})

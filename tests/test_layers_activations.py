"""Activations against their formulas, in values and gradients."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import CELU, GELU, SiLU

X = np.concatenate([np.linspace(-6, 6, 241), [-1e-3, 1e-3, -30, 30, -1e4, 1e4]])


def celu(x, alpha):
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def cdf(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def logistic(x):
    return 0.5 * (1 + np.tanh(x / 2))


CASES = [
    (CELU(), lambda x: celu(x, 0.075), lambda x: np.exp(np.minimum(x, 0) / 0.075)),
    (CELU(0.3), lambda x: celu(x, 0.3), lambda x: np.exp(np.minimum(x, 0) / 0.3)),
    (
        GELU(),
        lambda x: x * cdf(x),
        lambda x: cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    (SiLU(), lambda x: x * logistic(x), lambda x: logistic(x) * (1 + x * (1 - logistic(x)))),
]


def value_and_gradient(layer, x, upstream, dtype):
    """As float64 arrays; the gradient is that of the inputs."""
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        x, upstream = tf.cast(x, dtype), tf.cast(upstream, dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        gradient = tape.gradient(y, x, output_gradients=upstream)
    elif keras.backend.backend() == 'jax':
        import jax
        import jax.numpy as jnp

        y, pull_back = jax.vjp(layer, jnp.asarray(x, dtype))
        (gradient,) = pull_back(jnp.asarray(upstream, dtype))
    else:
        x = ops.cast(x, dtype).detach().requires_grad_()
        y = layer(x)
        y.backward(ops.cast(upstream, dtype))
        y, gradient = y.detach(), x.grad
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert keras.backend.standardize_dtype(gradient.dtype) == dtype
    return (array(tensor) for tensor in (y, gradient))


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, 'float32')).astype(np.float64)


@pytest.mark.parametrize(('layer', 'function', 'slope'), CASES)
def test_formulas(layer, function, slope):
    x = X.astype(np.float32).astype(np.float64)
    upstream = np.cos(np.arange(x.size)).astype(np.float32).astype(np.float64)
    y, gradient = value_and_gradient(layer, x, upstream, 'float32')
    np.testing.assert_allclose(y, function(x), rtol=1e-6, atol=5e-7)
    np.testing.assert_allclose(gradient, upstream * slope(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(('layer', 'function', 'slope'), CASES)
def test_bfloat16(layer, function, slope):
    """Values are the rounded exact ones, or their neighbours."""
    layer = type(layer).from_config({**layer.get_config(), 'dtype': 'bfloat16'})
    x = array(ops.cast(X.astype(np.float32), 'bfloat16'))
    y, gradient = value_and_gradient(layer, x, np.ones_like(x), 'bfloat16')
    # Backends that compute in bfloat16 throughout lose another digit.
    exact = keras.backend.backend() == 'tensorflow'
    rtol, atol = (2**-7, 1e-3) if exact else (2**-5, 0.03)
    np.testing.assert_allclose(y, function(x), rtol=rtol, atol=atol)
    np.testing.assert_allclose(gradient, slope(x), rtol=rtol, atol=3 * atol + 0.01)


def test_non_decreasing_is_true():
    x = np.linspace(-5, 5, 10_001, dtype=np.float32)
    for layer in (CELU(), GELU(), SiLU()):
        steps = np.diff(array(layer(x)))
        assert layer.non_decreasing is bool((steps >= 0).all())


def test_config():
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(CELU(0.3)))
    assert isinstance(twin, CELU)
    assert twin.alpha == 0.3


@pytest.mark.parametrize('alpha', [0, -1.0, math.inf, math.nan, None, '1'])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match=r'^`alpha` must be .* Received: alpha=') as error:
        CELU(alpha)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('layer', 'function', 'slope'), CASES)
@pytest.mark.backend('tensorflow', 'torch')  # JAX computes in float64 only if told to at its start
def test_float64(layer, function, slope):
    layer = type(layer).from_config({**layer.get_config(), 'dtype': 'float64'})
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        gradient = tape.gradient(y, x)
        # An approximation of 1e-9 in XLA's erfc would show.
        np.testing.assert_allclose(gradient, slope(X), rtol=1e-12, atol=1e-14)
    else:
        y = layer(X)
    np.testing.assert_allclose(ops.convert_to_numpy(y), function(X), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('layer', [CELU, GELU, SiLU])
@pytest.mark.parametrize('dtypes', [('float32', 'float64'), ('float64', 'float32')])
@pytest.mark.backend('tensorflow')
def test_gradients_of_inputs_in_another_precision(layer, dtypes):
    """The layer's dtype is wider, or narrower, than that of its inputs, which it doesn't cast."""
    import tensorflow as tf

    x = tf.constant(X[:-2], dtypes[0])
    same, other = layer(dtype=dtypes[0]), layer(dtype=dtypes[1])
    results = []
    for activate in (same, other):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = activate(x, training=True)
        results.append(tape.gradient(y, x))
        assert y.dtype == activate.compute_dtype
    assert results[0].dtype == results[1].dtype == dtypes[0]
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-6)

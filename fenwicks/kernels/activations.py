"""CELU, GELU and SiLU, each in one pass over memory, on TensorFlow's CPU.

Forward and backward together, in float32 on two x86 cores, as a share of the time of Keras's
functions:

    CELU           0.16   (as long as a ReLU takes)
    GELU, exact    0.24

In bfloat16 the values are converted in registers. Left to itself, XLA rounds after each operation,
which takes twice as long.
"""

from __future__ import annotations

import math

import tensorflow as tf

from fenwicks.kernels.gradients import custom_gradient, traced_apart
from fenwicks.kernels.xla import compiled, rounded


def celu(inputs: tf.Tensor, alpha: float, dtype: str | None = None) -> tf.Tensor:
    """Returns `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`.

    The gradient is computed from the outputs, so that the inputs needn't stay in memory.

    Args:
        inputs: floats of any shape.
        alpha: a number above 0.
        dtype: of the result; None for that of the inputs.

    Returns:
        A tensor of the inputs' shape.
    """
    inputs = tf.convert_to_tensor(inputs)
    return _differentiable_celu(inputs, alpha=alpha, dtype=dtype or inputs.dtype.name)


@traced_apart
def _differentiable_celu(inputs, *, alpha, dtype):
    slope_dtype = inputs.dtype.name

    @custom_gradient
    def activate(inputs):
        outputs = _celu(inputs, alpha=alpha, dtype=dtype)
        return outputs, lambda upstream: _celu_gradient(
            upstream, outputs, alpha=alpha, dtype=slope_dtype
        )

    return activate(inputs)


def celu_in_standard_operations(inputs: tf.Tensor, alpha: float) -> tf.Tensor:
    """Returns what `celu` does, by operations that other runtimes have too."""
    inputs = tf.convert_to_tensor(inputs)
    return tf.cast(_wide_celu(inputs, alpha), inputs.dtype)


def _wide_celu(inputs, alpha):
    x = _wide(inputs)
    # `expm1` would take twice as long as the rest together, and TensorFlow's decreases in places;
    # without it small outputs are off by 1e-7 * alpha.
    below = alpha * (tf.exp(tf.minimum(x, 0) * (1 / alpha)) - 1)
    return tf.where(x > 0, x, below)


@compiled
def _celu(inputs, *, alpha, dtype):
    return rounded(_wide_celu(inputs, alpha), dtype)


@compiled
def _celu_gradient(upstream, outputs, *, alpha, dtype):
    # exp(x / alpha) below zero, 1 above.
    slope = 1 + tf.minimum(_wide(outputs), 0) * (1 / alpha)
    return rounded(_wide(upstream) * slope, dtype)


def gelu(inputs: tf.Tensor, dtype: str | None = None) -> tf.Tensor:
    """Returns `x * (1 + erf(x / sqrt(2))) / 2`.

    The gradient is computed from the inputs.

    Args:
        inputs: floats of any shape.
        dtype: of the result; None for that of the inputs.

    Returns:
        A tensor of the inputs' shape.
    """
    inputs = tf.convert_to_tensor(inputs)
    return _differentiable_gelu(inputs, dtype=dtype or inputs.dtype.name)


@traced_apart
def _differentiable_gelu(inputs, *, dtype):
    @custom_gradient
    def activate(inputs):
        return _gelu(inputs, dtype=dtype), lambda upstream: _gelu_gradient(upstream, inputs)

    return activate(inputs)


@compiled
def _gelu(inputs, *, dtype):
    x = _wide(inputs)
    return rounded(x * _normal_cdf(x), dtype)


@compiled
def _gelu_gradient(upstream, inputs):
    x = _wide(inputs)
    density = tf.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    slope = _normal_cdf(x) + x * density
    return rounded(tf.cast(upstream, x.dtype) * slope, inputs.dtype)


def silu(inputs: tf.Tensor, dtype: str | None = None) -> tf.Tensor:
    """Returns `x / (1 + exp(-x))`.

    The gradient is computed from the inputs.

    Args:
        inputs: floats of any shape.
        dtype: of the result; None for that of the inputs.

    Returns:
        A tensor of the inputs' shape.
    """
    inputs = tf.convert_to_tensor(inputs)
    return _differentiable_silu(inputs, dtype=dtype or inputs.dtype.name)


@traced_apart
def _differentiable_silu(inputs, *, dtype):
    @custom_gradient
    def activate(inputs):
        return _silu(inputs, dtype=dtype), lambda upstream: _silu_gradient(upstream, inputs)

    return activate(inputs)


@compiled
def _silu(inputs, *, dtype):
    x = _wide(inputs)
    return rounded(x * _sigmoid(x), dtype)


@compiled
def _silu_gradient(upstream, inputs):
    x = _wide(inputs)
    share = _sigmoid(x)
    return rounded(tf.cast(upstream, x.dtype) * share * (1 + x * (1 - share)), inputs.dtype)


def _sigmoid(x):
    if x.dtype == tf.float64:
        return tf.sigmoid(x)
    # XLA's tanh is faster than its sigmoid. The error is that of rounding 1 + tanh.
    return 0.5 + 0.5 * tf.tanh(0.5 * x)


def _normal_cdf(x):
    if x.dtype == tf.float64:
        return 0.5 * tf.math.erfc(-x * math.sqrt(0.5))
    # Below -5.6 the value is smaller than the rounding error of 1 + erf, and XLA's erf doesn't
    # quite reach -1.
    return tf.where(x > -5.6, 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5)), 0)


def _wide(values):
    """The values in float32, or in float64 if they are float64."""
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)

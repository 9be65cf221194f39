"""Batch normalization on JAX, in as few passes over an accelerator's memory as XLA can make of it.

XLA fuses what is pointwise, and sums over it, into the convolution that comes before: neither costs
a pass of its own. It can't where a sum needs the result of another, as a variance about the batch's
mean does. And it computes max pooling's gradient from pixels in memory, so all that comes between
the convolution and the pooling is written there and read again. Hence statistics that need no mean
beforehand, and a pooling that comes before the scaling, with which it commutes.

libtpu's estimates for a step of ResNet-9 (`fenwicks24`, 512 images in bfloat16, one v5e chip): the
sum of the prices of its operations, and of the cycles that it schedules them for, taken as 1.5 GHz
and without the pooling's gradient:

    Keras's formulas                                13.5 ms     15.6 ms
    variances by a mean of squares                  12.6 ms     11.9 ms
    ... and the pooling before the scaling          10.8 ms      9.3 ms

What didn't win, from the second line on: max pooling whose gradient is a comparison, as on a CPU,
11.8 ms but 17.0 ms scheduled, since XLA spreads the gradient in memory, twice, before it compares;
with interior padding or stacking instead of that, more still. Ghost batch normalization gains from
the second line alone: 14.1 ms to 11.1 ms (`page10`).
"""

from __future__ import annotations

import math

import keras
from keras import ops

_HANDFUL = 64


def on_jax() -> bool:
    """Whether Keras runs on JAX."""
    return keras.backend.backend() == 'jax'


def moments(inputs, axes, shift):
    """Means and biased variances over some axes, in one pass.

    ```
    mean = shift + mean(x - shift)
    variance = mean((x - shift) ** 2) - mean(x - shift) ** 2
    ```

    The nearer the shift to the mean, the less is lost to rounding: running averages serve, for they
    are known before the inputs are. A handful of values may lie far from it, yet close together: of
    those the variance is that about their mean.

    Args:
        inputs: float32 (or wider) of any shape.
        axes: tuple of the axes to sum over; they stay, with length 1.
        shift: array that fits the inputs' shape, not differentiated.
    """
    shift = ops.stop_gradient(ops.cast(shift, inputs.dtype))
    moved = inputs - shift
    mean = ops.mean(moved, axes, keepdims=True)
    if math.prod(inputs.shape[axis] for axis in axes) < _HANDFUL:
        return mean + shift, ops.mean(ops.square(moved - mean), axes, keepdims=True)
    variance = ops.mean(ops.square(moved), axes, keepdims=True) - ops.square(mean)
    return mean + shift, ops.maximum(variance, 0)  # rounding may leave it below zero


def batch_norm(inputs, scale, offset, shift, epsilon, pool=None):
    """Batch normalization with the batch's own statistics, then max pooling if wanted.

    ```
    x = sign(scale) * inputs
    y = |scale| * (pool(x) - mean(x)) / sqrt(var(x) + epsilon) + offset
    ```

    which is the pooled normalization, to the last bit: a larger x never gives a smaller y.

    Args:
        inputs: `(batch, ..., channels)`.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        shift: float32 `(channels,)`, a guess at the means, see `moments`.
        epsilon: added to the variance.
        pool: function that pools by maxima, or None.

    Returns:
        The outputs in float32 (or wider), and mean and biased variance of each channel.
    """
    sign = 1
    if pool is not None:
        # Not `ops.sign`: a scale of 0 must be able to leave it.
        sign = ops.stop_gradient(ops.where(scale < 0, -1.0, 1.0))
        inputs = inputs * ops.cast(sign, inputs.dtype)
    dtype = keras.backend.result_type(inputs.dtype, 'float32')
    axes = tuple(range(len(inputs.shape) - 1))
    mean, variance = moments(ops.cast(inputs, dtype), axes, sign * shift)
    pixels = inputs if pool is None else pool(inputs)
    factor = ops.rsqrt(variance + epsilon) * (sign * scale)
    outputs = (ops.cast(pixels, dtype) - mean) * factor + offset
    return outputs, sign * ops.squeeze(mean, axes), ops.squeeze(variance, axes)

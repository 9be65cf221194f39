"""Batch normalization on JAX, in as few passes over an accelerator's memory as XLA allows.

XLA fuses pointwise operations, and sums over their results, into the convolution before them, where
they cost no pass of their own. It can't fuse a sum that needs the result of another sum, such as a
variance about the batch's mean. And it computes the gradient of max pooling from pixels in memory:
everything between the convolution and the pooling is written to memory and read again. Therefore
the statistics here don't need the mean beforehand, and the pooling comes before the scaling, with
which it commutes.

libtpu's estimates for a step of ResNet-9 (512 images in bfloat16, one v5e chip), by the formulas of
`fenwicks.tpu` at the time: the sum of the estimated times of its operations, copies included; then
the cycles for which they are scheduled, at 1.5 GHz and without the gradient of the pooling:

    Keras's formulas                                13.5 ms     15.6 ms
    variances by a mean of squares                  12.6 ms     11.9 ms
    ... and the pooling before the scaling          10.8 ms      9.3 ms

Tried on top of the second line, and no faster: max pooling whose gradient is a comparison, as on a
CPU (11.8 ms, but scheduled for 17.0 ms, since XLA spreads the gradient in memory, twice, before it
compares); the same with interior padding or stacking (slower still). Ghost batch normalization
gains as much: the second line brought 14.1 to 11.1 ms (`page10`), the third, without copies, 9.5 to
8.2 ms and 12.1 to 9.4 ms of cycles (`fenwicks24`, in groups of 64).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

if keras.backend.backend() == 'jax':
    from jax import lax

_FEW = 64  # values, of which the variance is computed about their mean


def moments(inputs: Any, axes: tuple[int, ...], shift: Any) -> tuple[Any, Any]:
    """Computes means and biased variances over some axes in one pass.

    ```
    mean = shift + mean(x - shift)
    variance = mean((x - shift) ** 2) - mean(x - shift) ** 2
    ```

    The nearer the shift is to the mean, the smaller the rounding error. The mean of the first image
    is never so far that the variance loses more than a few digits, but must be known before the
    sums. On a TPU they are taken of images as a convolution makes them, so that the moving averages
    are the shift: far off in the first steps, where means are hundreds of standard deviations.
    Fewer than 64 values have their variance computed about their mean.

    Args:
        inputs: float32 or float64, any shape.
        axes: the axes to average over.
        shift: for images on a TPU, broadcasts to the shape of the inputs. No gradient flows to it.

    Returns:
        Means and biased variances, of the inputs' rank, with length 1 along `axes`.
    """
    shift = ops.stop_gradient(_nearby(inputs, axes, ops.cast(shift, inputs.dtype)))
    moved = inputs - shift
    mean = ops.mean(moved, axes, keepdims=True)
    sizes = [inputs.shape[axis] for axis in axes]
    # Where Keras infers shapes, the batch is a symbol.
    if all(isinstance(size, int) for size in sizes) and math.prod(sizes) < _FEW:
        return mean + shift, ops.mean(ops.square(moved - mean), axes, keepdims=True)
    variance = ops.mean(ops.square(moved), axes, keepdims=True) - ops.square(mean)
    return mean + shift, ops.maximum(variance, 0)  # rounding may leave it below zero


def _nearby(inputs, axes, estimate):
    """The mean of the first image, or on a TPU the estimate, as a shift for `moments`."""
    shape = [1 if axis in axes else size for axis, size in enumerate(inputs.shape)]

    def before(inputs, estimate):
        return ops.broadcast_to(estimate, shape)

    def of_first(inputs, estimate):
        first = lax.slice_in_dim(inputs, 0, 1, axis=axes[0])
        return ops.mean(first, axes, keepdims=True)

    if len(axes) < 3:  # no images: to know the shift before gains nothing
        return of_first(inputs, estimate)
    return lax.platform_dependent(inputs, estimate, tpu=before, default=of_first)


def normalize(
    inputs: Any,
    scale: Any,
    offset: Any,
    shift: Any,
    epsilon: float,
    pool: Callable[[Any], Any] | None = None,
    group_size: int | None = None,
) -> tuple[Any, Any, Any]:
    """Normalizes by the mean and variance of each channel over the batch, then pools by maxima.

    With `group_size` that is done for each group of consecutive images by itself.

    ```
    x = sign(scale) * inputs
    y = |scale| * (pool(x) - mean(x)) / sqrt(var(x) + epsilon) + offset
    ```

    This equals the pooled normalization to the last bit, since y never decreases with x.

    Args:
        inputs: `(batch, ..., channels)`.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        shift: float32 `(channels,)`, an estimate of the means, see `moments`.
        epsilon: added to the variance.
        pool: function that pools by maxima, or None for no pooling.
        group_size: images in a group, a divisor of the batch; None for all.

    Returns:
        The outputs in float32 or float64, and the mean and biased variance of each channel,
        averaged over the groups.
    """
    sign = 1
    if pool is not None:
        # `ops.sign` would be 0 for a scale of 0, whose gradient would then be 0 forever.
        sign = ops.stop_gradient(ops.where(scale < 0, -1.0, 1.0))
        inputs = inputs * ops.cast(sign, inputs.dtype)
    dtype = keras.backend.result_type(inputs.dtype, 'float32')
    in_one = group_size is None or not isinstance(inputs.shape[0], int)

    def in_groups(array):
        if in_one:
            return ops.cast(ops.expand_dims(array, 0), dtype)
        return ops.cast(ops.reshape(array, (-1, group_size, *array.shape[1:])), dtype)

    axes = tuple(range(1, len(inputs.shape)))
    mean, variance = moments(in_groups(inputs), axes, sign * shift)
    pixels = inputs if pool is None else pool(inputs)
    factor = ops.rsqrt(variance + epsilon) * (sign * scale)
    outputs = ops.reshape((in_groups(pixels) - mean) * factor + offset, pixels.shape)
    mean, variance = (ops.mean(ops.squeeze(x, axes), axis=0) for x in (mean, variance))
    return outputs, sign * mean, variance

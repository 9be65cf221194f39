"""Batch normalization in few passes over memory, on TensorFlow's CPU.

Forward and backward together, in float32 on two x86 cores, as a share of the time of
`FusedBatchNormV3`:

    batch normalization         0.5     with rounding errors a tenth as large
    ghost batch normalization   0.5

With AVX-512, TensorFlow's kernel is oneDNN's, which takes 0.25 of the time of the formulas here in
bfloat16 and 0.5 in float32; on such processors it does the work, for ghost batches group by group.

Slower alternatives, measured in the same way (AVX2): ghost batches by one `FusedBatchNormV3` per
group, 0.9 to 1.1; a loop over the groups inside XLA, or slicing and joining around it, 1.2 times
the time of the formulas here; sums in two stages, 2.4 times.
"""

from __future__ import annotations

import math

import tensorflow as tf

from fenwicks.kernels import device
from fenwicks.kernels.gradients import custom_gradient, traced_apart
from fenwicks.kernels.xla import compiled, rounded

_VECTOR = 16  # channels in a register of AVX-512


def normalize(
    images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes images by the mean and variance of each channel over the batch.

    Args:
        images: `(batch, height, width, channels)`, floats.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        epsilon: added to the variance.

    Returns:
        The normalized images, and the float32 mean and biased variance of each channel.
    """
    if device.on_cpu() and not _fuses(images) and images.shape.is_fully_defined():
        outputs, means, variances = _normalize_groups_with_xla(
            images, scale, offset, images.shape[0], epsilon
        )
        return outputs, means[0], variances[0]
    return _normalize_with_fused_op(images, scale, offset, epsilon)


def _fuses(images):
    """Whether the CPU's fused kernel is the fastest; it knows no float64."""
    return device.has_avx512() and images.dtype != tf.float64


def _normalize_with_fused_op(images, scale, offset, epsilon):
    if device.on_cpu() and images.dtype != tf.float32 and images.shape[-1] % _VECTOR:
        # Of other numbers of channels oneDNN's kernel takes 10 to 20 times as long in bfloat16.
        outputs, *moments = _normalize_with_fused_op(
            tf.cast(images, tf.float32), scale, offset, epsilon
        )
        return tf.cast(outputs, images.dtype), *moments
    # The third version keeps a workspace for its gradient, an eighth of the images' size, which
    # only GPUs use.
    kernel = tf.raw_ops.FusedBatchNormV2 if device.on_cpu() else tf.raw_ops.FusedBatchNormV3
    normalized, mean, variance, *_ = kernel(
        x=images, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon
    )
    # The kernel reports the unbiased variance (n - 1); Keras averages the biased one (n).
    count = tf.cast(tf.size(images) // images.shape[-1], variance.dtype)
    return normalized, mean, variance * ((count - 1) / count)


def normalize_groups(
    images: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    ghost_batch_size: int,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes each group of consecutive images by the statistics of that group.

    No gradient flows through the statistics that are returned: they serve moving averages only.

    Args:
        images: `(batch, height, width, channels)`, floats; only the batch may be unknown.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        ghost_batch_size: images per group; it divides the batch.
        epsilon: added to the variance.

    Returns:
        The normalized images, and the float32 means and biased variances `(groups, channels)`.
    """
    if _fuses(images) and images.shape.is_fully_defined():
        normalize_each = _normalize_groups_with_fused_op
    else:
        normalize_each = _normalize_groups_with_xla
    return normalize_each(images, scale, offset, ghost_batch_size, epsilon)


def _normalize_groups_with_fused_op(images, scale, offset, ghost_batch_size, epsilon):
    groups = [
        _normalize_with_fused_op(group, scale, offset, epsilon)
        for group in tf.split(images, images.shape[0] // ghost_batch_size)
    ]
    outputs, means, variances = zip(*groups, strict=True)
    return tf.concat(outputs, 0), *(tf.stop_gradient(tf.stack(x)) for x in (means, variances))


def _normalize_groups_with_xla(images, scale, offset, ghost_batch_size, epsilon):
    outputs, means, variances = _differentiable_normalization(
        images, scale, offset, ghost_batch_size=ghost_batch_size, epsilon=epsilon
    )
    shape = (-1, images.shape[-1])
    return outputs, *(tf.reshape(tf.stop_gradient(x), shape) for x in (means, variances))


@traced_apart
def _differentiable_normalization(images, scale, offset, *, ghost_batch_size, epsilon):
    count = ghost_batch_size * math.prod(images.shape[1:3])  # values per mean

    @custom_gradient
    def normalize_each(images, scale, offset):
        means, variances = _moments(images, count=count)
        # Computed out here, once per channel; within the compiled loops it would be once per pixel.
        inverse_deviation = tf.math.rsqrt(variances + epsilon)
        outputs = _shift_and_scale(images, means, inverse_deviation * scale, offset, count=count)

        def gradient(upstream, *unused):
            total, covariance = _sums(upstream, images, means, count=count)
            to_scales = covariance * inverse_deviation
            factor = inverse_deviation * scale
            slope = -factor * inverse_deviation * to_scales / count
            to_images = _input_gradient(
                upstream, images, total / count, factor, means, slope, count=count
            )
            to_scale, to_offset = (tf.reduce_sum(x, (0, 1)) for x in (to_scales, total))
            return to_images, to_scale, to_offset

        return (outputs, means, variances), gradient

    return normalize_each(images, scale, offset)


def _groups(images, count):
    """The images as float32 (groups, count, channels)."""
    # XLA converts each value in a register, as it reads it.
    return tf.cast(tf.reshape(images, (-1, count, images.shape[-1])), tf.float32)


@compiled
def _moments(images, *, count):
    """Means and biased variances (groups, 1, channels)."""
    groups = _groups(images, count)
    means = tf.reduce_mean(groups, 1, keepdims=True)
    return means, tf.reduce_mean(tf.square(groups - means), 1, keepdims=True)


@compiled
def _shift_and_scale(images, means, factors, offset, *, count):
    outputs = (_groups(images, count) - means) * factors + offset
    return rounded(tf.reshape(outputs, tf.shape(images)), images.dtype)


@compiled
def _sums(upstream, images, means, *, count):
    """Sums of `upstream` and of `upstream * (images - means)`, (groups, 1, channels)."""
    upstream = _groups(upstream, count)
    products = upstream * (_groups(images, count) - means)
    return tuple(tf.reduce_sum(x, 1, keepdims=True) for x in (upstream, products))


@compiled
def _input_gradient(upstream, images, shift, factor, means, slope, *, count):
    gradient = factor * (_groups(upstream, count) - shift)
    gradient += slope * (_groups(images, count) - means)
    return rounded(tf.reshape(gradient, tf.shape(images)), images.dtype)

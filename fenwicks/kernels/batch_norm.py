"""Normalization, activations and pooling for TensorFlow's CPU, each one pass over memory.

TensorFlow computes a formula step by step, each step a pass over memory, and its fused kernels
for batch normalization and for the gradient of max pooling don't use the processor's vectors.
XLA is bad at convolutions on a CPU (a training step compiled whole takes five times as long), but
good at fusing what is pointwise and at sums over channels. So here XLA compiles small functions,
each for itself, inside the plain graph. Forward and backward together, in float32 on two x86
cores, as a share of the time of TensorFlow's own:

    batch normalization         0.5     with rounding errors a tenth as large
    ghost batch normalization   0.5     of one `FusedBatchNormV3` for the whole batch
    CELU                        0.16    of `keras.activations.celu`: what a ReLU takes
    GELU, exact                 0.24    of `keras.activations.gelu`
    2x2 max pooling             0.12    (0.15 in bfloat16)

With AVX-512, TensorFlow's kernel for batch normalization is oneDNN's, and takes 0.25 of the time of
the one here in bfloat16, 0.5 in float32; there it normalizes, group by group.

What didn't win, in the same measure (AVX2): ghost batches by one `FusedBatchNormV3` a group 0.9 to
1.1; a loop over the groups inside XLA, and slicing and joining around it, 1.2 times what is here;
sums in two stages 2.4 times.

In bfloat16 the values are converted in registers: left to itself, XLA rounds after each operation,
which takes twice as long.

The functions take and return ``(batch, height, width, channels)`` tensors, any float dtype.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from fenwicks.kernels import device


def compiled(function):
    """Compiles a function of tensors by XLA, for each shape when it first comes.

    While a shape isn't known, as in an exported model, the operations stay TensorFlow's own, so
    that other runtimes can take them.
    """

    @functools.cache
    def program():
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*tensors, **constants):
        known = all(tensor.shape.is_fully_defined() for tensor in tensors)
        return (program() if known else function)(*tensors, **constants)

    return call


def max_pool_2x2(images):
    """Largest of each 2x2 window, without overlap; an odd last row or column is left out.

    The gradient goes to the window's first maximum, in the order of reading.

    Args:
        images: `(batch, height, width, channels)`, sides of at least 2.

    Returns:
        `(batch, height // 2, width // 2, channels)`.
    """
    import tensorflow as tf

    height, width = images.shape[1:3]

    @tf.custom_gradient
    def pool(images):
        # Found here and not in the gradient, which then needs a byte a window, not the images.
        largest, first = _largest_and_first(images)
        return largest, lambda upstream: _spread(upstream, first, height=height, width=width)

    return pool(images)


@compiled
def _largest_and_first(images):
    """Of each 2x2 window the maximum, and as uint8 which pixel is the first to hold it."""
    import tensorflow as tf

    height, width = (side // 2 * 2 for side in images.shape[1:3])
    numbers = _ordered_integers(images)
    a, b, c, d = (numbers[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1))
    largest = tf.maximum(tf.maximum(a, b), tf.maximum(c, d))
    first = tf.where(c == largest, np.uint8(2), np.uint8(3))
    first = tf.where(b == largest, np.uint8(1), first)
    first = tf.where(a == largest, np.uint8(0), first)
    return tf.bitcast(_ordered_bits(largest), images.dtype), first


def _ordered_integers(values):
    """Integers of the same size and in the same order as floats.

    Vectors of them compare at once, whereas bfloat16 would be converted for each comparison. Zero
    is above minus zero; an order of NaN there isn't among floats either.
    """
    import tensorflow as tf

    return _ordered_bits(
        tf.bitcast(values, {2: tf.int16, 4: tf.int32, 8: tf.int64}[values.dtype.size])
    )


def _ordered_bits(bits):
    """The bits below the sign turned where the sign is set; twice is as it was."""
    import tensorflow as tf

    sign = tf.bitwise.right_shift(bits, 8 * bits.dtype.size - 1)  # 0 or -1
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(sign, bits.dtype.max))


@compiled
def _spread(upstream, first, *, height, width):
    """Each value of `(batch, rows, columns, channels)` to one pixel of its window, 0 elsewhere."""
    import tensorflow as tf

    rows, columns, channels = upstream.shape[1:]
    # (batch, rows, row in window, columns, column in window, channels)
    per_window = (-1, rows, 1, columns, 1, channels)
    position = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 1, 2, 1)
    is_first = tf.equal(tf.reshape(first, per_window), position)
    spread = tf.where(is_first, tf.reshape(upstream, per_window), tf.zeros([], upstream.dtype))
    spread = tf.reshape(spread, (-1, 2 * rows, 2 * columns, channels))
    return tf.pad(spread, ((0, 0), (0, height - 2 * rows), (0, width - 2 * columns), (0, 0)))


def batch_norm(images, scale, offset, epsilon):
    """Batch normalization with the batch's own statistics, fused.

    Args:
        images: `(batch, height, width, channels)`.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        epsilon: added to the variance.

    Returns:
        The normalized images, and the float32 mean and biased variance of each channel.
    """
    if device.on_cpu() and not device.has_avx512() and images.shape.is_fully_defined():
        outputs, means, variances = _ghost_batch_norm_by_xla(
            images, scale, offset, images.shape[0], epsilon
        )
        return outputs, means[0], variances[0]
    return _batch_norm_by_kernel(images, scale, offset, epsilon)


def _batch_norm_by_kernel(images, scale, offset, epsilon):
    import tensorflow as tf

    # The third version holds a workspace for its gradient, an eighth of the images' size, of which
    # only GPUs make use.
    kernel = tf.raw_ops.FusedBatchNormV2 if device.on_cpu() else tf.raw_ops.FusedBatchNormV3
    normalized, mean, variance, *_ = kernel(
        x=images, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon
    )
    # The kernel reports the unbiased variance (n - 1); Keras averages the biased one (n).
    count = tf.cast(tf.size(images) // images.shape[-1], variance.dtype)
    return normalized, mean, variance * ((count - 1) / count)


def ghost_batch_norm(images, scale, offset, ghost_batch_size, epsilon):
    """`batch_norm` of each group of consecutive images.

    The statistics aren't differentiated: nothing but running averages may be made of them.

    Args:
        images: `(batch, height, width, channels)`, all but the batch known.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        ghost_batch_size: images in a group; it divides the batch.
        epsilon: added to the variance.

    Returns:
        The normalized images, and the float32 means and biased variances `(groups, channels)`.
    """
    if device.has_avx512() and images.shape.is_fully_defined():
        by = _ghost_batch_norm_by_kernel
    else:
        by = _ghost_batch_norm_by_xla
    return by(images, scale, offset, ghost_batch_size, epsilon)


def _ghost_batch_norm_by_kernel(images, scale, offset, ghost_batch_size, epsilon):
    import tensorflow as tf

    groups = [
        _batch_norm_by_kernel(group, scale, offset, epsilon)
        for group in tf.split(images, images.shape[0] // ghost_batch_size)
    ]
    outputs, means, variances = zip(*groups, strict=True)
    return tf.concat(outputs, 0), *(tf.stop_gradient(tf.stack(x)) for x in (means, variances))


def _ghost_batch_norm_by_xla(images, scale, offset, ghost_batch_size, epsilon):
    import tensorflow as tf

    channels = images.shape[-1]
    count = ghost_batch_size * math.prod(images.shape[1:3])  # values that share a mean

    @tf.custom_gradient
    def normalize(images, scale, offset):
        means, variances = _moments(images, count=count)
        # Factors are made outside of the loops over pixels, which would make them for each pixel.
        deviation = tf.math.rsqrt(variances + epsilon)  # its inverse
        outputs = _shift_and_scale(images, means, deviation * scale, offset, count=count)

        def gradient(upstream, *unused):
            total, covariance = _sums(upstream, images, means, count=count)
            along_outputs = covariance * deviation  # sums of upstream * (normalized images)
            factor = deviation * scale
            slope = -factor * deviation * along_outputs / count
            to_images = _input_gradient(
                upstream, images, total / count, factor, means, slope, count=count
            )
            to_scale, to_offset = (tf.reduce_sum(x, (0, 1)) for x in (along_outputs, total))
            return to_images, to_scale, to_offset

        return (outputs, means, variances), gradient

    outputs, means, variances = normalize(images, scale, offset)
    shape = (-1, channels)
    return outputs, *(tf.reshape(tf.stop_gradient(x), shape) for x in (means, variances))


def _groups(images, count):
    """float32 (groups, count, channels)"""
    import tensorflow as tf

    # XLA converts in registers, as each value is read.
    return tf.cast(tf.reshape(images, (-1, count, images.shape[-1])), tf.float32)


@compiled
def _moments(images, *, count):
    """Means and biased variances (groups, 1, channels)."""
    import tensorflow as tf

    groups = _groups(images, count)
    means = tf.reduce_mean(groups, 1, keepdims=True)
    return means, tf.reduce_mean(tf.square(groups - means), 1, keepdims=True)


@compiled
def _shift_and_scale(images, means, factors, offset, *, count):
    import tensorflow as tf

    outputs = (_groups(images, count) - means) * factors + offset
    return tf.cast(tf.reshape(outputs, tf.shape(images)), images.dtype)


@compiled
def _sums(upstream, images, means, *, count):
    """Sums of `upstream` and of `upstream * (images - means)`, (groups, 1, channels)."""
    import tensorflow as tf

    upstream = _groups(upstream, count)
    products = upstream * (_groups(images, count) - means)
    return tuple(tf.reduce_sum(x, 1, keepdims=True) for x in (upstream, products))


@compiled
def _input_gradient(upstream, images, shift, factor, means, slope, *, count):
    import tensorflow as tf

    gradient = factor * (_groups(upstream, count) - shift)
    gradient += slope * (_groups(images, count) - means)
    return tf.cast(tf.reshape(gradient, tf.shape(images)), images.dtype)


def celu(inputs, alpha):
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``; its gradient needs the outputs only."""
    import tensorflow as tf

    @tf.custom_gradient
    def activate(inputs):
        outputs = _celu(inputs, alpha=alpha)
        return outputs, lambda upstream: _celu_gradient(upstream, outputs, alpha=alpha)

    return activate(tf.convert_to_tensor(inputs))


@compiled
def _celu(inputs, *, alpha):
    import tensorflow as tf

    # One of the two summands is zero. `expm1` takes twice as long as the whole; without it small
    # outputs are off by 1e-7 of alpha, which is nothing beside the large ones.
    x = tf.cast(inputs, tf.float32)
    outputs = tf.maximum(x, 0) + alpha * (tf.exp(tf.minimum(x, 0) * (1 / alpha)) - 1)
    return tf.cast(outputs, inputs.dtype)


@compiled
def _celu_gradient(upstream, outputs, *, alpha):
    import tensorflow as tf

    # exp(x / alpha) below zero, 1 above.
    slope = 1 + tf.minimum(tf.cast(outputs, tf.float32), 0) * (1 / alpha)
    return tf.cast(tf.cast(upstream, tf.float32) * slope, outputs.dtype)


def gelu(inputs):
    """``x * (1 + erf(x / sqrt(2))) / 2``; its gradient needs the inputs only."""
    import tensorflow as tf

    @tf.custom_gradient
    def activate(inputs):
        return _gelu(inputs), lambda upstream: _gelu_gradient(upstream, inputs)

    return activate(tf.convert_to_tensor(inputs))


@compiled
def _gelu(inputs):
    import tensorflow as tf

    x = tf.cast(inputs, tf.float32)
    return tf.cast(x * _normal_cdf(x), inputs.dtype)


@compiled
def _gelu_gradient(upstream, inputs):
    import tensorflow as tf

    x = tf.cast(inputs, tf.float32)
    density = tf.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return tf.cast(tf.cast(upstream, tf.float32) * (_normal_cdf(x) + x * density), inputs.dtype)


def _normal_cdf(x):
    import tensorflow as tf

    # Below, it is less than the rounding of 1 + erf, and XLA's erf does not quite reach -1.
    return tf.where(x > -5.6, 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5)), 0)

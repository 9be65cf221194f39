"""What TensorFlow's CPU kernels do slowly, done with the ones it has fast.

Profiled on two x86 cores with a ResNet-9 at batch 512 in float32 (`examples/benchmarks`):

* the gradient of a 3x3 convolution with respect to its *input* ran at 15 to 80 % of the speed of
  the forward convolution, though it is one: of the output's gradient, with the kernel turned by
  180 degrees and its channels swapped;
* 3x3 convolutions between 128 channels or more take fewer multiplications than a sliding window
  needs, see `fenwicks.layers.winograd`;
* the gradient of 2x2 max pooling took six times as long as comparing each pixel with its maximum.

The functions take and return ``(batch, height, width, channels)`` tensors, any float dtype.
"""

from __future__ import annotations

import functools
import math

import numpy as np


@functools.cache
def on_cpu() -> bool:
    """Whether Keras runs on TensorFlow with no accelerator, where these kernels pay."""
    import keras

    if keras.backend.backend() != 'tensorflow':
        return False
    import tensorflow as tf

    return not any(
        device.device_type in ('GPU', 'TPU') for device in tf.config.get_visible_devices()
    )


def conv2d(images, kernel):
    """Convolution with stride 1, ``same`` padding and an odd kernel.

    Args:
        images: `(batch, height, width, channels)`.
        kernel: `(size, size, channels, filters)` with an odd `size`.

    Returns:
        `(batch, height, width, filters)`.
    """
    import tensorflow as tf

    from fenwicks.layers import winograd

    forward, kernel_gradient = _slide, _slide_kernel_gradient
    if winograd.pays(images, kernel):
        forward, kernel_gradient = winograd.convolve, winograd.kernel_gradient

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            turned = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
            to_images = forward(upstream, turned)
            # One after the other: side by side they would need the memory of both at once.
            with tf.control_dependencies([to_images]):
                to_kernel = kernel_gradient(images, upstream, kernel.shape)
            return to_images, to_kernel

        return forward(images, kernel), gradient

    # A custom gradient takes tensors: it may not reach for variables.
    return convolve(images, tf.convert_to_tensor(kernel))


def _slide(images, kernel):
    import tensorflow as tf

    return tf.nn.conv2d(images, kernel, strides=1, padding='SAME')


def _slide_kernel_gradient(images, upstream, kernel_shape):
    import tensorflow as tf

    return tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=kernel_shape,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding='SAME',
    )


def max_pool_2x2(images):
    """Largest of each 2x2 window, without overlap; height and width must be even.

    The gradient goes to the window's first maximum, in the order of reading.

    Args:
        images: `(batch, height, width, channels)`.

    Returns:
        `(batch, height / 2, width / 2, channels)`.
    """
    import tensorflow as tf

    height, width, channels = images.shape[1:]
    # (batch * height / 2, row in window, width / 2, column in window, channels)
    in_windows = (-1, 2, width // 2, 2, channels)
    per_window = (-1, 1, width // 2, 1, channels)

    @tf.custom_gradient
    def pool(images):
        largest = tf.nn.max_pool2d(images, 2, 2, 'VALID')
        # Found here and not in the gradient, which then needs a byte a window, not the images.
        found = tf.equal(tf.reshape(images, in_windows), tf.reshape(largest, per_window))
        first = tf.where(found[:, 1, :, 0], np.uint8(2), np.uint8(3))
        first = tf.where(found[:, 0, :, 1], np.uint8(1), first)
        first = tf.where(found[:, 0, :, 0], np.uint8(0), first)

        def gradient(upstream):
            position = np.arange(4, dtype=np.uint8).reshape(1, 2, 1, 2, 1)
            is_first = tf.equal(tf.reshape(first, per_window), position)
            spread = tf.where(is_first, tf.reshape(upstream, per_window), 0)
            return tf.reshape(spread, (-1, height, width, channels))

        return largest, gradient

    return pool(images)


def batch_norm(images, scale, offset, epsilon):
    """Batch normalization with the batch's own statistics, fused into one kernel a direction.

    Args:
        images: `(batch, height, width, channels)`.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        epsilon: added to the variance.

    Returns:
        The normalised images, and the float32 mean and biased variance of each channel.
    """
    import tensorflow as tf

    normalised, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon
    )
    # The kernel reports the unbiased variance (n - 1); Keras averages the biased one (n).
    count = tf.cast(tf.size(images) // images.shape[-1], variance.dtype)
    return normalised, mean, variance * ((count - 1) / count)


def ghost_batch_norm(images, scale, offset, ghost_batch_size, epsilon):
    """`batch_norm` of each group of consecutive images.

    Args:
        images: `(batch, height, width, channels)`, the batch known.
        scale: float32 `(channels,)`.
        offset: float32 `(channels,)`.
        ghost_batch_size: images in a group; it divides the batch.
        epsilon: added to the variance.

    Returns:
        The normalized images, and the float32 means and biased variances `(groups, channels)`.
    """
    import tensorflow as tf

    groups = tf.split(images, images.shape[0] // ghost_batch_size)
    normalised, means, variances = zip(
        *(batch_norm(group, scale, offset, epsilon) for group in groups), strict=True
    )
    return tf.concat(normalised, 0), tf.stack(means), tf.stack(variances)


def celu(inputs, alpha):
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``; its gradient needs the outputs only."""
    import tensorflow as tf

    @tf.custom_gradient
    def activate(inputs):
        # One of the two summands is zero.
        outputs = tf.nn.relu(inputs) + alpha * tf.math.expm1(tf.minimum(inputs, 0) / alpha)

        def gradient(upstream):
            # exp(x / alpha) below zero, 1 above.
            return upstream * (1 + tf.minimum(outputs, 0) / alpha)

        return outputs, gradient

    return activate(inputs)


def gelu(inputs):
    """``x * (1 + erf(x / sqrt(2))) / 2``; its gradient needs the inputs only."""
    import tensorflow as tf

    @tf.custom_gradient
    def activate(inputs):
        def phi(inputs):
            return 0.5 * (1 + tf.math.erf(inputs * math.sqrt(0.5)))

        def gradient(upstream):
            density = tf.exp(-0.5 * inputs * inputs) / math.sqrt(2 * math.pi)
            return upstream * (phi(inputs) + inputs * density)

        return inputs * phi(inputs), gradient

    return activate(inputs)

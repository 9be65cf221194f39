"""Convolution with odd kernels and stride 1 on TensorFlow's CPU, whose own gradients are slow.

Seen in profiles of a ResNet-9 at batch 512 in float32 on two x86 cores (`examples/benchmarks`):

* The gradient of a 3x3 convolution with respect to its *input* ran at 15 to 80 % of the speed of
  the forward convolution. It is a forward convolution itself: of the output's gradient, with the
  kernel rotated by 180 degrees and its channels swapped.
* 3x3 convolutions between about 100 channels or more take fewer multiplications by Winograd's
  algorithm, see `fenwicks.kernels.winograd`.
* Processors with AMX multiply bfloat16 matrices faster than Winograd's tiles can be moved. The
  gradient with respect to the *kernel*, however, is a sum over the pixels of a row, and short rows
  leave most of an AMX tile empty. Small images are therefore laid side by side.
"""

from __future__ import annotations

import tensorflow as tf

from fenwicks.kernels import device, winograd
from fenwicks.kernels.gradients import custom_gradient, traced_apart

_TILE = 32  # pixels of a row that AMX sums over at once
_NARROW = 8  # pixels; for wider images the copies cost more than they gain


def conv2d(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves images with an odd-sized kernel, stride 1 and `same` padding.

    Args:
        images: `(batch, height, width, channels)`, floats.
        kernel: `(size, size, channels, filters)` with an odd `size`.

    Returns:
        `(batch, height, width, filters)`.
    """
    # Tensors, since a function with a custom gradient may not use variables.
    tensors = tf.convert_to_tensor(images), tf.convert_to_tensor(kernel)
    return _differentiable_convolution(*tensors, has_amx=device.has_amx())


@traced_apart
def _differentiable_convolution(images, kernel, *, has_amx):
    forward = input_gradient = _convolve_directly
    kernel_gradient = _kernel_gradient_directly
    if images.dtype == tf.bfloat16 and has_amx:
        kernel_gradient = _kernel_gradient_side_by_side
    elif winograd.pays(images, kernel):
        input_gradient, kernel_gradient = winograd.convolve, winograd.kernel_gradient
        # Winograd's rounding errors in bfloat16 are larger: acceptable for gradients only.
        if images.dtype == tf.float32:
            forward = winograd.convolve

    @custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            to_kernel = kernel_gradient(images, upstream, kernel.shape)
            # In sequence, since both at once would need the memory of both. The input's gradient
            # comes second: the layers below wait for it, and by then `images` has been freed.
            with tf.control_dependencies([to_kernel]):
                rotated = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
                to_images = input_gradient(upstream, rotated)
            return to_images, to_kernel

        return forward(images, kernel), gradient

    return convolve(images, kernel)


def _convolve_directly(images, kernel):
    return tf.nn.conv2d(images, kernel, strides=1, padding='SAME')


def _kernel_gradient_directly(images, upstream, kernel_shape):
    return tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=kernel_shape,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding='SAME',
    )


def _kernel_gradient_side_by_side(images, upstream, kernel_shape):
    batch, _, width, _ = images.shape
    gap = kernel_shape[1] // 2  # columns of zeros, so that no window covers two images
    count = 1
    if batch and width <= _NARROW:
        fits = range(1, (_TILE + gap) // (width + gap) + 1)
        count = max(n for n in fits if batch % n == 0)
    if count > 1:
        images, upstream = (_side_by_side(tensor, count, gap) for tensor in (images, upstream))
    return _kernel_gradient_directly(images, upstream, kernel_shape)


def _side_by_side(images, count, gap):
    """Rows of `count` images with `gap` columns of zeros between them."""
    batch, height, _, channels = images.shape
    between = tf.zeros((batch // count, height, gap, channels), images.dtype)
    row = []
    for part in tf.split(images, count):
        row += [part, between]
    return tf.concat(row[:-1], axis=2)

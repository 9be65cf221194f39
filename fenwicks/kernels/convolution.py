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
* 2x2 pooling leaves out the last row and column of odd sides: 13 % of the outputs at 15x15, 36 % at
  5x5. A convolution that knows of it doesn't compute them, nor their part of the kernel's gradient.
"""

from __future__ import annotations

import math

import tensorflow as tf

from fenwicks.kernels import device, padding, winograd
from fenwicks.kernels.gradients import custom_gradient, traced_apart

_TILE = 32  # pixels of a row that AMX sums over at once
_NARROW = 14  # pixels; for wider images the copies cost what they gain
_TINY = 6  # pixels; rows of smaller images are best two tiles long


def conv2d(images: tf.Tensor, kernel: tf.Tensor, sides: tuple[int, int] | None = None) -> tf.Tensor:
    """Convolves images with an odd-sized kernel, stride 1 and `same` padding.

    Args:
        images: `(batch, height, width, channels)`, floats.
        kernel: `(size, size, channels, filters)` with an odd `size`.
        sides: how many rows and columns of the output to compute, from the first on; at most
            `size // 2` fewer than the images have. None for all.

    Returns:
        `(batch, *sides, filters)`.
    """
    sides = None if sides == tuple(images.shape[1:3]) else sides
    onednn_on_avx2 = device.uses_onednn() and not device.has_avx512()
    processor = {'has_amx': device.has_amx(), 'onednn_on_avx2': onednn_on_avx2}
    return _differentiable_convolution(images, kernel, sides=sides, **processor)


@traced_apart
def _differentiable_convolution(images, kernel, *, sides, has_amx, onednn_on_avx2):
    forward = input_gradient = _convolve_directly
    kernel_gradient = _kernel_gradient_directly
    whole = tuple(images.shape[1:3])
    if images.dtype == tf.bfloat16 and has_amx:
        kernel_gradient = _kernel_gradient_side_by_side
    elif winograd.supports(images, kernel):
        channels, filters = kernel.shape[2:]
        costs = winograd.ONEDNN_ON_AVX2 if onednn_on_avx2 else winograd.USUAL
        # Winograd's rounding errors in bfloat16 are larger: acceptable for gradients only.
        is_exact = images.dtype == tf.float32
        if is_exact and winograd.pays(costs, channels, filters, sides or whole):
            forward = winograd.convolve
        if winograd.pays(costs, filters, channels, whole):
            input_gradient = winograd.convolve
        if winograd.pays(costs, channels, filters, sides or whole, of_kernel=True):
            kernel_gradient = winograd.kernel_gradient

    @custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            to_kernel = kernel_gradient(images, upstream, kernel.shape)
            # In sequence, since both at once would need the memory of both. The input's gradient
            # comes second: the layers below wait for it, and by then `images` has been freed.
            with tf.control_dependencies([to_kernel]):
                rotated = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
                to_images = input_gradient(upstream, rotated, whole if sides else None)
            return to_images, to_kernel

        return forward(images, kernel, sides), gradient

    return convolve(images, kernel)


def _convolve_directly(images, kernel, sides):
    zeros = _padding(images, kernel.shape, sides) if sides else 'SAME'
    return tf.nn.conv2d(images, kernel, strides=1, padding=zeros)


def _padding(images, kernel_shape, sides):
    """Zeros around images so that windows of the kernel's size leave these sides."""
    ends = padding.around(images.shape[1:3], kernel_shape[:2], sides)
    return [(0, 0), *ends, (0, 0)]


def _kernel_gradient_directly(images, upstream, kernel_shape):
    zeros = 'SAME'
    if upstream.shape[1:3] != images.shape[1:3]:
        # With explicit padding TensorFlow takes a kernel that is a hundred times as slow.
        images = tf.pad(images, _padding(images, kernel_shape, upstream.shape[1:3]))
        zeros = 'VALID'
    return tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=kernel_shape,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding=zeros,
    )


def _kernel_gradient_side_by_side(images, upstream, kernel_shape):
    # Columns of zeros, so that no window covers two images and their outputs lie where they do.
    gap = kernel_shape[1] // 2
    count = _images_in_a_row(images, upstream, gap)
    if count > 1:
        left_out = images.shape[2] - upstream.shape[2]
        images = _side_by_side(images, count, gap)
        upstream = _side_by_side(upstream, count, gap + left_out)
    return _kernel_gradient_directly(images, upstream, kernel_shape)


def _images_in_a_row(images, upstream, gap):
    """How many images side by side fill AMX's tiles best; the largest number of equals."""
    batch, height, width, _ = images.shape
    if not (batch and height and width) or width > _NARROW:
        return 1

    def filled(count):
        return count * upstream.shape[2] / math.ceil((count * (width + gap) - gap) / _TILE)

    longest = 2 * _TILE if width <= _TINY else _TILE
    fits = range(1, (longest + gap) // (width + gap) + 1)
    return max((n for n in fits if batch % n == 0), key=lambda n: (filled(n), n))


def _side_by_side(images, count, gap):
    """Rows of `count` images with `gap` columns of zeros between them."""
    batch, height, _, channels = images.shape
    between = tf.zeros((batch // count, height, gap, channels), images.dtype)
    row = []
    for part in tf.split(images, count):
        row += [part, between]
    return tf.concat(row[:-1], axis=2)

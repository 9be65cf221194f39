"""What TensorFlow's CPU kernels do slowly, done with the ones it has fast.

Profiled on two x86 cores with a ResNet-9 at batch 512 in float32 (`examples/benchmarks`):

* the gradient of a 3x3 convolution with respect to its *input* ran at 15 to 80 % of the speed of
  the forward convolution, though it is one: of the output's gradient, with the kernel turned by
  180 degrees and its channels swapped;
* 3x3 convolutions between about 100 channels or more take fewer multiplications than a sliding
  window needs, see `fenwicks.kernels.winograd`;
* processors with AMX multiply bfloat16 matrices faster than Winograd's tiles can be moved, but the
  gradient of a convolution with respect to its *kernel* is a sum over the pixels of a row, which
  fill a tile only if they are many. Small images are therefore laid side by side.

Pointwise operations and sums over channels are in `fenwicks.kernels.batch_norm`.

The functions take and return ``(batch, height, width, channels)`` tensors, any float dtype.
"""

from __future__ import annotations

from fenwicks.kernels.device import has_amx

_TILE = 32  # pixels of a row that AMX sums over at once
_NARROW = 8  # wider images gain less than the copying costs


def conv2d(images, kernel):
    """Convolution with stride 1, ``same`` padding and an odd kernel.

    Args:
        images: `(batch, height, width, channels)`.
        kernel: `(size, size, channels, filters)` with an odd `size`.

    Returns:
        `(batch, height, width, filters)`.
    """
    import tensorflow as tf

    from fenwicks.kernels import winograd

    forward = input_gradient = _slide
    kernel_gradient = _slide_kernel_gradient
    if images.dtype == tf.bfloat16 and has_amx():
        kernel_gradient = _kernel_gradient_side_by_side
    elif winograd.pays(images, kernel):
        input_gradient, kernel_gradient = winograd.convolve, winograd.kernel_gradient
        if images.dtype == tf.float32:  # in bfloat16 what is rounded more coarsely are gradients
            forward = winograd.convolve

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            to_kernel = kernel_gradient(images, upstream, kernel.shape)
            # One after the other: side by side they would need the memory of both at once. This
            # one last: layers below wait for it, and the images above are gone by then.
            with tf.control_dependencies([to_kernel]):
                turned = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
                to_images = input_gradient(upstream, turned)
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


def _kernel_gradient_side_by_side(images, upstream, kernel_shape):
    batch, _, width, _ = images.shape
    gap = kernel_shape[1] // 2  # of zeros, so that no window sees two images
    count = 1
    if batch and width <= _NARROW:
        fits = range(1, (_TILE + gap) // (width + gap) + 1)
        count = max(n for n in fits if batch % n == 0)
    if count > 1:
        images, upstream = (_side_by_side(tensor, count, gap) for tensor in (images, upstream))
    return _slide_kernel_gradient(images, upstream, kernel_shape)


def _side_by_side(images, count, gap):
    import tensorflow as tf

    batch, height, _, channels = images.shape
    between = tf.zeros((batch // count, height, gap, channels), images.dtype)
    row = []
    for part in tf.split(images, count):
        row += [part, between]
    return tf.concat(row[:-1], axis=2)

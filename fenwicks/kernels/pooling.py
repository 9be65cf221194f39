"""2x2 max pooling with a fast gradient, on TensorFlow's CPU.

TensorFlow's kernel for the gradient of max pooling doesn't use the processor's vector instructions.
This one takes 0.12 of its time in float32, forward and backward together, and 0.15 in bfloat16 (two
x86 cores).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from fenwicks.kernels.gradients import custom_gradient, traced_apart
from fenwicks.kernels.xla import compiled


@traced_apart
def max_pool_2x2(images: tf.Tensor) -> tf.Tensor:
    """Returns the maximum of each 2x2 window; windows don't overlap.

    An odd last row or column is left out. The gradient goes to the first maximum of the window,
    row by row.

    Args:
        images: `(batch, height, width, channels)`, floats, the sides at least 2.

    Returns:
        `(batch, height // 2, width // 2, channels)`.
    """
    height, width = images.shape[1:3]

    @custom_gradient
    def pool(images):
        # The position is found here, not in the gradient: one byte per window stays in memory
        # until then, instead of the images.
        largest, first = _largest_and_first(images)
        return largest, lambda upstream: _spread(upstream, first, height=height, width=width)

    return pool(images)


@compiled
def _largest_and_first(images):
    """The maximum of each 2x2 window, and the position (0 to 3, uint8) of its first maximum."""
    height, width = (side // 2 * 2 for side in images.shape[1:3])
    numbers = _ordered_integers(images)
    a, b, c, d = (numbers[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1))
    largest = tf.maximum(tf.maximum(a, b), tf.maximum(c, d))
    first = tf.where(c == largest, np.uint8(2), np.uint8(3))
    first = tf.where(b == largest, np.uint8(1), first)
    first = tf.where(a == largest, np.uint8(0), first)
    return tf.bitcast(_ordered_bits(largest), images.dtype), first


def _ordered_integers(values):
    """Integers of the same width as the floats, and in the same order.

    The processor compares vectors of integers directly, whereas it would convert bfloat16 for each
    comparison. Zero comes after minus zero. The order of NaN is undefined, as among floats.
    """
    return _ordered_bits(
        tf.bitcast(values, {2: tf.int16, 4: tf.int32, 8: tf.int64}[values.dtype.size])
    )


def _ordered_bits(bits):
    """Inverts the bits below the sign where the sign is set; doing so twice changes nothing."""
    sign = tf.bitwise.right_shift(bits, 8 * bits.dtype.size - 1)  # 0 or -1
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(sign, bits.dtype.max))


@compiled
def _spread(upstream, first, *, height, width):
    """Puts each value at one position of its 2x2 window, and 0 at the other three."""
    rows, columns, channels = upstream.shape[1:]
    # (batch, rows, row in window, columns, column in window, channels)
    per_window = (-1, rows, 1, columns, 1, channels)
    position = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 1, 2, 1)
    is_first = tf.equal(tf.reshape(first, per_window), position)
    spread = tf.where(is_first, tf.reshape(upstream, per_window), tf.zeros([], upstream.dtype))
    spread = tf.reshape(spread, (-1, 2 * rows, 2 * columns, channels))
    return tf.pad(spread, ((0, 0), (0, height - 2 * rows), (0, width - 2 * columns), (0, 0)))

"""The training data on TensorFlow's devices: the whole set, or a chunk of a stream."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from fenwicks._typing import Tensor


class WholeSet(NamedTuple):
    """All images, on every device; each epoch takes them in an order of its own.

    Attributes:
        images: uint8 `(count, height, width, channels)`.
        targets: tuple of the labels, int32 `(count,)` or float32 `(count, outputs)`, and, where
            there are any, the weights of the images, float32 `(count,)`.
    """

    images: Tensor
    targets: tuple[Tensor, ...]

    def order(self, epoch_seed, count):
        """The order in which an epoch takes the images: int32 `(count,)`."""
        # Sorting random numbers is a shuffle that every device compiles; integers, since XLA makes
        # other floats of the same bits than the plain kernel.
        numbers = tf.random.stateless_uniform(
            [count], epoch_seed, None, None, dtype=tf.int32, alg='philox'
        )
        return tf.argsort(numbers)

    def batch(self, order, step, batch_size):
        """The part of an order that a step takes: int32 `(batch,)`."""
        # Not order[a:b]: XLA wants a slice's size to be a constant.
        return tf.slice(order, [step * batch_size], [batch_size])

    def rows(self, batch, batch_size, replicas):
        """Where this device's images of a batch stand in `images`."""
        return replicas.local_batch(batch)

    def targets_of(self, rows):
        """The labels of the images in these rows, and their weights, where they have any."""
        return tuple(tf.gather(target, rows) for target in self.targets)

    def places(self, rows):
        """The places in the data set of the images in these rows."""
        return rows


class Chunk(NamedTuple):
    """The next steps of a stream: each device has its own part of their batches, in order.

    Attributes:
        images: `(rows, height, width, channels)`, as the source gives them.
        targets: tuple of the labels `(rows, ...)` and, where there are any, the weights `(rows,)`.
        indices: int32 `(rows,)`, the places of the images in the data set.
        first: int32 scalar, the step of the epoch with which the chunk begins.
    """

    images: Tensor
    targets: tuple[Tensor, ...]
    indices: Tensor
    first: Tensor

    def order(self, epoch_seed, count):
        """None: the source has its own."""

    def batch(self, order, step, batch_size):
        """How many steps of the chunk come before a step."""
        return step - self.first

    def rows(self, batch, batch_size, replicas):
        size = batch_size // replicas.count
        return batch * size + tf.range(size)

    def targets_of(self, rows):
        return tuple(tf.gather(target, rows) for target in self.targets)

    def places(self, rows):
        return tf.gather(self.indices, rows)

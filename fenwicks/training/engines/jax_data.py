"""The training data on JAX's devices: the whole set, or a chunk of a stream."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fenwicks._typing import Tensor


class WholeSet(NamedTuple):
    """All images, on every device; each epoch takes them in an order of its own.

    Attributes:
        images: uint8 `(count, pixels)`: a TPU would pad the channels or columns of images.
        targets: tuple of the labels, int32 `(count,)` or float32 `(count, outputs)`, and, where
            there are any, the weights of the images, float32 `(count,)`.
    """

    images: Tensor
    targets: tuple[Tensor, ...]

    @staticmethod
    def shardings(replicas):
        """How the devices hold it."""
        return WholeSet(*[replicas.replicated] * 2)

    def order(self, epoch_seed):
        """The order in which an epoch takes the images: int32 `(count,)`."""
        key = jax.random.wrap_key_data(epoch_seed.astype('uint32'), impl='threefry2x32')
        return jnp.argsort(jax.random.uniform(key, self.targets[0].shape[:1]))

    def batch(self, order, step, batch_size):
        """The part of an order that a step takes: int32 `(batch,)`."""
        return lax.dynamic_slice_in_dim(order, step * batch_size, batch_size)

    def take(self, batch, batch_size, replicas):
        """This device's images and targets of a batch, and their places in the data set."""
        batch = replicas.local_batch(batch)
        return self.images[batch], tuple(target[batch] for target in self.targets), batch


class Chunk(NamedTuple):
    """The next steps of a stream: each device has its own part of their batches, in order.

    Attributes:
        images: `(rows, pixels)`, as the source gives them; the devices' parts one after the other.
        targets: tuple of the labels `(rows, ...)` and, where there are any, the weights `(rows,)`.
        indices: int32 `(rows,)`, the places of the images in the data set.
        first: int32 scalar, the step of the epoch with which the chunk begins.
    """

    images: Tensor
    targets: tuple[Tensor, ...]
    indices: Tensor
    first: Tensor

    @classmethod
    def placed(cls, chunk, replicas):
        """A `ChunkArrays` on the devices."""
        images = chunk.images.reshape(*chunk.images.shape[:2], -1)
        place = replicas.place_parts
        return cls(
            place(images),
            tuple(map(place, chunk.targets)),
            place(chunk.indices),
            replicas.place(jnp.asarray(np.int32(chunk.first))),
        )

    @staticmethod
    def shardings(replicas):
        divided = replicas.divided
        return Chunk(divided, divided, divided, replicas.replicated)

    def order(self, epoch_seed):
        """None: the source has its own."""

    def batch(self, order, step, batch_size):
        """How many steps of the chunk come before a step."""
        return step - self.first

    def take(self, batch, batch_size, replicas):
        size = batch_size // replicas.count

        def rows(array):
            return replicas.rows_of_step(array, batch, size)

        return rows(self.images), tuple(map(rows, self.targets)), rows(self.indices)

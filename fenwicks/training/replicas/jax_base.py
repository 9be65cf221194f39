"""A single device on JAX, and the interface of the classes for several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fenwicks.training.replicas.base import Replicas

AXIS = 'replicas'  # of the mesh of devices


def default_device() -> jax.Device:
    """Where JAX puts new arrays in this thread."""
    (device,) = jnp.zeros(()).devices()
    return device


class JaxReplicas(Replicas):
    """A single device, and the interface of the classes for several.

    Args:
        mesh: a `jax.sharding.Mesh` of one axis; `None` for JAX's default device.
    """

    def __init__(self, mesh=None):
        self.mesh = mesh
        self.count = 1 if mesh is None else mesh.size

    @property
    def replicated(self):
        """The sharding of an array of which every device holds a copy; `None` by default."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    @property
    def divided(self):
        """The sharding of an array whose first axis the devices divide; `None` by default."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(AXIS))

    def rows_of_step(self, array, position, size):
        """This device's rows of the batch number `position`, of an array that is divided among the
        devices: each has `size` rows of each batch, in order."""
        # Not as a slice: where that is the whole array, XLA would compile another program than for
        # the resident data, with other roundings.
        return array[position * size + jnp.arange(size)]

    def split(self, array, parts):
        """Equal parts `(parts, size, ...)` of an array `(batch, ...)`, of each device's share."""
        return array.reshape(parts, -1, *array.shape[1:])

    def sharded_axis(self, shape):
        """The axis along which weights of that shape are divided; `None` for a copy on each."""

    def sharding(self, axis):
        """The sharding of an array that is divided along `axis`, or replicated for `None`."""
        return self.replicated

    def map_replicas(self, function, axes, data=None):
        """Makes a function run on every device, each with its part of the weights.

        Args:
            function: from a list of weights, data and other trees to gradients and another tree
                that is the same on all devices. It calls the methods below.
            axes: for each weight, and so for its gradient, the axis along which it is divided.
            data: the shardings of the data, a tree; `None` where the function takes none.
        """
        return function

    def all_gather(self, weights, axes, dtypes):
        """Whole weights from the devices' parts, each sent in the dtype that it is used in."""
        return weights

    def mean_gradients(self, gradients, axes, dtypes):
        """This device's parts of the mean gradients; `dtypes` are those they were computed in."""
        return gradients

    def all_reduce_mean(self, tree):
        """Means over the devices of the float arrays of a tree; other arrays must be equal."""
        return tree

    def place(self, tree, shardings=None):
        """Copies the arrays of a tree to the devices: to all, or by a tree of shardings."""
        return tree

    def place_parts(self, parts):
        """Copies to each device of this process its part of an array `(devices, rows, ...)`; the
        result's first axis has the rows of all devices of all processes."""
        return jnp.asarray(parts[0])

    def unreplicate(self, tree):
        """Makes arrays on one device of those that a program returned."""
        return tree

    def wait_for_unreplicated(self):
        """Waits for the last `unreplicate`: call it after the arrays were assigned to variables,
        so that an interrupt meanwhile finds them there."""

    def place_for_inference(self, values, images):
        """Copies a tree of weights to every device, and to each a part of the images."""
        return values, jnp.asarray(images)

    def gather_batch(self, array):
        """An array of the whole batch, from the devices' parts."""
        return array

    def place_for_scoring(self, tree):
        """Copies a tree of weights, or a whole set of images, to the devices that score it."""
        return tree

    def share_for_scoring(self, images):
        """Marks a batch as shared by the devices."""
        return images

    def on_one_device(self, array):
        """An array that the devices computed together, on the first of them."""
        return array

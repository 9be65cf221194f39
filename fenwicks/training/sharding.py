"""Data parallelism on JAX: what a step does differently when several devices share its batch.

Every device holds the whole state and the whole data set, and takes an equal share of each batch.
Batch size, learning rate and steps are those of the whole batch, however many devices there are.
A step calls the four methods of `Replicas` where the devices have to agree; on one device these do
nothing, and cost nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fenwicks import augment

BATCH_NORMS = ('per_replica', 'synchronized')
_AXIS = 'replicas'


def replicas(devices, batch_norm='per_replica') -> Replicas:
    """The way in which devices share a batch.

    Args:
        devices: list of JAX devices, or of those of an ahead-of-time topology.
        batch_norm: `'per_replica'`: each device normalizes its share of the batch by itself, and
            the running statistics are the mean over the devices; the devices talk once a step.
            `'synchronized'`: statistics of the whole batch, as on one device; they talk at each
            batch normalization.

    Returns:
        A `Replicas`.

    Raises:
        ValueError: `batch_norm` is neither of the two, or there is no device.
    """
    if batch_norm not in BATCH_NORMS:
        raise ValueError(
            f'`batch_norm` must be one of {", ".join(BATCH_NORMS)}. '
            f'Received: batch_norm={batch_norm}'
        )
    if not devices:
        raise ValueError('`devices` must hold a device. Received: devices=[]')
    mesh = Mesh(np.array(devices), (_AXIS,))
    if len(devices) == 1:
        return Replicas(mesh)
    return (_PerReplica if batch_norm == 'per_replica' else _Synchronized)(mesh)


class Replicas:
    """One device: it takes the whole batch and has nobody to agree with.

    Args:
        mesh: of one axis; `None` for JAX's default device.
    """

    def __init__(self, mesh=None):
        self.mesh = mesh
        self.count = 1 if mesh is None else mesh.size

    @property
    def everywhere(self):
        """The sharding of what every device holds whole, which is all that a program takes."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    def check_batch(self, batch_size: int, devices='these devices'):
        """Raises unless the devices, called so, can share a batch equally."""
        if batch_size % self.count:
            raise ValueError(
                f'`batch_size` must be a multiple of {self.count}, the replicas on {devices}. '
                f'Received: batch_size={batch_size}'
            )

    def program(self, function):
        """`function` of a whole epoch, in which steps call the methods below, for `jax.jit`."""
        return function

    def share(self, batch):
        """The part of a batch, an array `(batch, ...)`, that this device takes."""
        return batch

    def seed(self, seed):
        """A seed for what this device draws for its share, from that of the step."""
        return seed

    def mean(self, tree):
        """The mean over the devices of every float array in a tree; others they have in common."""
        return tree

    def total(self, value):
        """The sum over the devices."""
        return value


class _PerReplica(Replicas):
    """Each device runs the program on its share; gradients and statistics are averaged."""

    def program(self, function):
        everywhere = PartitionSpec()
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
        )

    def share(self, batch):
        size = batch.shape[0] // self.count
        return lax.dynamic_slice_in_dim(batch, lax.axis_index(_AXIS) * size, size)

    def seed(self, seed):
        return augment.fold(seed, lax.axis_index(_AXIS).astype('int32'))

    def mean(self, tree):
        def mean(leaf):
            return lax.pmean(leaf, _AXIS) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.tree.map(mean, tree)  # XLA makes one message of them all

    def total(self, value):
        return lax.psum(value, _AXIS)


class _Synchronized(Replicas):
    """One program on the whole batch, which XLA cuts up between the devices."""

    def share(self, batch):
        return lax.with_sharding_constraint(batch, NamedSharding(self.mesh, PartitionSpec(_AXIS)))

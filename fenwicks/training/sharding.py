"""Data parallelism on JAX: what a step does differently when several devices share its batch.

Every device holds the whole state and the whole data set, and takes an equal share of each batch.
Between the calls of a program the variables are ordinary arrays on the first device, so that
everything else need not know of the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fenwicks import augment
from fenwicks.training import replicas as common

_AXIS = 'replicas'


def replicate(count, batch_norm, device) -> Replicas:
    """`training.replicate` on JAX."""
    devices = jax.devices(device)
    if jax.process_count() > 1:
        if count not in (None, len(devices)):
            raise ValueError(
                f'`replicas` must be {len(devices)}, all devices of the {jax.process_count()} '
                f'processes. Received: replicas={count}'
            )
        return replicas(devices, batch_norm)
    if count is None:
        count = 1 if device == 'cpu' else len(devices)
    if count > len(devices):
        advice = ' XLA_FLAGS=--xla_force_host_platform_device_count=N cuts the processor up.'
        raise common.too_few(count, len(devices), device, advice if device == 'cpu' else '')
    # The default device, where there is only one: nothing has to be placed there.
    return Replicas() if count == 1 else replicas(devices[:count], batch_norm)


def at_hand() -> Replicas:
    """All accelerators, or the default device that somebody chose."""
    if jax.config.jax_default_device is not None and jax.process_count() == 1:
        return Replicas()
    return replicate(None, 'per_replica', jnp.zeros(()).device.platform)


def replicas(devices, batch_norm='per_replica') -> Replicas:
    """The way in which devices share a batch.

    Args:
        devices: list of JAX devices, or of those of an ahead-of-time topology.
        batch_norm: as of `training.replicate`.

    Returns:
        A `Replicas`.

    Raises:
        ValueError: `batch_norm` is neither of the two, or there is no device.
    """
    common.check_batch_norm(batch_norm)
    if not devices:
        raise ValueError('`devices` must hold a device. Received: devices=[]')
    mesh = Mesh(np.array(devices), (_AXIS,))
    if len(devices) == 1:
        return Replicas(mesh)
    return (_PerReplica if batch_norm == 'per_replica' else _Synchronized)(mesh)


class Replicas(common.Replicas):
    """One device.

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

    def compile(self, function, arguments):
        """`function` compiled for abstract arguments; the memory of the first is used again."""
        return jax.jit(function, donate_argnums=0).lower(*arguments).compile()

    def spread(self, values, images):
        """A tree of weights, and images, such that every device infers on some of the images."""
        return values, jnp.asarray(images)


class _Several(Replicas):
    """Several devices, of this process or of several."""

    def __init__(self, mesh):
        super().__init__(mesh)
        here = jax.process_index()
        self.processes = len({device.process_index for device in mesh.devices.flat})
        self.chief = here == 0
        self._local = [device for device in mesh.devices.flat if device.process_index == here]
        self._taken = {}

    def compile(self, function, arguments):
        everywhere = self.everywhere
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            arguments,
        )
        program = jax.jit(self.program(function), donate_argnums=0, out_shardings=everywhere)
        return program.lower(*arguments).compile()

    def place(self, tree):
        everywhere = self.everywhere

        def place(leaf):
            if id(leaf) in self._taken:  # it lies on the other devices already
                return self._taken[id(leaf)][1]
            copies = [jax.device_put(leaf, device) for device in self._local]
            return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, copies)

        return jax.tree.map(place, tree)

    def spread(self, values, images):
        if self.processes > 1:  # each may be at other images
            return super().spread(values, images)
        # Up to a multiple of the devices, by the first images again.
        numbers = np.arange(-(-len(images) // self.count) * self.count) % len(images)
        shares = NamedSharding(self.mesh, PartitionSpec(_AXIS))
        return self.place(values), jax.device_put(images[numbers], shares)

    def take(self, tree):
        leaves, structure = jax.tree.flatten(tree)
        views = [leaf.addressable_data(0) for leaf in leaves]
        self._taken = {id(view): (view, leaf) for view, leaf in zip(views, leaves, strict=True)}
        return jax.tree.unflatten(structure, views)


class _PerReplica(_Several):
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

        return jax.tree.map(mean, tree)  # XLA makes one message of all of a dtype

    def mean_gradients(self, gradients, compute_dtypes):
        def mean(gradient, dtype):
            # A kernel's was widened from bfloat16 just before: why send twice as many bytes?
            # The sum is rounded like each of its summands. (In float16 it could overflow.)
            narrow = dtype == 'bfloat16' and gradient.ndim > 1
            message = gradient.astype(dtype) if narrow else gradient
            return lax.pmean(message, _AXIS).astype(gradient.dtype)

        return [mean(*pair) for pair in zip(gradients, compute_dtypes, strict=True)]

    def total(self, value):
        return lax.psum(value, _AXIS)


class _Synchronized(_Several):
    """One program on the whole batch, which XLA cuts up between the devices."""

    batch_norm = 'synchronized'

    def images_together(self, batch_size):
        return batch_size

    def share(self, batch):
        return lax.with_sharding_constraint(batch, NamedSharding(self.mesh, PartitionSpec(_AXIS)))

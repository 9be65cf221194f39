"""Data parallelism on JAX: what a step does differently when several devices share its batch.

Every device holds the whole data set, and takes an equal share of each batch. Where the optimizer
treats each number by itself, the kernels and their velocities are divided among the devices: each
adds up the gradients of its part, updates that, and sends it to the others for their next step.
That is as many bytes as adding up gradients everywhere, and an eighth of the update on eight.

Between the calls of a program the variables are ordinary arrays on the first device, so that
everything else need not know of the others.

Reference:
    Xu et al., Automatic Cross-Replica Sharding of Weight Update in Data-Parallel Training,
    https://arxiv.org/abs/2004.13336
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fenwicks import augment
from fenwicks.training.replicas import base as common

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
        """The sharding of what every device holds whole."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    def axis(self, shape):
        """The axis along which an array of that shape is best divided; None to leave it whole."""

    def sharding(self, axis):
        """The sharding of an array that is divided along `axis`, or whole."""
        return self.everywhere

    def shared(self, function, axes):
        """`function` of each device's part of the weights and whole other arguments.

        Args:
            function: of a list of weights and other trees, to gradients and another tree that is
                the same on all devices; the methods below are for it.
            axes: along which the weights, and so their gradients, are divided.
        """
        return function

    def whole(self, weights, axes, dtypes):
        """The weights from all their parts, each sent in the dtype in which it is computed with."""
        return weights

    def mean_gradients(self, gradients, axes, dtypes):
        """This device's parts of the gradients' means; `dtypes` are those they were computed in."""
        return gradients

    def place(self, tree, shardings=None):
        """Arrays of this process where a program finds them; on every device unless told."""
        return tree

    def settle(self):
        """Waits for what was taken last; an interrupt meanwhile finds the variables assigned."""

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
        self._gather = jax.jit(lambda leaves: leaves, out_shardings=self.everywhere)
        self._taken = {}

    def begin_alike(self, variables):
        if self.processes > 1:  # without a seed in common each has drawn weights of its own
            values = [np.asarray(variable.value) for variable in variables]
            values = multihost_utils.broadcast_one_to_all(values)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(np.asarray(value))

    def place(self, tree, shardings=None):
        if shardings is None:
            return jax.tree.map(self._place_whole, tree)
        return jax.tree.map(self._place, tree, shardings)

    def _place(self, leaf, sharding):
        _, whole, parts = self._taken.get(id(leaf), (None, None, None))
        # It lies on the devices already; another trainer of the model may divide it otherwise.
        if parts is not None and parts.sharding.is_equivalent_to(sharding, parts.ndim):
            if whole is not parts:
                whole.delete()  # the parts are about to be changed, and their memory is needed
            return parts
        if sharding == self.everywhere:
            return self._place_whole(leaf)
        values = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda part: values[part])

    def _place_whole(self, leaf):
        if id(leaf) in self._taken:
            _, whole, _ = self._taken[id(leaf)]
            return whole
        copies = [jax.device_put(leaf, device) for device in self._local]
        return jax.make_array_from_single_device_arrays(leaf.shape, self.everywhere, copies)

    def spread(self, values, images):
        if self.processes > 1:  # each may be at other images
            return super().spread(values, images)
        # Up to a multiple of the devices, by the first images again.
        numbers = np.arange(-(-len(images) // self.count) * self.count) % len(images)
        shares = NamedSharding(self.mesh, PartitionSpec(_AXIS))
        return self.place(values), jax.device_put(images[numbers], shares)

    def take(self, tree):
        leaves, structure = jax.tree.flatten(tree)
        gathered = iter(self._gather([leaf for leaf in leaves if _is_divided(leaf)]))
        everywhere = [next(gathered) if _is_divided(leaf) else leaf for leaf in leaves]
        views = [whole.addressable_data(0) for whole in everywhere]
        taken = zip(views, everywhere, leaves, strict=True)
        self._taken = {id(view): (view, whole, leaf) for view, whole, leaf in taken}
        return jax.tree.unflatten(structure, views)

    def settle(self):
        # A processor starts the next program beside the one that gathers: if another process takes
        # them the other way round, each waits for a message of the other's.
        jax.block_until_ready([whole for _, whole, _ in self._taken.values()])


class _PerReplica(_Several):
    """Each device computes on its share; gradients and statistics are averaged."""

    def axis(self, shape):
        # A kernel's inputs: a TPU would fill up a part of the last axis to 128 numbers.
        return len(shape) - 2 if len(shape) > 1 and not shape[-2] % self.count else None

    def sharding(self, axis):
        return NamedSharding(self.mesh, _spec(axis))

    def shared(self, function, axes):
        parts = [_spec(axis) for axis in axes]
        whole = PartitionSpec()

        def on_each(weights, *others):
            return jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=(parts, *[whole] * len(others)),
                out_specs=(parts, whole),
                check_vma=False,
            )(weights, *others)

        return on_each

    def share(self, batch):
        size = batch.shape[0] // self.count
        return lax.dynamic_slice_in_dim(batch, lax.axis_index(_AXIS) * size, size)

    def seed(self, seed):
        return augment.fold(seed, lax.axis_index(_AXIS).astype('int32'))

    def whole(self, weights, axes, dtypes):
        def whole(weight, axis, dtype):
            if axis is None:
                return weight
            message = _message(weight, dtype)
            return lax.all_gather(message, _AXIS, axis=axis, tiled=True).astype(weight.dtype)

        return [whole(*each) for each in zip(weights, axes, dtypes, strict=True)]

    def mean(self, tree):
        def mean(leaf):
            return lax.pmean(leaf, _AXIS) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.tree.map(mean, tree)  # XLA makes one message of all of a dtype

    def mean_gradients(self, gradients, axes, dtypes):
        def mean(gradient, axis, dtype):
            message = _message(gradient, dtype)
            if axis is None:
                total = lax.psum(message, _AXIS)
            else:
                total = lax.psum_scatter(message, _AXIS, scatter_dimension=axis, tiled=True)
            return total.astype(gradient.dtype) / self.count

        return [mean(*each) for each in zip(gradients, axes, dtypes, strict=True)]

    def total(self, value):
        return lax.psum(value, _AXIS)


def _is_divided(array):
    return not array.sharding.is_fully_replicated


def _spec(axis):
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, _AXIS)


def _message(array, dtype):
    """What devices tell each other of a weight or a gradient that is computed with in `dtype`.

    A kernel's gradient was widened from bfloat16 just before, and a kernel is about to be narrowed
    (a regularizer sees it rounded): why send twice as many bytes? A sum is rounded like each of its
    summands. (In float16 it could overflow.)
    """
    return array.astype(dtype) if dtype == 'bfloat16' and array.ndim > 1 else array


class _Synchronized(_Several):
    """One program on the whole batch, which XLA cuts up between the devices."""

    batch_norm = 'synchronized'

    def images_together(self, batch_size):
        return batch_size

    def share(self, batch):
        return lax.with_sharding_constraint(batch, NamedSharding(self.mesh, PartitionSpec(_AXIS)))

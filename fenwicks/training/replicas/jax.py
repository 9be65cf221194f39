"""Data parallelism on JAX: what a step does differently when several devices share its batch.

Every device holds the whole data set and takes an equal part of each batch. Where the optimizer's
update is elementwise, kernels and their velocities are divided among the devices: each sums up the
gradients of its part (reduce-scatter), updates the part, and sends it to the others for their next
step (all-gather). That sends as many bytes as an all-reduce of the gradients; on eight devices each
computes an eighth of the update.

Between calls of the program the variables are ordinary arrays on the first device, so that all
other code sees a single device.

Reference:
    Xu et al., Automatic Cross-Replica Sharding of Weight Update in Data-Parallel Training,
    https://arxiv.org/abs/2004.13336
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fenwicks import augment
from fenwicks.devices.jax import choose_devices
from fenwicks.training.replicas.base import check_batch_norm
from fenwicks.training.replicas.jax_base import AXIS, JaxReplicas, default_device


def replicate(count: int | None, batch_norm: str, device: str) -> JaxReplicas:
    """`training.replicate` on JAX."""
    devices = choose_devices(count, device)
    # A single device is JAX's default: then nothing needs to be placed.
    return JaxReplicas() if len(devices) == 1 else from_devices(devices, batch_norm)


def default_replicas() -> JaxReplicas:
    """All accelerators, or JAX's default device where the user has chosen one."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is not None and jax.process_count() == 1:
        return JaxReplicas()
    return replicate(None, 'per_replica', default_device().platform)


def from_devices(devices: Sequence, batch_norm: str = 'per_replica') -> JaxReplicas:
    """The replicas on a list of devices.

    Args:
        devices: list of JAX devices, or of those of an ahead-of-time topology.
        batch_norm: as of `training.replicate`.

    Returns:
        A `JaxReplicas`.

    Raises:
        ValueError: `batch_norm` is neither of the two, or there is no device.
    """
    check_batch_norm(batch_norm)
    if not devices:
        raise ValueError('`devices` must hold a device. Received: devices=[]')
    mesh = Mesh(np.array(devices), (AXIS,))
    if len(devices) == 1:
        return JaxReplicas(mesh)
    kind = ShardMapReplicas if batch_norm == 'per_replica' else SynchronizedReplicas
    return kind(mesh)


class ShardedReplicas(JaxReplicas):
    """Several devices, of this process or of several: what both kinds have in common."""

    lost_process_errors = (jax.errors.JaxRuntimeError,)

    def __init__(self, mesh):
        super().__init__(mesh)
        here = jax.process_index()
        self.processes = len({device.process_index for device in mesh.devices.flat})
        self.process_index, self.chief = here, here == 0
        self._local = [device for device in mesh.devices.flat if device.process_index == here]
        self._gather = jax.jit(lambda leaves: leaves, out_shardings=self.replicated)
        # By the id of an array on one device: that array, the replicated and the divided one.
        self._unreplicated = {}

    def broadcast_initial_values(self, variables):
        if self.processes > 1:  # without a common seed each has initialized its own weights
            values = [np.asarray(variable.value) for variable in variables]
            values = multihost_utils.broadcast_one_to_all(values)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(np.asarray(value))

    def numbers_of_processes(self, number):
        return np.ravel(multihost_utils.process_allgather(np.int32(number))).tolist()

    def place(self, tree, shardings=None):
        if shardings is None:
            return jax.tree.map(self._place_replicated, tree)
        return jax.tree.map(self._place, tree, shardings)

    def _place(self, leaf, sharding):
        _, replicated, divided = self._unreplicated.get(id(leaf), (None, None, None))
        # The array is on the devices already, unless another trainer of the model divides it
        # along another axis.
        if divided is not None and divided.sharding.is_equivalent_to(sharding, divided.ndim):
            if replicated is not divided:
                replicated.delete()  # the program will change the parts, and needs the memory
            return divided
        if sharding == self.replicated:
            return self._place_replicated(leaf)
        values = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda part: values[part])

    def _place_replicated(self, leaf):
        if id(leaf) in self._unreplicated:
            _, replicated, _ = self._unreplicated[id(leaf)]
            return replicated
        copies = [jax.device_put(leaf, device) for device in self._local]
        return jax.make_array_from_single_device_arrays(leaf.shape, self.replicated, copies)

    def place_parts(self, parts):
        arrays = list(map(jax.device_put, parts, self._local))
        shape = (self.count * parts.shape[1], *parts.shape[2:])
        return jax.make_array_from_single_device_arrays(shape, self.divided, arrays)

    def place_for_inference(self, values, images):
        if self.processes > 1:  # each may have other images
            return super().place_for_inference(values, images)
        # Filled up with the first images to a multiple of the devices.
        numbers = np.arange(-(-len(images) // self.count) * self.count) % len(images)
        shares = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return self.place(values), jax.device_put(images[numbers], shares)

    def place_for_scoring(self, tree):
        return self.place(tree) if self.processes == 1 else tree  # each scores its own images

    def share_for_scoring(self, images):
        if self.processes > 1:
            return images
        return lax.with_sharding_constraint(images, NamedSharding(self.mesh, PartitionSpec(AXIS)))

    def on_one_device(self, array):
        if self.processes > 1:
            return array
        return jax.device_put(array, self.replicated).addressable_data(0)

    def unreplicate(self, tree):
        leaves, structure = jax.tree.flatten(tree)
        gathered = iter(self._gather([leaf for leaf in leaves if _is_divided(leaf)]))
        replicated = [next(gathered) if _is_divided(leaf) else leaf for leaf in leaves]
        views = [array.addressable_data(0) for array in replicated]
        forms = zip(views, replicated, leaves, strict=True)
        self._unreplicated = {id(view): (view, array, leaf) for view, array, leaf in forms}
        return jax.tree.unflatten(structure, views)

    def wait_for_unreplicated(self):
        # A CPU starts the next program before the gathering one ends. If another process started
        # them in the other order, each would wait for a message of the other.
        jax.block_until_ready([array for _, array, _ in self._unreplicated.values()])


class ShardMapReplicas(ShardedReplicas):
    """Each device runs the step on its part of the batch (`jax.shard_map`), with batch statistics
    of its own; gradients and moving statistics are averaged."""

    def sharded_axis(self, shape):
        # The input channels of a kernel: a TPU pads parts of the last axis to 128 numbers.
        return len(shape) - 2 if len(shape) > 1 and not shape[-2] % self.count else None

    def sharding(self, axis):
        return NamedSharding(self.mesh, _spec(axis))

    def map_replicas(self, function, axes, data=None):
        divided = [_spec(axis) for axis in axes]
        replicated = PartitionSpec()
        held = [] if data is None else [jax.tree.map(lambda sharding: sharding.spec, data)]

        def mapped(weights, *others):
            replicated_others = [replicated] * (len(others) - len(held))
            return jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=(divided, *held, *replicated_others),
                out_specs=(divided, replicated),
                check_vma=False,
            )(weights, *others)

        return mapped

    def local_batch(self, batch):
        size = batch.shape[0] // self.count
        return lax.dynamic_slice_in_dim(batch, lax.axis_index(AXIS) * size, size)

    def local_seed(self, seed):
        return augment.fold(seed, lax.axis_index(AXIS).astype('int32'))

    def all_gather(self, weights, axes, dtypes):
        def gather(weight, axis, dtype):
            if axis is None:
                return weight
            message = _message(weight, dtype)
            return lax.all_gather(message, AXIS, axis=axis, tiled=True).astype(weight.dtype)

        return [gather(*each) for each in zip(weights, axes, dtypes, strict=True)]

    def all_reduce_mean(self, tree):
        def mean(leaf):
            return lax.pmean(leaf, AXIS) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.tree.map(mean, tree)  # XLA sends all arrays of a dtype in one message

    def gather_batch(self, array):
        return lax.all_gather(array, AXIS, tiled=True)

    def mean_gradients(self, gradients, axes, dtypes):
        def mean(gradient, axis, dtype):
            message = _message(gradient, dtype)
            if axis is None:
                total = lax.psum(message, AXIS)
            else:
                total = lax.psum_scatter(message, AXIS, scatter_dimension=axis, tiled=True)
            return total.astype(gradient.dtype) / self.count

        return [mean(*each) for each in zip(gradients, axes, dtypes, strict=True)]

    def all_reduce_sum(self, value):
        return lax.psum(value, AXIS)


def _is_divided(array):
    return not array.sharding.is_fully_replicated


def _spec(axis):
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)


def _message(array, dtype):
    """What is sent of a weight, or of its gradient, where its layer computes in `dtype`.

    In bfloat16 where that loses nothing: a kernel's gradient was cast from bfloat16 just before,
    and a kernel is about to be cast to it (a regularizer sees it rounded). A sum is rounded like
    each of its terms. In float16 it could overflow.
    """
    return array.astype(dtype) if dtype == 'bfloat16' and array.ndim > 1 else array


class SynchronizedReplicas(ShardedReplicas):
    """One program on the global batch, which XLA partitions among the devices."""

    batch_norm = 'synchronized'

    def model_batch_size(self, batch_size):
        return batch_size

    def local_batch(self, batch):
        return lax.with_sharding_constraint(batch, self.divided)

    def rows_of_step(self, array, position, size):
        parts = array.reshape(self.count, -1, *array.shape[1:])
        rows = lax.dynamic_slice_in_dim(parts, position * size, size, axis=1)
        return self.local_batch(rows.reshape(-1, *array.shape[1:]))

    def split(self, array, parts):
        shares = array.reshape(self.count, parts, -1, *array.shape[1:])
        return jnp.swapaxes(shares, 0, 1).reshape(parts, -1, *array.shape[1:])

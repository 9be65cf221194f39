"""The devices that share a batch on JAX."""

from __future__ import annotations

import jax
import keras

from fenwicks.devices.placement import Placement, not_all, too_many


def choose_devices(count: int | None, kind: str) -> list[jax.Device]:
    """The devices of a kind that share a batch.

    Args:
        count: how many; `None` for all, but one CPU device. Where several processes train
            together, it must be all of their devices.
        kind: `'cpu'`, `'gpu'` or `'tpu'`.

    Raises:
        ValueError: there are fewer, or several processes have another number.
    """
    devices = jax.devices(kind)
    if jax.process_count() > 1:
        if count not in (None, len(devices)):
            raise not_all(count, len(devices), f'the {jax.process_count()} processes')
        return devices
    if count is None:
        count = 1 if kind == 'cpu' else len(devices)
    if count > len(devices):
        advice = ' XLA_FLAGS=--xla_force_host_platform_device_count=N splits the CPU.'
        raise too_many(count, len(devices), kind, advice if kind == 'cpu' else '')
    return devices[:count]


def place(count: int | None, kind: str) -> Placement:
    """The devices of `devices.distribute`."""
    devices = choose_devices(count, kind)
    processes = len({device.process_index for device in devices})
    names = [f'{device.platform}:{device.id}' for device in devices]
    return Placement(
        count=len(devices),
        processes=processes,
        chief=jax.process_index() == 0,
        jit_compile=True,
        feeding_processes=processes,
        distribution=None if len(devices) == 1 else _data_parallel(names),
    )


def _data_parallel(names):
    # Each process feeds its own part of a batch; Keras would divide a tf.data.Dataset and refuse
    # everything else.
    return keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)

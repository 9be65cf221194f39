"""How much memory a device has left, and what doesn't fit it."""

from __future__ import annotations

import functools
import pathlib
import subprocess

import keras

_CGROUP = pathlib.Path('/sys/fs/cgroup')
_MEMINFO = pathlib.Path('/proc/meminfo')


def check_fits(needed: int, free: int | None, held: int, budget: int | None) -> None:
    """Raises unless a device can hold the data.

    Args:
        needed: bytes of the data.
        free: bytes that are free on the device; `None` where that isn't known.
        held: bytes of earlier data that these replace.
        budget: bytes that data may have on the device; `None` for those that are free.

    Raises:
        ValueError: they don't fit.
    """
    most, whose = budget, '`memory_budget` allows'
    if budget is None and free is not None:
        most, whose = free + held, 'are free on the device'
    if most is not None and needed > most:
        raise ValueError(
            f'`images` must fit the {_gigabytes(most)} that {whose}: stream them, '
            'fit(fenwicks.data.ImageBatches(images, labels, batch_size, shuffle=True, '
            'drop_remainder=True), epochs=...) or fit(a tf.data.Dataset, epochs=...). '
            f'Received: {_gigabytes(needed)}'
        )


def free_memory(on_cpu: bool) -> int | None:
    """Bytes that are free on each device of the training; `None` where that isn't known."""
    if on_cpu:
        return free_ram()
    if keras.backend.backend() == 'jax':
        import jax

        from fenwicks.training.replicas.jax_base import default_device

        # Trainers take all devices of the process, or the one that the user has chosen.
        chosen = jax.config.jax_default_device is not None  # type: ignore[attr-defined]
        devices = [default_device()] if chosen else jax.local_devices()
        figures = [device.memory_stats() or {} for device in devices]
        known = [each for each in figures if 'bytes_limit' in each]
        return min((each['bytes_limit'] - each['bytes_in_use'] for each in known), default=None)
    return _free_of_gpu()


def free_ram(meminfo: pathlib.Path = _MEMINFO, cgroup: pathlib.Path = _CGROUP) -> int | None:
    """Bytes of the machine's memory that programs may still take, in a container of its share.

    Args:
        meminfo: the file `/proc/meminfo`.
        cgroup: the folder in which a container finds its limits, of either version.
    """
    bounds = [_available(meminfo), _left_in_container(cgroup)]
    known = [bound for bound in bounds if bound is not None]
    return min(known, default=None)


def _available(meminfo):
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(':')
            if name == 'MemAvailable':
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_in_container(cgroup):
    """What the limit of a control group leaves; pages of files can be given back."""
    for limit, usage, statistics, reclaimable in (
        ('memory.max', 'memory.current', 'memory.stat', 'inactive_file'),
        (
            'memory/memory.limit_in_bytes',
            'memory/memory.usage_in_bytes',
            'memory/memory.stat',
            'total_inactive_file',
        ),
    ):
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
            lines = (cgroup / statistics).read_text().splitlines()
            counts = dict(line.split() for line in lines)
            return max(0, most - used + int(counts.get(reclaimable, 0)))
        except (OSError, ValueError):  # another version, or no limit: the word "max"
            continue
    return None


def _free_of_gpu():
    """TensorFlow takes a GPU's whole memory at its start and knows only what it uses of it."""
    import tensorflow as tf

    gpus = [f'GPU:{number}' for number in range(len(tf.config.list_logical_devices('GPU')))]
    total = _gpu_memory() if gpus else None
    if total is None:
        return None
    return total - max(tf.config.experimental.get_memory_info(gpu)['current'] for gpu in gpus)


@functools.cache
def _gpu_memory():
    """Bytes of the smallest NVIDIA GPU, or `None`."""
    command = ('nvidia-smi', '--query-gpu=memory.total', '--format=csv,noheader,nounits')
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return min(int(line) for line in run.stdout.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _gigabytes(count):
    return f'{count / 1e9:.3g} GB'

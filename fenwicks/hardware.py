"""What a run ran on: processor or accelerator, versions, memory."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import sys

_PACKAGES = ('fenwicks', 'keras', 'tensorflow', 'tensorflow-cpu', 'jax', 'torch', 'numpy')


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on, where installed."""
    found = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(device='cpu') -> str:
    """The processor, or the accelerator, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    plural = '' if cores == 1 else 's'
    return f'{_processor()}, {cores} core{plural}' if device == 'cpu' else _accelerator(device)


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB of 2**20 bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == 'darwin' else 2**10))


def _processor():
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = dict(
        line.split(':', 1) for line in cpuinfo.read_text().splitlines() if line.count(':') == 1
    )
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    name = fields.get('model name', platform.machine())
    if 'flags' not in fields:  # not an x86
        return name
    flags = fields['flags'].split()
    units = [flag for flag in ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2') if flag in flags]
    return f'{name} ({units[0] if units else "no AVX2"})'


def _accelerator(device):
    import keras

    if keras.backend.backend() == 'jax':
        import jax

        return f'{len(jax.devices())} x {jax.devices()[0].device_kind}'
    import tensorflow as tf

    found = tf.config.list_physical_devices(device.upper())
    details = tf.config.experimental.get_device_details(found[0]) if found else {}
    return f'{len(found)} x {details.get("device_name", device.upper())}'

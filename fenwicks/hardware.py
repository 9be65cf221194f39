"""What a run ran on: processor or accelerator, memory, versions, the commit of the code."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

from fenwicks._checks import device_kind, missing_device
from fenwicks.kernels import device as processor

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = ('keras', 'tensorflow', 'tensorflow-cpu', 'jax', 'torch', 'numpy')


def provenance() -> dict[str, Any]:
    """What every logged run says of the code that made it.

    Call it before the work, since the clone may change while that goes on.

    Returns:
        A dict that JSON takes: `versions`; `commit`, the hash of the clone's commit; `clean`,
        whether its tracked files are those of the commit; `date`. Commit and clean are `None` where
        fenwicks isn't imported from a clone.
    """
    commit, clean = _commit()
    return {
        'versions': versions(),
        'commit': commit,
        'clean': clean,
        'date': datetime.date.today().isoformat(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of those packages on which results depend that are installed."""
    # Of this copy of fenwicks, which may be another than the installed one.
    fenwicks = sys.modules[__name__.partition('.')[0]]
    found = {'python': platform.python_version(), 'fenwicks': fenwicks.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(device: str = 'cpu', count: int | None = None) -> str:
    """The processor with its number of cores, or the accelerators, in words.

    Args:
        device: kind of the device: `'cpu'`, `'gpu'` or `'tpu'`.
        count: how many accelerators are used; `None` for all that the backend finds.

    Raises:
        ValueError: `device` is none of these, or the backend finds none of the kind.
    """
    device_kind(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    plural = '' if cores == 1 else 's'
    return (
        f'{_processor()}, {cores} core{plural}' if device == 'cpu' else _accelerator(device, count)
    )


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB of 2**20 bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == 'darwin' else 2**10))


@functools.cache
def _commit():
    """The clone's commit and whether its files are unchanged, as the process first saw them."""
    if not (_ROOT / '.git').exists():  # an installed copy may lie within another project's clone
        return None, None
    commit, changes = _git('rev-parse', 'HEAD'), _git('status', '--porcelain', '-uno')
    return commit, None if changes is None else not changes


def _git(*arguments):
    """What Git prints; None where it fails or isn't installed."""
    # Of a hook, or of whoever set them: GIT_DIR and the like name another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != 'GIT_'}
    command = ['git', '-C', str(_ROOT), *arguments]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if run.returncode else run.stdout.strip()


def _processor():
    fields = processor.cpu_fields()
    name = fields.get('model name', platform.processor() or platform.machine())
    if 'flags' not in fields:  # not an x86
        return name
    flags = fields['flags'].split()
    units = [flag for flag in ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2') if flag in flags]
    return f'{name} ({units[0] if units else "no AVX2"})'


def _accelerator(device, count):
    import keras

    if keras.backend.backend() == 'jax':
        import jax

        try:
            accelerators = jax.devices(device)
        except RuntimeError:
            raise missing_device(device) from None
        return f'{count or len(accelerators)} x {accelerators[0].device_kind}'
    import tensorflow as tf

    found = tf.config.list_physical_devices(device.upper())
    if not found:
        raise missing_device(device)
    details = tf.config.experimental.get_device_details(found[0])
    return f'{count or len(found)} x {details.get("device_name", device.upper())}'

"""Which device there is, and what to install where the one asked for is missing."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import pathlib
import re

import keras

DEVICES = ('auto', 'cpu', 'gpu', 'tpu')


def select_device(device='auto') -> str:
    """The kind of device to train on: `'cpu'`, `'gpu'` or `'tpu'`.

    Call it before anything is placed on a device: for `'cpu'` it hides the accelerators.

    Args:
        device: `'auto'` for the fastest kind that is there, or the kind wanted.

    Raises:
        ValueError: `device` is none of `DEVICES`, or this machine has none of that kind, or
            `KERAS_BACKEND` was changed too late.
    """
    if device not in DEVICES:
        raise ValueError(f'`device` must be one of {", ".join(DEVICES)}. Received: device={device}')
    check_backend()
    found = _find_devices()
    if device == 'auto':
        return next(kind for kind in ('tpu', 'gpu', 'cpu') if kind in found)
    if device not in found:
        raise ValueError(
            f'`device` must be one that the {keras.backend.backend()} backend finds: '
            f'{", ".join(sorted(found))}. {_ADVICE[device]()} Received: device={device}'
        )
    if device == 'cpu' and len(found) > 1:
        _hide_accelerators()
    return device


def check_backend() -> str:
    """The backend that Keras has loaded.

    Raises:
        ValueError: `KERAS_BACKEND` names another.
    """
    asked, loaded = os.environ.get('KERAS_BACKEND'), keras.backend.backend()
    if asked and asked != loaded:
        raise ValueError(
            '`KERAS_BACKEND` must be set before Keras is imported: start Python anew. '
            f'Received: KERAS_BACKEND={asked}, while Keras runs on {loaded}'
        )
    return loaded


def connect():
    """Joins the processes, on one machine or several, that the environment says train together.

    Call it first of all: nothing may have been placed on a device. Each process runs the same
    program. TensorFlow is told of the others by `TF_CONFIG`, and joins them when
    `training.replicate` is called. For JAX, set `JAX_COORDINATOR_ADDRESS` (host:port of the first
    process), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; on a slice of TPU hosts it knows by itself.

    Raises:
        ValueError: only some of the three are set.
    """
    if keras.backend.backend() != 'jax':
        return
    import jax

    names = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
    address, *numbers = (os.environ.get(name) for name in names)
    if address or any(numbers):
        if not (address and all(number and number.isdecimal() for number in numbers)):
            found = ', '.join(f'{name}={os.environ.get(name)}' for name in names)
            raise ValueError(f'`{"`, `".join(names)}` must be set together. Received: {found}')
        jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(address, *map(int, numbers))
    elif ',' in os.environ.get('TPU_WORKER_HOSTNAMES', ''):
        jax.distributed.initialize()


def remember_programs():
    """Has JAX keep the programs that it compiles, so that the next start needn't compile them.

    They lie in `$JAX_COMPILATION_CACHE_DIR`, or else in `~/.cache/fenwicks/jax`.
    """
    if keras.backend.backend() != 'jax':
        return
    import jax

    if not jax.config.jax_compilation_cache_dir:
        folder = pathlib.Path('~/.cache/fenwicks/jax').expanduser()
        jax.config.update('jax_compilation_cache_dir', str(folder))
    # The many small ones, of eager operations, add up to a second.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _tpu_advice():
    tensorflow_tpu, libtpu, jax = map(_is_installed, ('tensorflow-tpu', 'libtpu', 'jax'))
    backend = keras.backend.backend()
    if backend != 'jax' and jax and libtpu and not tensorflow_tpu:
        return 'jax and libtpu are installed: set KERAS_BACKEND=jax before Keras is imported.'
    if backend != 'tensorflow' and tensorflow_tpu and not (jax and libtpu):
        return 'tensorflow-tpu is installed: set KERAS_BACKEND=tensorflow before Keras is imported.'
    if libtpu and (tensorflow_tpu if backend == 'tensorflow' else jax):
        return (
            'libtpu is installed and finds none: this machine has no TPU, or another process has '
            'it. Elsewhere: ' + _TPU_INSTALL
        )
    seen = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')
    return ('' if seen else 'No TPU is to be seen here; on a machine with one: ') + _TPU_INSTALL


_TPU_INSTALL = (
    "pip install 'jax[tpu]' and set KERAS_BACKEND=jax, or, without any other tensorflow, "
    'pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 and set KERAS_BACKEND=tensorflow.'
)


def _gpu_advice():
    backend = keras.backend.backend()
    # CUDA 13 comes with the drivers from 580 on.
    cuda = 'cuda13' if (_nvidia_driver() or 0) >= 580 else 'cuda12'
    jax_plugins = [f'jax-{name}-plugin' for name in ('cuda12', 'cuda13')]
    jax_with_gpus = any(map(_is_installed, jax_plugins))
    if backend != 'jax' and jax_with_gpus:
        return (
            "jax is installed with GPUs' support: set KERAS_BACKEND=jax before Keras is imported."
        )
    where = '' if _nvidia_driver() else 'No NVIDIA driver runs here; on a machine with one: '
    if backend == 'jax':
        if jax_with_gpus and where:
            return 'This jax supports GPUs, but no NVIDIA driver runs here.'
        if jax_with_gpus:
            return 'This jax supports GPUs and finds none: see what nvidia-smi says.'
        return f"{where}this jax doesn't support GPUs: pip install 'jax[{cuda}]'."
    return (
        f"{where}pip install 'tensorflow[and-cuda]' in a fresh environment, or "
        f"pip install 'jax[{cuda}]' and set KERAS_BACKEND=jax."
    )


_ADVICE = {'tpu': _tpu_advice, 'gpu': _gpu_advice}


def _is_installed(distribution):
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _nvidia_driver():
    """The driver's main version, or None."""
    try:
        text = pathlib.Path('/proc/driver/nvidia/version').read_text()
    except OSError:
        return None
    found = re.search(r'\b(\d{3,})\.\d+', text)
    return int(found[1]) if found else None


def _find_devices() -> set[str]:
    """The kinds that are there, less those that were hidden."""
    kinds = set()
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        kinds = {device.device_type.lower() for device in tf.config.get_visible_devices()}
    elif keras.backend.backend() == 'jax':
        import jax
        import jax.numpy as jnp

        kinds = {name.split(':')[0] for name in keras.distribution.list_devices()}
        if jax.config.jax_default_device is not None:
            kinds = {jnp.zeros(()).device.platform}
    return (kinds & set(DEVICES)) | {'cpu'}


def _hide_accelerators():
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        for kind in ('GPU', 'TPU'):
            tf.config.set_visible_devices([], kind)
    elif keras.backend.backend() == 'jax':
        import jax

        jax.config.update('jax_default_device', jax.devices('cpu')[0])

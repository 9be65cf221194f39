"""Selects the device to train on, and says what to install where it is missing."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import pathlib
import re

import keras

from fenwicks import _checks

DEVICES = ('auto', *_checks.DEVICES)
_SECONDS_OF_SILENCE = 30  # after which a process that JAX hears nothing of is taken for dead


def select_device(device: str = 'auto') -> str:
    """Selects the kind of device to train on: `'cpu'`, `'gpu'` or `'tpu'`.

    Call it before anything is placed on a device: `'cpu'` hides the accelerators from the backend.

    Args:
        device: the kind wanted, or `'auto'` for the fastest kind that the backend finds.

    Returns:
        The kind selected.

    Raises:
        ValueError: `device` is not one of `DEVICES`, the backend finds no such device, or
            `KERAS_BACKEND` was changed after Keras was imported.

    Example:

    >>> select_device('auto') in ('cpu', 'gpu', 'tpu')
    True
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
    """Returns the name of Keras's backend, after checking it against `KERAS_BACKEND`.

    Raises:
        ValueError: `KERAS_BACKEND` names another backend than the one that Keras has loaded.
    """
    asked, loaded = os.environ.get('KERAS_BACKEND'), keras.backend.backend()
    if asked and asked != loaded:
        raise ValueError(
            '`KERAS_BACKEND` must be set before Keras is imported: start Python anew. '
            f'Received: KERAS_BACKEND={asked}, while Keras runs on {loaded}'
        )
    return loaded


def connect() -> None:
    """Connects the processes that train one model together, as the environment describes them.

    Call it before anything is placed on a device. Each process runs the same program, on one
    machine or several.

    * TensorFlow reads `TF_CONFIG`, and connects when `training.replicate` is called.
    * JAX needs `JAX_COORDINATOR_ADDRESS` (host:port of the first process), `JAX_NUM_PROCESSES` and
      `JAX_PROCESS_ID`. The hosts of a TPU slice find each other without them.

    Raises:
        ValueError: only some of JAX's three variables are set, or the numbers are not numbers.
    """
    if keras.backend.backend() != 'jax':
        return
    import jax

    names = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
    address, *numbers = (os.environ.get(name) for name in names)
    if address or any(numbers):
        places = [int(number) for number in numbers if number and number.isdecimal()]
        if not address or len(places) < 2:
            found = ', '.join(f'{name}={os.environ.get(name)}' for name in names)
            raise ValueError(f'`{"`, `".join(names)}` must be set together. Received: {found}')
        jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(
            address,
            num_processes=places[0],
            process_id=places[1],
            # By default a process waits for minutes until it takes another for dead.
            heartbeat_timeout_seconds=_SECONDS_OF_SILENCE,
            shutdown_timeout_seconds=_SECONDS_OF_SILENCE,
        )
    elif ',' in os.environ.get('TPU_WORKER_HOSTNAMES', ''):
        jax.distributed.initialize()


def remember_programs() -> None:
    """Turns on JAX's compilation cache, so that later runs load programs instead of compiling them.

    The cache is in `$JAX_COMPILATION_CACHE_DIR`, or in `~/.cache/fenwicks/jax` where that is unset.
    Other backends are left as they are.
    """
    if keras.backend.backend() != 'jax':
        return
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        folder = pathlib.Path('~/.cache/fenwicks/jax').expanduser()
        jax.config.update('jax_compilation_cache_dir', str(folder))
    # Small programs too: those of eager operations are many, and add up to a second.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _tpu_advice() -> str:
    tensorflow_tpu, libtpu, jax = map(_is_installed, ('tensorflow-tpu', 'libtpu', 'jax'))
    backend = keras.backend.backend()
    if backend != 'jax' and jax and libtpu and not tensorflow_tpu:
        return 'jax and libtpu are installed: set KERAS_BACKEND=jax before Keras is imported.'
    if backend != 'tensorflow' and tensorflow_tpu and not (jax and libtpu):
        return 'tensorflow-tpu is installed: set KERAS_BACKEND=tensorflow before Keras is imported.'
    if libtpu and (tensorflow_tpu if backend == 'tensorflow' else jax):
        return (
            'libtpu is installed and finds no TPU: this machine has no TPU, or another process has '
            'it. On another machine: ' + _TPU_INSTALL
        )
    seen = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')
    return ('' if seen else 'This machine shows no TPU; on one that has it: ') + _TPU_INSTALL


_TPU_INSTALL = (
    "pip install 'jax[tpu]' and set KERAS_BACKEND=jax, or, without any other tensorflow, "
    'pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 and set KERAS_BACKEND=tensorflow.'
)


def _gpu_advice() -> str:
    backend = keras.backend.backend()
    # CUDA 13 needs a driver from version 580 on.
    cuda = 'cuda13' if (_nvidia_driver() or 0) >= 580 else 'cuda12'
    jax_plugins = [f'jax-{name}-plugin' for name in ('cuda12', 'cuda13')]
    jax_with_gpus = any(map(_is_installed, jax_plugins))
    if backend != 'jax' and jax_with_gpus:
        return 'jax is installed with GPU support: set KERAS_BACKEND=jax before Keras is imported.'
    where = '' if _nvidia_driver() else 'No NVIDIA driver runs here; on a machine with one: '
    if backend == 'jax':
        if jax_with_gpus and where:
            return 'This jax supports GPUs, but no NVIDIA driver runs here.'
        if jax_with_gpus:
            return 'This jax supports GPUs but finds none: check the driver with nvidia-smi.'
        return f"{where}this jax doesn't support GPUs: pip install 'jax[{cuda}]'."
    return (
        f"{where}pip install 'tensorflow[and-cuda]' in a fresh environment, or "
        f"pip install 'jax[{cuda}]' and set KERAS_BACKEND=jax."
    )


_ADVICE = {'tpu': _tpu_advice, 'gpu': _gpu_advice}


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _nvidia_driver() -> int | None:
    """The major version of the NVIDIA driver, or None where there is none."""
    try:
        text = pathlib.Path('/proc/driver/nvidia/version').read_text()
    except OSError:
        return None
    found = re.search(r'\b(\d{3,})\.\d+', text)
    return int(found[1]) if found else None


def _find_devices() -> set[str]:
    """The kinds of device that the backend finds, without those that were hidden."""
    kinds = set()
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        kinds = {device.device_type.lower() for device in tf.config.get_visible_devices()}
    elif keras.backend.backend() == 'jax':
        import jax
        import jax.numpy as jnp

        kinds = {name.split(':')[0] for name in keras.distribution.list_devices()}
        if jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
            kinds = {next(iter(jnp.zeros(()).devices())).platform}
    return (kinds & set(_checks.DEVICES)) | {'cpu'}


def _hide_accelerators() -> None:
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        for kind in ('GPU', 'TPU'):
            tf.config.set_visible_devices([], kind)
    elif keras.backend.backend() == 'jax':
        import jax

        jax.config.update('jax_default_device', jax.devices('cpu')[0])

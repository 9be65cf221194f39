"""Which device there is, and what to install where the one asked for is missing."""

from __future__ import annotations

import keras

DEVICES = ('auto', 'cpu', 'gpu', 'tpu')


def select_device(device='auto') -> str:
    """The kind of device to train on: `'cpu'`, `'gpu'` or `'tpu'`.

    Call it before anything is placed on a device: for `'cpu'` it hides the accelerators.

    Args:
        device: `'auto'` for the fastest kind that is there, or the kind wanted.

    Raises:
        ValueError: `device` is none of `DEVICES`, or this machine has none of that kind.
    """
    if device not in DEVICES:
        raise ValueError(f'`device` must be one of {", ".join(DEVICES)}. Received: device={device}')
    found = _find_devices()
    if device == 'auto':
        return next(kind for kind in ('tpu', 'gpu', 'cpu') if kind in found)
    if device not in found:
        raise ValueError(
            f'`device` must be one that the {keras.backend.backend()} backend finds: '
            f'{", ".join(sorted(found))}. {_ADVICE[device]} Received: device={device}'
        )
    if device == 'cpu' and len(found) > 1:
        _hide_accelerators()
    return device


_ADVICE = {
    'tpu': "On a TPU machine: pip install 'jax[tpu]' and set KERAS_BACKEND=jax.",
    'gpu': "With an NVIDIA GPU: pip install 'tensorflow[and-cuda]' in a fresh environment.",
}


def _find_devices() -> set[str]:
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        kinds = {device.device_type.lower() for device in tf.config.list_physical_devices()}
    else:
        kinds = {name.split(':')[0] for name in keras.distribution.list_devices()}
    return (kinds & set(DEVICES)) | {'cpu'}


def _hide_accelerators():
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        for kind in ('GPU', 'TPU'):
            tf.config.set_visible_devices([], kind)
    elif keras.backend.backend() == 'jax':
        import jax

        jax.config.update('jax_default_device', jax.devices('cpu')[0])

"""Which processor the kernels run on, and what it can do."""

from __future__ import annotations

import contextlib
import functools
import pathlib

import keras

_overridden: dict[str, bool] = {}


def cpu_flags(cpuinfo='/proc/cpuinfo') -> frozenset[str]:
    """The processor's instruction sets in the kernel's words: `'avx2'`, `'avx512f'`, ...

    Args:
        cpuinfo: where Linux lists them.

    Returns:
        A set of names; it is empty on other systems than Linux.
    """
    path = pathlib.Path(cpuinfo)
    if not path.exists():
        return frozenset()
    found = set()
    for line in path.read_text().splitlines():
        if line.startswith(('flags', 'Features')):  # x86, Arm
            found.update(line.split(':', 1)[1].split())
    return frozenset(found)


@contextlib.contextmanager
def override(**answers: bool):
    """A context in which this module's questions have other answers.

    ```python
    with override(on_cpu=False):  # trace the program that an accelerator would run
        program = trace()
    ```

    Args:
        **answers: `on_cpu`, `has_avx512` or `has_amx`, and the answer each is to give.

    Raises:
        ValueError: there is no such question.
    """
    unknown = answers.keys() - {'on_cpu', 'has_avx512', 'has_amx'}
    if unknown:
        raise ValueError(
            '`answers` must be of on_cpu, has_avx512 and has_amx. '
            f'Received: {", ".join(sorted(unknown))}'
        )
    before = dict(_overridden)
    _overridden.update(answers)
    try:
        yield
    finally:
        _overridden.clear()
        _overridden.update(before)


def on_cpu() -> bool:
    """Whether Keras runs on TensorFlow without an accelerator, where the CPU kernels pay."""
    if 'on_cpu' in _overridden:
        return _overridden['on_cpu']
    return _has_no_accelerator() and not _in_tpu_scope()


def has_avx512() -> bool:
    """Whether the processor has the vectors for which oneDNN's batch normalization is written."""
    return _overridden.get('has_avx512', 'avx512f' in _flags())


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 matrices in tiles, several times as fast."""
    return _overridden.get('has_amx', 'amx_bf16' in _flags())


@functools.cache
def _flags():
    return cpu_flags()


def _in_tpu_scope():
    import tensorflow as tf

    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


@functools.cache
def _has_no_accelerator():
    if keras.backend.backend() != 'tensorflow':
        return False
    import tensorflow as tf

    return not any(
        device.device_type in ('GPU', 'TPU') for device in tf.config.get_visible_devices()
    )

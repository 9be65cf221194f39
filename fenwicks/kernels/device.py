"""The device that Keras runs on, and the instruction sets of the processor."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator

import keras

if keras.backend.backend() == 'tensorflow':
    import tensorflow as tf

_QUESTIONS = {
    *('on_cpu', 'has_avx512', 'has_amx', 'uses_onednn', 'in_inference', 'in_place', 'launched')
}
# One of these instruction sets makes TensorFlow use oneDNN.
_ONEDNN_BY_DEFAULT = {'avx512_vnni', 'avx512_bf16', 'avx_vnni', 'amx_tile'}
_overridden: dict[str, bool] = {}


def cpu_fields(cpuinfo: str = '/proc/cpuinfo') -> dict[str, str]:
    """Returns what Linux says of the processor, by its names: `'model name'`, `'flags'`, ...

    Args:
        cpuinfo: the file in which Linux describes each core; the last one's fields are returned.

    Returns:
        A dict, empty on systems other than Linux.
    """
    path = pathlib.Path(cpuinfo)
    if not path.exists():
        return {}
    pairs = (line.split(':', 1) for line in path.read_text().splitlines() if ':' in line)
    return {name.strip(): value.strip() for name, value in pairs}


def cpu_flags(cpuinfo: str = '/proc/cpuinfo') -> frozenset[str]:
    """Returns the processor's instruction sets as Linux names them: `'avx2'`, `'avx512f'`, ...

    Args:
        cpuinfo: as in `cpu_fields`.

    Returns:
        A set of names, empty on systems other than Linux.
    """
    fields = cpu_fields(cpuinfo)
    return frozenset(fields.get('flags', fields.get('Features', '')).split())  # x86, Arm


@contextlib.contextmanager
def override(**answers: bool) -> Iterator[None]:
    """Returns a context in which functions of this module answer as given here.

    ```python
    with override(on_cpu=False):  # trace the program that an accelerator would run
        program = trace()
    ```

    Args:
        **answers: by the names of the functions `on_cpu`, `has_avx512`, `has_amx` and
            `uses_onednn`; and `in_inference`, see `takes_shortcuts`, `in_place`, see
            `traces_in_place`, and `launched`, see `launches`.

    Raises:
        ValueError: `answers` holds another name.
    """
    unknown = answers.keys() - _QUESTIONS
    if unknown:
        raise ValueError(
            f'`answers` must be of {", ".join(sorted(_QUESTIONS))}. '
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
    """Returns whether Keras runs on TensorFlow without an accelerator, where CPU kernels pay."""
    if 'on_cpu' in _overridden:
        return _overridden['on_cpu']
    return _has_no_accelerator() and not _in_tpu_scope()


def takes_shortcuts(training: bool | None) -> bool:
    """Returns whether a layer uses the CPU kernels: on TensorFlow's CPU, in training.

    A program traced for inference may be exported to runtimes that have standard operations only.
    Whoever runs it here and now has the kernels as well within `override(in_inference=True)`.
    """
    return runs_here(training) and on_cpu()


def runs_here(training: bool | None) -> bool:
    """Returns whether a program runs in this process, and isn't traced for another runtime.

    Programs for training do, and those traced within `override(in_inference=True)`.
    """
    return bool(training or _overridden.get('in_inference'))


def traces_in_place() -> bool:
    """Returns whether kernels are traced into the graph that calls them, as a profile needs them.

    Otherwise graphs call them as separate functions, see `fenwicks.kernels.gradients`.
    """
    return _overridden.get('in_place', False)


def launches() -> bool:
    """Returns whether a graph starts XLA's programs by an operation instead of calling a function.

    TensorFlow keeps a copy of each compiled function for each graph that calls it, until the
    process ends: 0.3 MB of each small network that was trained. XLA itself can't compile a graph
    with that operation, so only a graph that surely runs as it is may have it.
    """
    return _overridden.get('launched', False)


def on_jax() -> bool:
    """Returns whether Keras runs on JAX."""
    return keras.backend.backend() == 'jax'


def has_avx512() -> bool:
    """Returns whether the processor has AVX-512, which oneDNN's batch normalization needs."""
    return _overridden.get('has_avx512', 'avx512f' in _flags())


def uses_onednn() -> bool:
    """Returns whether TensorFlow's convolutions are oneDNN's: where its authors have it so, or by
    the environment variable `TF_ENABLE_ONEDNN_OPTS`, which TensorFlow reads when it is imported."""
    default = bool(_flags() & _ONEDNN_BY_DEFAULT)
    set_on = os.environ.get('TF_ENABLE_ONEDNN_OPTS', str(int(default))) in ('1', 'true')
    return _overridden.get('uses_onednn', set_on)


def has_amx() -> bool:
    """Returns whether the processor has AMX, which multiplies bfloat16 matrices in tiles."""
    return _overridden.get('has_amx', 'amx_bf16' in _flags())


@functools.cache
def _flags():
    return cpu_flags()


def _in_tpu_scope():
    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


@functools.cache
def _has_no_accelerator():
    if keras.backend.backend() != 'tensorflow':
        return False
    return not any(
        device.device_type in ('GPU', 'TPU') for device in tf.config.get_visible_devices()
    )

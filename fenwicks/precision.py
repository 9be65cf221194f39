"""The precision of training: chooses and sets Keras's dtype policy for a device."""

from __future__ import annotations

import keras

from fenwicks._checks import device_kind, missing_device
from fenwicks.kernels import device as processor

_POLICIES = {
    'float32': 'float32',
    'bfloat16': 'mixed_bfloat16',
    'float16': 'mixed_float16',
}

PRECISIONS = ('auto', *_POLICIES)


def set_precision(precision: str = 'auto', device: str = 'cpu') -> str:
    """Sets Keras's global dtype policy: float32 variables, arithmetic in `precision`.

    Args:
        precision: `'float32'`, `'bfloat16'`, `'float16'`, or `'auto'` for the fastest on the
            device. float16 needs loss scaling: wrap the optimizer in
            `keras.optimizers.LossScaleOptimizer` (`compile` of Keras does so by itself).
        device: `'cpu'`, `'gpu'` or `'tpu'`, as `devices.select_device` returns it.

    Returns:
        The precision chosen: `'float32'`, `'bfloat16'` or `'float16'`.

    Raises:
        ValueError: `precision` or `device` is not one of those named.

    Example:

    >>> import keras
    >>> before = keras.config.dtype_policy()
    >>> set_precision('bfloat16')
    'bfloat16'
    >>> keras.config.dtype_policy().name
    'mixed_bfloat16'
    >>> keras.config.set_dtype_policy(before)
    """
    precision = choose_precision(precision, device)
    keras.config.set_dtype_policy(_POLICIES[precision])
    return precision


def policy_precision(expected: str | None = None) -> str:
    """The precision of Keras's global dtype policy: `'float32'`, `'bfloat16'` or `'float16'`.

    Args:
        expected: what it has to be; None for anything.

    Raises:
        ValueError: it is another one. `keras.utils.clear_session` resets the policy.

    Example:

    >>> from fenwicks.precision import policy_precision
    >>> policy_precision()
    'float32'
    """
    found = keras.config.dtype_policy().compute_dtype
    if expected not in (None, found):
        raise ValueError(
            '`precision` must be that of the dtype policy: call `set_precision` before, and after '
            f'`keras.utils.clear_session`. Received: precision={expected}, policy of {found}'
        )
    return found


def choose_precision(precision: str, device: str) -> str:
    """The precision that `set_precision` would set, with the same arguments, without setting it.

    Raises:
        ValueError: `precision` or `device` is not one of those named.

    Example:

    >>> choose_precision('float32', 'cpu')
    'float32'
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f'`precision` must be one of {", ".join(PRECISIONS)}. Received: precision={precision}'
        )
    device_kind(device)
    return _fastest(device) if precision == 'auto' else precision


def _fastest(device: str) -> str:
    if device == 'tpu':
        return 'bfloat16'
    if device == 'gpu':
        return 'bfloat16' if _gpu_has_bfloat16() else 'float16'
    return 'bfloat16' if cpu_has_bfloat16() else 'float32'


def cpu_has_bfloat16(cpuinfo: str = '/proc/cpuinfo') -> bool:
    """Whether the CPU multiplies faster in bfloat16 than in float32.

    Without instructions for it, bfloat16 is emulated and slow. Intel's processors need AMX, which a
    virtual machine may hide: with AVX512-BF16 alone their products of matrices take longer in
    bfloat16, while AMD's take less time.

    Args:
        cpuinfo: path of the file in which Linux describes the processor.
    """
    flags = processor.cpu_flags(cpuinfo)
    if processor.cpu_fields(cpuinfo).get('vendor_id') == 'GenuineIntel':
        return 'amx_bf16' in flags
    return bool(flags & {'avx512_bf16', 'amx_bf16', 'bf16'})


def _gpu_has_bfloat16() -> bool:
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        gpus = tf.config.list_physical_devices('GPU')
        if not gpus:
            raise missing_device('gpu')
        gpu, *_ = gpus
        major, _ = tf.config.experimental.get_device_details(gpu).get('compute_capability', (0, 0))
        return major >= 8
    if keras.backend.backend() == 'jax':
        import jax

        try:
            gpu, *_ = jax.devices('gpu')
        except RuntimeError:
            raise missing_device('gpu') from None
        return int(gpu.compute_capability.split('.')[0]) >= 8
    return False

"""The precision of a training: which Keras dtype policy serves the device at hand."""

from __future__ import annotations

import contextlib

import keras

from fenwicks.kernels import device as processor

_POLICIES = {
    'float32': 'float32',
    'bfloat16': 'mixed_bfloat16',
    'float16': 'mixed_float16',
}

PRECISIONS = ('auto', *_POLICIES)


def set_precision(precision='auto', device='cpu') -> str:
    """Sets Keras's global dtype policy: variables in float32, arithmetic in `precision`.

    Args:
        precision: `'float32'`, `'bfloat16'`, `'float16'` (gradients are then computed from a
            scaled loss, by wrapping the optimizer in `keras.optimizers.LossScaleOptimizer`), or
            `'auto'`: the fastest that the device has units for.
        device: `'cpu'`, `'gpu'` or `'tpu'`.

    Returns:
        The precision chosen: `'float32'`, `'bfloat16'` or `'float16'`.

    Raises:
        ValueError: `precision` is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f'`precision` must be one of {", ".join(PRECISIONS)}. Received: precision={precision}'
        )
    if precision == 'auto':
        precision = _fastest(device)
    keras.config.set_dtype_policy(_POLICIES[precision])
    return precision


def exact_products():
    """A context in which JAX multiplies float32 numbers as such, in matrices and convolutions.

    By default TPUs round them to bfloat16, and recent GPUs to ten bits (TF32). For products that
    are few and must be right. TensorFlow has no such context: its float32 products are exact on a
    CPU, as `tf.config` says on a GPU, and rounded to bfloat16 on a TPU.
    """
    if keras.backend.backend() != 'jax':
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision('highest')


def _fastest(device):
    if device == 'tpu':
        return 'bfloat16'
    if device == 'gpu':
        return 'bfloat16' if _gpu_has_bfloat16() else 'float16'
    return 'bfloat16' if cpu_has_bfloat16() else 'float32'


def cpu_has_bfloat16(cpuinfo='/proc/cpuinfo') -> bool:
    """Whether the processor multiplies in bfloat16; elsewhere it would be emulated, slowly."""
    return bool(processor.cpu_flags(cpuinfo) & {'avx512_bf16', 'amx_bf16', 'bf16'})


def _gpu_has_bfloat16():
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        gpu = tf.config.list_physical_devices('GPU')[0]
        major, _ = tf.config.experimental.get_device_details(gpu).get('compute_capability', (0, 0))
        return major >= 8
    if keras.backend.backend() == 'jax':
        import jax

        return int(jax.devices('gpu')[0].compute_capability.split('.')[0]) >= 8
    return False

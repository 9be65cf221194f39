"""Products of float32 numbers without rounding of the factors, where a device rounds by default."""

from __future__ import annotations

import contextlib

import keras

if keras.backend.backend() == 'jax':
    import jax


def exact_products() -> contextlib.AbstractContextManager:
    """A context in which JAX multiplies float32 matrices and convolutions in full float32.

    By default TPUs round the factors to bfloat16, and recent GPUs to ten bits (TF32). It is meant
    for a few products in which such an error would matter. TensorFlow has no such context: its
    float32 products are exact on a CPU, follow `tf.config` on a GPU, and are rounded to bfloat16
    on a TPU.
    """
    if keras.backend.backend() != 'jax':
        return contextlib.nullcontext()
    return jax.default_matmul_precision('highest')

"""2-D max pooling."""

from __future__ import annotations

import keras

from fenwicks import kernels
from fenwicks._typing import Tensor


@keras.saving.register_keras_serializable(package='fenwicks')
class MaxPooling2D(keras.layers.MaxPooling2D):
    """2-D max pooling with the arguments and results of `keras.layers.MaxPooling2D`.

    In training on TensorFlow's CPU windows of 2x2 pixels that don't overlap use
    `fenwicks.kernels.pooling`, whose gradient is faster.

    Args:
        As `keras.layers.MaxPooling2D`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether to use the faster kernel, whose operations other runtimes don't have.

    Returns:
        `(batch, new_height, new_width, channels)`.

    Example:

    >>> from fenwicks.layers import MaxPooling2D
    >>> MaxPooling2D(2).compute_output_shape((None, 32, 32, 64))
    (None, 16, 16, 64)
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if kernels.device.takes_shortcuts(training) and self._has_fast_kernel(inputs):
            return kernels.pooling.max_pool_2x2(inputs)
        return super().call(inputs)

    def _has_fast_kernel(self, inputs):
        sides = inputs.shape[1:3]
        return (
            self.pool_size == (2, 2)
            and self.strides == (2, 2)
            and self.data_format == 'channels_last'
            and keras.backend.is_float_dtype(inputs.dtype)
            and all(side is not None and side >= 2 for side in sides)
            and (self.padding == 'valid' or all(side % 2 == 0 for side in sides))
        )


def windows_of(pool: keras.layers.Layer) -> tuple[int, int] | None:
    """Height and width of the windows of a pooling whose windows lie side by side, else None."""
    if type(pool) not in _POOLS:  # a subclass may do something else
        return None
    whole = pool.padding == 'valid' and pool.strides == pool.pool_size
    return pool.pool_size if whole and pool.data_format == 'channels_last' else None


_POOLS = (MaxPooling2D, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)

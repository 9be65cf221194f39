"""Keras's convolution, batch normalization and max pooling, with faster kernels underneath.

The classes take their parents' arguments, own the same variables and compute the same numbers.
On TensorFlow, where the shapes allow it, they use `fenwicks.kernels`, and so does batch
normalization on JAX; everywhere else they are their parents.
"""

from __future__ import annotations

import keras

from fenwicks.kernels import batch_norm as fused
from fenwicks.kernels import batch_norm_jax as one_pass
from fenwicks.kernels import convolution, device


@keras.saving.register_keras_serializable(package='fenwicks')
class Conv2D(keras.layers.Conv2D):
    """2-D convolution, as `keras.layers.Conv2D`, faster on TensorFlow's CPU.

    Args:
        As `keras.layers.Conv2D`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.

    Returns:
        `(batch, new_height, new_width, filters)`.
    """

    def convolution_op(self, inputs, kernel):
        if device.on_cpu() and self._has_fast_gradient(inputs):
            return convolution.conv2d(inputs, kernel)
        return super().convolution_op(inputs, kernel)

    def _has_fast_gradient(self, inputs):
        # An image's three channels make the turned convolution a bad shape, and nobody asks for
        # the gradient with respect to the data.
        return (
            self.strides == (1, 1)
            and self.dilation_rate == (1, 1)
            and self.groups == 1
            and self.padding == 'same'
            and self.data_format == 'channels_last'
            and all(size % 2 for size in self.kernel_size)
            and inputs.shape[-1] > 3
        )


@keras.saving.register_keras_serializable(package='fenwicks')
class MaxPooling2D(keras.layers.MaxPooling2D):
    """2-D max pooling, as `keras.layers.MaxPooling2D`, with a faster gradient on TensorFlow's CPU.

    Args:
        As `keras.layers.MaxPooling2D`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.

    Returns:
        `(batch, new_height, new_width, channels)`.
    """

    def call(self, inputs):
        if device.on_cpu() and self._tiles(inputs):
            return fused.max_pool_2x2(inputs)
        return super().call(inputs)

    def _tiles(self, inputs):
        sizes = inputs.shape[1:3]
        return (
            self.pool_size == (2, 2)
            and self.strides == (2, 2)
            and self.data_format == 'channels_last'
            and all(size is not None and size >= 2 for size in sizes)
            and (self.padding == 'valid' or all(size % 2 == 0 for size in sizes))
        )


@keras.saving.register_keras_serializable(package='fenwicks')
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization, as `keras.layers.BatchNormalization`, fused.

    ```
    training:   y = scale * (x - mean(x)) / sqrt(var(x) + epsilon) + offset
                moving_mean = momentum * moving_mean + (1 - momentum) * mean(x)
    inference:  y = scale * (x - moving_mean) / sqrt(moving_var + epsilon) + offset
    ```

    Args:
        As `keras.layers.BatchNormalization`, with PyTorch's defaults for `momentum` (the fraction
            kept) and `epsilon`.

    Call arguments:
        inputs: `(batch, ..., channels)`.
        training: whether to use the batch's statistics and update the moving ones.
        pool: layer that pools the outputs by maxima, or None. On JAX that takes less time here
            than behind.

    Returns:
        A tensor of the inputs' shape, or what the pooling makes of it.

    Reference:
        Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """

    def __init__(self, axis=-1, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None, pool=None):
        if training and self.trainable and mask is None:
            if self._is_one_pass(inputs):
                return self._in_one_pass(inputs, pool)
            if self._has_fused_kernel(inputs):
                outputs = self._fused(inputs)
                return outputs if pool is None else pool(outputs)
        outputs = super().call(inputs, training=training, mask=mask)
        return outputs if pool is None else pool(outputs)

    def _is_one_pass(self, inputs):
        return (
            one_pass.on_jax()
            and self.axis in (-1, len(inputs.shape) - 1)
            and not (self.synchronized or self.renorm)
        )

    def _in_one_pass(self, inputs, pool):
        outputs, mean, variance = one_pass.batch_norm(
            inputs, *self._affine(inputs), self.moving_mean, self.epsilon, pool
        )
        self._follow(mean, variance)
        return keras.ops.cast(outputs, self.compute_dtype)

    def _has_fused_kernel(self, inputs):
        return (
            keras.backend.backend() == 'tensorflow'
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.shape[-1] is not None
            and not (self.synchronized or self.renorm)
            and inputs.dtype != 'float64'
        )

    def _fused(self, inputs):
        inputs = keras.ops.cast(inputs, self.compute_dtype)
        outputs, mean, variance = fused.batch_norm(inputs, *self._affine(inputs), self.epsilon)
        self._follow(mean, variance)
        return outputs

    def _follow(self, mean, variance):
        """Moves the moving statistics towards the batch's."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))

    def _affine(self, inputs):
        """Scale and offset in float32, 1 and 0 where there is none."""
        shape = (inputs.shape[-1],)
        scale = self.gamma.value if self.scale else keras.ops.ones(shape)
        offset = self.beta.value if self.center else keras.ops.zeros(shape)
        return tuple(keras.ops.convert_to_tensor(x, 'float32') for x in (scale, offset))

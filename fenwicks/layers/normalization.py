"""Batch normalization, by the statistics of the batch or of small groups of its images."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from fenwicks import kernels
from fenwicks._checks import axis_of_channels, finite_number, flag, integer, positive_integer
from fenwicks._typing import Config, Shape, Tensor

_FLAGS = ('center', 'scale', 'renorm', 'synchronized')


@keras.saving.register_keras_serializable(package='fenwicks')
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the arguments and results of `keras.layers.BatchNormalization`.

    ```
    training:   y = scale * (x - mean(x)) / sqrt(var(x) + epsilon) + offset
                moving_mean = momentum * moving_mean + (1 - momentum) * mean(x)
                moving_variance likewise, from the biased var(x)
    inference:  y = scale * (x - moving_mean) / sqrt(moving_variance + epsilon) + offset
    ```

    On TensorFlow images use `fenwicks.kernels.batch_norm` in training, on JAX inputs of any rank
    use `fenwicks.kernels.batch_norm_jax`; both are faster than Keras's layer.

    Args:
        axis: the axis of the channels.
        momentum: fraction of the moving statistics that a step keeps, in [0, 1]; 0.9 is PyTorch's
            default.
        epsilon: added to the variance, at least 0; 1e-5 is PyTorch's default.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`.

    Call arguments:
        inputs: `(batch, ..., channels)`.
        training: whether to use the batch's statistics and update the moving ones.
        mask: as in `keras.layers.BatchNormalization`.
        pool: a layer that pools the outputs by maxima, or None. On JAX that is faster than calling
            the layer on the outputs.

    Returns:
        A tensor of the inputs' shape, or the pooled tensor.

    Example:

    >>> import keras
    >>> from fenwicks.layers import BatchNormalization
    >>> norm = BatchNormalization(momentum=0.75)
    >>> outputs = norm(keras.ops.convert_to_tensor([[1.0], [3.0]]), training=True)
    >>> float(norm.moving_mean[0])
    0.5

    Reference:
        Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """

    _may_be_batch = True  # the axis of the channels, as in Keras's

    def __init__(
        self, axis: int = -1, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any
    ) -> None:
        flags = {name: flag(name, kwargs[name]) for name in _FLAGS if name in kwargs}
        super().__init__(
            axis=integer('axis', axis),
            momentum=finite_number('momentum', momentum, low=0, high=1),
            epsilon=finite_number('epsilon', epsilon, low=0),
            **{**kwargs, **flags},
        )

    def build(self, input_shape: Shape) -> None:
        axis_of_channels(self.axis, len(input_shape), may_be_batch=self._may_be_batch)
        super().build(input_shape)

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
        pool: Any = None,
    ) -> Tensor:
        if inputs.shape[0] == 0:
            training = False  # no image has a mean
        learns = training and self.trainable and mask is None
        if learns and self._has_jax_kernel(inputs):
            return self._normalize_on_jax(inputs, pool)
        if learns and self._has_tensorflow_kernel(inputs):
            outputs = self._normalize_on_tensorflow(inputs)
        else:
            outputs = super().call(inputs, training=training, mask=mask)
        return outputs if pool is None else pool(outputs)

    def _has_jax_kernel(self, inputs):
        return (
            kernels.device.on_jax()
            and self.axis in (-1, len(inputs.shape) - 1)
            and not (self.synchronized or self.renorm)
        )

    def _normalize_on_jax(self, inputs, pool, group_size=None):
        scale, offset = self._scale_and_offset(inputs)
        outputs, mean, variance = kernels.batch_norm_jax.normalize(
            inputs, scale, offset, self.moving_mean, self.epsilon, pool, group_size
        )
        self._update_moving_statistics(mean, variance)
        return ops.cast(outputs, self.compute_dtype)

    def _has_tensorflow_kernel(self, inputs):
        return (
            keras.backend.backend() == 'tensorflow'
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.shape[-1] is not None
            and not (self.synchronized or self.renorm)
            and inputs.dtype != 'float64'
        )

    def _normalize_on_tensorflow(self, inputs):
        inputs = ops.cast(inputs, self.compute_dtype)
        scale, offset = self._scale_and_offset(inputs)
        outputs, mean, variance = kernels.batch_norm.normalize(inputs, scale, offset, self.epsilon)
        self._update_moving_statistics(mean, variance)
        return outputs

    def _update_moving_statistics(self, mean, variance):
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            # Computed in float32 at least: half precision would round small changes away.
            kept = ops.cast(moving, batch.dtype) * self.momentum
            moving.assign(kept + batch * (1.0 - self.momentum))

    def _scale_and_offset(self, inputs):
        """Scale and offset in float32 at least; 1 and 0 where the layer has none."""
        wide = keras.backend.result_type(inputs.dtype, 'float32')
        shape = (inputs.shape[-1],)
        scale = self.gamma.value if self.scale else ops.ones(shape)
        offset = self.beta.value if self.center else ops.zeros(shape)
        return tuple(ops.convert_to_tensor(x, wide) for x in (scale, offset))


@keras.saving.register_keras_serializable(package='fenwicks')
class GhostBatchNormalization(BatchNormalization):
    """Batch normalization of each group of `ghost_batch_size` consecutive images by itself.

    ```
    training, for each group g of consecutive images:
        y_g = scale * (x_g - mean(x_g)) / sqrt(var(x_g) + epsilon) + offset
        moving_mean = momentum * moving_mean + (1 - momentum) * average over g of mean(x_g)
        moving_variance likewise, from the biased variances within the groups
    inference:  y = scale * (x - moving_mean) / sqrt(moving_variance + epsilon) + offset
    ```

    Each image is normalized together with few others, so that a large batch regularizes like a
    small one. The groups change with each shuffle of the images.

    Args:
        ghost_batch_size: images per group, at least 1. In training it must divide the batch; at
            inference the batch may have any size.
        momentum: fraction of the moving statistics that a step keeps, in [0, 1].
        epsilon: added to the variance, at least 0.
        center: whether there is a trained offset; without, the offset is 0.
        scale: whether there is a trained scale; without, the scale is 1.
        axis: the axis of the channels, not the first.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`, except `renorm` and
            `synchronized`: initializers, `name`, `dtype` and so on.

    Call arguments:
        inputs: `(batch, ..., channels)`.
        training: whether to use the groups' statistics and update the moving ones.
        mask: None in training; not used at inference.
        pool: a layer that pools the outputs by maxima, or None.

    Returns:
        A tensor of the inputs' shape, or the pooled tensor.

    Raises:
        ValueError: if an argument breaks the rules above, or `ghost_batch_size` doesn't divide a
            training batch. Where TensorFlow traces the call for batches of any size, running it
            raises `tf.errors.InvalidArgumentError` instead.

    Example:

    >>> import keras
    >>> from fenwicks.layers import GhostBatchNormalization
    >>> norm = GhostBatchNormalization(ghost_batch_size=2)
    >>> norm(keras.ops.arange(8.0)[:, None], training=True)[:, 0].shape == (8,)
    True
    >>> round(float(norm.moving_variance[0]), 3)  # 0.9 * 1 + 0.1 * 0.25
    0.925

    Reference:
        Hoffer et al., Train longer, generalize better, https://arxiv.org/abs/1705.08741
    """

    _may_be_batch = False

    def __init__(
        self,
        ghost_batch_size: int = 32,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        axis: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis=axis, momentum=momentum, epsilon=epsilon, center=center, scale=scale, **kwargs
        )
        self.ghost_batch_size = positive_integer('ghost_batch_size', ghost_batch_size)
        if self.axis == 0:
            raise ValueError('`axis` must not be the batch axis. Received: axis=0')
        for name in ('renorm', 'synchronized'):
            if getattr(self, name):
                raise ValueError(f'`{name}` must be False for ghost batches. Received: {name}=True')

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
        pool: Any = None,
    ) -> Tensor:
        if not (training and self.trainable) or inputs.shape[0] == 0:
            return super().call(inputs, training=False, mask=mask, pool=pool)
        if mask is not None:
            raise ValueError(f'`mask` must be None in training. Received: mask={mask!r}')
        inputs = self._check_batch(inputs)
        if self._has_jax_kernel(inputs):
            return self._normalize_on_jax(inputs, pool, self.ghost_batch_size)
        if self._has_group_kernel(inputs):
            outputs, means, variances = self._normalize_groups_on_tensorflow(inputs)
        else:
            outputs, means, variances = self._normalize_groups(inputs)
        self._update_moving_statistics(ops.mean(means, axis=0), ops.mean(variances, axis=0))
        return outputs if pool is None else pool(outputs)

    def _check_batch(self, inputs):
        """Returns the inputs if `ghost_batch_size` divides their batch."""
        batch = inputs.shape[0]
        if isinstance(batch, int):
            if batch % self.ghost_batch_size:
                raise ValueError(
                    f'`ghost_batch_size` must divide the batch of {batch}. '
                    f'Received: ghost_batch_size={self.ghost_batch_size}'
                )
        elif keras.backend.backend() == 'tensorflow':
            # Checked before the inputs are reshaped: the error of `reshape` says less.
            message = (
                '`ghost_batch_size` must divide the batch. '
                f'Received: ghost_batch_size={self.ghost_batch_size}'
            )
            return kernels.assertions.batch_is_multiple(inputs, self.ghost_batch_size, message)
        return inputs

    def _normalize_groups(self, inputs):
        """Returns outputs, and means and variances `(groups, channels)`, on any backend."""
        shape = ops.shape(inputs)
        axis = self.axis % len(shape) + 1
        channels = shape[axis - 1]
        # (groups, ghost_batch_size, ...): the axis of the channels is one further on
        if kernels.device.on_jax() and not isinstance(inputs.shape[0], int):
            groups = ops.expand_dims(inputs, 0)  # Keras infers shapes: the batch is a symbol
        else:
            groups = ops.reshape(inputs, (-1, self.ghost_batch_size, *shape[1:]))
        groups = ops.cast(groups, keras.backend.result_type(inputs.dtype, 'float32'))
        reduced = tuple(i for i in range(1, len(shape) + 1) if i != axis)
        statistics_shape = [channels if i == axis else 1 for i in range(len(shape) + 1)]
        if kernels.device.on_jax():
            shift = ops.reshape(self.moving_mean, statistics_shape)
            means, variances = kernels.batch_norm_jax.moments(groups, reduced, shift)
        else:
            means, variances = ops.moments(groups, reduced, keepdims=True)
            # A mean of squares minus the square of the mean: rounding can make it negative.
            variances = ops.maximum(variances, 0)
        factor = ops.rsqrt(variances + self.epsilon)
        if self.scale:
            factor = factor * ops.reshape(ops.cast(self.gamma, groups.dtype), statistics_shape)
        groups = (groups - means) * factor
        if self.center:
            groups = groups + ops.reshape(ops.cast(self.beta, groups.dtype), statistics_shape)
        outputs = ops.cast(ops.reshape(groups, shape), self.compute_dtype)
        return outputs, ops.reshape(means, (-1, channels)), ops.reshape(variances, (-1, channels))

    def _has_group_kernel(self, inputs):
        return (
            kernels.device.on_cpu()
            and self._has_tensorflow_kernel(inputs)
            and None not in inputs.shape[1:]
        )

    def _normalize_groups_on_tensorflow(self, inputs):
        inputs = ops.cast(inputs, self.compute_dtype)
        scale, offset = self._scale_and_offset(inputs)
        return kernels.batch_norm.normalize_groups(
            inputs, scale, offset, self.ghost_batch_size, self.epsilon
        )

    def get_config(self) -> Config:
        config = super().get_config()
        for name in ('renorm', 'renorm_clipping', 'renorm_momentum', 'synchronized'):
            config.pop(name, None)
        return {**config, 'ghost_batch_size': self.ghost_batch_size}

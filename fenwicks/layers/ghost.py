"""Batch normalization with the statistics of small groups of images, whatever the batch."""

from __future__ import annotations

import keras
from keras import ops

from fenwicks._checks import positive_integer
from fenwicks.kernels import batch_norm as fused
from fenwicks.kernels import batch_norm_jax as one_pass
from fenwicks.kernels import device
from fenwicks.layers.primitives import BatchNormalization


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

    A large batch then regularizes like a small one: each image is normalized in the company of a
    few others. The groups are formed anew with each shuffle.

    Args:
        ghost_batch_size: images in a group, at least 1. It must divide the batch in training; at
            inference any batch will do.
        momentum: fraction of the moving statistics that a step keeps, in [0, 1].
        epsilon: added to the variance, at least 0.
        center: whether there is an offset, which is trained; otherwise it stays at 0.
        scale: whether there is a scale, which is trained; otherwise it stays at 1.
        axis: the axis of the channels, not the first.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`, except `renorm` and
            `synchronized`: initializers, `name`, `dtype` and so on.

    Call arguments:
        inputs: `(batch, ..., channels)`.
        training: whether to use the groups' statistics and update the moving ones.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: if an argument breaks the rules above, or if a training batch doesn't divide
            into groups. Where the batch is unknown while TensorFlow traces the call, the error is
            TensorFlow's own and comes when the batch does.

    Example:

    >>> from fenwicks.layers import GhostBatchNormalization
    >>> norm = GhostBatchNormalization(ghost_batch_size=2)
    >>> norm(keras.ops.arange(8.0)[:, None], training=True)[:, 0].shape == (8,)
    True
    >>> round(float(norm.moving_variance[0]), 3)  # 0.9 of the 1 at the start, 0.1 of 0.25
    0.925

    Reference:
        Hoffer et al., Train longer, generalize better, https://arxiv.org/abs/1705.08741
    """

    def __init__(
        self,
        ghost_batch_size=32,
        momentum=0.9,
        epsilon=1e-5,
        center=True,
        scale=True,
        axis=-1,
        **kwargs,
    ):
        super().__init__(
            axis=axis, momentum=momentum, epsilon=epsilon, center=center, scale=scale, **kwargs
        )
        self.ghost_batch_size = positive_integer('ghost_batch_size', ghost_batch_size)
        if not 0 <= momentum <= 1:
            raise ValueError(f'`momentum` must be in [0, 1]. Received: momentum={momentum}')
        if not epsilon >= 0:
            raise ValueError(f'`epsilon` must be at least 0. Received: epsilon={epsilon}')
        if self.axis == 0:
            raise ValueError('`axis` must not be the batch axis. Received: axis=0')
        for name in ('renorm', 'synchronized'):
            if getattr(self, name):
                raise ValueError(f'`{name}` must be False for ghost batches. Received: {name}=True')

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        if mask is not None:
            raise ValueError(f'`mask` must be None in training. Received: mask={mask!r}')
        inputs = self._checked(inputs)
        if device.on_cpu() and self._has_fused_kernel(inputs) and None not in inputs.shape[1:]:
            outputs, means, variances = self._fused_groups(inputs)
        else:
            outputs, means, variances = self._normalize_groups(inputs)
        self._update(self.moving_mean, means)
        self._update(self.moving_variance, variances)
        return outputs

    def _checked(self, inputs):
        """The inputs, if their batch divides into groups."""
        batch = inputs.shape[0]
        if isinstance(batch, int):
            if batch % self.ghost_batch_size:
                raise ValueError(
                    f'`ghost_batch_size` must divide the batch of {batch}. '
                    f'Received: ghost_batch_size={self.ghost_batch_size}'
                )
        elif keras.backend.backend() == 'tensorflow':
            import tensorflow as tf

            divides = tf.debugging.assert_equal(
                tf.shape(inputs)[0] % self.ghost_batch_size,
                0,
                '`ghost_batch_size` must divide the batch. '
                f'Received: ghost_batch_size={self.ghost_batch_size}',
            )
            # Before the reshape, whose own error says less.
            with tf.control_dependencies([divides]):
                inputs = tf.identity(inputs)
        return inputs

    def _update(self, moving, of_groups):
        batch = ops.mean(ops.cast(of_groups, moving.dtype), axis=0)
        moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))

    def _normalize_groups(self, inputs):
        """Outputs, and means and variances `(groups, channels)`, on any backend."""
        shape = ops.shape(inputs)
        axis = self.axis % len(shape) + 1
        channels = shape[axis - 1]
        # (groups, ghost_batch_size, ...), the channels moved on by one
        groups = ops.reshape(inputs, (-1, self.ghost_batch_size, *shape[1:]))
        groups = ops.cast(groups, keras.backend.result_type(inputs.dtype, 'float32'))
        reduced = tuple(i for i in range(1, len(shape) + 1) if i != axis)
        one_group = [channels if i == axis else 1 for i in range(len(shape) + 1)]
        if one_pass.on_jax():
            shift = ops.reshape(self.moving_mean, one_group)
            means, variances = one_pass.moments(groups, reduced, shift)
        else:
            means, variances = ops.moments(groups, reduced, keepdims=True)
            # A mean of squares less the square of the mean: rounding may leave it below zero.
            variances = ops.maximum(variances, 0)
        factor = ops.rsqrt(variances + self.epsilon)
        if self.scale:
            factor = factor * ops.reshape(ops.cast(self.gamma, groups.dtype), one_group)
        groups = (groups - means) * factor
        if self.center:
            groups = groups + ops.reshape(ops.cast(self.beta, groups.dtype), one_group)
        outputs = ops.cast(ops.reshape(groups, shape), self.compute_dtype)
        return outputs, ops.reshape(means, (-1, channels)), ops.reshape(variances, (-1, channels))

    def _fused_groups(self, inputs):
        inputs = ops.cast(inputs, self.compute_dtype)
        return fused.ghost_batch_norm(
            inputs, *self._affine(inputs), self.ghost_batch_size, self.epsilon
        )

    def get_config(self):
        config = super().get_config()
        for name in ('renorm', 'renorm_clipping', 'renorm_momentum', 'synchronized'):
            config.pop(name, None)
        return {**config, 'ghost_batch_size': self.ghost_batch_size}

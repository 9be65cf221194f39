"""Batch normalization with fixed statistics, scale and offset."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from fenwicks._checks import axis_of_channels, finite_number, flag, integer
from fenwicks._typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package='fenwicks')
class FrozenBatchNormalization(keras.layers.Layer):
    """An affine map of each channel, as batch normalization computes it at inference.

    ```
    training and inference:   y = gamma * (x - mean) / sqrt(variance + epsilon) + beta
    ```

    Nothing is trained and nothing moves. The weights are those of `BatchNormalization`, in the same
    order, and as many with the same `center` and `scale`. Where `frozen` is a network like `model`,
    but with `FrozenBatchNormalization(...)` as `normalization`,
    `frozen.set_weights(model.get_weights())` freezes the normalizations of the network at their
    present values. By default the map is nearly the identity.

    Args:
        axis: the axis of the channels, not the first.
        epsilon: added to the variance, at least 0.
        center: whether there is an offset; without, it is 0.
        scale: whether there is a scale; without, it is 1.
        gamma_initializer: any Keras initializer, for the scale.
        beta_initializer: likewise for the offset.
        mean_initializer: likewise for the mean.
        variance_initializer: likewise for the variance.
        **kwargs: `name` and `dtype` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, ..., channels)`.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: `epsilon` isn't a number of at least 0, `center` or `scale` isn't a bool, or
            `axis` is the batch's, or none of the inputs'.

    Example:

    >>> import keras
    >>> from fenwicks.layers import FrozenBatchNormalization
    >>> norm = FrozenBatchNormalization(
    ...     epsilon=0.0,
    ...     mean_initializer=keras.initializers.Constant(3.0),
    ...     variance_initializer=keras.initializers.Constant(4.0),
    ... )
    >>> [round(float(value), 6) for value in norm(keras.ops.array([[1.0], [3.0]]))[:, 0]]
    [-1.0, 0.0]

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-7-batch-norm/
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        gamma_initializer: Any = 'ones',
        beta_initializer: Any = 'zeros',
        mean_initializer: Any = 'zeros',
        variance_initializer: Any = 'ones',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = integer('axis', axis)
        if self.axis == 0:
            raise ValueError('`axis` must not be the batch axis. Received: axis=0')
        self.epsilon = finite_number('epsilon', epsilon, low=0)
        self.center = flag('center', center)
        self.scale = flag('scale', scale)
        get = keras.initializers.get
        self.gamma_initializer = get(gamma_initializer)
        self.beta_initializer = get(beta_initializer)
        self.mean_initializer = get(mean_initializer)
        self.variance_initializer = get(variance_initializer)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        axis_of_channels(self.axis, len(input_shape))
        shape = (input_shape[self.axis],)

        def fixed(name, initializer):
            return self.add_weight(
                shape=shape, initializer=initializer, trainable=False, autocast=False, name=name
            )

        self.gamma = fixed('gamma', self.gamma_initializer) if self.scale else None
        self.beta = fixed('beta', self.beta_initializer) if self.center else None
        self.mean = fixed('mean', self.mean_initializer)
        self.variance = fixed('variance', self.variance_initializer)

    def call(self, inputs: Tensor) -> Tensor:
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        # One multiplication and one addition, in float32 at least.
        factor = ops.rsqrt(self.variance + self.epsilon)
        if self.scale:
            factor = self.gamma * factor
        shift = -self.mean * factor
        if self.center:
            shift = self.beta + shift
        wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, 'float32'))
        factor, shift = (ops.cast(ops.reshape(x, shape), wide.dtype) for x in (factor, shift))
        return ops.cast(wide * factor + shift, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            'axis': self.axis,
            'epsilon': self.epsilon,
            'center': self.center,
            'scale': self.scale,
            'gamma_initializer': serialize(self.gamma_initializer),
            'beta_initializer': serialize(self.beta_initializer),
            'mean_initializer': serialize(self.mean_initializer),
            'variance_initializer': serialize(self.variance_initializer),
        }

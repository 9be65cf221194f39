"""Heads: from features, or a feature map, to logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from fenwicks._checks import channels_last, finite_number, flag, positive_integer
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.layers._base import Block, Composite
from fenwicks.layers._casts import as_floats


@keras.saving.register_keras_serializable(package='fenwicks')
class Scaling(keras.layers.Layer):
    """Multiplies by a constant, which isn't trained.

    ```
    y = weight * x
    ```

    Args:
        weight: the factor, a finite number.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: a tensor of any shape.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: if `weight` isn't a finite number.

    Example:

    >>> import keras
    >>> from fenwicks.layers import Scaling
    >>> Scaling(0.125)(keras.ops.convert_to_tensor([[8.0, 16.0]])).shape == (1, 2)
    True
    """

    def __init__(self, weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = finite_number('weight', weight)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return as_floats(inputs, self.compute_dtype) * self.weight

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {**super().get_config(), 'weight': self.weight}


@keras.saving.register_keras_serializable(package='fenwicks')
class Classifier(Composite):
    """Dense layer without bias, times a constant: features to logits, always in float32.

    ```
    logits = weight * (x @ kernel)
    ```

    The layer's dtype policy is float32 by default, whatever the global policy. Under mixed
    precision Keras casts the inputs to float32, so that the logits, and the softmax after them, are
    computed in float32. The product is small enough for this to cost next to nothing.

    Args:
        num_classes: number of logits, at least 1.
        kernel_initializer: any Keras initializer.
        weight: the factor, a finite number.
        dtype: the dtype policy of the layer and its parts, which are called `dense` and `scaling`.
        **kwargs: `name`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, features)`.

    Returns:
        Logits `(batch, num_classes)`.

    Raises:
        ValueError: for `num_classes` below 1 or a `weight` that isn't finite.

    Example:

    >>> from fenwicks.layers import Classifier
    >>> Classifier(10, weight=0.125).compute_output_shape((None, 512))
    (None, 10)
    """

    def __init__(
        self,
        num_classes: int,
        kernel_initializer: Any = 'glorot_uniform',
        weight: float = 1.0,
        dtype: Any = 'float32',
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes = positive_integer('num_classes', num_classes)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=2)
        self._append(
            keras.layers.Dense(
                self.num_classes,
                use_bias=False,
                kernel_initializer=self.kernel_initializer,
                name='dense',
                dtype=self.dtype_policy,
            )
        )
        self._weight = finite_number('weight', weight)  # as made; what is set later is the part's
        self._append(Scaling(self._weight, name='scaling', dtype=self.dtype_policy))

    @property
    def weight(self) -> float:
        """The factor."""
        return self.layers[-1].weight

    @weight.setter
    def weight(self, value: float) -> None:
        self.layers[-1].weight = finite_number('weight', value)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            'num_classes': self.num_classes,
            'kernel_initializer': keras.initializers.serialize(self.kernel_initializer),
            'weight': self._weight,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class GlobalPools2D(keras.layers.Layer):
    """Global maximum and global average over the image, concatenated.

    ```
    y = concatenate([max(x, (height, width)), mean(x, (height, width))])
    ```

    Args:
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. The mean is computed in
            float32, or in float64 for float64 inputs.

    Call arguments:
        inputs: `(batch, height, width, channels)`.

    Returns:
        `(batch, 2 * channels)`, the maxima first.

    Example:

    >>> from fenwicks.layers import GlobalPools2D
    >>> GlobalPools2D().compute_output_shape((None, 7, 7, 512))
    (None, 1024)
    """

    def __init__(self, **kwargs: Any) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        inputs = as_floats(inputs, self.compute_dtype)
        maxima = ops.max(inputs, axis=(1, 2))
        wide = keras.backend.result_type(inputs.dtype, 'float32')
        means = ops.mean(ops.cast(inputs, wide), axis=(1, 2))
        return ops.concatenate([maxima, ops.cast(means, inputs.dtype)], axis=-1)

    def get_config(self) -> Config:
        # Defined, because Keras generates no config where `dtype` was given as a policy object.
        return super().get_config()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = input_shape[-1]
        return input_shape[0], None if channels is None else 2 * channels


@keras.saving.register_keras_serializable(package='fenwicks')
class DenseBN(Block):
    """Dense layer without bias, batch normalization and activation in either order, dropout.

    ```
    y = dropout(activation(normalization(x @ kernel)))    # bn_before_relu
    y = dropout(normalization(activation(x @ kernel)))    # not bn_before_relu
    ```

    Args:
        units: output features, at least 1.
        drop_rate: fraction of the outputs set to zero in training, in [0, 1).
        bn_before_relu: whether the normalization comes before the activation.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. The parts are called
            `dense`, `norm`, `activation` and `dropout`.

    Call arguments:
        inputs: `(batch, features)`.
        training: whether to apply dropout, and to normalize by the batch's statistics.

    Returns:
        `(batch, units)`.

    Raises:
        ValueError: for `units` below 1, `drop_rate` outside [0, 1), or a template that isn't a
            layer.

    Example:

    >>> from fenwicks.layers import DenseBN
    >>> DenseBN(512, drop_rate=0.5).compute_output_shape((None, 1024))
    (None, 512)
    """

    def __init__(
        self,
        units: int,
        drop_rate: float = 0.0,
        bn_before_relu: bool = True,
        kernel_initializer: Any = 'glorot_uniform',
        normalization: keras.layers.Layer | None = None,
        activation: Any = 'relu',
        **kwargs: Any,
    ) -> None:
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.units = positive_integer('units', units)
        self._drop_rate = _drop_rate(drop_rate)  # as made; what is set later is the part's
        self.bn_before_relu = flag('bn_before_relu', bn_before_relu)
        self.input_spec = keras.layers.InputSpec(ndim=2)
        self._append(
            keras.layers.Dense(
                self.units,
                use_bias=False,
                kernel_initializer=self._new_initializer(),
                name='dense',
                dtype=self.dtype_policy,
            )
        )
        steps = [self._new_normalization(), self._new_activation()]
        for layer in steps if self.bn_before_relu else steps[::-1]:
            self._append(layer)
        self._append(keras.layers.Dropout(self._drop_rate, name='dropout', dtype=self.dtype_policy))

    @property
    def drop_rate(self) -> float:
        """Fraction of the outputs set to zero in training."""
        return self.layers[-1].rate

    @drop_rate.setter
    def drop_rate(self, value: float) -> None:
        self.layers[-1].rate = _drop_rate(value)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            'units': self.units,
            'drop_rate': self._drop_rate,
            'bn_before_relu': self.bn_before_relu,
        }


def _drop_rate(value):
    return finite_number('drop_rate', value, low=0, below=1)


@keras.saving.register_keras_serializable(package='fenwicks')
class FastAiHead(Block):
    """The head that fast.ai puts on a pre-trained network: from a feature map to logits.

    ```
    y = dropout(normalization(global_pools(x)), 0.25)
    y = dropout(normalization(activation(y @ kernel)), 0.5)    # 512 units
    logits = y @ kernel
    ```

    Args:
        num_classes: number of logits, at least 1.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. `dtype` applies to the parts
            `pools`, `norm`, `dropout` and `dense_bn`; the part `classifier` computes in float32.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether to apply dropout, and to normalize by the batch's statistics.

    Returns:
        Logits `(batch, num_classes)` in float32.

    Raises:
        ValueError: for `num_classes` below 1, or a template that isn't a layer.

    Example:

    >>> from fenwicks.layers import FastAiHead
    >>> FastAiHead(10).compute_output_shape((None, 7, 7, 512))
    (None, 10)

    Reference:
        Howard and Gugger, fastai: A Layered API for Deep Learning, https://arxiv.org/abs/2002.04688
    """

    def __init__(
        self,
        num_classes: int,
        kernel_initializer: Any = 'glorot_uniform',
        normalization: keras.layers.Layer | None = None,
        activation: Any = 'relu',
        **kwargs: Any,
    ) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.num_classes = positive_integer('num_classes', num_classes)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        policy = self.dtype_policy
        self._append(GlobalPools2D(name='pools', dtype=policy))
        self._append(self._new_normalization())
        self._append(keras.layers.Dropout(0.25, name='dropout', dtype=policy))
        self._append(
            DenseBN(
                512,
                drop_rate=0.5,
                bn_before_relu=False,
                kernel_initializer=self.kernel_initializer,
                normalization=self.normalization,
                activation=self.activation,
                name='dense_bn',
                dtype=policy,
            )
        )
        self._append(
            Classifier(
                self.num_classes, kernel_initializer=self._new_initializer(), name='classifier'
            )
        )

    def get_config(self) -> Config:
        return {**super().get_config(), 'num_classes': self.num_classes}

"""The end of a network: from a feature map to logits."""

from __future__ import annotations

import math
import numbers

import keras
from keras import ops

from fenwicks._checks import positive_integer
from fenwicks.layers.composite import Chain
from fenwicks.layers.style import Block


@keras.saving.register_keras_serializable(package='fenwicks')
class Scaling(keras.layers.Layer):
    """Multiplies by a constant, which is a hyper-parameter and not trained.

    ```
    y = weight * x
    ```

    Args:
        weight: the factor, a finite number.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: a tensor of any shape.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: if `weight` isn't a finite number.

    Example:

    >>> from fenwicks.layers import Scaling
    >>> Scaling(0.125)(keras.ops.convert_to_tensor([[8.0, 16.0]])).shape == (1, 2)
    True
    """

    def __init__(self, weight, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise ValueError(f'`weight` must be a finite number. Received: weight={weight!r}')
        self.weight = weight
        self.built = True

    def call(self, inputs):
        return inputs * self.weight

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), 'weight': self.weight}


@keras.saving.register_keras_serializable(package='fenwicks')
class Classifier(Chain):
    """Dense layer without bias, times a constant: features to logits, always in float32.

    ```
    logits = weight * (x @ kernel)
    ```

    The layer's dtype policy is float32 unless told otherwise, whatever the global policy: Keras
    casts its inputs up, so the product, the scaling and hence the softmax behind it are exact
    enough under mixed precision, where the product costs next to nothing.

    Args:
        num_classes: number of logits, at least 1.
        kernel_initializer: any Keras initializer.
        weight: the factor, a finite number.
        dtype: the dtype policy of the layer and its parts, which are called `dense` and `scaling`.
        **kwargs: Keras's own: `name`, `trainable`.

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
        num_classes,
        kernel_initializer='glorot_uniform',
        weight=1.0,
        dtype='float32',
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes = positive_integer('num_classes', num_classes)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.weight = weight
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
        self._append(Scaling(weight, name='scaling', dtype=self.dtype_policy))

    def get_config(self):
        return {
            **super().get_config(),
            'num_classes': self.num_classes,
            'kernel_initializer': keras.initializers.serialize(self.kernel_initializer),
            'weight': self.weight,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class GlobalPools2D(keras.layers.Layer):
    """Global maximum and global average over the image, concatenated.

    ```
    y = concatenate([max(x, (height, width)), mean(x, (height, width))])
    ```

    Args:
        **kwargs: Keras's own: `name`, `dtype`, `trainable`. Whatever the dtype, the mean is taken
            in float32 at least.

    Call arguments:
        inputs: `(batch, height, width, channels)`.

    Returns:
        `(batch, 2 * channels)`: the maxima first.

    Example:

    >>> from fenwicks.layers import GlobalPools2D
    >>> GlobalPools2D().compute_output_shape((None, 7, 7, 512))
    (None, 1024)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.built = True

    def call(self, inputs):
        maxima = ops.max(inputs, axis=(1, 2))
        wide = keras.backend.result_type(inputs.dtype, 'float32')
        means = ops.mean(ops.cast(inputs, wide), axis=(1, 2))
        return ops.concatenate([maxima, ops.cast(means, inputs.dtype)], axis=-1)

    def get_config(self):
        # Keras's own guess at it fails where the dtype came as a policy, not by name.
        return super().get_config()

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2 * input_shape[-1])


@keras.saving.register_keras_serializable(package='fenwicks')
class DenseBN(Block):
    """Dense without bias, batch normalization and activation in either order, dropout.

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
        **kwargs: Keras's own: `name`, `dtype`, `trainable`. The parts are called `dense`, `norm`,
            `activation` and `dropout`.

    Call arguments:
        inputs: `(batch, features)`.
        training: whether to drop outputs and normalize by the batch's statistics.

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
        units,
        drop_rate=0.0,
        bn_before_relu=True,
        kernel_initializer='glorot_uniform',
        normalization=None,
        activation='relu',
        **kwargs,
    ):
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.units = positive_integer('units', units)
        if not isinstance(drop_rate, numbers.Real) or not 0 <= drop_rate < 1:
            raise ValueError(f'`drop_rate` must be in [0, 1). Received: drop_rate={drop_rate!r}')
        self.drop_rate = drop_rate
        self.bn_before_relu = bn_before_relu
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
        for layer in steps if bn_before_relu else steps[::-1]:
            self._append(layer)
        self._append(keras.layers.Dropout(drop_rate, name='dropout', dtype=self.dtype_policy))

    def get_config(self):
        return {
            **super().get_config(),
            'units': self.units,
            'drop_rate': self.drop_rate,
            'bn_before_relu': self.bn_before_relu,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class FastAiHead(Block):
    """fast.ai's head for a pre-trained body: feature map to logits.

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
        **kwargs: Keras's own: `name`, `trainable`, and `dtype`, which holds for the parts `pools`,
            `norm`, `dropout` and `dense_bn`; the `classifier` computes in float32.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether to drop features and normalize by the batch's statistics.

    Returns:
        Logits `(batch, num_classes)` in float32.

    Raises:
        ValueError: for `num_classes` below 1, or a template that isn't a layer.

    Reference:
        Howard and Gugger, fastai: A Layered API for Deep Learning, https://arxiv.org/abs/2002.04688
    """

    def __init__(
        self,
        num_classes,
        kernel_initializer='glorot_uniform',
        normalization=None,
        activation='relu',
        **kwargs,
    ):
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

    def get_config(self):
        return {**super().get_config(), 'num_classes': self.num_classes}

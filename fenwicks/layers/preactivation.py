"""A residual block that normalizes and activates before each convolution."""

from __future__ import annotations

from typing import Any

import keras

from fenwicks._checks import channels_last, positive_integer
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.layers._base import Block
from fenwicks.layers._casts import added, output_spec
from fenwicks.layers.blocks import ConvBN
from fenwicks.layers.convolution import Conv2D


@keras.saving.register_keras_serializable(package='fenwicks')
class PreActBlk(Block):
    """Two convolutions with a shortcut around them, each after normalization and activation.

    ```
    h = activation(normalization(x))
    y = h + conv(conv_bn(h))               # conv_bn as in ConvBN, with the strides
    y = shortcut(h) + conv(conv_bn(h))     # where the sizes change: a 1x1 convolution
    ```

    The outputs are neither normalized nor activated: the next block begins with both.

    Args:
        filters: output channels of each convolution, at least 1.
        strides: step in pixels of the first convolution and of the shortcut, at least 1.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        kernel_size: side in pixels of the kernels of the two convolutions, at least 1.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. The parts are called `norm`,
            `activation`, `conv_bn`, `conv` and, where the sizes change, `shortcut`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalizations use the batch's statistics.

    Returns:
        `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Raises:
        ValueError: for numbers below 1, or a template that isn't a layer.

    Example:

    >>> from fenwicks.layers import PreActBlk
    >>> PreActBlk(128, strides=2).compute_output_shape((None, 32, 32, 64))
    (None, 16, 16, 128)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027;
        there the shortcut of blocks that keep the sizes begins before the normalization.
    """

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        kernel_initializer: Any = 'glorot_uniform',
        normalization: keras.layers.Layer | None = None,
        activation: Any = 'relu',
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.filters = positive_integer('filters', filters)
        self.strides = positive_integer('strides', strides)
        self.kernel_size = positive_integer('kernel_size', kernel_size)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self._append(self._new_normalization())
        self._append(self._new_activation())
        self._append(
            ConvBN(
                self.filters,
                self.kernel_size,
                self.strides,
                kernel_initializer=self.kernel_initializer,
                normalization=self.normalization,
                activation=self.activation,
                name='conv_bn',
                dtype=self.dtype_policy,
            )
        )
        self._append(self._new_conv(self.kernel_size, 1, 'conv'))

    def _new_conv(self, kernel_size, strides, name):
        return Conv2D(
            self.filters,
            kernel_size,
            strides=strides,
            padding='same',
            use_bias=False,
            kernel_initializer=self._new_initializer(),
            data_format='channels_last',
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shape) -> None:
        norm, activate, conv_bn, conv = self.layers
        shape = self._build_part(activate, self._build_part(norm, input_shape))
        self._build_part(conv, self._build_part(conv_bn, shape))
        if self.strides > 1 or shape[-1] != self.filters:
            self._append(self._new_conv(1, self.strides, 'shortcut'))
            self._build_part(self.layers[-1], shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        norm, activate, conv_bn, conv, *shortcut = self.layers
        h = activate(norm(inputs, training=training), training=training)
        outputs = conv(conv_bn(h, training=training), training=training)
        for layer in shortcut:
            h = layer(h, training=training)
        return added(h, outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers[:4]:
            input_shape = self._output_shape(layer, input_shape)
        return input_shape

    def compute_output_spec(self, inputs: Tensor, training: bool | None = None) -> Any:
        norm, activate, conv_bn, conv = self.layers[:4]
        h = output_spec(activate, output_spec(norm, inputs))
        outputs = output_spec(conv, output_spec(conv_bn, h))
        dtype = keras.backend.result_type(h.dtype, outputs.dtype)
        return keras.KerasTensor(outputs.shape, dtype=dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            'filters': self.filters,
            'strides': self.strides,
            'kernel_size': self.kernel_size,
        }

"""Convolution, normalization and activation, in the combinations that image networks repeat."""

from __future__ import annotations

import keras

from fenwicks._checks import positive_integer
from fenwicks.kernels import batch_norm_jax as one_pass
from fenwicks.layers.composite import Residual, serialize_unbuilt
from fenwicks.layers.initializers import init_pytorch
from fenwicks.layers.primitives import BatchNormalization, Conv2D, MaxPooling2D
from fenwicks.layers.style import Block, check_template, copy_template, is_non_decreasing

# PyTorch's choices, for every block: ConvBN(64, **PYTORCH_PARAMS). Named, so that making the
# template doesn't take a number from Keras's automatic names.
PYTORCH_PARAMS = {
    'kernel_initializer': init_pytorch,
    'normalization': BatchNormalization(momentum=0.9, epsilon=1e-5, name='pytorch_batch_norm'),
}


@keras.saving.register_keras_serializable(package='fenwicks')
class ConvBN(Block):
    """Convolution without bias, pooling if there is any, batch normalization, activation.

    ```
    y = activation(normalization(pool(conv(x))))
    ```

    Args:
        filters: output channels, at least 1.
        kernel_size: side of the square kernel in pixels, at least 1.
        strides: step of the kernel in pixels, at least 1; the padding is `same`.
        kernel_initializer: any Keras initializer. Each kernel gets a copy, so that an unseeded
            one draws anew for each.
        normalization: template of the normalization layer (its name and dtype don't matter);
            None for `BatchNormalization(momentum=0.9, epsilon=1e-5)`.
        activation: name or function of an activation, None for none, or a template layer.
        pool: template of a pooling layer, None for none.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`. The parts are called `conv`, `pool`,
            `norm` and `activation`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalization uses the batch's statistics.

    Returns:
        `(batch, ceil(height / strides), ceil(width / strides), filters)`, before any pooling.

    Raises:
        ValueError: for sizes below 1, or a template that isn't a layer.

    Example:

    >>> from fenwicks.layers import ConvBN
    >>> ConvBN(64).compute_output_shape((None, 32, 32, 3))
    (None, 32, 32, 64)

    Reference:
        Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """

    def __init__(
        self,
        filters,
        kernel_size=3,
        strides=1,
        kernel_initializer='glorot_uniform',
        normalization=None,
        activation='relu',
        pool=None,
        **kwargs,
    ):
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.filters = positive_integer('filters', filters)
        self.kernel_size = positive_integer('kernel_size', kernel_size)
        self.strides = positive_integer('strides', strides)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self._append(
            Conv2D(
                self.filters,
                self.kernel_size,
                strides=self.strides,
                padding='same',
                use_bias=False,
                kernel_initializer=self._new_initializer(),
                name='conv',
                dtype=self.dtype_policy,
            )
        )
        pool = check_template('pool', pool)
        self.pool = pool and copy_template(pool, 'pool', self.dtype_policy)
        if self.pool is not None:
            self._append(self.pool)
        self._append(self._new_normalization())
        self._append(self._new_activation())

    def call(self, inputs, training=None, pool=None):
        # `pool` is a pooling by maxima within the normalization; there is no activation then.
        if pool is None:
            return super().call(inputs, training=training)
        *layers, norm, activation = self.layers
        for layer in layers:
            inputs = layer(inputs, training=training)
        return activation(norm(inputs, training=training, pool=pool), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            'filters': self.filters,
            'kernel_size': self.kernel_size,
            'strides': self.strides,
            'pool': self.pool and serialize_unbuilt(self.pool),
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class ConvBlk(Block):
    """`convs` times `ConvBN` with 3x3 kernels, then pooling.

    ```
    y = pool(activation(normalization(conv(... conv_bn_1(x)))))
    y = activation(normalization(pool(conv(... conv_bn_1(x)))))     # pool_first
    ```

    With `pool_first` there is a quarter as much to normalise and to activate; the network is
    another one, though as good.

    Args:
        filters: output channels of each convolution, at least 1.
        pool: template of the pooling layer; None for 2x2 maxima. `keras.layers.Identity()` keeps
            the resolution.
        convs: number of `ConvBN`, at least 1.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        pool_first: whether the pooling comes right behind the last convolution.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`. The parts are called `conv_bn_1`, ...
            and `pool`, which with `pool_first` is a part of the last `conv_bn`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalizations use the batch's statistics.

    Returns:
        `(batch, height // 2, width // 2, filters)`, with the default pooling.

    Raises:
        ValueError: for numbers below 1, or a template that isn't a layer.

    Example:

    >>> from fenwicks.layers import ConvBlk
    >>> ConvBlk(256).compute_output_shape((None, 16, 16, 128))
    (None, 8, 8, 256)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/ for `pool_first`.
    """

    def __init__(
        self,
        filters,
        pool=None,
        convs=1,
        kernel_initializer='glorot_uniform',
        normalization=None,
        activation='relu',
        pool_first=False,
        **kwargs,
    ):
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.filters = positive_integer('filters', filters)
        self.convs = positive_integer('convs', convs)
        self.pool_first = pool_first
        self.input_spec = keras.layers.InputSpec(ndim=4)
        pool = check_template('pool', pool) or MaxPooling2D(2, name='pool')
        # The largest of activated values is the activated largest value: activating a quarter of
        # them, after the pooling, saves time and the memory of the other three quarters.
        activate_last = (
            not pool_first
            and isinstance(pool, keras.layers.MaxPooling2D)
            and is_non_decreasing(self.activation)
        )
        for i in range(self.convs):
            is_last = i == self.convs - 1
            self._append(
                self._new_conv_bn(
                    self.filters,
                    f'conv_bn_{i + 1}',
                    activated=not (is_last and activate_last),
                    pool=pool if is_last and pool_first else None,
                )
            )
        if pool_first:
            self.pool = self.layers[-1].pool
        else:
            self.pool = copy_template(pool, 'pool', self.dtype_policy)
            self._append(self.pool)
        if activate_last:
            self._append(self._new_activation())
        # There the pooling is cheaper within the normalization than behind it.
        norm = self.layers[self.convs - 1].layers[-2]
        self._pools_within = (
            one_pass.on_jax() and activate_last and type(norm) is BatchNormalization
        )

    def call(self, inputs, training=None):
        if not (training and self._pools_within):
            return super().call(inputs, training=training)
        last = self.layers[self.convs - 1]
        for layer in self.layers:
            if layer is last:
                inputs = layer(inputs, training=training, pool=self.pool)
            elif layer is not self.pool:
                inputs = layer(inputs, training=training)
        return inputs

    def _new_conv_bn(self, filters, name, *, activated=True, pool=None):
        return ConvBN(
            filters,
            kernel_initializer=self.kernel_initializer,
            normalization=self.normalization,
            activation=self.activation if activated else None,
            pool=pool,
            name=name,
            dtype=self.dtype_policy,
        )

    def get_config(self):
        return {
            **super().get_config(),
            'filters': self.filters,
            'pool': serialize_unbuilt(self.pool),
            'convs': self.convs,
            'pool_first': self.pool_first,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class ConvResBlk(ConvBlk):
    """`ConvBlk`, then `res_convs` times `ConvBN` with a shortcut around them.

    ```
    h = conv_blk(x)
    y = h + conv_bn_m(... conv_bn_1(h))
    ```

    Args:
        filters: output channels of each convolution, at least 1.
        pool: as in `ConvBlk`.
        convs: number of `ConvBN` before the pooling, at least 1.
        res_convs: number of `ConvBN` within the shortcut, at least 1.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        pool_first: as in `ConvBlk`.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`. The parts are called `conv_bn_1`, ...,
            `pool` and `residual`, whose parts are called `conv_bn_1`, ...

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalizations use the batch's statistics.

    Returns:
        `(batch, height // 2, width // 2, filters)`, with the default pooling.

    Raises:
        ValueError: for numbers below 1, or a template that isn't a layer.

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/
    """

    def __init__(
        self,
        filters,
        pool=None,
        convs=1,
        res_convs=2,
        kernel_initializer='glorot_uniform',
        normalization=None,
        activation='relu',
        pool_first=False,
        **kwargs,
    ):
        super().__init__(
            filters,
            pool,
            convs,
            kernel_initializer,
            normalization,
            activation,
            pool_first,
            **kwargs,
        )
        self.res_convs = positive_integer('res_convs', res_convs)
        residual = [
            self._new_conv_bn(self.filters, f'conv_bn_{i + 1}') for i in range(self.res_convs)
        ]
        self._append(Residual(residual, name='residual', dtype=self.dtype_policy))

    def get_config(self):
        return {**super().get_config(), 'res_convs': self.res_convs}

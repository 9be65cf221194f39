"""Blocks of convolution, normalization, activation and pooling.

A network chooses three things once, and passes them to every block under the same names:
`kernel_initializer`, `normalization` and `activation`. The last two, and `pool`, may be *template*
layers: a block copies a template and never calls it. A template carries its settings, as in
`normalization=BatchNormalization(momentum=0.6)`, so that blocks need no arguments for them.
"""

from __future__ import annotations

from typing import Any

import keras

from fenwicks._checks import channels_last, flag, positive_integer
from fenwicks._typing import Config, Tensor
from fenwicks.kernels import device
from fenwicks.layers._base import Block
from fenwicks.layers._templates import check_template, copy_template, serialize_unbuilt
from fenwicks.layers.activations import is_non_decreasing
from fenwicks.layers.containers import Residual
from fenwicks.layers.convolution import Conv2D
from fenwicks.layers.initializers import init_pytorch
from fenwicks.layers.normalization import BatchNormalization, GhostBatchNormalization
from fenwicks.layers.pooling import MaxPooling2D, windows_of

# PyTorch's defaults, for any block: ConvBN(64, **PYTORCH_PARAMS). The template has a name so that
# it doesn't count in Keras's automatic names.
PYTORCH_PARAMS = {
    'kernel_initializer': init_pytorch,
    'normalization': BatchNormalization(momentum=0.9, epsilon=1e-5, name='pytorch_batch_norm'),
}


@keras.saving.register_keras_serializable(package='fenwicks')
class ConvBN(Block):
    """Convolution without bias, batch normalization, activation, and optionally pooling.

    ```
    y = activation(normalization(conv(x)))
    y = activation(normalization(pool(conv(x))))    # pool_first
    y = pool(activation(normalization(conv(x))))    # not pool_first
    ```

    Max pooling commutes with the normalization up to the sign of the scale, and with an activation
    that never decreases. The last formula is therefore computed as
    `activation(pool(normalization(conv(x))))` for such an activation, which activates fewer values;
    and on JAX the batch normalizations of `fenwicks.layers` pool before they scale.

    Args:
        filters: output channels, at least 1.
        kernel_size: side of the square kernel in pixels, at least 1.
        strides: step of the kernel in pixels, at least 1; the padding is `same`.
        kernel_initializer: any Keras initializer. Each kernel gets a copy of it, so that an
            unseeded initializer draws different numbers for each.
        normalization: template of the normalization layer, whose name and dtype are ignored;
            None for `BatchNormalization(momentum=0.9, epsilon=1e-5)`.
        activation: name or function of an activation, None for none, or a template layer.
        pool: template of a pooling layer, None for no pooling.
        pool_first: whether to pool right after the convolution.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. The parts are called `conv`,
            `pool`, `norm` and `activation`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalization uses the batch's statistics.

    Returns:
        `(batch, ceil(height / strides), ceil(width / strides), filters)` without pooling; otherwise
        the sides are those that the pooling leaves.

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
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        kernel_initializer: Any = 'glorot_uniform',
        normalization: keras.layers.Layer | None = None,
        activation: Any = 'relu',
        pool: Any = None,
        pool_first: bool = True,
        **kwargs: Any,
    ) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.filters = positive_integer('filters', filters)
        self.kernel_size = positive_integer('kernel_size', kernel_size)
        self.strides = positive_integer('strides', strides)
        self.pool_first = pool_first = flag('pool_first', pool_first)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        conv = Conv2D(
            self.filters,
            self.kernel_size,
            strides=self.strides,
            padding='same',
            use_bias=False,
            kernel_initializer=self._new_initializer(),
            data_format='channels_last',
            name='conv',
            dtype=self.dtype_policy,
        )
        norm, activate = self._new_normalization(), self._new_activation()
        self._style.pool = check_template('pool', pool)
        pool = self._style.pool and copy_template(self._style.pool, 'pool', self.dtype_policy)
        takes_maxima = isinstance(pool, keras.layers.MaxPooling2D)
        pools_within = not pool_first and takes_maxima and is_non_decreasing(self.activation)
        if pool is None:
            parts = [conv, norm, activate]
        elif pool_first:
            parts = [conv, pool, norm, activate]
        elif pools_within:
            parts = [conv, norm, pool, activate]
        else:
            parts = [conv, norm, activate, pool]
        for part in parts:
            self._append(part)

    @property
    def pool(self) -> Any:
        """The pooling layer; None if there is none."""
        return next((part for part in self.layers if part.name == 'pool'), None)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self._fuses_pool(training):
            conv, norm, pool, activate = self.layers
            h = norm(conv(inputs, training=training), training=training, pool=pool)
            return activate(h, training=training)
        conv, *rest = self.layers
        # It may be another layer by now.
        windows = {'windows': windows_of(rest[0])} if isinstance(conv, Conv2D) else {}
        h = conv(inputs, training=training, **windows)
        for layer in rest:
            h = layer(h, training=training)
        return h

    def _fuses_pool(self, training):
        """Whether the norm pools, by maxima, which commute with it; parts may be others by now."""
        _, norm, pool, *_ = self.layers
        return (
            training
            and len(self.layers) == 4
            and device.on_jax()
            and isinstance(pool, keras.layers.MaxPooling2D)
            and type(norm) in (BatchNormalization, GhostBatchNormalization)
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            'filters': self.filters,
            'kernel_size': self.kernel_size,
            'strides': self.strides,
            'pool': self._style.pool and serialize_unbuilt(self._style.pool),
            'pool_first': self.pool_first,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class ConvBlk(Block):
    """A sequence of `ConvBN`, then pooling.

    ```
    y = pool(activation(normalization(conv(... conv_bn_1(x)))))
    y = activation(normalization(pool(conv(... conv_bn_1(x)))))     # pool_first
    ```

    With `pool_first` a quarter as many values are normalized and activated. The two orders are
    different functions; either trains well.

    Args:
        filters: output channels of each convolution, at least 1.
        pool: template of the pooling layer; None for 2x2 max pooling, `keras.layers.Identity()` for
            no pooling.
        convs: number of `ConvBN`, at least 1.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        pool_first: whether to pool right after the last convolution.
        kernel_size: side of the square kernels in pixels, at least 1.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. The parts are called
            `conv_bn_1`, ...; the last one contains `pool` if that is max pooling or `pool_first`.
            Otherwise `pool` follows them.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalizations use the batch's statistics.

    Returns:
        `(batch, height // 2, width // 2, filters)` with the default pooling.

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
        filters: int,
        pool: Any = None,
        convs: int = 1,
        kernel_initializer: Any = 'glorot_uniform',
        normalization: keras.layers.Layer | None = None,
        activation: Any = 'relu',
        pool_first: bool = False,
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(kernel_initializer, normalization, activation, **kwargs)
        self.filters = positive_integer('filters', filters)
        self.convs = positive_integer('convs', convs)
        self.pool_first = pool_first = flag('pool_first', pool_first)
        self.kernel_size = positive_integer('kernel_size', kernel_size)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        pool = check_template('pool', pool) or MaxPooling2D(2, name='pool')
        self._style.pool = pool
        # Other poolings may have weights, whose paths must not depend on this.
        within_last = pool_first or isinstance(pool, keras.layers.MaxPooling2D)
        for i in range(1, self.convs):
            self._append(self._new_conv_bn(f'conv_bn_{i}'))
        self._append(self._new_conv_bn(f'conv_bn_{self.convs}', pool if within_last else None))
        if not within_last:
            self._append(copy_template(pool, 'pool', self.dtype_policy))

    @property
    def pool(self) -> Any:
        """The pooling layer."""
        within_last = self.layers[self.convs - 1].pool
        return self.layers[self.convs] if within_last is None else within_last

    def _new_conv_bn(self, name, pool=None):
        return ConvBN(
            self.filters,
            kernel_size=self.kernel_size,
            kernel_initializer=self.kernel_initializer,
            normalization=self.normalization,
            activation=self.activation,
            pool=pool,
            pool_first=self.pool_first,
            name=name,
            dtype=self.dtype_policy,
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            'filters': self.filters,
            'pool': serialize_unbuilt(self._style.pool),
            'convs': self.convs,
            'pool_first': self.pool_first,
            'kernel_size': self.kernel_size,
        }


@keras.saving.register_keras_serializable(package='fenwicks')
class ConvResBlk(ConvBlk):
    """`ConvBlk`, then a sequence of `ConvBN` with a shortcut around it.

    ```
    h = conv_blk(x)
    y = h + conv_bn_m(... conv_bn_1(h))
    ```

    Args:
        filters: output channels of each convolution, at least 1.
        pool: as in `ConvBlk`.
        convs: number of `ConvBN` before the pooling, at least 1.
        res_convs: number of `ConvBN` that the shortcut bypasses, at least 1.
        kernel_initializer: as in `ConvBN`.
        normalization: as in `ConvBN`.
        activation: as in `ConvBN`.
        pool_first: as in `ConvBlk`.
        kernel_size: as in `ConvBlk`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`. The parts are those of
            `ConvBlk` and `residual`, whose parts are called `conv_bn_1`, ...

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether the normalizations use the batch's statistics.

    Returns:
        `(batch, height // 2, width // 2, filters)` with the default pooling.

    Raises:
        ValueError: for numbers below 1, or a template that isn't a layer.

    Example:

    >>> from fenwicks.layers import ConvResBlk
    >>> ConvResBlk(128).compute_output_shape((None, 32, 32, 64))
    (None, 16, 16, 128)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/
    """

    def __init__(
        self,
        filters: int,
        pool: Any = None,
        convs: int = 1,
        res_convs: int = 2,
        kernel_initializer: Any = 'glorot_uniform',
        normalization: keras.layers.Layer | None = None,
        activation: Any = 'relu',
        pool_first: bool = False,
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            pool,
            convs,
            kernel_initializer,
            normalization,
            activation,
            pool_first,
            kernel_size,
            **kwargs,
        )
        self.res_convs = positive_integer('res_convs', res_convs)
        residual = [self._new_conv_bn(f'conv_bn_{i + 1}') for i in range(self.res_convs)]
        self._append(Residual(residual, name='residual', dtype=self.dtype_policy))

    def get_config(self) -> Config:
        return {**super().get_config(), 'res_convs': self.res_convs}

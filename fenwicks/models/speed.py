"""The network of the speed records: patch whitening and three groups of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from fenwicks._checks import channels_last, finite_number, flag, no_class
from fenwicks.layers import (
    GELU,
    BatchNormalization,
    Classifier,
    ConvBlk,
    ConvBN,
    PartialIdentity,
    PatchWhitening,
    Residual,
    Sequential,
)
from fenwicks.layers.activations import new_activation
from fenwicks.models._checks import channel_counts, image_shape

# Templates: networks contain copies of them. They have names so that they don't count in Keras's
# automatic names.
_NORMALIZATION = BatchNormalization(momentum=0.6, epsilon=1e-12, scale=False, name='norm')
_ACTIVATION = GELU(name='activation')


def speednet(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    widths: Sequence[int] = (64, 256, 256),
    residual: bool = False,
    logit_scale: float | None = None,
    kernel_initializer: Any = PartialIdentity,
    whitening_bias_initializer: Any = None,
    head_initializer: Any = None,
    normalization: keras.layers.Layer | None = _NORMALIZATION,
    activation: Any = _ACTIVATION,
    name: str = 'speednet',
    first_activation: Any = None,
) -> keras.Model:
    """The network of the speed records: whitened 2x2 patches, then six 3x3 convolutions.

    ```
    h = activation(whitening(images))                   # 31x31, 24 filters
    for width in widths:                                # 15x15, 7x7, 3x3
        h = conv_blk(h, width, pool_first)
        h = conv_bn(h, width)                           # or, residual:
        h = activation(h + conv_bn(conv_bn(h, width), width, no activation))
    logits = logit_scale * (global_max(h) @ kernel)     # float32
    ```

    It has 1,971,352 trainable parameters at the default sizes. Call
    `model.get_layer('whitening').adapt(images)` before training. The defaults are those of the
    record with Muon; the one with SGD has `logit_scale=1 / 9`, `head_initializer=init_pytorch` and
    `whitening_bias_initializer='zeros'`.

    Args:
        input_shape: `(height, width, channels)` of the images, the sides at least 9 pixels.
        num_classes: number of logits, at least 1.
        widths: channels of the three groups, each at least 1.
        residual: whether each group has a third convolution, and a shortcut around its last two.
            The record network for 96 % is this one with `widths=(128, 384, 512)`.
        logit_scale: the logits are multiplied by this finite number; None for `1 / widths[-1]`.
        kernel_initializer: as in `fenwicks.layers.ConvBN`.
        whitening_bias_initializer: any Keras initializer, for the bias of the whitening; None for
            PyTorch's default, uniform in `+-1 / sqrt(4 * channels)`.
        head_initializer: any Keras initializer, for the dense layer; None for a uniform
            distribution of standard deviation 1.
        normalization: as in `fenwicks.layers.ConvBN`; by default without scales, momentum 0.6 and
            epsilon 1e-12.
        activation: as in `fenwicks.layers.ConvBN`; by default GELU.
        name: the model's name.
        first_activation: the one after the whitening; None for `activation`.

    Returns:
        A functional `keras.Model` from normalized float images
        `(batch, height, width, channels)` to logits `(batch, num_classes)`. Its layers are called
        `whitening`, `activation`, `group_1` to `group_3`, `global_pool` and `classifier`.

    Raises:
        ValueError: if a size breaks the rules above.

    Example:

    >>> from fenwicks.models import speednet
    >>> model = speednet(widths=(4, 8, 8))
    >>> model.output_shape
    (None, 10)

    Reference:
        Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, https://arxiv.org/abs/2404.00498
    """
    channels_last('speednet', keras.config.image_data_format())
    input_shape = image_shape(input_shape, smallest=9)
    widths = channel_counts(widths, 3)
    residual = flag('residual', residual)
    no_class('first_activation', first_activation)
    if logit_scale is None:
        logit_scale = 1 / widths[-1]
    logit_scale = finite_number('logit_scale', logit_scale)
    if whitening_bias_initializer is None:
        whitening_bias_initializer = _uniform(1 / math.sqrt(4 * input_shape[-1]))
    if head_initializer is None:
        head_initializer = _uniform(math.sqrt(3))
    style = {
        'kernel_initializer': kernel_initializer,
        'normalization': normalization,
        'activation': activation,
    }
    images = keras.Input(input_shape, name='images')
    h = PatchWhitening(
        2,
        epsilon=5e-4,
        padding='valid',
        negatives=True,
        use_bias=True,
        bias_initializer=whitening_bias_initializer,
        name='whitening',
        # It computes in float32 anyway; the activation rounds, so that no pass over memory is for
        # rounding alone.
        dtype=keras.config.dtype_policy().variable_dtype,
    )(images)
    first = activation if first_activation is None else first_activation
    h = new_activation(first, 'activation', keras.config.dtype_policy())(h)
    for i, width in enumerate(widths, 1):
        group = [ConvBlk(width, **style, pool_first=True, name='down')]
        if residual:
            group += _shortcut(width, style)
        else:
            group.append(ConvBN(width, **style, name='conv_bn'))
        h = Sequential(group, name=f'group_{i}')(h)
    h = keras.layers.GlobalMaxPooling2D(name='global_pool')(h)
    logits = Classifier(num_classes, head_initializer, logit_scale, name='classifier')(h)
    return keras.Model(images, logits, name=name)


def _shortcut(width, style):
    """Two convolutions with a shortcut around them, and the activation of their sum."""
    convs = [
        ConvBN(width, **style, name='conv_bn_1'),
        ConvBN(width, **{**style, 'activation': None}, name='conv_bn_2'),
    ]
    activation = new_activation(style['activation'], 'activation', keras.config.dtype_policy())
    return [Residual(convs, name='residual'), activation]


def _uniform(limit):
    return keras.initializers.RandomUniform(-limit, limit)

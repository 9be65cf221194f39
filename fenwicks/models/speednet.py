"""The network of the speed records: patch whitening, three short groups, nothing else."""

from __future__ import annotations

import math

import keras

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
from fenwicks.layers.style import new_activation

# Templates, never used themselves. Named, so that they take no number from Keras's automatic names.
_NORMALIZATION = BatchNormalization(momentum=0.6, epsilon=1e-12, scale=False, name='norm')
_ACTIVATION = GELU(name='activation')


def speednet(
    input_shape=(32, 32, 3),
    num_classes=10,
    widths=(64, 256, 256),
    residual=False,
    logit_scale=None,
    kernel_initializer=PartialIdentity,
    whitening_bias_initializer=None,
    head_initializer=None,
    normalization=_NORMALIZATION,
    activation=_ACTIVATION,
    name='speednet',
):
    """The record networks' six 3x3 convolutions behind whitened 2x2 patches.

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
        residual: whether each group has a third convolution, and a shortcut around its last two:
            the record network for 96 %, with `widths=(128, 384, 512)`.
        logit_scale: factor on the logits, a finite number; None for `1 / widths[-1]`.
        kernel_initializer: as in `fenwicks.layers.ConvBN`.
        whitening_bias_initializer: any Keras initializer for the bias of the whitening; None for
            PyTorch's uniform numbers in `+-1 / sqrt(4 * channels)`.
        head_initializer: any Keras initializer for the dense layer; None for uniform numbers of
            standard deviation 1.
        normalization: as in `fenwicks.layers.ConvBN`; by default without scales, momentum 0.6 and
            epsilon 1e-12.
        activation: as in `fenwicks.layers.ConvBN`; by default GELU.
        name: the model's name.

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
    if len(input_shape) != 3 or any(side is not None and side < 9 for side in input_shape[:2]):
        raise ValueError(
            '`input_shape` must be (height, width, channels) with sides of at least 9. '
            f'Received: input_shape={input_shape}'
        )
    if len(widths) != 3 or any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(
            f'`widths` must be three integers of at least 1. Received: widths={widths}'
        )
    if logit_scale is None:
        logit_scale = 1 / widths[-1]
    if not math.isfinite(logit_scale):
        raise ValueError(
            f'`logit_scale` must be a finite number. Received: logit_scale={logit_scale}'
        )
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
    )(images)
    h = new_activation(activation, 'activation', keras.config.dtype_policy())(h)
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
    """Two convolutions with a shortcut around them, which is added before the last activation."""
    convs = [
        ConvBN(width, **style, name='conv_bn_1'),
        ConvBN(width, **{**style, 'activation': None}, name='conv_bn_2'),
    ]
    activation = new_activation(style['activation'], 'activation', keras.config.dtype_policy())
    return [Residual(convs, name='residual'), activation]


def _uniform(limit):
    return keras.initializers.RandomUniform(-limit, limit)

"""ResNet-9, a small residual network for fast training on CIFAR-10."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import keras

from fenwicks._checks import channels_last, finite_number
from fenwicks.layers import (
    Classifier,
    ConvBlk,
    ConvBN,
    ConvResBlk,
    PatchWhitening,
    init_pytorch,
)
from fenwicks.models._checks import channel_counts, image_shape


def resnet9(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    widths: Sequence[int] = (64, 128, 256, 512),
    logit_scale: float = 0.125,
    kernel_initializer: Any = init_pytorch,
    normalization: keras.layers.Layer | None = None,
    activation: Any = 'relu',
    whitening: int = 0,
    pool_first: bool = False,
    name: str = 'resnet9',
) -> keras.Model:
    """ResNet-9, eight 3x3 convolutions and a dense layer.

    ```
    h = conv_bn(images, 64)                     # 32x32
    h = conv_res_blk(h, 128)                    # 16x16, a shortcut around two convolutions
    h = conv_blk(h, 256)                        # 8x8
    h = conv_res_blk(h, 512)                    # 4x4, a shortcut around two convolutions
    logits = 0.125 * (global_max(h) @ kernel)   # float32
    ```

    It has 6,573,120 trainable parameters at the default sizes. The kernels are initialized like
    PyTorch's, as in the network's first implementation. With whitening, call
    `model.get_layer('whitening').adapt(images)` before training; the first 3x3 convolution, which
    follows it, becomes a 1x1 convolution.

    Args:
        input_shape: `(height, width, channels)` of the images, the sides at least 8 pixels.
        num_classes: number of logits, at least 1.
        widths: channels of the four stages, each at least 1.
        logit_scale: the logits are multiplied by this finite number.
        kernel_initializer: as in `fenwicks.layers.ConvBN`.
        normalization: as in `fenwicks.layers.ConvBN`.
        activation: as in `fenwicks.layers.ConvBN`.
        whitening: side in pixels of the patches of a first layer, `fenwicks.layers.PatchWhitening`,
            which is called `whitening`; 0 for no such layer.
        pool_first: as in `fenwicks.layers.ConvBlk`.
        name: the model's name.

    Returns:
        A functional `keras.Model` from normalized float images
        `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Raises:
        ValueError: if a size breaks the rules above.

    Example:

    >>> from fenwicks.models import resnet9
    >>> model = resnet9(widths=(4, 8, 8, 16))
    >>> model.output_shape
    (None, 10)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/ and, for the last two
        options, https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/
    """
    channels_last('resnet9', keras.config.image_data_format())
    input_shape = image_shape(input_shape, smallest=8)
    widths = channel_counts(widths, 4)
    logit_scale = finite_number('logit_scale', logit_scale)
    if isinstance(whitening, bool) or not isinstance(whitening, numbers.Integral) or whitening < 0:
        raise ValueError(
            '`whitening` must be the side of a patch in pixels, or 0 for no whitening. '
            f'Received: whitening={whitening!r}'
        )
    style = {
        'kernel_initializer': kernel_initializer,
        'normalization': normalization,
        'activation': activation,
    }
    images = keras.Input(input_shape, name='images')
    h = images
    if whitening:
        h = PatchWhitening(whitening, name='whitening')(h)
    h = ConvBN(widths[0], kernel_size=1 if whitening else 3, **style, name='prep')(h)
    style['pool_first'] = pool_first
    h = ConvResBlk(widths[1], **style, name='stage_1')(h)
    h = ConvBlk(widths[2], **style, name='stage_2')(h)
    h = ConvResBlk(widths[3], **style, name='stage_3')(h)
    h = keras.layers.GlobalMaxPooling2D(name='global_pool')(h)
    logits = Classifier(num_classes, kernel_initializer, logit_scale, name='classifier')(h)
    return keras.Model(images, logits, name=name)

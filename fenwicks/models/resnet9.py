"""ResNet-9, the small residual network that made CIFAR-10 fast."""

from __future__ import annotations

import math
import numbers

import keras
import numpy as np

from fenwicks.layers import (
    Classifier,
    ConvBlk,
    ConvBN,
    ConvResBlk,
    PatchWhitening,
    init_pytorch,
)


def resnet9(
    input_shape=(32, 32, 3),
    num_classes=10,
    widths=(64, 128, 256, 512),
    logit_scale=0.125,
    kernel_initializer=init_pytorch,
    normalization=None,
    activation='relu',
    whitening=0,
    pool_first=False,
    name='resnet9',
):
    """ResNet-9, eight 3x3 convolutions and a dense layer.

    ```
    h = conv_bn(images, 64)                     # 32x32
    h = conv_res_blk(h, 128)                    # 16x16, two convolutions in its shortcut
    h = conv_blk(h, 256)                        # 8x8
    h = conv_res_blk(h, 512)                    # 4x4, two convolutions in its shortcut
    logits = 0.125 * (global_max(h) @ kernel)   # float32
    ```

    It has 6,573,120 trainable parameters at the default sizes. PyTorch's initialization, as in
    the network's first implementation. With whitening, call
    `model.get_layer('whitening').adapt(images)` before training; the 3x3 convolution behind it
    becomes a 1x1 convolution.

    Args:
        input_shape: `(height, width, channels)` of the images, the sides at least 8 pixels.
        num_classes: number of logits, at least 1.
        widths: channels of the four stages, each at least 1.
        logit_scale: factor on the logits, a finite number.
        kernel_initializer: as in `fenwicks.layers.ConvBN`.
        normalization: as in `fenwicks.layers.ConvBN`.
        activation: as in `fenwicks.layers.ConvBN`.
        whitening: side in pixels of the patches that a first layer `whitening` whitens, see
            `fenwicks.layers.PatchWhitening`; 0 for no such layer.
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
    if len(input_shape) != 3 or any(side is not None and side < 8 for side in input_shape[:2]):
        raise ValueError(
            '`input_shape` must be (height, width, channels) with sides of at least 8. '
            f'Received: input_shape={input_shape}'
        )
    if len(widths) != 4 or any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f'`widths` must be four integers of at least 1. Received: widths={widths}')
    if not math.isfinite(logit_scale):
        raise ValueError(
            f'`logit_scale` must be a finite number. Received: logit_scale={logit_scale}'
        )
    if isinstance(whitening, bool) or not isinstance(whitening, numbers.Integral) or whitening < 0:
        raise ValueError(
            '`whitening` must be the side of a patch in pixels, or 0 for none. '
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


def check_model(model, input_shape=(32, 32, 3)):
    """Runs one random image through a model.

    Args:
        model: a Keras model (or layer) that takes images.
        input_shape: `(height, width, channels)` of the image.

    Returns:
        The model's output as a NumPy array, whose first axis is of length 1.

    Raises:
        ValueError: if the output isn't finite.

    Example:

    >>> from fenwicks.models import check_model, resnet9
    >>> check_model(resnet9(widths=(4, 8, 8, 16))).shape
    (1, 10)
    """
    image = np.random.default_rng(0).standard_normal((1, *input_shape), dtype=np.float32)
    outputs = keras.ops.convert_to_numpy(model(image, training=False))
    if not np.isfinite(outputs.astype(np.float32)).all():
        raise ValueError(
            f'`model` must return finite numbers. Received: model={model.name!r}, '
            'whose output for a random image holds NaN or infinity'
        )
    return outputs

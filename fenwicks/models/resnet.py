"""ResNet-9, a small residual network for fast training on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from fenwicks._checks import channels_last, finite_number, integer
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
    return backbone(
        input_shape,
        num_classes,
        widths,
        residual=(1, 3),
        logit_scale=logit_scale,
        kernel_initializer=kernel_initializer,
        normalization=normalization,
        activation=activation,
        whitening=whitening,
        pool_first=pool_first,
        name=name,
    )


def backbone(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    widths: Sequence[int] = (64, 128, 256, 512),
    *,
    extra: Sequence[int] = (),
    residual: Sequence[int] = (),
    logit_scale: float = 0.125,
    kernel_initializer: Any = init_pytorch,
    normalization: keras.layers.Layer | None = None,
    activation: Any = 'relu',
    whitening: int = 0,
    pool_first: bool = False,
    name: str = 'backbone',
) -> keras.Model:
    """The family of small networks from which ResNet-9 was chosen.

    ```
    h = conv_bn(images, widths[0])
    for stage in (1, 2, 3):
        h = max_pool(conv_bn(h, widths[stage]))
        if stage in extra:
            h = conv_bn(h, widths[stage])
        elif stage in residual:
            h = h + conv_bn(conv_bn(h, widths[stage]), widths[stage])
    logits = logit_scale * (global_max(h) @ kernel)     # float32
    ```

    Without extras these are four 3x3 convolutions and a dense layer; `resnet9` is
    `backbone(residual=(1, 3))`. The layers are called `prep`, `stage_1`, `extra_1`, ...,
    `global_pool` and `classifier`.

    Args:
        input_shape, num_classes, widths, logit_scale, kernel_initializer, normalization,
            activation, whitening, pool_first, name: as in `resnet9`.
        extra: stages, of 1, 2 and 3, with another convolution after their pooling.
        residual: other stages, with a shortcut around two more convolutions after their pooling.

    Returns:
        A functional `keras.Model`, as `resnet9` returns it.

    Raises:
        ValueError: if a size breaks the rules of `resnet9`, there is no such stage, or a stage is
            in both `extra` and `residual`.

    Example:

    >>> from fenwicks.models import backbone
    >>> model = backbone(widths=(4, 8, 8, 16), extra=(2,), residual=(1, 3))
    >>> [layer.name for layer in model.layers][2:6]
    ['stage_1', 'stage_2', 'extra_2', 'stage_3']

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/
    """
    channels_last(name, keras.config.image_data_format())
    input_shape = image_shape(input_shape, smallest=8)
    widths = channel_counts(widths, 4)
    _check_stages(extra, residual)
    logit_scale = finite_number('logit_scale', logit_scale)
    whitening = integer('whitening', whitening, low=0)
    if any(side is not None and side < whitening for side in input_shape[:2]):
        raise ValueError(
            f'`whitening` must be at most the sides {input_shape[:2]} of the images. '
            f'Received: whitening={whitening}'
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
    for stage, width in enumerate(widths[1:], 1):
        block = ConvResBlk if stage in residual else ConvBlk
        h = block(width, **style, pool_first=pool_first, name=f'stage_{stage}')(h)
        if stage in extra:
            h = ConvBN(width, **style, name=f'extra_{stage}')(h)
    h = keras.layers.GlobalMaxPooling2D(name='global_pool')(h)
    logits = Classifier(num_classes, kernel_initializer, logit_scale, name='classifier')(h)
    return keras.Model(images, logits, name=name)


def _check_stages(extra, residual):
    for name, stages in (('extra', extra), ('residual', residual)):
        known = isinstance(stages, Sequence) and all(stage in (1, 2, 3) for stage in stages)
        if not known or len(set(stages)) < len(stages):
            raise ValueError(
                f'`{name}` must hold stages, each of 1, 2 and 3 once at most. '
                f'Received: {name}={stages!r}'
            )
    if set(extra) & set(residual):
        raise ValueError(
            '`residual` must hold other stages than `extra`. '
            f'Received: residual={residual!r}, extra={extra!r}'
        )

"""ResNet-18 with normalization and activation before each convolution, for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from fenwicks._checks import channels_last, flag, positive_integer
from fenwicks.layers import ConvBN, GlobalPools2D, PreActBlk, init_pytorch
from fenwicks.models._checks import channel_counts, image_shape


def preact_resnet18(
    input_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int = 10,
    widths: Sequence[int] = (64, 128, 256, 256),
    stem_activation: bool = False,
    kernel_initializer: Any = init_pytorch,
    normalization: keras.layers.Layer | None = None,
    activation: Any = 'relu',
    name: str = 'preact_resnet18',
) -> keras.Model:
    """ResNet-18 as it won DAWNBench's contest for CIFAR-10 on one GPU, in 2018.

    ```
    h = conv(images, widths[0])                                      # 32x32
    h = activation(normalization(h))                                 # stem_activation only
    h = preact_blk(preact_blk(h, widths[0]), widths[0])              # 32x32
    for width in widths[1:]:                                         # 16x16, 8x8, 4x4
        h = preact_blk(preact_blk(h, width, strides=2), width)
    logits = concatenate([global_max(h), global_mean(h)]) @ kernel + bias     # float32
    ```

    The parts are called `stem`, `stage_1_1`, `stage_1_2`, ..., `pools` and `classifier`. The
    contest's network normalized and activated twice between the first two convolutions, which
    `stem_activation` does too.

    Args:
        input_shape: `(height, width, channels)` of the images, the sides at least 8 pixels.
        num_classes: number of logits, at least 1.
        widths: channels of the four stages, each at least 1.
        stem_activation: whether normalization and activation follow the first convolution, although
            the first block begins with both.
        kernel_initializer: as in `fenwicks.layers.ConvBN`.
        normalization: as in `fenwicks.layers.ConvBN`.
        activation: as in `fenwicks.layers.ConvBN`.
        name: the model's name.

    Returns:
        A functional `keras.Model` from normalized float images
        `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Raises:
        ValueError: if a size breaks the rules above.

    Example:

    >>> from fenwicks.models import preact_resnet18
    >>> model = preact_resnet18(widths=(4, 8, 16, 16))
    >>> model.get_layer('pools').output.shape
    (None, 32)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-1-baseline/
    """
    channels_last(name, keras.config.image_data_format())
    input_shape = image_shape(input_shape, smallest=8)
    widths = channel_counts(widths, 4)
    num_classes = positive_integer('num_classes', num_classes)
    stem_activation = flag('stem_activation', stem_activation)
    style = {
        'kernel_initializer': kernel_initializer,
        'normalization': normalization,
        'activation': activation,
    }
    images = keras.Input(input_shape, name='images')
    plain = {**style, 'normalization': keras.layers.Identity(), 'activation': None}
    h = ConvBN(widths[0], **(style if stem_activation else plain), name='stem')(images)
    for stage, width in enumerate(widths, 1):
        strides = 2 if stage > 1 else 1
        h = PreActBlk(width, strides, **style, name=f'stage_{stage}_1')(h)
        h = PreActBlk(width, **style, name=f'stage_{stage}_2')(h)
    h = GlobalPools2D(name='pools')(h)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=kernel_initializer, dtype='float32', name='classifier'
    )(h)
    return keras.Model(images, logits, name=name)

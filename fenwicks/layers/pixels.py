"""From pixels to what a network takes, as a layer of the network."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from fenwicks._checks import channels_last
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.augment.normalizers import IMAGENET


@keras.saving.register_keras_serializable(package='fenwicks')
class ImageNetNormalization(keras.layers.Layer):
    """Normalises pixels as a network was when it was trained on ImageNet, in float32.

    ```
    y = x / 127.5 - 1             # 'tf'
    y = (x - mean) / std          # 'torch', mean and std of each channel of ImageNet
    y = reversed(x) - mean        # 'caffe', the channels from RGB to BGR
    ```

    Args:
        mode: `'tf'`, `'torch'` or `'caffe'`, as `keras.applications` calls them.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: RGB in 0 to 255, `(batch, height, width, 3)`, of any dtype.

    Returns:
        A tensor of the inputs' shape, in float32.

    Raises:
        ValueError: `mode` is another one.

    Example:

    >>> import keras
    >>> from fenwicks.layers import ImageNetNormalization
    >>> float(ImageNetNormalization('tf')(keras.ops.full((1, 1, 1, 3), 255.0))[0, 0, 0, 0])
    1.0
    """

    def __init__(self, mode: str = 'tf', **kwargs: Any) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(autocast=False, **kwargs)
        if not isinstance(mode, str) or mode not in IMAGENET:
            raise ValueError(f'`mode` must be one of {", ".join(IMAGENET)}. Received: mode={mode}')
        self.mode = mode
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: 3})
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        mean, std = (ops.convert_to_tensor(each, 'float32') for each in IMAGENET[self.mode])
        pixels = ops.cast(inputs, 'float32')
        return ((ops.flip(pixels, axis=-1) if self.mode == 'caffe' else pixels) - mean) / std

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, 'float32')

    def get_config(self) -> Config:
        return {**super().get_config(), 'mode': self.mode}

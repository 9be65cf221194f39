"""The names of the classes, kept within the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from fenwicks._checks import sequence
from fenwicks._typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package='fenwicks')
class ClassNames(keras.layers.Layer):
    """Keeps the names of the classes with a model; returns its inputs unchanged.

    ```
    y = x
    ```

    As the last layer of a model it is saved and loaded with it.

    Args:
        class_names: a text for each class, in the order of the logits.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: a tensor of any shape and dtype.

    Returns:
        `inputs`.

    Raises:
        ValueError: if `class_names` aren't texts, or one occurs twice.

    Example:

    >>> from fenwicks.layers import ClassNames
    >>> ClassNames(['cat', 'dog'], name='class_names').class_names
    ('cat', 'dog')
    """

    def __init__(self, class_names: Sequence[str], **kwargs: Any) -> None:
        # float32 logits stay as they are in a model of mixed precision.
        super().__init__(autocast=False, **kwargs)
        self.class_names = sequence('class_names', class_names, 'texts')
        if not all(isinstance(each, str) for each in self.class_names):
            raise ValueError(f'`class_names` must be texts. Received: class_names={class_names!r}')
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(
                f'`class_names` must be different. Received: class_names={class_names!r}'
            )
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), 'class_names': list(self.class_names)}

"""A quick check of any network."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from fenwicks._checks import instance
from fenwicks.models._checks import image_shape


def check_model(model: keras.layers.Layer, input_shape: Sequence[int] = (32, 32, 3)) -> np.ndarray:
    """Runs one random image through a model.

    Args:
        model: a Keras model or layer that takes images.
        input_shape: `(height, width, channels)` of the image.

    Returns:
        The model's output as a NumPy array, whose first axis has length 1.

    Raises:
        ValueError: if the output isn't finite, `model` is none or has several outputs, or
            `input_shape` isn't that of an image.

    Example:

    >>> from fenwicks.models import check_model, resnet9
    >>> check_model(resnet9(widths=(4, 8, 8, 16))).shape
    (1, 10)
    """
    instance('model', model, keras.layers.Layer, 'a Keras model or layer')
    if None in image_shape(input_shape, smallest=1):
        raise ValueError(
            f'`input_shape` must be that of one image. Received: input_shape={input_shape}'
        )
    image = np.random.default_rng(0).standard_normal((1, *input_shape), dtype=np.float32)
    outputs = model(image, training=False)
    if isinstance(outputs, dict | list | tuple):
        raise ValueError(f'`model` must have one output. Received: {len(outputs)}')
    outputs = keras.ops.convert_to_numpy(outputs)
    if not np.isfinite(outputs.astype(np.float32)).all():
        raise ValueError(
            f'`model` must return finite numbers. Received: model={model.name!r}, '
            'whose output for a random image contains NaN or infinity'
        )
    return outputs

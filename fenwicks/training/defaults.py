"""What a Trainer does with images by default."""

from __future__ import annotations

import keras

from fenwicks import _keras
from fenwicks._typing import ImageFunction, Tensor


def unchanged(images: Tensor, seed: Tensor) -> Tensor:
    """The default augmentation: none."""
    return images


def to_unit_range(images: Tensor) -> Tensor:
    """The default normalisation: uint8 to float32 in [0, 1]."""
    return as_floats(images) / 255.0


def as_floats(images: Tensor) -> Tensor:
    """The default normalisation for a model that normalises: uint8 to float32 in [0, 255]."""
    return keras.ops.cast(images, 'float32')


def default_normalize(model: keras.Model) -> ImageFunction:
    """`as_floats` for a model that begins with a `Rescaling` or `Normalization`, or else
    `to_unit_range`."""
    containers = keras.Model, keras.layers.InputLayer
    layers = [each for each in _keras.flatten_layers(model) if not isinstance(each, containers)]
    normalizes = isinstance(layers[0], keras.layers.Rescaling | keras.layers.Normalization)
    return as_floats if normalizes else to_unit_range

"""What a Trainer does with images by default."""

from __future__ import annotations

import logging

import keras
import numpy as np

from fenwicks import _keras
from fenwicks._typing import ImageFunction, Tensor
from fenwicks.layers import (
    FrozenBatchNormalization,
    ImageNetNormalization,
    Scaling,
    Sequential,
)

_NORMALIZERS = (
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    FrozenBatchNormalization,
    ImageNetNormalization,
    Scaling,
)
_log = logging.getLogger('fenwicks')


def unchanged(images: Tensor, seed: Tensor) -> Tensor:
    """The default augmentation: none."""
    return images


def to_unit_range(images: Tensor) -> Tensor:
    """The default normalisation: pixels in [0, 255] to float32 in [0, 1]."""
    return as_floats(images) / 255.0


def as_floats(images: Tensor) -> Tensor:
    """The default normalisation for a model that normalises: uint8 to float32 in [0, 255]."""
    return keras.ops.cast(images, 'float32')


def default_normalize(model: keras.Model) -> ImageFunction:
    """`as_floats` for a model that takes integers or normalises its images, or else
    `to_unit_range`.

    What happens to the images before and in the first layer with weights decides. The code of a
    subclass of Model can't be seen: there a `Rescaling` or `Normalization` among its layers does.
    """
    for tensor in getattr(model, 'inputs', None) or ():
        if not keras.backend.is_float_dtype(tensor.dtype):  # what is below 1 would become 0
            return as_floats
    for step in _unpacked(model):
        if isinstance(step, _NORMALIZERS) or _is_arithmetic(step):
            return as_floats
        if getattr(step, 'weights', None):
            if any(isinstance(layer, _NORMALIZERS[:2]) for layer in _keras.flatten_layers(step)):
                return as_floats
            if isinstance(step, keras.Model):
                _log.warning(
                    'pixels are divided by 255 for %s, whose code may do so too: pass `normalize` '
                    'to say what it takes',
                    type(step).__name__,
                )
            break
    return to_unit_range


def check_pixels(normalize: ImageFunction, images: np.ndarray) -> None:
    """Raises where the default would divide floats by 255 that are no pixels in [0, 255]."""
    if normalize is not to_unit_range or images.dtype.kind != 'f' or not images.size:
        return
    low, high = images.min(), images.max()
    if low < 0 or 0 < high <= 1:
        raise ValueError(
            '`images` must be pixels in [0, 255] where the Trainer divides them by 255, as it does '
            'by default: pass it normalize=partial(augment.normalize, mean=0, std=1) to take them '
            f'as they are. Received: {images.dtype} images from {low:.4g} to {high:.4g}'
        )


def _unpacked(step):
    """The steps in a model or a container, in the order of an image; or else the step."""
    parts = None
    if isinstance(step, keras.Model):
        parts = _keras.steps_from_input(step)
    elif type(step) is Sequential:
        parts = step.layers
    return [each for part in parts for each in _unpacked(part)] if parts else [step]


def _is_arithmetic(step):
    """Whether a step without weights may scale its inputs: an operation such as `images / 255`, or
    a layer of the user's own."""
    if isinstance(step, keras.layers.Layer):
        own = not type(step).__module__.startswith(('keras.', 'fenwicks.'))
        return (own or isinstance(step, keras.layers.Lambda)) and not step.weights
    return type(step).__name__ in ('Add', 'Divide', 'Multiply', 'Subtract', 'TrueDivide')

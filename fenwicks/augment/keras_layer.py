"""Augmentations as a Keras layer, to be part of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from fenwicks._typing import Config, Shape, Tensor
from fenwicks.augment import color_draws, crops, erasing, flips, geometry
from fenwicks.augment.chain import check_without_context, compose

# Where the transforms are that a saved layer may name.
_MODULES = (color_draws, crops, erasing, flips, geometry)


@keras.saving.register_keras_serializable('fenwicks')
class Augment(keras.layers.Layer):
    """Applies an augmentation in training, and passes images on unchanged in inference.

    Each call draws from a new seed of the layer's generator. A layer with a transform of
    `fenwicks.augment`, its settings bound by `functools.partial`, or a chain of such, can be saved.
    Within `tf.data` call the transform itself: a layer computes in Keras's backend only.

    Args:
        transform: A callable `f(images, seed) -> images`, such as `compose` returns, that keeps
            the images' shape.
        seed: An integer in [0, 2**31), or `None` for a random one.

    Call arguments:
        inputs: Floats (batch, height, width, channels), on TensorFlow or JAX.
        training: Whether to augment.

    Returns:
        Images of the same shape.

    Raises:
        ValueError: The transform isn't callable, needs more than a seed, or changes the images'
            shape.

    Example:
        >>> from functools import partial
        >>> from fenwicks.augment import random_crop
        >>> crop = Augment(partial(random_crop, padding=2), seed=0)
        >>> tuple(crop(np.ones((2, 8, 8, 3), 'float32'), training=True).shape)
        (2, 8, 8, 3)
    """

    def __init__(self, transform: Callable, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not callable(transform):
            raise ValueError(f'`transform` must be callable. Received: {transform!r}')
        check_without_context(transform)
        self.transform, self.seed = transform, seed
        self.generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training:
            return inputs
        # SeedGenerator counts in uint32 or int64, by backend.
        seed = keras.ops.cast(self.generator.next(), 'int32')
        outputs = self.transform(inputs, seed)
        if tuple(outputs.shape[1:]) != tuple(inputs.shape[1:]):
            raise ValueError(
                '`transform` must keep the shape of images, as inference does. '
                f'Received: shapes {tuple(inputs.shape)} before, {tuple(outputs.shape)} after'
            )
        return outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, 'transform': _description(self.transform), 'seed': self.seed}

    @classmethod
    def from_config(cls, config: Config) -> Augment:
        return cls(**{**config, 'transform': _transform(config['transform'])})


def layer(transform: Callable, seed: int | None = None) -> Augment:
    """Makes a Keras layer of an augmentation.

    Args:
        transform: A callable `f(images, seed) -> images`, such as `compose` returns.
        seed: An integer in [0, 2**31), or `None` for a random one.

    Returns:
        An `Augment`.

    Raises:
        ValueError: The transform isn't callable or needs more than a seed.

    Example:
        >>> from fenwicks.augment import random_flip
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), layer(random_flip)])
        >>> model.output_shape
        (None, 8, 8, 3)
    """
    return Augment(transform, seed)


def _description(transform):
    """A transform of this library as JSON holds it."""
    if isinstance(transform, functools.partial) and not transform.args:
        inner = _description(transform.func)
        settings = {**inner['settings'], **transform.keywords}
        return {'name': inner['name'], 'settings': {k: _plain(v) for k, v in settings.items()}}
    parts = getattr(transform, 'transforms', None)
    if parts is not None and type(transform) is type(compose([])):
        return {'name': 'compose', 'settings': {'transforms': [_description(t) for t in parts]}}
    name = getattr(transform, '__name__', None)
    if transform is _function(name):
        return {'name': name, 'settings': {}}
    raise ValueError(
        '`transform` must be of functions of fenwicks.augment, their settings bound by '
        f'functools.partial, or a chain of such, for the layer to be saved. Received: {transform!r}'
    )


def _function(name):
    """The public transform called `name`; `None` if there is none."""
    for module in _MODULES:
        function = getattr(module, name, None) if isinstance(name, str) else None
        if getattr(function, '__module__', None) == module.__name__ and name[0] != '_':
            return function
    return None


def _plain(value):
    """A setting as JSON holds it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _transform(description):
    """The transform that `_description` describes."""
    name, settings = description['name'], description['settings']
    if name == 'compose':
        return compose([_transform(part) for part in settings['transforms']])
    function = _function(name)
    if function is None:
        raise ValueError(f'`transform` must be a function of fenwicks.augment. Received: {name}')
    return functools.partial(function, **settings) if settings else function

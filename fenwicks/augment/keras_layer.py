"""Augmentations as a Keras layer, to be part of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from fenwicks._checks import channels_last, integer
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.augment import (
    chain,
    choices,
    color,
    color_draws,
    crops,
    erasing,
    flips,
    geometry,
    levels,
    normalizers,
    policies,
    resizing,
)
from fenwicks.augment.chain import check_without_context

# Where the functions are that a saved layer may name.
_MODULES = (
    chain,
    choices,
    color,
    color_draws,
    crops,
    erasing,
    flips,
    geometry,
    levels,
    normalizers,
    policies,
    resizing,
)
# Of these, the ones that a saved layer may call.
_FACTORIES = {
    'apply',
    'choice',
    'compose',
    'on_pixels',
    'rand_augment',
    'trivial_augment',
    'without_seed',
}


@keras.saving.register_keras_serializable('fenwicks')
class Augment(keras.layers.Layer):
    """Applies an augmentation in training, and passes images on unchanged in inference.

    Each call draws from a new seed of the layer's generator. The layer can be saved if its
    transform is made of functions of `fenwicks.augment`, their settings bound by
    `functools.partial`. Within `tf.data` call the transform itself: a layer computes in Keras's
    backend only.

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
            shape, or `seed` is out of range.

    Example:
        >>> import numpy as np
        >>> from functools import partial
        >>> from fenwicks.augment import random_crop
        >>> crop = Augment(partial(random_crop, padding=2), seed=0)
        >>> tuple(crop(np.ones((2, 8, 8, 3), 'float32'), training=True).shape)
        (2, 8, 8, 3)
    """

    def __init__(self, transform: Callable, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        channels_last('augment.layer', keras.config.image_data_format())
        check_without_context(transform)
        if seed is not None:
            seed = integer('seed', seed, low=0, below=2**31)
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
        ValueError: The transform isn't callable or needs more than a seed, or `seed` is out of
            range.

    Example:
        >>> import keras
        >>> from fenwicks.augment import random_flip
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), layer(random_flip)])
        >>> model.output_shape
        (None, 8, 8, 3)
    """
    return Augment(transform, seed)


def _description(transform):
    """A transform of this library as JSON holds it: a function and settings, or a call of one."""
    factory = getattr(transform, 'factory', None)
    if factory is not None:
        settings = {name: _plain(value) for name, value in transform.settings.items()}
        return {'factory': factory, 'settings': settings}
    if isinstance(transform, functools.partial) and not transform.args:
        inner = _description(transform.func)
        settings = {name: _plain(value) for name, value in transform.keywords.items()}
        return {**inner, 'settings': {**inner['settings'], **settings}}
    name = getattr(transform, '__name__', None)
    if transform is _function(name):
        return {'name': name, 'settings': {}}
    raise ValueError(
        '`transform` must be made of functions of fenwicks.augment, their settings bound by '
        f'functools.partial, for the layer to be saved. Received: {transform!r}'
    )


def _plain(value):
    """A setting as JSON holds it."""
    if callable(value):
        return _description(value)
    if hasattr(value, '__array__'):  # of NumPy, or a tensor
        return np.asarray(value).tolist()
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def _transform(description):
    """The transform that `_description` describes."""
    settings = {name: _restored(value) for name, value in description['settings'].items()}
    name = description.get('factory', description.get('name'))
    function = _function(name)
    calls = 'factory' in description
    if function is None or (calls and name not in _FACTORIES):
        raise ValueError(f'`transform` must be a function of fenwicks.augment. Received: {name}')
    if calls:
        return function(**settings)
    return functools.partial(function, **settings) if settings else function


def _restored(value):
    if isinstance(value, dict):
        return _transform(value)
    return [_restored(part) for part in value] if isinstance(value, list) else value


def _function(name):
    """The public function called `name`; `None` if there is none."""
    for module in _MODULES:
        function = getattr(module, name, None) if isinstance(name, str) else None
        if getattr(function, '__module__', None) == module.__name__ and name[0] != '_':
            return function
    return None

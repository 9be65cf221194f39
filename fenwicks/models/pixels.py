"""A network on raw pixels: behind its normalisation, in float32, with the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from fenwicks import _keras, augment, layers


def from_pixels(
    model: keras.Model,
    mean: Sequence[float],
    std: Sequence[float],
    input_shape: tuple[int | None, ...] | None,
    class_names: Sequence[str],
) -> keras.Model:
    """The model behind a normalisation, and before the names of the classes, if there are any."""
    images = keras.Input(input_shape or _input_shape(model), name='images')
    channels = images.shape[-1]
    augment.normalize(np.zeros((1, 1, 1, channels), np.uint8), mean, std)  # checks both
    normalize = keras.layers.Normalization(
        mean=np.broadcast_to(np.asarray(mean, float), channels).tolist(),
        variance=np.broadcast_to(np.square(std, dtype=float), channels).tolist(),
        dtype='float32',
    )
    logits = model(normalize(images))
    if len(class_names):
        classes = max(logits.shape[-1], 2)  # one logit tells two classes apart
        if len(class_names) != classes:
            raise ValueError(
                f'`class_names` must be {classes}, one for each class of {model.name!r}. '
                f'Received: {len(class_names)} of them'
            )
        logits = layers.ClassNames(class_names, name='class_names', dtype='float32')(logits)
    return keras.Model(images, logits, name=model.name)


def _input_shape(model):
    try:
        return model.input_shape[1:]
    except (AttributeError, ValueError):  # a subclass of `keras.Model`, a Sequential without Input
        raise ValueError(
            '`input_shape` must be given for a model that does not know its own. '
            f'Received: model={model.name}'
        ) from None


def in_float32(model: keras.Model) -> keras.Model:
    """The model with the same weights and the dtype policy float32 in every layer, uncompiled."""
    try:
        config = _with_float32_policies(keras.saving.serialize_keras_object(model))
        config.pop('compile_config', None)  # or its optimizer's variables would be saved too
        # Not safe for the config of a file; this one is of a model that is there.
        copy = keras.saving.deserialize_keras_object(config, safe_mode=False)
        copy.set_weights(model.get_weights())
        take_statistics(copy)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            '`model` must be one that Keras can make again, to compute in float32: register your '
            'layers by `keras.saving.register_keras_serializable`, or pass precision=None. '
            f'Received: model={model.name}'
        ) from error
    return copy


def take_statistics(model: keras.Model) -> None:
    """Has each `Normalization` compute by its weights, which were assigned.

    It computes by copies of them, which Keras makes anew only where it adapts the layer or loads a
    file.
    """
    for layer in _keras.flatten_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _with_float32_policies(config):
    """A serialized object with each dtype policy in it replaced."""
    if isinstance(config, dict):
        if config.get('class_name') == 'DTypePolicy':
            return {**config, 'config': {**config['config'], 'name': 'float32'}}
        return {key: _with_float32_policies(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_float32_policies(value) for value in config)
    return config

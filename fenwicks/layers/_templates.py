"""Template layers: arguments of blocks, which copy them and never call them."""

from __future__ import annotations

from typing import Any

import keras

from fenwicks import _keras, _keras_saving


def check_template(name: str, layer: Any) -> keras.layers.Layer | None:
    """Returns the template that an argument gives: a copy, or what its config restores.

    A template of the user's may be called by them, too. Then it has weights, which Keras would save
    with the block and not find when it loads it.
    """
    is_config = isinstance(layer, dict)
    if is_config:
        layer = keras.saving.deserialize_keras_object(layer)
    if layer is not None and not isinstance(layer, keras.layers.Layer):
        raise ValueError(f'`{name}` must be a Keras layer or None. Received: {name}={layer!r}')
    for part in _keras.flatten_layers(layer) if layer is not None else ():
        data_format = getattr(part, 'data_format', 'channels_last')
        if data_format != 'channels_last':
            raise ValueError(
                f"`{name}` must have data_format='channels_last'. Received: {name}={part!r} "
                f'with data_format={data_format!r}'
            )
    if layer is None or is_config:
        return layer
    return copy_template(layer, layer.name, layer.dtype_policy)


def copy_template(template: keras.layers.Layer, name: str, dtype: Any) -> keras.layers.Layer:
    """Returns a new layer with the settings of `template`, but its own name and dtype policy."""
    try:
        # A copy that is made while a model is loaded would share its parts with the next one.
        with _keras_saving.no_shared_objects():
            config = {**template.get_config(), 'name': name}
            if _has_own_config(template):
                return type(template).from_config({**config, 'dtype': dtype_argument(dtype)})
            copy = type(template).from_config({**config, 'dtype': None})
    except (TypeError, NotImplementedError) as error:
        lines = [line for line in str(error).splitlines() if line]
        reason = lines[-1] if isinstance(error, TypeError) else 'Keras cannot make a config of it'
        raise ValueError(
            'a template must be a layer that its config restores: its `__init__` must accept '
            '`**kwargs` and pass them to `keras.layers.Layer`, and it must define `get_config` if '
            f'it takes other arguments. Received: {type(template).__name__} ({reason})'
        ) from error
    copy.dtype_policy = dtype  # as an argument the object would keep Keras from making a config
    return copy


def _has_own_config(layer: keras.layers.Layer) -> bool:
    return type(layer).get_config is not keras.layers.Layer.get_config


def dtype_argument(policy: Any) -> Any:
    """Returns what a layer takes as `dtype`: the policy's name, where that says everything.

    Keras generates no config for a layer without `get_config` that received a policy object.
    """
    return policy.name if type(policy) is keras.DTypePolicy else policy


def serialize_unbuilt(layer: keras.layers.Layer) -> dict[str, Any]:
    """Serializes a layer without the shape it was built for: its container will build it."""
    config = keras.saving.serialize_keras_object(layer)
    config.pop('build_config', None)
    return config

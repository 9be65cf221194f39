"""Template layers: arguments of blocks, which copy them and never call them."""

from __future__ import annotations

from typing import Any

import keras


def check_template(name: str, layer: Any) -> keras.layers.Layer | None:
    """Returns the template layer that an argument gives, deserialized if it comes from a config."""
    if isinstance(layer, dict):
        layer = keras.saving.deserialize_keras_object(layer)
    if layer is not None and not isinstance(layer, keras.layers.Layer):
        raise ValueError(f'`{name}` must be a Keras layer or None. Received: {name}={layer!r}')
    data_format = getattr(layer, 'data_format', 'channels_last')
    if data_format != 'channels_last':
        raise ValueError(
            f"`{name}` must have data_format='channels_last'. Received: {name}={layer!r} "
            f'with data_format={data_format!r}'
        )
    return layer


def copy_template(template: keras.layers.Layer, name: str, dtype: Any) -> keras.layers.Layer:
    """Returns a new layer with the settings of `template`, but its own name and dtype policy."""
    config = {**template.get_config(), 'name': name, 'dtype': dtype_argument(dtype)}
    try:
        return type(template).from_config(config)
    except TypeError as error:
        reason = str(error).splitlines()[-1]
        raise ValueError(
            'a template must be a layer that its config restores: its `__init__` must accept '
            '`**kwargs` and pass them to `keras.layers.Layer`. '
            f'Received: {type(template).__name__} ({reason})'
        ) from error


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

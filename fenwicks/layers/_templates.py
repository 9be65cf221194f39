"""Template layers: arguments of blocks, which copy them and never call them."""

from __future__ import annotations

from typing import Any

import keras


def serialize_unbuilt(layer: keras.layers.Layer) -> dict[str, Any]:
    """Serializes a layer without the shape it was built for: its container will build it."""
    config = keras.saving.serialize_keras_object(layer)
    config.pop('build_config', None)
    return config


def check_template(name: str, layer: Any) -> keras.layers.Layer | None:
    """Returns the template layer that an argument gives, deserialized if it comes from a config."""
    if isinstance(layer, dict):
        layer = keras.saving.deserialize_keras_object(layer)
    if layer is not None and not isinstance(layer, keras.layers.Layer):
        raise ValueError(f'`{name}` must be a Keras layer or None. Received: {name}={layer!r}')
    return layer


def copy_template(template: keras.layers.Layer, name: str, dtype: Any) -> keras.layers.Layer:
    """Returns a new layer with the settings of `template`, but its own name and dtype policy."""
    return type(template).from_config({**template.get_config(), 'name': name, 'dtype': dtype})

"""The layers inside a model, with their paths."""

from __future__ import annotations

from collections.abc import Iterator

import keras


def inner_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers directly inside a layer or model: its `layers`, or else those it holds."""
    held = getattr(layer, 'layers', None)
    if held is None:
        held = []
        for value in vars(layer).values():
            held += value if isinstance(value, list | tuple) else [value]
    unique = {id(part): part for part in held if isinstance(part, keras.layers.Layer)}
    return list(unique.values())


def layers_with_paths(
    layer: keras.layers.Layer, above: str = ''
) -> Iterator[tuple[keras.layers.Layer, str]]:
    """All layers inside a layer or model, each before those in it, with paths such as `a/b/c`."""
    for part in inner_layers(layer):
        path = f'{above}{part.name}'
        yield part, path
        yield from layers_with_paths(part, f'{path}/')

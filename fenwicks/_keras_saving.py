"""What Keras and TensorFlow save and load, where they have no public interface for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state


def is_loading() -> bool:
    """Whether Keras is reading a saved model at present."""
    return global_state.get_global_attribute('shared_objects/id_to_obj_map') is not None


@contextlib.contextmanager
def no_shared_objects() -> Iterator[None]:
    """A context in which configs restore new objects, also while Keras reads a saved model."""
    names = ('shared_objects/id_to_obj_map', 'shared_objects/id_to_config_map')
    before = [global_state.get_global_attribute(name) for name in names]
    try:
        for name in names:
            global_state.set_global_attribute(name, None)
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            global_state.set_global_attribute(name, value)


def track(layer: keras.layers.Layer, part: keras.layers.Layer, name: str) -> None:
    """Makes a part of a layer known to `tf.train.Checkpoint`, which doesn't find it in a list."""
    if hasattr(layer, '_track_trackable'):  # on TensorFlow
        layer._track_trackable(part, name, overwrite=True)

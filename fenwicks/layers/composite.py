"""Layers made of layers: one after another, side by side, or around a shortcut.

`keras.Sequential` is a `Model`: it brings compile, fit and its own functional graph along, and
rebuilds that graph at each `add`. A block needs none of it, so `Chain` is a plain `Layer` which
builds and calls its parts in order; blocks with a fixed recipe derive from it and `Sequential`
adds `add` and the list of layers in its config.
"""

from __future__ import annotations

import keras
from keras import ops


class Chain(keras.layers.Layer):
    """Calls its layers one after another; base of the blocks. Add parts with `_append`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layers = []

    def _append(self, layer):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f'`layer` must be a Keras layer. Received: layer={layer!r}')
        if self.built:
            raise ValueError(
                f'`add` must come before the first call of {self.name!r}. '
                f'Received: layer={layer.name!r}'
            )
        if not self.trainable:
            layer.trainable = False
        self.layers.append(layer)

    def build(self, input_shape):
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs, training=None):
        # Said explicitly: `stateless_call` comes here without a context to take it from. Keras
        # accepts `training` for every layer and drops it where `call` has no such argument.
        for layer in self.layers:
            inputs = layer(inputs, training=training)
        return inputs

    def compute_output_shape(self, input_shape):
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def compute_output_spec(self, inputs, training=None):
        # By way of the parts: the last of them, not this layer's dtype, says what comes out.
        for layer in self.layers:
            inputs = layer.compute_output_spec(inputs)
        return inputs


@keras.saving.register_keras_serializable(package='fenwicks')
class Sequential(Chain):
    """Layers one after another, as one layer.

    ```
    y = layers[-1](... layers[1](layers[0](x)))
    ```

    Args:
        layers: Keras layers, first to last. None or empty: the identity, until `add` adds some.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`; `layers` keep their own dtype policy.

    Call arguments:
        inputs: what the first layer takes.
        training: passed on to the layers.

    Returns:
        What the last layer returns.

    Raises:
        ValueError: if something added isn't a Keras layer, or comes after the first call.

    Example:

    >>> import keras
    >>> from fenwicks.layers import Sequential
    >>> head = Sequential([keras.layers.Flatten()])
    >>> head.add(keras.layers.Dense(10))
    >>> head.compute_output_shape((None, 4, 4, 3))
    (None, 10)
    """

    def __init__(self, layers=None, **kwargs):
        super().__init__(**kwargs)
        for layer in _as_layers(layers):
            self.add(layer)

    def add(self, layer):
        """Puts `layer` behind the others."""
        self._append(layer)

    def get_config(self):
        config = super().get_config()
        config['layers'] = [serialize_unbuilt(layer) for layer in self.layers]
        return config

    @classmethod
    def from_config(cls, config):
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config['layers']]
        return super().from_config({**config, 'layers': layers})


@keras.saving.register_keras_serializable(package='fenwicks')
class Residual(Sequential):
    """Layers one after another with a shortcut around them all.

    ```
    y = x + layers(x)
    ```

    Args:
        layers: Keras layers, first to last; together they must keep the input's shape.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`; `layers` keep their own dtype policy.

    Call arguments:
        inputs: what the first layer takes.
        training: passed on to the layers.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: as `Sequential`, and if the layers change the shape.

    Reference:
        He et al., Deep Residual Learning, https://arxiv.org/abs/1512.03385
    """

    def build(self, input_shape):
        super().build(input_shape)
        output_shape = self.compute_output_shape(input_shape)
        if tuple(output_shape) != tuple(input_shape):
            raise ValueError(
                f'`layers` of {self.name!r} must keep the shape {tuple(input_shape)}. '
                f'Received: layers that return {tuple(output_shape)}'
            )

    def call(self, inputs, training=None):
        return ops.add(inputs, super().call(inputs, training=training))


@keras.saving.register_keras_serializable(package='fenwicks')
class Parallel(Sequential):
    """Layers side by side on the same input, their outputs concatenated on the last axis.

    ```
    y = concatenate([layer(x) for layer in layers], axis=-1)
    ```

    Args:
        layers: Keras layers, the branches; `add` adds more. At least one when called.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`; `layers` keep their own dtype policy.

    Call arguments:
        inputs: what every branch takes.
        training: passed on to the branches.

    Returns:
        The branches' outputs, which may differ in their last axis only, as one tensor.

    Raises:
        ValueError: as `Sequential`, if there is no branch, or if branches disagree on another axis.

    Example:

    >>> import keras
    >>> from fenwicks.layers import Parallel
    >>> both = Parallel([keras.layers.Dense(4), keras.layers.Dense(6)])
    >>> both.compute_output_shape((None, 3))
    (None, 10)
    """

    def build(self, input_shape):
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape)
        self.compute_output_shape(input_shape)  # raises if the branches do not fit together

    def call(self, inputs, training=None):
        branches = [layer(inputs, training=training) for layer in self.layers]
        return ops.concatenate(branches, axis=-1)

    def compute_output_shape(self, input_shape):
        shapes = [tuple(layer.compute_output_shape(input_shape)) for layer in self.layers]
        if not shapes:
            raise ValueError(f'`layers` of {self.name!r} must hold a branch. Received: layers=[]')
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(
                f'`layers` of {self.name!r} must agree on all axes but the last. '
                f'Received: branches that return {shapes}'
            )
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def compute_output_spec(self, inputs, training=None):
        dtypes = [layer.compute_output_spec(inputs).dtype for layer in self.layers]
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=keras.backend.result_type(*dtypes))


def serialize_unbuilt(layer):
    """A layer's serialized form without the shape it was built for: whoever owns it builds it."""
    config = keras.saving.serialize_keras_object(layer)
    config.pop('build_config', None)
    return config


def _as_layers(layers):
    """Checks that `layers` is a list or tuple; None is the empty list."""
    if layers is not None and not isinstance(layers, (list, tuple)):
        raise ValueError(f'`layers` must be a list of Keras layers. Received: layers={layers!r}')
    return layers or []

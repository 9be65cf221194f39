"""The base classes of layers that contain layers."""

from __future__ import annotations

import keras

from fenwicks.layers._templates import check_template, copy_template, serialize_unbuilt
from fenwicks.layers.activations import new_activation
from fenwicks.layers.normalization import BatchNormalization


class Chain(keras.layers.Layer):
    """Calls its layers in sequence; the base class of containers and blocks."""

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
        # `training` is passed explicitly, because `stateless_call` sets no context to take it from.
        # Keras accepts it for every layer, and drops it where `call` has no such argument.
        for layer in self.layers:
            inputs = layer(inputs, training=training)
        return inputs

    def compute_output_shape(self, input_shape):
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def compute_output_spec(self, inputs, training=None):
        # The dtype of the outputs is that of the last part, which may differ from this layer's.
        for layer in self.layers:
            inputs = layer.compute_output_spec(inputs)
        return inputs


class _Style:
    """The three choices. It is a plain object: Keras would track templates that a layer holds."""

    def __init__(self, kernel_initializer, normalization, activation):
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.normalization = check_template('normalization', normalization)
        if isinstance(activation, dict) and 'config' in activation:
            activation = keras.saving.deserialize_keras_object(activation)
        if not isinstance(activation, keras.layers.Layer):
            activation = keras.activations.get(activation)
        self.activation = activation


class Block(Chain):
    """Layers in sequence that are made by the three choices; the base class of blocks."""

    def __init__(self, kernel_initializer, normalization, activation, **kwargs):
        super().__init__(**kwargs)
        self._style = _Style(kernel_initializer, normalization, activation)

    @property
    def kernel_initializer(self):
        return self._style.kernel_initializer

    @property
    def normalization(self):
        return self._style.normalization

    @property
    def activation(self):
        return self._style.activation

    def _new_initializer(self):
        # A Keras initializer returns the same numbers at each call; a copy of an unseeded one draws
        # its own.
        initializer = self.kernel_initializer
        return initializer.clone() if hasattr(initializer, 'clone') else initializer

    def _new_normalization(self):
        if self.normalization is None:
            return BatchNormalization(name='norm', dtype=self.dtype_policy)
        return copy_template(self.normalization, 'norm', self.dtype_policy)

    def _new_activation(self):
        return new_activation(self.activation, 'activation', self.dtype_policy)

    def get_config(self):
        activation = self.activation
        if isinstance(activation, keras.layers.Layer):
            activation = serialize_unbuilt(activation)
        else:
            activation = keras.activations.serialize(activation)
        return {
            **super().get_config(),
            'kernel_initializer': keras.initializers.serialize(self.kernel_initializer),
            'normalization': self.normalization and serialize_unbuilt(self.normalization),
            'activation': activation,
        }

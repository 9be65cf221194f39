"""What a network chooses once and every block hands down, under the same three names.

These are `kernel_initializer`, `normalization` and `activation`. The last two may be *template*
layers, which are copied, never used themselves: `normalization=BatchNormalization(momentum=0.6)`
carries its own settings with it, so the blocks need no argument for them.
"""

from __future__ import annotations

import keras

from fenwicks.layers.composite import Chain, serialize_unbuilt
from fenwicks.layers.primitives import BatchNormalization

# Layers say it themselves, by `non_decreasing = True`.
_NON_DECREASING = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.leaky_relu,
    keras.activations.elu,
    keras.activations.celu,
    keras.activations.selu,
    keras.activations.softplus,
    keras.activations.sigmoid,
    keras.activations.tanh,
)


class _Style:
    """The three choices. A plain object, so that Keras does not take the templates for parts."""

    def __init__(self, kernel_initializer, normalization, activation):
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.normalization = check_template('normalization', normalization)
        if isinstance(activation, dict) and 'config' in activation:
            activation = keras.saving.deserialize_keras_object(activation)
        if not isinstance(activation, keras.layers.Layer):
            activation = keras.activations.get(activation)
        self.activation = activation


class Block(Chain):
    """A chain that knows its style and makes its parts by it; base of the blocks."""

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
        # A Keras initializer returns the same numbers each time; a copy of an unseeded one doesn't.
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


def new_activation(activation, name, dtype):
    """A layer for an activation function, or a copy of a template layer."""
    if isinstance(activation, keras.layers.Layer):
        return copy_template(activation, name, dtype)
    return keras.layers.Activation(activation, name=name, dtype=dtype)


def is_non_decreasing(activation):
    """Whether a larger input never gives a smaller output, so that pooling may come first."""
    return activation in _NON_DECREASING or bool(getattr(activation, 'non_decreasing', False))


def check_template(name, layer):
    """Checks an optional template layer, which may come from a config."""
    if isinstance(layer, dict):
        layer = keras.saving.deserialize_keras_object(layer)
    if layer is not None and not isinstance(layer, keras.layers.Layer):
        raise ValueError(f'`{name}` must be a Keras layer or None. Received: {name}={layer!r}')
    return layer


def copy_template(template, name, dtype):
    """A new layer like `template`, under its own name and dtype policy."""
    return type(template).from_config({**template.get_config(), 'name': name, 'dtype': dtype})

"""The base classes of layers that contain layers."""

from __future__ import annotations

import keras

from fenwicks import _keras_saving
from fenwicks._checks import no_class
from fenwicks.layers._casts import output_spec
from fenwicks.layers._templates import (
    check_template,
    copy_template,
    dtype_argument,
    serialize_unbuilt,
)
from fenwicks.layers.activations import new_activation
from fenwicks.layers.normalization import BatchNormalization


class Chain(keras.layers.Layer):
    """Calls its layers in sequence; the base class of containers and blocks."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layers = []

    def _append(self, layer):
        """Appends a layer, which isn't trainable if this one isn't."""
        self._adopt(layer)
        if not self.trainable:
            layer.trainable = False

    def _adopt(self, layer):
        """Appends a layer as it is."""
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f'`layer` must be a Keras layer. Received: layer={layer!r}')
        if isinstance(layer, keras.layers.InputLayer):  # its call takes no tensor
            raise ValueError(
                f'`layer` must be one that computes, no InputLayer. Received: layer={layer.name!r}'
            )
        if self.built:
            raise ValueError(
                f'`add` must come before the first call of {self.name!r}. '
                f'Received: layer={layer.name!r}'
            )
        self.layers.append(layer)
        _keras_saving.track(self, layer, f'part_{len(self.layers)}')

    def build(self, input_shape):
        for layer in self.layers:
            input_shape = self._build_part(layer, input_shape)

    def call(self, inputs, training=None):
        # `training` is passed explicitly, because `stateless_call` sets no context to take it from.
        # Keras accepts it for every layer, and drops it where `call` has no such argument.
        for layer in self.layers:
            inputs = layer(inputs, training=training)
        return inputs

    def compute_output_shape(self, input_shape):
        for layer in self.layers:
            input_shape = self._output_shape(layer, input_shape)
        return input_shape

    def compute_output_spec(self, inputs, training=None):
        # The dtype of the outputs is that of the last part, which may differ from this layer's.
        for layer in self.layers:
            inputs = output_spec(layer, inputs)
        return inputs

    def _build_part(self, layer, input_shape):
        """Builds a layer for an input shape and returns its output shape."""
        if not layer.built:
            if type(layer).build is keras.layers.Layer.build and _is_one_shape(input_shape):
                # It may have parts that only a call builds.
                layer(self._symbol(input_shape))
            else:
                layer.build(input_shape)
        return self._output_shape(layer, input_shape)

    def _output_shape(self, layer, input_shape):
        try:
            return layer.compute_output_shape(input_shape)
        except NotImplementedError:  # the layer defines `call` only
            outputs = output_spec(layer, self._symbol(input_shape))
            return keras.tree.map_structure(lambda output: tuple(output.shape), outputs)

    def _symbol(self, shape):
        """A symbolic input of a shape, or those of a list or dictionary of shapes."""
        if isinstance(shape, dict):
            return {key: self._symbol(each) for key, each in shape.items()}
        if not _is_one_shape(shape):
            return [self._symbol(each) for each in shape]
        return keras.KerasTensor(shape, dtype=self.compute_dtype)


class Composite(Chain):
    """Layers in sequence that the constructor makes; the base class of blocks and heads.

    What is set on the parts afterwards (`trainable`, a momentum, a rate, a dtype policy, a
    quantization) stays with a copy: `get_config` contains the settings in which each part differs
    from the one that the constructor made, and the constructor applies them.

    Args:
        part_configs: settings of parts, by the part's name: `{'norm': {'momentum': 0.5}}`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.
    """

    def __init__(self, part_configs=None, **kwargs):
        super().__init__(**kwargs)
        self._made = _Made(part_configs or {}, self.dtype_policy)

    def _append(self, layer):
        """Appends a part, with the settings that a config has for it."""
        made = layer.get_config()
        self._made.configs.append((type(layer), made))
        changes = self._made.changes.get(layer.name)
        if not changes:
            super()._append(layer)
        elif 'replaced_by' in changes:
            self._adopt(keras.saving.deserialize_keras_object(changes['replaced_by']))
        else:
            self._adopt(type(layer).from_config({**self._inherited(made), **changes}))

    def _inherited(self, made):
        """A part's config under this layer: a block that isn't trainable has no trainable part."""
        return {**made, 'trainable': made.get('trainable', True) and self.trainable}

    def get_config(self):
        config = super().get_config()
        made = {made['name'] for _, made in self._made.configs}
        # A part that is made when the block is built may not be there yet.
        part_configs = {name: c for name, c in self._made.changes.items() if name not in made}
        for (kind, made), part in zip(self._made.configs, self.layers, strict=True):
            changes = self._changes(kind, made, part)
            if changes:
                part_configs[made['name']] = changes
        return {**config, 'part_configs': part_configs} if part_configs else config

    def _changes(self, kind, made, part):
        if type(part) is not kind:
            return {'replaced_by': serialize_unbuilt(part)}
        config = part.get_config()
        # A copy would make its parts with this policy.
        if self.dtype_policy.name != self._made.policy.name:
            return config
        made = self._inherited(made)
        return {
            key: value for key, value in config.items() if key not in made or made[key] != value
        }


class _Made:
    """The configs of parts as made, by which dtype policy, and changes to them.

    A plain object: Keras tracks lists.
    """

    def __init__(self, changes, policy):
        self.changes = changes
        self.policy = policy
        self.configs = []


def _is_one_shape(shape):
    return isinstance(shape, (list, tuple)) and all(
        side is None or isinstance(side, int) for side in shape
    )


class _Style:
    """Initializer and templates. A plain object: Keras would track templates that a layer holds."""

    def __init__(self, kernel_initializer, normalization, activation):
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.pool = None  # the template of blocks that pool
        self.normalization = check_template('normalization', normalization)
        if isinstance(activation, dict) and 'config' in activation:
            activation = keras.saving.deserialize_keras_object(activation)
        no_class('activation', activation)
        if isinstance(activation, keras.layers.Layer):
            activation = copy_template(activation, activation.name, activation.dtype_policy)
        else:
            activation = keras.activations.get(activation)
        self.activation = activation


class Block(Composite):
    """Layers in sequence that are made from `kernel_initializer`, `normalization` and `activation`;
    the base class of blocks."""

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
            return BatchNormalization(name='norm', dtype=dtype_argument(self.dtype_policy))
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

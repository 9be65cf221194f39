"""Layers that contain layers: in sequence, in parallel, or with a shortcut around them.

`keras.Sequential` is a `Model`, with `compile`, `fit` and a functional graph that each `add` builds
anew. These containers are plain layers that build and call their parts in order.
"""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from fenwicks import kernels
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.layers._base import Chain
from fenwicks.layers._casts import added, output_spec
from fenwicks.layers._templates import serialize_unbuilt


@keras.saving.register_keras_serializable(package='fenwicks')
class Sequential(Chain):
    """Layers in sequence, as one layer.

    ```
    y = layers[-1](... layers[1](layers[0](x)))
    ```

    Args:
        layers: list of Keras layers, first to last. None or empty for the identity.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`; `layers` keep their own
            dtype policies.

    Call arguments:
        inputs: the inputs of the first layer.
        training: passed to the layers.

    Returns:
        The outputs of the last layer.

    Raises:
        ValueError: if an element of `layers` isn't a Keras layer, or one is added after the first
            call.

    Example:

    >>> import keras
    >>> from fenwicks.layers import Sequential
    >>> head = Sequential([keras.layers.Flatten()])
    >>> head.add(keras.layers.Dense(10))
    >>> head.compute_output_shape((None, 4, 4, 3))
    (None, 10)
    """

    def __init__(self, layers: list[keras.layers.Layer] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        for layer in _as_layers(layers):
            self.add(layer)

    def add(self, layer: keras.layers.Layer) -> None:
        """Appends `layer`."""
        self._append(layer)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """None: the last layer has set the mask of its outputs, if they have one."""

    def get_config(self) -> Config:
        config = super().get_config()
        config['layers'] = [serialize_unbuilt(layer) for layer in self.layers]
        return config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config['layers']]
        container = super().from_config({**config, 'layers': None})
        for layer in layers:
            container._adopt(layer)  # some may be trainable in a container that isn't
        return container


@keras.saving.register_keras_serializable(package='fenwicks')
class Residual(Sequential):
    """Layers in sequence with a shortcut around them.

    ```
    y = x + layers(x)
    ```

    Args:
        layers: list of Keras layers, first to last. Their outputs must have the inputs' shape.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`; `layers` keep their own
            dtype policies.

    Call arguments:
        inputs: the inputs of the first layer.
        training: passed to the layers.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: as `Sequential`, and if the layers change the shape.

    Example:

    >>> import keras
    >>> from fenwicks.layers import Residual
    >>> Residual([keras.layers.Dense(3)]).compute_output_shape((None, 3))
    (None, 3)

    Reference:
        He et al., Deep Residual Learning, https://arxiv.org/abs/1512.03385
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        output_shape = self.compute_output_shape(input_shape)
        if tuple(output_shape) != tuple(input_shape):
            raise ValueError(
                f'`layers` of {self.name!r} must keep the shape {tuple(input_shape)}. '
                f'Received: layers that return {tuple(output_shape)}'
            )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = super().call(inputs, training=training)
        return added(inputs, self._check_shape(outputs, inputs))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the inputs, whose shape the outputs have."""
        return previous_mask

    def compute_output_spec(self, inputs: Tensor, training: bool | None = None) -> Any:
        outputs = super().compute_output_spec(inputs, training)
        dtype = keras.backend.result_type(inputs.dtype, outputs.dtype)
        return keras.KerasTensor(outputs.shape, dtype=dtype)

    def _check_shape(self, outputs, inputs):
        """Returns the outputs if they have the inputs' shape: `add` would broadcast a side of 1."""
        shape, expected = tuple(outputs.shape), tuple(inputs.shape)
        if None in (*shape[1:], *expected[1:]) and keras.backend.backend() == 'tensorflow':
            message = f'`layers` of {self.name!r} must keep the shape of the inputs'
            return kernels.assertions.same_shape(outputs, inputs, message)
        if shape[1:] != expected[1:]:
            raise ValueError(
                f'`layers` of {self.name!r} must keep the shape {expected}. '
                f'Received: layers that return {shape}'
            )
        return outputs


@keras.saving.register_keras_serializable(package='fenwicks')
class Parallel(Sequential):
    """Layers in parallel on the same inputs, their outputs concatenated along the last axis.

    ```
    y = concatenate([layer(x) for layer in layers], axis=-1)
    ```

    Args:
        layers: list of Keras layers, the branches; at least one before the first call.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`; `layers` keep their own
            dtype policies.

    Call arguments:
        inputs: the inputs of every branch.
        training: passed to the branches.

    Returns:
        The concatenated outputs. The branches' output shapes may differ in their last axis only.

    Raises:
        ValueError: as `Sequential`, if there is no branch, or if the shapes differ in another axis.

    Example:

    >>> import keras
    >>> from fenwicks.layers import Parallel
    >>> both = Parallel([keras.layers.Dense(4), keras.layers.Dense(6)])
    >>> both.compute_output_shape((None, 3))
    (None, 10)
    """

    def __init__(self, layers: list[keras.layers.Layer] | None = None, **kwargs: Any) -> None:
        super().__init__(layers, **kwargs)
        self.supports_masking = False  # the outputs may have another shape than the mask

    def build(self, input_shape: Shape) -> None:
        for layer in self.layers:
            self._build_part(layer, input_shape)
        self.compute_output_shape(input_shape)  # raises if the shapes don't match

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        branches = [layer(inputs, training=training) for layer in self.layers]
        dtype = keras.backend.result_type(*(branch.dtype for branch in branches))
        return ops.concatenate([ops.cast(branch, dtype) for branch in branches], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shapes = [tuple(self._output_shape(layer, input_shape)) for layer in self.layers]
        if not shapes:
            raise ValueError(f'`layers` of {self.name!r} must hold a branch. Received: layers=[]')
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(
                f'`layers` of {self.name!r} must agree on all axes but the last. '
                f'Received: branches that return {shapes}'
            )
        channels = [shape[-1] for shape in shapes]
        return (*shapes[0][:-1], None if None in channels else sum(channels))

    def compute_output_spec(self, inputs: Tensor, training: bool | None = None) -> Any:
        dtypes = [output_spec(layer, inputs).dtype for layer in self.layers]
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=keras.backend.result_type(*dtypes))


def _as_layers(layers):
    """Returns `layers` if it is a list or tuple, and an empty list for None."""
    if layers is not None and not isinstance(layers, (list, tuple)):
        raise ValueError(f'`layers` must be a list of Keras layers. Received: layers={layers!r}')
    return layers or []

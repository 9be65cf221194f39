"""The dtypes that layers compute in and return."""

from __future__ import annotations

from typing import Any

import keras

from fenwicks._typing import Tensor


def as_floats(inputs: Tensor, dtype: str) -> Tensor:
    """Floats as they are, integers and bools in `dtype`: Keras casts floats only."""
    is_float = keras.backend.is_float_dtype(inputs.dtype)
    return inputs if is_float else keras.ops.cast(inputs, dtype)


def added(first: Tensor, second: Tensor) -> Tensor:
    """The sum, in the common dtype: JAX, where promotion is strict, mixes none by itself."""
    dtype = keras.backend.result_type(first.dtype, second.dtype)
    return keras.ops.add(*(keras.ops.cast(each, dtype) for each in (first, second)))


def output_spec(layer: keras.layers.Layer, inputs: Any) -> Any:
    """What a layer returns for symbolic inputs, which it casts as a call casts tensors."""

    def cast(each):
        return layer.dtype_policy.convert_input(each, layer.autocast, layer.input_dtype)

    return layer.compute_output_spec(keras.tree.map_structure(cast, inputs))

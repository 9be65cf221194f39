"""Smooth activations as layers.

An activation layer whose attribute `non_decreasing` is True commutes with max pooling: the maximum
of activated values is the activated maximum. Blocks then pool first, and activate fewer values.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from fenwicks import kernels
from fenwicks._checks import finite_number
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.layers._casts import as_floats
from fenwicks.layers._templates import copy_template, dtype_argument

# Layers declare the same by `non_decreasing = True`.
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


class _Elementwise(keras.layers.Layer):
    """What the activations share: no weights, and outputs of the inputs' shape.

    Inputs aren't cast: float32 inputs of a layer in mixed precision are rounded once, as outputs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.built = True

    def get_config(self) -> Config:
        # Defined, because Keras generates no config where `dtype` was given as a policy object.
        return super().get_config()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(package='fenwicks')
class CELU(_Elementwise):
    """Continuously differentiable exponential linear unit.

    ```
    y = max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
    ```

    Args:
        alpha: a finite number above 0. The outputs are greater than `-alpha`; for a small `alpha`
            the function is close to a ReLU.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: a tensor of any shape.
        training: on TensorFlow's CPU, whether to use `fenwicks.kernels.activations`: it is faster,
            and consists of operations that other runtimes don't have.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: if `alpha` isn't a finite number above 0.

    Example:

    >>> import keras
    >>> from fenwicks.layers import CELU
    >>> round(float(CELU(alpha=0.5)(keras.ops.array([-0.5]))[0]), 4)
    -0.3161

    Reference:
        Barron, Continuously Differentiable Exponential Linear Units,
        https://arxiv.org/abs/1704.07483
    """

    non_decreasing = True

    def __init__(self, alpha: float = 0.075, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = finite_number('alpha', alpha, above=0)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        inputs = as_floats(inputs, self.compute_dtype)
        if kernels.device.takes_shortcuts(training):
            return kernels.activations.celu(inputs, self.alpha, self.compute_dtype)
        if kernels.device.on_cpu():
            outputs = kernels.activations.celu_in_standard_operations(inputs, self.alpha)
        else:
            outputs = keras.activations.celu(inputs, self.alpha)
        return keras.ops.cast(outputs, self.compute_dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), 'alpha': self.alpha}


@keras.saving.register_keras_serializable(package='fenwicks')
class GELU(_Elementwise):
    """Gaussian error linear unit, in its exact form.

    ```
    y = x * Phi(x) = x * (1 + erf(x / sqrt(2))) / 2
    ```

    Args:
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: a tensor of any shape.
        training: whether to use the faster operations, which other runtimes lack:
            `fenwicks.kernels.activations` on TensorFlow's CPU, `erf` on JAX.

    Returns:
        A tensor of the inputs' shape.

    Example:

    >>> import keras
    >>> from fenwicks.layers import GELU
    >>> round(float(GELU()(keras.ops.array([1.0]))[0]), 4)
    0.8413

    Reference:
        Hendrycks and Gimpel, Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415
    """

    non_decreasing = False

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        inputs = as_floats(inputs, self.compute_dtype)
        if kernels.device.takes_shortcuts(training):
            return kernels.activations.gelu(inputs, self.compute_dtype)
        x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, 'float32'))
        if kernels.device.on_jax() and not kernels.device.runs_here(training):
            # JAX exports its `erf` as an operation that TensorFlow 2.21 can't read.
            outputs = keras.activations.gelu(x)
        else:
            # Keras's own takes `erfc`: ONNX has none, and XLA computes it piece by piece.
            outputs = 0.5 * x * (1 + keras.ops.erf(x * math.sqrt(0.5)))
        return keras.ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable(package='fenwicks')
class SiLU(_Elementwise):
    """Sigmoid linear unit, also called swish.

    ```
    y = x * sigmoid(x) = x / (1 + exp(-x))
    ```

    Args:
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: a tensor of any shape.
        training: on TensorFlow's CPU, whether to use `fenwicks.kernels.activations`: it is faster,
            and consists of operations that other runtimes don't have.

    Returns:
        A tensor of the inputs' shape.

    Example:

    >>> import keras
    >>> from fenwicks.layers import SiLU
    >>> round(float(SiLU()(keras.ops.array([1.0]))[0]), 4)
    0.7311

    Reference:
        Elfwing, Uchibe and Doya, Sigmoid-Weighted Linear Units for Neural Network Function
        Approximation in Reinforcement Learning, https://arxiv.org/abs/1702.03118
    """

    non_decreasing = False

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        inputs = as_floats(inputs, self.compute_dtype)
        if kernels.device.takes_shortcuts(training):
            return kernels.activations.silu(inputs, self.compute_dtype)
        return keras.ops.cast(inputs * keras.ops.sigmoid(inputs), self.compute_dtype)


def new_activation(activation: Any, name: str, dtype: Any) -> keras.layers.Layer:
    """Returns a layer for an activation function, or a copy of a template layer."""
    if isinstance(activation, keras.layers.Layer):
        return copy_template(activation, name, dtype)
    return keras.layers.Activation(activation, name=name, dtype=dtype_argument(dtype))


def is_non_decreasing(activation: Any) -> bool:
    """Returns whether an activation function or layer is known to commute with max pooling."""
    return activation in _NON_DECREASING or bool(getattr(activation, 'non_decreasing', False))

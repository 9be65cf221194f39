"""Smooth activations as layers, with gradients that need little memory on TensorFlow's CPU.

Each layer says by `non_decreasing` whether a larger input never gives a smaller output: then the
largest of activated values is the activated largest value, and pooling may come first.
"""

from __future__ import annotations

import math
import numbers

import keras

from fenwicks.kernels import batch_norm as fused
from fenwicks.kernels import device


@keras.saving.register_keras_serializable(package='fenwicks')
class CELU(keras.layers.Layer):
    """Continuously differentiable exponential linear unit.

    ```
    y = max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
    ```

    Args:
        alpha: minus the lower limit of the outputs, a finite number above 0. The smaller it is,
            the nearer to a ReLU.
        **kwargs: Keras's own: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: a tensor of any shape.

    Returns:
        A tensor of the inputs' shape.

    Raises:
        ValueError: if `alpha` isn't a finite number above 0.

    Example:

    >>> from fenwicks.layers import CELU
    >>> round(float(CELU(alpha=0.5)(keras.ops.array([-0.5]))[0]), 4)
    -0.3161

    Reference:
        Barron, Continuously Differentiable Exponential Linear Units,
        https://arxiv.org/abs/1704.07483
    """

    non_decreasing = True

    def __init__(self, alpha=0.075, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(alpha, numbers.Real) or not 0 < alpha < math.inf:
            raise ValueError(f'`alpha` must be a finite number above 0. Received: alpha={alpha!r}')
        self.alpha = alpha
        self.supports_masking = True
        self.built = True

    def call(self, inputs):
        if device.on_cpu():
            return fused.celu(inputs, self.alpha)
        return keras.activations.celu(inputs, self.alpha)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), 'alpha': self.alpha}


@keras.saving.register_keras_serializable(package='fenwicks')
class GELU(keras.layers.Layer):
    """Gaussian error linear unit, in its exact form.

    ```
    y = x * Phi(x) = x * (1 + erf(x / sqrt(2))) / 2
    ```

    Args:
        **kwargs: Keras's own: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: a tensor of any shape.

    Returns:
        A tensor of the inputs' shape.

    Example:

    >>> from fenwicks.layers import GELU
    >>> round(float(GELU()(keras.ops.array([1.0]))[0]), 4)
    0.8413

    Reference:
        Hendrycks and Gimpel, Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415
    """

    non_decreasing = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.built = True

    def call(self, inputs):
        if device.on_cpu():
            return fused.gelu(inputs)
        return keras.activations.gelu(inputs, approximate=False)

    def get_config(self):
        # Keras's own guess at it fails where the dtype came as a policy, not by name.
        return super().get_config()

    def compute_output_shape(self, input_shape):
        return input_shape

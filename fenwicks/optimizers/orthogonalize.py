"""The arithmetic of Muon: orthogonal steps by Newton-Schulz iteration, which only multiplies."""

from __future__ import annotations

import math

from keras import backend, ops

from fenwicks._typing import Tensor
from fenwicks.kernels.products import exact_products

DTYPES = ('float32', 'bfloat16')
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    matrix: Tensor,
    steps: int = 3,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    dtype: str = 'float32',
    epsilon: float = 1e-7,
) -> Tensor:
    """Makes a matrix nearly orthogonal: the same singular vectors, singular values near 1.

    ```
    x = matrix / (norm(matrix) + epsilon)      # Frobenius; transposed if wide
    steps times:  g = x' x;  x = x (a I + b g + c g g)
    ```

    Each step maps a singular value s to s (a + b s**2 + c s**4). With the default coefficients
    small ones grow by a factor of 3.4 a step, and large ones stay roughly within [0.7, 1.2].

    Args:
        matrix: float tensor of shape (rows, columns).
        steps: positive integer, the number of iterations.
        coefficients: `(a, b, c)`, Python floats.
        dtype: `'float32'`, or `'bfloat16'` for devices that are faster in it.
        epsilon: float > 0, keeps a matrix of zeros at zero.

    Returns:
        A tensor of the matrix's shape and dtype.

    Raises:
        ValueError: `dtype` is neither of the two, or `matrix` has another rank.

    Example:

    >>> from keras import ops
    >>> import numpy as np
    >>> x = newton_schulz(ops.convert_to_tensor(np.float32([[3.0, 0.0], [0.0, -1.0]])), steps=5)
    >>> bool(ops.all(ops.abs(ops.abs(ops.diagonal(x)) - 0.95) < 0.27))
    True

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    if dtype not in DTYPES:
        raise ValueError(f'`dtype` must be one of {DTYPES}. Received: {dtype=}')
    shape = tuple(getattr(matrix, 'shape', ()))
    if len(shape) != 2:
        raise ValueError(f'`matrix` must have the shape (rows, columns). Received: shape={shape}')
    a, b, c = coefficients
    rows, columns = shape
    # The norm in float32: it sums the squares of many small numbers.
    x = ops.cast(matrix, 'float32')
    x = ops.cast(x / (ops.sqrt(ops.sum(ops.square(x))) + epsilon), dtype)
    if rows < columns:
        x = ops.transpose(x)
    identity = a * ops.eye(min(rows, columns), dtype=dtype)
    # Polynomials of g commute with g, so several steps can be taken on g alone, which is square and
    # small, before x is multiplied once: half the work for the kernel of a 3x3 convolution. Errors
    # of rounding in g grow by about a**2 a step: float32 tolerates three such steps, bfloat16 none.
    together = 3 if dtype == 'float32' else 1
    with exact_products():
        for first in range(0, steps, together):
            g = ops.matmul(ops.transpose(x), x)
            factor = product = identity + b * g + c * ops.matmul(g, g)
            for _ in range(first + 1, min(first + together, steps)):
                g = ops.matmul(ops.matmul(factor, g), factor)
                factor = identity + b * g + c * ops.matmul(g, g)
                product = ops.matmul(product, factor)
            x = ops.matmul(x, product)
    if rows < columns:
        x = ops.transpose(x)
    return ops.cast(x, backend.standardize_dtype(matrix.dtype))


def muon_step(
    gradient: Tensor,
    velocity: Tensor,
    learning_rate: Tensor,
    *,
    momentum: float = 0.6,
    nesterov: bool = True,
    ns_steps: int = 3,
    ns_dtype: str = 'float32',
    ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
) -> tuple[Tensor, Tensor]:
    """Computes one Muon step of one kernel; pure: nothing is changed in place.

    ```
    v = momentum * velocity + gradient
    d = gradient + momentum * v if nesterov else v
    decrease = learning_rate * newton_schulz(d as a matrix)
    ```

    The last axis of a kernel is taken for its outputs. So it is in dense layers and convolutions,
    not in transposed ones and attention. All other axes are flattened into one. The papers'
    matrix, (outputs, inputs * height * width), is the transpose of this one with its columns in
    another order, and orthogonalization commutes with both.

    Args:
        gradient: float tensor of shape (..., outputs), of any rank from 2.
        velocity: tensor of the same shape and dtype, zeros before the first step. Not used (and
            may be None) when `momentum` is 0.
        learning_rate: float or scalar tensor.
        momentum: Python float, the fraction of the velocity kept.
        nesterov: Python bool.
        ns_steps: steps of `newton_schulz`.
        ns_dtype: its dtype.
        ns_coefficients: its coefficients.

    Returns:
        `(decrease, velocity)`: what the step takes from the kernel, in float32, and the velocity
        after it, as `sgd_step` returns them.
    """
    direction = gradient
    if momentum:
        velocity = momentum * velocity + gradient
        direction = gradient + momentum * velocity if nesterov else velocity
    matrix = ops.reshape(direction, (-1, gradient.shape[-1]))
    update = newton_schulz(matrix, ns_steps, ns_coefficients, dtype=ns_dtype)
    update = ops.reshape(update, gradient.shape)
    return ops.cast(learning_rate, 'float32') * ops.cast(update, 'float32'), velocity


def muon_rescale(
    weight: Tensor,
    learning_rate: Tensor,
    *,
    normalize_weights: bool | Tensor = False,
    weight_decay: float = 0.0,
) -> Tensor:
    """Normalizes or decays a kernel, as Muon does before the step; pure.

    ```
    weight = weight * sqrt(outputs) / norm(weight) if normalize_weights
    weight = weight * (1 - learning_rate * weight_decay)
    ```

    Args:
        weight: float tensor of shape (..., outputs).
        learning_rate: float or scalar tensor.
        normalize_weights: whether to scale the kernel to the norm sqrt(outputs): a Python bool, or
            a scalar bool tensor.
        weight_decay: Python float, decoupled: an orthogonal step has no size for it to join.

    Returns:
        The kernel in float32 at least, whatever its dtype, for one rounding after the step.
    """
    weight = ops.cast(weight, backend.result_type(weight.dtype, 'float32'))
    if normalize_weights is not False:
        norm = ops.sqrt(ops.sum(ops.square(weight)))
        factor = math.sqrt(weight.shape[-1]) / ops.maximum(norm, 1e-7)
        if normalize_weights is not True:
            factor = ops.where(normalize_weights, factor, 1.0)
        weight = weight * factor
    if weight_decay:
        weight = weight * (1.0 - ops.cast(learning_rate, weight.dtype) * weight_decay)
    return weight

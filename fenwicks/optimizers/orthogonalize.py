"""Newton-Schulz iteration: approximates the nearest orthogonal matrix by matrix products alone."""

from __future__ import annotations

from keras import backend, ops

from fenwicks._typing import Tensor
from fenwicks.kernels.products import exact_products

DTYPES = ('float32', 'bfloat16')


def newton_schulz(
    matrix: Tensor,
    steps: int = 3,
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
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
        ValueError: `dtype` is neither of the two.

    Example:

    >>> import numpy as np
    >>> x = newton_schulz(ops.convert_to_tensor(np.float32([[3.0, 0.0], [0.0, -1.0]])), steps=5)
    >>> bool(ops.all(ops.abs(ops.abs(ops.diagonal(x)) - 0.95) < 0.27))
    True

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    if dtype not in DTYPES:
        raise ValueError(f'`dtype` must be one of {DTYPES}. Received: {dtype=}')
    a, b, c = coefficients
    rows, columns = matrix.shape
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

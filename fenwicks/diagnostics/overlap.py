"""How much of some vectors lies in the span of others."""

from __future__ import annotations

import numpy as np


def subspace_overlap(vectors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The share of each vector's squared length that lies in the span of other vectors.

        overlap_i = |P v_i|**2 / |v_i|**2,    P the orthogonal projection onto the span of `basis`

    Their mean over an orthonormal set of vectors compares two subspaces: 1 where the span of the
    vectors lies in that of the basis, 0 where the two are orthogonal, and `len(basis) / size` on
    average for random ones.

    Args:
        vectors: floats `(count, size)`, none of them 0.
        basis: floats `(number, size)`; they need not be orthogonal, nor independent.

    Returns:
        float64 `(count,)`, in [0, 1].

    Raises:
        ValueError: the arrays are not matrices of equally long rows of finite numbers, or a vector
            is 0.

    Example:

    >>> subspace_overlap([[1.0, 0.0], [3.0, 4.0]], basis=[[0.0, 2.0]]).round(6).tolist()
    [0.0, 0.64]
    """
    vectors, basis = np.asarray(vectors, np.float64), np.asarray(basis, np.float64)
    if vectors.ndim != 2 or basis.ndim != 2 or vectors.shape[1] != basis.shape[1]:
        raise ValueError(
            '`basis` must hold rows as long as those of `vectors`. '
            f'Received: shapes {basis.shape} and {vectors.shape}'
        )
    for name, rows in (('vectors', vectors), ('basis', basis)):
        if not np.isfinite(rows).all():
            raise ValueError(f'`{name}` must hold finite numbers. Received: NaN or infinity')
    if not vectors.any(axis=1).all():
        raise ValueError('`vectors` must not hold a vector of zeros. Received: one that does')
    # Of equal length, so that a short vector of the basis counts as much as a long one.
    _, sizes, directions = np.linalg.svd(_of_unit_length(basis), full_matrices=False)
    directions = directions[sizes > 1e-10 * max(len(basis), 1)]
    parts = _of_unit_length(vectors) @ directions.T
    return np.minimum((parts**2).sum(axis=1), 1.0)


def _of_unit_length(rows):
    """The rows, each divided by its length; zeros stay. Squares can't overflow, nor vanish."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest, largest, 1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths, lengths, 1.0)

"""Leading eigenvalues and eigenvectors of a symmetric matrix that is known by its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fenwicks._checks import finite_number, integer, positive_integer

_ORDERS = {
    'LA': lambda values: np.argsort(-values),
    'LM': lambda values: np.argsort(-np.abs(values)),
    'SA': lambda values: np.argsort(values),
}


class Eigenpairs(NamedTuple):
    """What `leading_eigenpairs` found, the leading one first.

    Attributes:
        values: eigenvalues, float64 `(count,)`.
        vectors: eigenvectors of length 1, float64 `(count, size)`.
        residuals: norms of `matrix @ vector - value * vector`, float64 `(count,)`: for each value
            an eigenvalue of the matrix lies at most so far from it.
        products: number of products with the matrix.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    products: int


def leading_eigenpairs(
    product: Callable[[np.ndarray], np.ndarray],
    size: int,
    count: int = 10,
    *,
    which: str = 'LA',
    tolerance: float = 1e-4,
    max_products: int = 200,
    seed: int = 0,
) -> Eigenpairs:
    """Finds leading eigenpairs by the Lanczos method with full reorthogonalisation.

    Each product adds a vector to an orthonormal basis, in which the matrix is tridiagonal; its
    eigenpairs there approach those of the whole, the extreme ones first. Stops when all `count`
    residuals are at most `tolerance` times the largest eigenvalue by magnitude, or after
    `max_products`: look at the residuals. The basis takes `8 * size` bytes a product.

    Args:
        product: from a float64 vector `(size,)` to the symmetric matrix times it, such as
            `Hessian.product`.
        size: length of the vectors.
        count: number of eigenpairs, at most `size` and `max_products`.
        which: as in SciPy, `'LA'` for the largest eigenvalues, `'LM'` for the largest by magnitude,
            `'SA'` for the smallest.
        tolerance: above 0, see above.
        max_products: at least 1.
        seed: of the random vector to begin with.

    Returns:
        The `Eigenpairs`. Of an eigenvalue that the matrix has several times, exactly, it may hold
        one alone: a vector and its images don't tell them apart.

    Raises:
        ValueError: an argument breaks its rule, or a product isn't finite or has another shape.

    Example:

    >>> import numpy as np
    >>> matrix = np.diag([5.0, -7.0, 1.0])
    >>> found = leading_eigenpairs(lambda vector: matrix @ vector, size=3, count=2)
    >>> found.values.round(6).tolist()
    [5.0, 1.0]

    Reference:
        Golub and Van Loan, Matrix Computations, 4th edition, section 10.3.
    """
    size, count = positive_integer('size', size), positive_integer('count', count)
    max_products = min(positive_integer('max_products', max_products), size)
    if count > max_products:
        raise ValueError(
            f'`count` must be at most {max_products}, the size and the number of products. '
            f'Received: count={count}'
        )
    if which not in _ORDERS:
        raise ValueError(f'`which` must be one of {", ".join(_ORDERS)}. Received: which={which}')
    tolerance = finite_number('tolerance', tolerance, above=0)
    rng = np.random.default_rng(integer('seed', seed, low=0))

    basis = np.empty((max_products, size))
    matrix = np.zeros((max_products, max_products))
    basis[0] = _orthogonal(rng.standard_normal(size), basis[:0])
    for done in range(1, max_products + 1):
        image = np.asarray(product(basis[done - 1].copy()), np.float64)  # theirs to change
        if image.shape != (size,):
            raise ValueError(
                f'`product` must return vectors of the shape ({size},). '
                f'Received: shape={image.shape}'
            )
        if not np.isfinite(image).all():
            raise ValueError('`product` must return finite numbers. Received: NaN or infinity')
        matrix[done - 1, done - 1] = basis[done - 1] @ image
        rest = _without(image, basis[:done])
        coupling = np.linalg.norm(rest)
        values, weights = np.linalg.eigh(matrix[:done, :done])
        order = _ORDERS[which](values)[:count]
        residuals = np.abs(coupling * weights[-1, order])
        scale = np.abs(values).max()
        if done == max_products:
            break
        if done >= count and residuals.max() <= tolerance * scale:
            break
        if coupling <= 1e-12 * scale:  # the basis is closed under the matrix: begin another part
            basis[done] = _orthogonal(rng.standard_normal(size), basis[:done])
            continue
        basis[done] = _orthogonal(rest, basis[:done])
        matrix[done, done - 1] = matrix[done - 1, done] = coupling
    vectors = weights[:, order].T @ basis[:done]
    return Eigenpairs(values[order], vectors, residuals, done)


def _without(vector, basis):
    """The part of a vector that is orthogonal to an orthonormal basis."""
    for _ in range(2):  # once leaves a rounding error of the size of what was taken off
        vector = vector - (basis @ vector) @ basis
    return vector


def _orthogonal(vector, basis):
    vector = _without(vector / np.linalg.norm(vector), basis)
    return vector / np.linalg.norm(vector)

"""Newton-Schulz iteration by its definition, through singular values; for the tests."""

import numpy as np

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def svd(matrix):
    return np.linalg.svd(matrix.astype('float64'), full_matrices=False)


def through_singular_values(matrix, steps=3, coefficients=COEFFICIENTS):
    """Newton-Schulz by its definition: the polynomial of each singular value, in float64."""
    left, values, right = svd(matrix)
    values = values / np.sqrt(np.sum(values**2))
    a, b, c = coefficients
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return (left * values) @ right

"""Newton-Schulz iteration against the polynomial of each singular value."""

import keras
import numpy as np
import pytest
from keras import ops
from newton_schulz_by_hand import svd, through_singular_values
from optimizer_run import assert_same, numpy_of

from fenwicks.optimizers import newton_schulz


@pytest.mark.parametrize('steps', [1, 2, 3, 4, 7])
@pytest.mark.parametrize('shape', [(6, 6), (20, 5), (5, 20), (1, 9), (9, 1), (1, 1)])
def test_newton_schulz_is_a_polynomial_of_the_singular_values(shape, steps):
    matrix = np.random.default_rng(steps).standard_normal(shape).astype('float32')
    found = numpy_of([newton_schulz(ops.convert_to_tensor(matrix), steps)])
    assert_same(found, [through_singular_values(matrix, steps)], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_newton_schulz_of_a_gradient_that_is_nearly_of_low_rank(dtype):
    # Singular values from 1 down to 1e-6, as gradients have them.
    rng = np.random.default_rng(0)
    left, _, right = svd(rng.standard_normal((90, 40)))
    matrix = ((left * np.logspace(0, -6, 40)) @ right).astype('float32')
    found = numpy_of([newton_schulz(ops.convert_to_tensor(matrix), 3, dtype=dtype)])[0]
    error = np.linalg.norm(found - through_singular_values(matrix), 2)
    # PyTorch's bfloat16, in the plain order of the products, is off by 0.04; how it sums matters.
    assert error < {'float32': 1e-4, 'bfloat16': 0.12}[dtype]
    # Directions of some size, here those above 0.02, come out at one pace.
    values = np.einsum('ri,rc,ic->i', left[:, :12], found, right[:12])
    assert np.all((values > 0.5) & (values < 1.25))


def test_newton_schulz_of_zeros_and_of_other_coefficients():
    zeros = numpy_of([newton_schulz(ops.zeros((4, 3)))])[0]
    assert np.array_equal(zeros, np.zeros((4, 3)))
    # The classic cubic iteration converges to the orthogonal factor itself.
    matrix = np.random.default_rng(0).standard_normal((4, 3)).astype('float32')
    found = newton_schulz(ops.convert_to_tensor(matrix), 25, coefficients=(1.5, -0.5, 0.0))
    left, _, right = svd(matrix)
    assert_same(numpy_of([found]), [left @ right])


@pytest.mark.backend('jax')
def test_float32_stays_float32_on_accelerators():
    """Which round the factors of float32 products unless told otherwise."""
    import jax

    program = jax.jit(newton_schulz).lower(np.ones((6, 4), np.float32)).as_text()
    assert program.count('dot_general') == program.count('precision = [HIGHEST, HIGHEST]') == 11


@pytest.mark.parametrize('shape', [(), (3,), (2, 3, 3)])
def test_newton_schulz_of_other_ranks(shape):
    with pytest.raises(ValueError, match=r'^`matrix` must have the shape \(rows, columns\)\. Rec'):
        newton_schulz(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=r'^`matrix` must have the shape .* shape=\(\)$'):
        newton_schulz(3)


def test_newton_schulz_keeps_the_dtype():
    matrix = ops.cast(np.eye(3), 'bfloat16')
    for inside in ('float32', 'bfloat16'):
        assert keras.backend.standardize_dtype(newton_schulz(matrix, dtype=inside).dtype) == (
            'bfloat16'
        )
    with pytest.raises(ValueError, match=r"^`dtype` must be one of .*Received: dtype='float16'"):
        newton_schulz(matrix, dtype='float16')

"""The tests of augmentation, layers, losses and optimizers, with Keras on JAX."""

import pytest
from on_jax import PARTS, marks, run_on_jax

pytestmark = [*marks, pytest.mark.thorough]


@pytest.mark.parametrize('group', PARTS)
def test_on_jax(group):
    run_on_jax(PARTS[group])

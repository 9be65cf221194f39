"""The tests of the Trainer, with Keras on JAX."""

import pytest
from on_jax import TRAINING, marks, run_on_jax

pytestmark = [*marks, pytest.mark.thorough]


@pytest.mark.parametrize('group', TRAINING)
def test_on_jax(group):
    run_on_jax(TRAINING[group])

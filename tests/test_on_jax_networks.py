"""The tests of models and of what is done with them, with Keras on JAX."""

import pytest
from on_jax import NETWORKS, marks, run_on_jax

pytestmark = [*marks, pytest.mark.thorough]


@pytest.mark.parametrize('group', NETWORKS)
def test_on_jax(group):
    run_on_jax(NETWORKS[group])

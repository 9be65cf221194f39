"""Memory stays flat, over many epochs and over many Trainers."""

import pathlib

import pytest
from endurance import memory_over_epochs, memory_over_trainers
from training_toys import conv_model, dense_model

pytestmark = [
    pytest.mark.backend('tensorflow', 'jax'),
    pytest.mark.slow,
    pytest.mark.skipif(not pathlib.Path('/proc/self/statm').exists(), reason='needs Linux'),
]


def test_over_two_thousand_epochs():
    before, after = memory_over_epochs(2000)
    assert after < 1.01 * before


@pytest.mark.parametrize('make_model', [dense_model, conv_model])
def test_over_a_hundred_trainers(make_model):
    before, after = memory_over_trainers(100, make_model)
    assert after < 1.01 * before

"""Memory stays flat, over many epochs and over many Trainers."""

import gc
import pathlib
import resource

import pytest
from training_toys import conv_model, dense_model, make, toy

pytestmark = [
    pytest.mark.backend('tensorflow', 'jax'),
    pytest.mark.slow,
    pytest.mark.skipif(not pathlib.Path('/proc/self/statm').exists(), reason='needs Linux'),
]


def resident_mb():
    """Memory of this process that is in use, after a collection of garbage."""
    gc.collect()
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def test_over_two_thousand_epochs():
    trainer = make(dense_model())
    trainer.fit(*toy(), 200)
    before = resident_mb()
    trainer.fit(*toy(), 2000)
    assert resident_mb() < 1.01 * before


@pytest.mark.parametrize('make_model', [dense_model, conv_model])
def test_over_a_hundred_trainers(make_model):
    seen = []
    for _ in range(100):
        trainer = make(make_model())
        trainer.fit(*toy(), 1)
        trainer.predict(toy()[0])
        seen.append(resident_mb())
    assert seen[-1] < 1.01 * seen[19], [round(seen[n]) for n in (0, 9, 19, 39, 59, 79, 99)]

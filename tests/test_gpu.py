"""On an NVIDIA GPU: `pytest -m gpu`. A narrow network learns there, in every precision."""

import keras
import numpy as np
import pytest

from fenwicks import assemble, data, devices, precision, recipes

pytestmark = [pytest.mark.gpu, pytest.mark.backend('tensorflow', 'jax')]


@pytest.mark.parametrize('name', ['fenwicks24', 'page10', 'speed94'])
@pytest.mark.parametrize('chosen', ['float32', 'bfloat16', 'float16'])
def test_a_narrow_network_learns(name, chosen):
    device = devices.select_device('gpu')
    assert precision.set_precision(chosen, device) == chosen
    digits = data.load('digits')
    recipe = recipes.get(name).with_width(0.25).for_small_data().with_epochs(4)
    trainer = assemble.build_trainer(recipe, digits, precision=chosen, seed=0)
    history = trainer.fit(digits.train_images, digits.train_labels, recipe.epochs)
    losses = history.history['loss']
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.evaluate(digits.test_images, digits.test_labels).accuracy > 0.5
    assert keras.config.dtype_policy().compute_dtype == chosen

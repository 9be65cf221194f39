"""SavedModels written by JAX: TensorFlow reads each layer, and computes the same."""

import keras
import numpy as np
import pytest
from keras import ops
from test_layers_contract import CASES, IMAGE

from fenwicks import export, layers
from fenwicks.kernels import device

pytestmark = pytest.mark.backend('jax')


def check_saved_model(model, inputs, folder):
    tf = pytest.importorskip('tensorflow')
    expected = ops.convert_to_numpy(model(inputs))
    (path,) = export.write(model, folder, ['saved_model'])
    loaded = tf.saved_model.load(path)
    np.testing.assert_allclose(loaded.serve(inputs), expected, rtol=1e-5, atol=1e-6)


def model_of(layer, shape, batch_size=None):
    inputs = keras.Input(shape, batch_size=batch_size)
    return keras.Model(inputs, layer(inputs))


def random_inputs(shape, count=3):
    return np.random.default_rng(0).standard_normal((count, *shape), np.float32)


@pytest.mark.parametrize('batch_size', [None, 3])
def test_gelu(batch_size, tmp_path):
    model = model_of(layers.GELU(), IMAGE, batch_size)
    check_saved_model(model, random_inputs(IMAGE), tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize('case', CASES)
def test_every_layer(case, tmp_path):
    make, shape = CASES[case]
    check_saved_model(model_of(make(), shape), random_inputs(shape), tmp_path)


def test_gelu_takes_erf_where_it_runs():
    import jax

    layer, inputs = layers.GELU(), random_inputs(IMAGE)

    def operations(training):
        return str(jax.make_jaxpr(lambda x: layer(x, training=training))(inputs))

    assert ' erf ' in operations(True)
    assert ' erf ' not in operations(False)
    with device.override(in_inference=True):
        assert ' erf ' in operations(False)

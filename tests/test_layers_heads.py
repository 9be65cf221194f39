"""Values and bad input of the heads."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import Classifier, DenseBN, FastAiHead, GlobalPools2D, Scaling


def array(tensor):
    return ops.convert_to_numpy(tensor)


def test_scaling():
    np.testing.assert_array_equal(array(Scaling(0.125)(np.float32([[8, -16]]))), [[1, -2]])


def test_classifier_by_hand():
    layer = Classifier(2, kernel_initializer='ones', weight=0.25)
    np.testing.assert_array_equal(array(layer(np.float32([[1, 3]]))), [[1, 1]])
    assert [tuple(weight.shape) for weight in layer.weights] == [(2, 2)]


def test_classifier_multiplies_in_float32():
    # 1 + 2**-12 is lost in bfloat16: only the kernel's own digits tell.
    layer = Classifier(1, kernel_initializer=keras.initializers.Constant(1 + 2**-12))
    features = ops.ones((1, 1), 'bfloat16')
    assert array(layer(features)).item() == 1 + 2**-12


def test_global_pools():
    images = np.float32([[[[1, 5]], [[3, -7]]]])  # two pixels, two channels
    np.testing.assert_array_equal(array(GlobalPools2D()(images)), [[3, 5, 2, -1]])


@pytest.mark.parametrize('dtype', ['int32', 'uint8'])
@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'])
def test_integers_become_floats(dtype, policy):
    images = np.array([[[[1, 5]], [[2, 0]]]], dtype)
    pools, scaling = GlobalPools2D(dtype=policy), Scaling(0.5, dtype=policy)
    for layer, expected in ((pools, [[2, 5, 1.5, 2.5]]), (scaling, images / 2)):
        outputs = layer(images)
        promised = layer(keras.Input((2, 1, 2), dtype=dtype)).dtype
        assert keras.backend.standardize_dtype(outputs.dtype) == promised == layer.compute_dtype
        np.testing.assert_array_equal(array(ops.cast(outputs, 'float32')), expected)


def test_dense_bn_orders():
    inputs = np.float32([[1], [-3]])
    # 1 and -3 have mean -1 and variance 4; behind ReLU, 1 and 0, mean 1/2 and variance 1/4.
    before = DenseBN(1, kernel_initializer='ones')
    expected = np.array([[2], [0]]) / np.sqrt(4 + 1e-5)
    np.testing.assert_allclose(array(before(inputs, training=True)), expected, rtol=1e-5)
    after = DenseBN(1, bn_before_relu=False, kernel_initializer='ones')
    expected = np.array([[0.5], [-0.5]]) / np.sqrt(0.25 + 1e-5)
    np.testing.assert_allclose(array(after(inputs, training=True)), expected, rtol=1e-5)


def test_dense_bn_drops_last():
    keras.utils.set_random_seed(0)
    layer = DenseBN(64, drop_rate=0.75, bn_before_relu=False)
    inputs = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    dropped = np.mean(array(layer(inputs, training=True)) == 0)
    assert abs(dropped - 0.75) < 0.04  # six standard deviations
    assert np.mean(array(layer(inputs)) == 0) == 0


def test_fast_ai_head_is_its_parts():
    layer = FastAiHead(3)
    images = np.random.default_rng(0).standard_normal((2, 4, 4, 5)).astype(np.float32)
    outputs = array(layer(images))
    for weight in layer.weights:
        assert weight.path.startswith(f'{layer.name}/')
    gamma, beta, mean, variance = (array(w) for w in layer.layers[1].weights)
    pools = np.concatenate([images.max((1, 2)), images.mean((1, 2))], axis=1)
    h = (pools - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    h = np.maximum(h @ array(layer.layers[3].layers[0].kernel), 0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(
        outputs, h @ array(layer.layers[4].layers[0].kernel), rtol=1e-4, atol=1e-5
    )
    assert [part.rate for part in (layer.layers[2], layer.layers[3].layers[-1])] == [0.25, 0.5]
    assert layer.layers[3].units == 512
    assert not layer.layers[3].bn_before_relu


@pytest.mark.parametrize(
    ('layer_class', 'arguments', 'name'),
    [
        (Scaling, {'weight': math.nan}, 'weight'),
        (Scaling, {'weight': '1'}, 'weight'),
        (Classifier, {'num_classes': 0}, 'num_classes'),
        (Classifier, {'num_classes': 3, 'weight': math.inf}, 'weight'),
        (DenseBN, {'units': 0}, 'units'),
        (DenseBN, {'units': 3, 'drop_rate': -0.1}, 'drop_rate'),
        (DenseBN, {'units': 3, 'drop_rate': 1}, 'drop_rate'),
        (DenseBN, {'units': 3, 'drop_rate': '0.1'}, 'drop_rate'),
        (DenseBN, {'units': 3, 'normalization': 'batch'}, 'normalization'),
        (DenseBN, {'units': 3, 'bn_before_relu': 'no'}, 'bn_before_relu'),
        (FastAiHead, {'num_classes': -2}, 'num_classes'),
    ],
)
def test_bad_arguments(layer_class, arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must be .*Received: {name}=') as error:
        layer_class(**arguments)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('make', 'shape'),
    [
        (lambda: Classifier(3), (2, 4, 4, 3)),
        (lambda: DenseBN(3), (2, 4, 4, 3)),
        (GlobalPools2D, (2, 3)),
        (lambda: FastAiHead(3), (2, 3)),
    ],
)
def test_inputs_of_the_wrong_rank(make, shape):
    with pytest.raises(ValueError, match='expected ndim=') as error:
        make()(np.ones(shape, np.float32))
    assert '\n' not in str(error.value)

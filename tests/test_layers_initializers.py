"""Where kernels start: PyTorch's uniform numbers, and the partial identity."""

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import ConvResBlk, PartialIdentity, PyTorchUniform, init_pytorch


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(('shape', 'fan_in'), [((3, 3, 4, 500), 36), ((25, 1000), 25)])
def test_pytorch_uniform(shape, fan_in):
    kernel = array(PyTorchUniform(seed=0)(shape)) * np.sqrt(fan_in)
    assert np.abs(kernel).max() <= 1 + 1e-6
    assert np.abs(kernel).max() > 0.999
    # Uniform on [-1, 1]: mean 0, variance 1/3, each within five standard errors.
    assert abs(kernel.mean()) < 5 / np.sqrt(3 * kernel.size)
    assert abs((kernel**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / kernel.size)


def test_pytorch_uniform_against_torch():
    torch = pytest.importorskip('torch')
    torch.manual_seed(0)
    ours = array(PyTorchUniform(seed=0)((3, 3, 16, 64)))
    theirs = torch.nn.Conv2d(16, 64, 3).weight.detach().numpy()
    quantiles = np.linspace(0, 1, 21)
    np.testing.assert_allclose(
        np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=0.003
    )


def test_pytorch_uniform_config():
    twin = PyTorchUniform.from_config(PyTorchUniform(seed=7).get_config())
    np.testing.assert_array_equal(array(twin((4, 4))), array(PyTorchUniform(seed=7)((4, 4))))
    assert isinstance(keras.initializers.get(init_pytorch), PyTorchUniform)


@pytest.mark.parametrize('shape', [(3, 3, 4, 6), (3, 3, 6, 4), (2, 2, 3, 5), (5, 2, 2), (4, 6)])
def test_partial_identity_by_hand(shape):
    kernel = array(PartialIdentity('ones')(shape))
    inputs, filters = shape[-2:]
    expected = np.ones(shape)
    expected[..., :inputs] = 0
    for channel in range(min(inputs, filters)):
        expected[(*(side // 2 for side in shape[:-2]), channel, channel)] = 1
    np.testing.assert_array_equal(kernel, expected)


def test_partial_identity_hands_channels_through():
    images = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).astype(np.float32)
    kernel = PartialIdentity()((3, 3, 3, 7))
    outputs = ops.conv(images, kernel, padding='same', data_format='channels_last')
    np.testing.assert_allclose(array(outputs)[..., :3], images, rtol=1e-6)
    assert not np.any(np.all(array(outputs)[..., 3:] == 0, axis=(0, 1, 2)))


@pytest.mark.parametrize(('inputs', 'filters'), [(4, 6), (6, 4), (5, 5)])
def test_partial_identity_against_torch(inputs, filters):
    torch = pytest.importorskip('torch')
    rest = PyTorchUniform(seed=0)
    weight = torch.tensor(array(rest((3, 3, inputs, filters))).transpose(3, 2, 0, 1).copy())
    torch.nn.init.dirac_(weight[:inputs])
    ours = array(PartialIdentity(rest)((3, 3, inputs, filters)))
    np.testing.assert_array_equal(ours.transpose(3, 2, 0, 1), weight.numpy())


def test_partial_identity_config():
    for rest in (PyTorchUniform(seed=7), keras.initializers.HeNormal(seed=3)):
        initializer = PartialIdentity(rest)
        config = keras.saving.serialize_keras_object(initializer)
        twin = keras.saving.deserialize_keras_object(config)
        assert type(twin) is PartialIdentity
        shape = (3, 3, 2, 4)
        np.testing.assert_array_equal(array(twin(shape)), array(initializer(shape)))
    assert isinstance(PartialIdentity().rest, PyTorchUniform)


def test_partial_identity_dtype():
    kernel = PartialIdentity()((1, 1, 2, 3), dtype='float16')
    assert keras.backend.standardize_dtype(kernel.dtype) == 'float16'


def test_rest_is_drawn_anew_for_each_kernel():
    layer = ConvResBlk(6, kernel_initializer=PartialIdentity, res_convs=1)
    layer.build((None, 4, 4, 3))
    fresh = ConvResBlk(6, kernel_initializer=PartialIdentity, res_convs=1)
    fresh.build((None, 4, 4, 3))
    first, second = (array(block.weights[0])[..., 3:] for block in (layer, fresh))
    assert not np.array_equal(first, second)


def test_partial_identity_of_a_vector():
    with pytest.raises(ValueError, match=r'^`shape` must be .*Received: shape=\(3,\)'):
        PartialIdentity()((3,))


def test_unknown_rest():
    with pytest.raises(ValueError, match=r'Could not interpret .*no_such_thing'):
        PartialIdentity('no_such_thing')

"""Values, structure and bad input of the convolutional blocks."""

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import (
    CELU,
    GELU,
    PYTORCH_PARAMS,
    BatchNormalization,
    Conv2D,
    ConvBlk,
    ConvBN,
    ConvResBlk,
    MaxPooling2D,
    PartialIdentity,
    PreActBlk,
    PyTorchUniform,
    init_pytorch,
)


def array(tensor):
    return ops.convert_to_numpy(tensor)


def ones_conv_bn(**kwargs):
    """A 1x1 convolution that sums the channels."""
    return ConvBN(1, kernel_size=1, kernel_initializer='ones', **kwargs)


def test_conv_bn_by_hand():
    # Two images of one pixel with two channels, whose sums are 1 and -3: mean -1, variance 4.
    images = np.array([[[[2.0, -1.0]]], [[[-4.0, 1.0]]]], np.float32)
    layer = ones_conv_bn(normalization=BatchNormalization(momentum=0.75, epsilon=5.0))
    outputs = array(layer(images, training=True)).ravel()
    np.testing.assert_allclose(outputs, [2 / 3, 0], rtol=1e-6)  # (1 + 1) / sqrt(4 + 5), ReLU
    mean, variance = layer.layers[1].non_trainable_variables
    np.testing.assert_allclose(array(mean), [-0.25], rtol=1e-6)  # 0.75 * 0 + 0.25 * -1
    np.testing.assert_allclose(array(variance), [1.75], rtol=1e-6)  # 0.75 * 1 + 0.25 * 4
    outputs = array(layer(images, training=False)).ravel()
    np.testing.assert_allclose(outputs, [1.25 / np.sqrt(6.75), 0], rtol=1e-6)


def test_same_padding_and_strides():
    layer = ConvBN(1, strides=2, kernel_initializer='ones', activation=None)
    outputs = array(layer(np.ones((1, 4, 4, 1), np.float32)))
    # Padding goes to the right and below: the windows hold 9, 6, 6 and 4 ones.
    np.testing.assert_allclose(outputs[0, :, :, 0] * np.sqrt(1 + 1e-5), [[9, 6], [6, 4]], rtol=1e-6)


def test_conv_blk_takes_the_maximum_of_four():
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    layer = ConvBlk(1, kernel_initializer='zeros')
    layer.build(images.shape)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    layer.layers[0].layers[0].kernel.assign(kernel)
    outputs = array(layer(images))[0, :, :, 0]
    np.testing.assert_allclose(outputs * np.sqrt(1 + 1e-5), [[5, 7], [13, 15]], rtol=1e-6)


def test_pool_first_by_hand():
    """The normalization sees the maxima 5, 7, 13 and 15 only: mean 10, variance 17."""
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    norm = BatchNormalization(momentum=0.75, epsilon=8.0)
    layer = ConvBlk(1, kernel_initializer=PartialIdentity(), normalization=norm, pool_first=True)
    outputs = array(layer(images, training=True))[0, :, :, 0]
    np.testing.assert_allclose(outputs, [[0, 0], [0.6, 1]], rtol=1e-6)  # (13 - 10) / sqrt(17 + 8)
    mean, variance = layer.non_trainable_variables
    np.testing.assert_allclose(array(mean), [2.5], rtol=1e-6)
    np.testing.assert_allclose(array(variance), [5], rtol=1e-6)  # 0.75 * 1 + 0.25 * 17


@pytest.mark.parametrize('pool_first', [False, True])
@pytest.mark.parametrize('activation', ['relu', 'gelu', CELU(0.3), GELU()])
def test_order_of_the_parts(pool_first, activation):
    """Against the parts in the order that the docstring states, which the negative scales tell."""
    images = np.random.default_rng(0).standard_normal((2, 4, 4, 3)).astype(np.float32)
    layer = ConvBlk(5, convs=2, activation=activation, pool_first=pool_first)
    layer.build(images.shape)
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        values = 0.3 * rng.standard_normal(weight.shape)
        weight.assign(np.abs(values) if weight.path.endswith('variance') else values)
    first = ConvBN(5, activation=activation)
    first.build(images.shape)
    first.set_weights(layer.get_weights()[:5])
    kernel, gamma, beta, mean, variance = layer.get_weights()[5:]
    h = ops.conv(first(images), kernel, padding='same', data_format='channels_last')
    h = array(h)
    act = activation if callable(activation) else keras.activations.get(activation)
    pool = keras.layers.MaxPooling2D(2)

    def normalize(h):
        return ops.convert_to_tensor((array(h) - mean) / np.sqrt(variance + 1e-5) * gamma + beta)

    orders = {False: array(pool(act(normalize(h)))), True: array(act(normalize(pool(h))))}
    np.testing.assert_allclose(array(layer(images)), orders[pool_first], rtol=1e-4, atol=1e-5)
    assert np.abs(orders[False] - orders[True]).max() > 0.1


@pytest.mark.parametrize(
    ('activation', 'comes_last'),
    [('relu', True), (CELU(0.3), True), ('gelu', False), (GELU(), False), (None, False)],
)
def test_non_decreasing_activations_come_after_the_pool(activation, comes_last):
    """The same numbers from a quarter of the work, wherever the activation allows it."""
    last = ConvBlk(2, activation=activation).layers[-1].layers[-1]
    assert isinstance(last, MaxPooling2D) != comes_last
    assert last.name == ('activation' if comes_last else 'pool')
    average = ConvBlk(2, activation=activation, pool=keras.layers.AveragePooling2D(2)).layers[-1]
    assert isinstance(average, keras.layers.AveragePooling2D)


@pytest.mark.parametrize('pool', [MaxPooling2D(2), keras.layers.AveragePooling2D((3, 2)), None])
@pytest.mark.parametrize('kernel_size', [1, 3])
def test_training_leaves_out_what_the_pooling_leaves_out(pool, kernel_size):
    """The same outputs as of the parts one by one, at odd sides too."""
    layer = ConvBN(4, kernel_size, pool=pool and pool.from_config(pool.get_config()))
    images = np.random.default_rng(0).standard_normal((8, 11, 7, 5)).astype('float32')
    layer.build(images.shape)
    expected = layer.layers[0](images)
    for part in layer.layers[1:]:
        expected = part(expected, training=True)
    np.testing.assert_allclose(array(layer(images, training=True)), array(expected), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == 'torch', reason='there it computes all outputs')
def test_a_convolution_may_leave_out_what_no_window_covers():
    """In training only; never more than a kernel reaches."""
    conv = Conv2D(4, 3, padding='same')
    images = np.random.default_rng(0).standard_normal((2, 11, 7, 5)).astype('float32')
    whole = array(conv(images))
    for windows, rows, columns in [((2, 2), 10, 6), ((5, 7), 10, 7), ((4, 4), 11, 7)]:
        part = array(conv(images, training=True, windows=windows))
        np.testing.assert_allclose(part, whole[:, :rows, :columns], atol=1e-5)
        assert conv(images, windows=windows).shape == whole.shape


def test_pool_first_pools_once_and_keeps_the_names():
    layer = ConvResBlk(2, convs=2, res_convs=1, pool_first=True, name='stage')
    layer.build((None, 4, 4, 2))
    twin = ConvResBlk(2, convs=2, res_convs=1, name='stage')
    twin.build((None, 4, 4, 2))
    assert [w.path for w in layer.weights] == [w.path for w in twin.weights]
    pools = [part for part in layer._flatten_layers() if isinstance(part, MaxPooling2D)]
    assert pools == [layer.pool] == [layer.layers[1].pool]
    assert layer.layers[0].pool is None


def test_residual_adds_what_comes_after_the_pool():
    images = np.random.default_rng(0).standard_normal((2, 4, 4, 3)).astype(np.float32)
    layer = ConvResBlk(5, convs=2, res_convs=3)
    outputs = array(layer(images))
    blk = ConvBlk(5, convs=2)
    blk.build(images.shape)
    blk.set_weights(layer.get_weights()[: len(blk.weights)])
    h = residual = blk(images)
    for part in layer.layers[-1].layers:
        residual = part(residual)
    assert len(layer.layers[-1].layers) == 3
    np.testing.assert_allclose(outputs, array(h) + array(residual), rtol=1e-5, atol=1e-6)


def test_names_of_the_parts_reach_the_paths():
    layer = ConvResBlk(2, res_convs=1, name='stage')
    layer.build((None, 4, 4, 2))
    assert [weight.path for weight in layer.trainable_weights] == [
        'stage/conv_bn_1/conv/kernel',
        'stage/conv_bn_1/norm/gamma',
        'stage/conv_bn_1/norm/beta',
        'stage/residual/conv_bn_1/conv/kernel',
        'stage/residual/conv_bn_1/norm/gamma',
        'stage/residual/conv_bn_1/norm/beta',
    ]


def test_style_reaches_every_part():
    layer = ConvResBlk(
        2,
        kernel_initializer='zeros',
        normalization=BatchNormalization(momentum=0.6, epsilon=1e-3, scale=False),
        activation=keras.layers.LeakyReLU(negative_slope=0.1),
        dtype='mixed_bfloat16',
    )
    units = [layer.layers[0], *layer.layers[-1].layers]
    assert len(units) == 3
    for unit in units:
        conv, norm, activation = (part for part in unit.layers if part.name != 'pool')
        assert isinstance(conv.kernel_initializer, keras.initializers.Zeros)
        assert (norm.momentum, norm.epsilon, norm.scale) == (0.6, 1e-3, False)
        assert activation.negative_slope == 0.1
        for part in (unit, conv, norm, activation):
            assert part.dtype_policy.name == 'mixed_bfloat16'


def test_templates_are_copied_and_not_parts():
    norm = BatchNormalization(momentum=0.6)
    activation = keras.layers.LeakyReLU()
    pool = keras.layers.AveragePooling2D(2)
    layer = ConvBlk(2, pool=pool, normalization=norm, activation=activation)
    layer.build((None, 4, 4, 3))
    assert not norm.built
    inside = list(layer._flatten_layers())
    assert not any(template in inside for template in (norm, activation, pool))
    assert len(layer.weights) == 5


def test_pytorch_params():
    layer = ConvBN(4, **PYTORCH_PARAMS)
    conv, norm, _ = layer.layers
    assert isinstance(conv.kernel_initializer, PyTorchUniform)
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize('initializer', ['he_normal', init_pytorch, PyTorchUniform()])
def test_kernels_of_one_shape_differ(initializer):
    layer = ConvResBlk(4, kernel_initializer=initializer)
    layer.build((None, 4, 4, 4))
    kernels = [array(w) for w in layer.weights if w.path.endswith('kernel')]
    assert len(kernels) == 3
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_global_seed_fixes_the_kernels():
    def kernel():
        keras.utils.set_random_seed(3)
        layer = ConvBN(4, **PYTORCH_PARAMS)
        layer.build((None, 4, 4, 4))
        return array(layer.weights[0])

    np.testing.assert_array_equal(kernel(), kernel())


BAD = {
    'filters': [0, -1, 2.0, True, None],
    'kernel_size': [0, '3'],
    'strides': [0],
    'normalization': ['batch', BatchNormalization],
    'pool': [2],
    'pool_first': ['no', None, 1],
    'activation': [keras.layers.ReLU, CELU],
}


@pytest.mark.parametrize(('name', 'value'), [(n, v) for n, vs in BAD.items() for v in vs])
def test_bad_conv_bn(name, value):
    with pytest.raises(ValueError, match=f'^`{name}` must be .*Received: {name}=') as error:
        ConvBN(**{'filters': 4, name: value})
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('layer_class', 'arguments', 'name'),
    [
        (ConvBlk, {'filters': 0}, 'filters'),
        (ConvBlk, {'filters': 4, 'convs': 0}, 'convs'),
        (ConvBlk, {'filters': 4, 'pool': 2}, 'pool'),
        (ConvBlk, {'filters': 4, 'pool_first': 'no'}, 'pool_first'),
        (PreActBlk, {'filters': 4, 'activation': CELU}, 'activation'),
        (ConvResBlk, {'filters': 0}, 'filters'),
        (ConvResBlk, {'filters': 4, 'res_convs': 0}, 'res_convs'),
        (PreActBlk, {'filters': 0}, 'filters'),
        (PreActBlk, {'filters': 4, 'strides': 0}, 'strides'),
        (PreActBlk, {'filters': 4, 'kernel_size': 0}, 'kernel_size'),
    ],
)
def test_bad_blocks(layer_class, arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must be .*Received: {name}=') as error:
        layer_class(**arguments)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['activation', 'kernel_initializer'])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r'Could not interpret .*: no_such_thing'):
        ConvBN(4, **{name: 'no_such_thing'})


@pytest.mark.parametrize('layer_class', [ConvBN, ConvBlk, ConvResBlk, PreActBlk])
def test_inputs_of_the_wrong_rank(layer_class):
    with pytest.raises(ValueError, match='expected ndim=4, found ndim=2') as error:
        layer_class(4)(np.ones((2, 3), np.float32))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('layer_class', [ConvBlk, ConvResBlk])
def test_kernel_size_reaches_every_convolution(layer_class):
    layer = layer_class(4, convs=2, kernel_size=5)
    layer.build((None, 8, 8, 3))
    sides = {weight.shape[:2] for weight in layer.weights if weight.name == 'kernel'}
    assert sides == {(5, 5)}
    assert layer_class.from_config(layer.get_config()).kernel_size == 5
    with pytest.raises(ValueError, match='`kernel_size` must be a positive integer'):
        layer_class(4, kernel_size=0)


@pytest.mark.parametrize(('filters', 'strides'), [(3, 1), (5, 1), (3, 2)])
def test_preact_blk_against_its_formula(filters, strides):
    images = np.random.default_rng(0).standard_normal((2, 4, 4, 3)).astype(np.float32)
    layer = PreActBlk(filters, strides)
    outputs = array(layer(images))
    norm, activate, conv_bn, conv, *shortcut = layer.layers
    assert [part.name for part in shortcut] == ['shortcut'] * (filters != 3 or strides != 1)
    h = activate(norm(images))
    expected = array(conv(conv_bn(h)))
    for part in shortcut:
        h = ops.conv(h, part.kernel, strides, padding='same', data_format='channels_last')
    np.testing.assert_allclose(outputs, expected + array(h), rtol=1e-5, atol=1e-6)
    assert outputs.min() < 0  # not activated


def test_preact_blk_keeps_what_was_set_on_its_shortcut():
    layer = PreActBlk(4, strides=2)
    layer.build((None, 4, 4, 3))
    layer.layers[-1].trainable = False
    twin = PreActBlk.from_config(layer.get_config())
    twin.build((None, 4, 4, 3))
    assert not twin.layers[-1].trainable
    assert [w.path for w in twin.trainable_weights] == [w.path for w in layer.trainable_weights]

"""Layers within layers: templates that blocks copy, what is saved of them, what passes between."""

import copy

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import (
    BatchNormalization,
    Classifier,
    ConvBlk,
    ConvBN,
    ConvResBlk,
    GlobalPools2D,
    Parallel,
    Residual,
    Sequential,
)


def array(tensor):
    return ops.convert_to_numpy(tensor)


def container():
    return Sequential([BatchNormalization(), keras.layers.GaussianNoise(0.1)])


@pytest.mark.parametrize(
    'make',
    [
        lambda: ConvBlk(3, convs=2, normalization=container()),
        lambda: ConvResBlk(3, convs=2, normalization=container()),
        lambda: ConvBlk(
            3, convs=2, activation=Parallel([keras.layers.PReLU(), keras.layers.ReLU()])
        ),
        lambda: ConvBlk(3, convs=2, activation=Residual([keras.layers.PReLU()])),
    ],
)
@pytest.mark.parametrize('copied', ['saved', 'deeply'])
def test_copies_of_a_template_with_parts_share_no_weights(make, copied, tmp_path):
    """Loading a model gave every block the parts of the first one."""
    model = keras.Sequential([keras.Input((8, 8, 3)), make()])
    for number, weight in enumerate(model.weights):
        weight.assign(ops.full(weight.shape, 1 + number / 10))
    if copied == 'deeply':
        other = copy.deepcopy(model)
    else:
        model.save(tmp_path / 'model.keras')
        other = keras.models.load_model(tmp_path / 'model.keras')
    assert len(other.weights) == len(model.weights)
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
    np.testing.assert_allclose(array(other(images)), array(model(images)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('first', ['template', 'block'])
@pytest.mark.parametrize(
    ('name', 'template'),
    [
        ('normalization', lambda: BatchNormalization()),
        ('activation', lambda: keras.layers.PReLU(shared_axes=[1, 2])),
        ('pool', lambda: keras.layers.DepthwiseConv2D(2, 2)),
    ],
)
def test_a_template_may_be_called_by_its_maker(name, template, first, tmp_path):
    """Its weights were saved with the block, and could not be loaded."""
    layer, images = template(), np.ones((2, 8, 8, 3), np.float32)
    if first == 'template':
        layer(images)
    block = ConvBN(3, **{name: layer})
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layer(block(inputs)))
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')
    np.testing.assert_allclose(array(loaded(images)), array(model(images)), rtol=1e-5, atol=1e-6)


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('part', [lambda: ConvResBlk(4), lambda: Parallel([ConvBN(2), ConvBN(3)])])
def test_a_checkpoint_of_tensorflow_holds_the_weights(part, tmp_path):
    """It held none of them, and said that it was whole."""
    import tensorflow as tf

    def model():
        return keras.Sequential([keras.Input((8, 8, 3)), part(), GlobalPools2D(), Classifier(4)])

    one, other = model(), model()
    path = tf.train.Checkpoint(model=one).save(str(tmp_path / 'checkpoint'))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dictionaries_between_layers():
    class Add(keras.layers.Layer):
        def call(self, x):
            return x['a'] + x['b']

    class Split(keras.layers.Layer):
        def call(self, x):
            return {'a': x, 'b': 2 * x}

    layer = Sequential([Split(), Add(), Split(), Add()])
    np.testing.assert_array_equal(array(layer(np.ones((2, 3), np.float32))), np.full((2, 3), 9.0))
    assert layer(keras.Input((3,))).shape == (None, 3)

"""Faults of layers in other projects, each found by a user's program and mended."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks import diagnostics, layers, losses, optimizers

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize('training', [True, False])
def test_layers_of_integers(training):
    numbers = np.array([-1, 2], np.int32)
    for layer, exact in (
        (layers.CELU(1.0), [np.expm1(-1), 2]),
        (layers.SiLU(), [-1 / (1 + np.e), 2 / (1 + np.exp(-2))]),
        (layers.GELU(), [-0.158655, 1.954500]),
    ):
        np.testing.assert_allclose(array(layer(numbers, training=training)), exact, rtol=1e-5)
    image = np.array([[[[-1], [-2]], [[-3], [-4]]]], np.int32)
    assert array(layers.MaxPooling2D(2)(image, training=training)).item() == -1
    assert array(layers.MaxPooling2D(2)(-image.astype(np.int8), training=training)).item() == 4


class Wrapped(keras.layers.Layer):
    """Its shapes Keras infers with a symbolic batch."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def call(self, inputs, training=None):
        return self.part(inputs, training=training)


@pytest.mark.parametrize('shape', [(8,), (4, 6, 3)])
@pytest.mark.parametrize('axis', [-1, 1])
@pytest.mark.parametrize(
    'kind', [layers.BatchNormalization, partial(layers.GhostBatchNormalization, 4)]
)
def test_shapes_of_a_training_batch_of_unknown_size(kind, axis, shape):
    assert Wrapped(kind(axis=axis))(keras.Input(shape), training=True).shape[1:] == shape


def test_groups_of_a_model_traced_for_any_batch():
    """Keras infers shapes with a symbolic batch; a real one is normalized in its groups."""
    inputs = keras.Input((4, 6, 3))
    ghost = layers.GhostBatchNormalization(2, axis=1, epsilon=0.0)
    model = keras.Model(inputs, Wrapped(ghost)(inputs, training=True))
    images = np.random.default_rng(0).standard_normal((4, 4, 6, 3))
    groups = images.reshape(2, 2, 4, 6, 3)
    mean, std = (f(groups, (1, 3, 4), keepdims=True) for f in (np.mean, np.std))
    found = array(model(images.astype('float32'), training=True))
    np.testing.assert_allclose(found, ((groups - mean) / std).reshape(images.shape), atol=1e-5)


@pytest.mark.backend('tensorflow')
def test_layer_normalization_has_no_hessian_on_tensorflow():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.LayerNormalization(), keras.layers.Dense(3)]
    )
    inputs, labels = np.zeros((8, 4), np.float32), np.zeros(8, np.int32)
    with pytest.raises(ValueError, match='a LayerNormalization'):
        diagnostics.Hessian(model, losses.CrossEntropy(), inputs, labels)


@pytest.mark.backend('tensorflow')
def test_muon_keeps_kernels_of_64_bits():
    kernel = keras.Variable(np.full((2, 2), 1 / 3), dtype='float64')
    optimizers.Muon(0.0).apply([ops.ones((2, 2), 'float64')], [kernel])
    assert array(kernel).tolist() == np.full((2, 2), 1 / 3).tolist()


@pytest.mark.parametrize('mode', [[], {}, None, 'jax'])
def test_modes_of_imagenet_that_are_none(mode):
    with pytest.raises(ValueError, match=r'^`mode` must be one of tf, torch, caffe\. Received: mo'):
        layers.ImageNetNormalization(mode)

"""Composite layers: values, nesting and bad input."""

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import (
    ClassNames,
    FrozenBatchNormalization,
    Parallel,
    Residual,
    Scaling,
    Sequential,
)


def array(tensor):
    return ops.convert_to_numpy(tensor)


INPUTS = np.float32([[1, 2]])


def test_sequential_in_order():
    layer = Sequential([Scaling(2)])
    layer.add(keras.layers.Activation(ops.square))
    np.testing.assert_array_equal(array(layer(INPUTS)), [[4, 16]])


def test_empty_sequential_is_the_identity():
    np.testing.assert_array_equal(array(Sequential()(INPUTS)), INPUTS)


def test_parallel_concatenates():
    layer = Parallel([Scaling(2), Scaling(-1)])
    layer.add(Scaling(0))
    np.testing.assert_array_equal(array(layer(INPUTS)), [[2, 4, -1, -2, 0, 0]])


def test_parallel_promotes_mixed_dtypes():
    layer = Parallel([Scaling(1, dtype='bfloat16'), Scaling(1, dtype='float32')])
    assert layer(keras.Input((2,))).dtype == 'float32'
    assert keras.backend.standardize_dtype(layer(INPUTS).dtype) == 'float32'


def test_residual_adds():
    np.testing.assert_array_equal(array(Residual([Scaling(3)])(INPUTS)), [[4, 8]])


@pytest.mark.parametrize('inner', ['float32', 'bfloat16'])
@pytest.mark.parametrize('outer', ['float32', 'bfloat16'])
@pytest.mark.parametrize('inputs', ['float32', 'bfloat16', 'int32'])
@pytest.mark.parametrize(
    'wrap', [lambda part: part, lambda part: Sequential([part]), lambda part: Parallel([part])]
)
def test_residual_says_its_dtype(wrap, inputs, outer, inner):
    parts = [Scaling(2, dtype=inner), Residual([Sequential(dtype=inner)], dtype=outer)]
    for layers in (parts[:1], parts[1:], parts):
        layer = wrap(Residual(layers, dtype=outer))
        promised = layer(keras.Input((2,), dtype=inputs)).dtype
        outputs = layer(ops.cast(INPUTS, inputs))
        assert keras.backend.standardize_dtype(outputs.dtype) == promised


def test_masks_are_passed_on():
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    for make, kept in (
        (lambda: Sequential([Scaling(2), keras.layers.Dense(4)]), True),
        (lambda: Residual([Scaling(2)]), True),
        (Sequential, True),
        (lambda: Scaling(2), True),
        (FrozenBatchNormalization, True),
        (lambda: ClassNames(list('abcd')), True),
        (lambda: Sequential([keras.layers.LSTM(4)]), False),
    ):
        outputs = make()(embedding(np.array([[1, 2, 0]])))
        mask = getattr(outputs, '_keras_mask', None)
        assert mask is None if not kept else array(mask).tolist() == [[True, True, False]]


def test_a_model_of_a_masked_container():
    """Behind the container the recurrent layer leaves out what the embedding masks."""
    inputs = keras.Input((None,), dtype='int32')
    h = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    h = Residual([Sequential([keras.layers.Dense(4)])])(h)
    model = keras.Model(inputs, keras.layers.LSTM(2)(h))
    short, padded = (array(model(np.array([ids]))) for ids in ([1, 2], [1, 2, 0]))
    np.testing.assert_allclose(short, padded, rtol=1e-5)


@pytest.mark.parametrize('shape', [(None,), (4, None)])
def test_parallel_with_an_unknown_last_axis(shape):
    layer = Parallel([Scaling(2), Scaling(3)])
    assert layer(keras.Input(shape)).shape == (None, *shape)
    assert layer(np.ones((2, *shape[:-1], 3), np.float32)).shape == (2, *shape[:-1], 6)


def test_nested_configs():
    layer = Sequential([Parallel([Sequential([Scaling(2)]), Residual([Scaling(3)])]), Scaling(10)])
    twin = Sequential.from_config(layer.get_config())
    np.testing.assert_array_equal(array(twin(INPUTS)), [[20, 40, 40, 80]])


@pytest.mark.parametrize('composite', [Sequential, Parallel, Residual])
def test_training_reaches_the_parts(composite):
    layer = composite([Sequential([keras.layers.Dropout(0.5, seed=0)])])
    inputs = np.ones((1, 256), np.float32)
    plain = array(layer(inputs))
    assert len(np.unique(plain)) == 1
    assert len(np.unique(array(layer(inputs, training=True)))) == 2
    # As JAX's `stateless_call` does it: without a context.
    assert len(np.unique(array(layer.call(ops.convert_to_tensor(inputs), training=True)))) == 2


def test_frozen_composite_freezes_its_parts():
    layer = Sequential([keras.layers.Dense(2)], trainable=False)
    layer.build((None, 2))
    assert layer.trainable_variables == []


@pytest.mark.parametrize('composite', [Sequential, Parallel, Residual])
@pytest.mark.parametrize('layers', [[3], Scaling(1), 'dense', [Scaling]])
def test_bad_layers(composite, layers):
    with pytest.raises(ValueError, match=r'^`layers?` must be .*Received: layers?=') as error:
        composite(layers)
    assert '\n' not in str(error.value)


def test_an_input_layer():
    with pytest.raises(ValueError, match=r"^`layer` must be .*no InputLayer\. .*layer='in'$"):
        Sequential([keras.layers.InputLayer((2,), name='in'), Scaling(2)])


def test_add_after_the_first_call():
    layer = Sequential([Scaling(2)])
    layer(INPUTS)
    with pytest.raises(ValueError, match=r"^`add` must come before .*Received: layer='late'$"):
        layer.add(Scaling(1, name='late'))


def test_parallel_without_branches():
    with pytest.raises(ValueError, match=r'^`layers` of .* must hold a branch. .*layers=\[\]$'):
        Parallel()(INPUTS)


def test_branches_that_do_not_fit():
    layer = Parallel([keras.layers.MaxPooling2D(2), Scaling(1)])
    with pytest.raises(ValueError, match=r'^`layers` of .* must agree on all axes but the last'):
        layer(np.ones((1, 4, 4, 1), np.float32))


def test_residual_that_changes_the_shape():
    with pytest.raises(ValueError, match=r'^`layers` of .* must keep the shape \(1, 2\)'):
        Residual([keras.layers.Dense(3)])(INPUTS)


def _shrinks():
    """Keeps unknown sides, as far as Keras can tell; a 2x2 image becomes 1x1."""
    return Residual([keras.layers.Conv2D(3, 1, strides=2, data_format='channels_last')])


def test_residual_with_unknown_sides_does_not_broadcast():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, _shrinks()(inputs))
    images = np.ones((2, 2, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r'`layers` of .* must keep the shape \(2, 2, 2, 3\)'):
        model(images)
    assert model(images[:, :1, :1]).shape == (2, 1, 1, 3)


@pytest.mark.backend('tensorflow')
def test_residual_traced_with_unknown_sides():
    import tensorflow as tf

    layer = _shrinks()
    layer.build((None, None, None, 3))
    traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
    assert traced(tf.ones((2, 1, 1, 3))).shape == (2, 1, 1, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match='must keep the shape of the inputs'):
        traced(tf.ones((2, 2, 2, 3)))

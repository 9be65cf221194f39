"""Ghost batch normalization: by hand, and group by group against Keras's own."""

import re

import keras
import numpy as np
import pytest
from keras import ops
from layer_contract import gradients

from fenwicks.kernels import device
from fenwicks.layers import BatchNormalization, FrozenBatchNormalization, GhostBatchNormalization


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, 'float32'))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def by_group(inputs, size, axis=-1, **arguments):
    """Keras's layer on each group: outputs joined, statistics averaged over the groups."""
    outputs, means, variances = [], [], []
    for start in range(0, len(inputs), size):
        layer = keras.layers.BatchNormalization(
            axis=axis, epsilon=1e-5, momentum=0.0, gamma_initializer='ones', **arguments
        )
        outputs.append(array(layer(inputs[start : start + size], training=True)))
        means.append(array(layer.moving_mean))
        variances.append(array(layer.moving_variance))
    return np.concatenate(outputs), np.mean(means, 0), np.mean(variances, 0)


def test_by_hand():
    """Two groups of two numbers: means 2 and 30, biased variances 1 and 100."""
    layer = GhostBatchNormalization(2, momentum=0.75, epsilon=0.0)
    outputs = layer(np.array([[1.0], [3.0], [20.0], [40.0]], np.float32), training=True)
    np.testing.assert_allclose(array(outputs)[:, 0], [-1, 1, -1, 1], rtol=1e-6)
    np.testing.assert_allclose(array(layer.moving_mean), [0.25 * 16], rtol=1e-6)
    np.testing.assert_allclose(array(layer.moving_variance), [0.75 + 0.25 * 50.5], rtol=1e-6)


def test_inference_by_hand():
    """Any number of images; (x - 4) / sqrt(13.375)."""
    layer = GhostBatchNormalization(2, epsilon=0.0)
    layer.build((None, 1))
    layer.moving_mean.assign([4.0])
    layer.moving_variance.assign([4.0])
    for training in (None, False):
        outputs = layer(np.array([[4.0], [6.0], [0.0]], np.float32), training=training)
        np.testing.assert_allclose(array(outputs)[:, 0], [0, 1, -2], rtol=1e-6)
    np.testing.assert_array_equal(array(layer.moving_mean), [4.0])


@pytest.mark.parametrize(
    ('shape', 'axis'), [((6, 4, 5, 3), -1), ((6, 4, 5, 3), 1), ((6, 7), 1), ((6, 4, 3), -1)]
)
@pytest.mark.parametrize('size', [1, 2, 6])
def test_each_group_as_keras(shape, axis, size):
    if size == 1 and len(shape) == 2:
        pytest.skip('the mean of one number is the number')
    inputs = 2 * normal(*shape) + 1
    layer = GhostBatchNormalization(size, momentum=0.0, axis=axis)
    outputs = layer(inputs, training=True)
    expected, mean, variance = by_group(inputs, size, axis)
    np.testing.assert_allclose(array(outputs), expected, atol=2e-5)
    np.testing.assert_allclose(array(layer.moving_mean), mean, atol=1e-5)
    np.testing.assert_allclose(array(layer.moving_variance), variance, rtol=1e-4)


def test_one_group_is_batch_normalization():
    inputs = normal(4, 3, 3, 5)
    ghost, plain = GhostBatchNormalization(4), BatchNormalization()
    np.testing.assert_allclose(
        array(ghost(inputs, training=True)), array(plain(inputs, training=True)), atol=1e-5
    )
    for one, other in zip(ghost.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class Biased(keras.layers.Layer):
    """Adds a trained tensor before the normalization: its gradient is that of the inputs."""

    def __init__(self, norm, shape):
        super().__init__()
        self.norm = norm
        self.bias = self.add_weight(shape=shape, initializer='zeros', name='bias')

    def call(self, inputs, training=None):
        return self.norm(ops.add(inputs, self.bias), training=training)

    def compute_output_shape(self, input_shape):
        return input_shape


class Groups(keras.layers.Layer):
    """Plain formulas, group after group, left to automatic differentiation."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], initializer='ones', name='gamma')
        self.beta = self.add_weight(shape=input_shape[-1:], initializer='zeros', name='beta')

    def call(self, inputs, training=None):
        outputs = []
        for start in range(0, inputs.shape[0], self.size):
            group = inputs[start : start + self.size]
            centred = group - ops.mean(group, (0, 1, 2), keepdims=True)
            variance = ops.mean(ops.square(centred), (0, 1, 2), keepdims=True)
            outputs.append(self.gamma * centred / ops.sqrt(variance + 1e-5) + self.beta)
        return ops.concatenate(outputs, axis=0)


@pytest.mark.parametrize('size', [2, 3, 6])
def test_gradients(size):
    """Of inputs, scale and offset, against the formula differentiated automatically."""
    shape = (6, 4, 5, 3)
    inputs = 2 * normal(*shape) + 1
    found, expected = (
        Biased(layer, shape) for layer in (GhostBatchNormalization(size), Groups(size))
    )
    for layer in (found, expected):
        layer.norm.build(shape)
        layer.norm.gamma.assign(normal(3, seed=1))
        layer.norm.beta.assign(normal(3, seed=2))
        layer.built = True
    names = [v.path.split('/')[-1] for v in found.trainable_variables]
    assert names == [v.path.split('/')[-1] for v in expected.trainable_variables]
    assert sorted(names) == ['beta', 'bias', 'gamma']
    for one, other in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max() + 1e-5)


@pytest.mark.parametrize(('scale', 'center'), [(False, True), (True, False), (False, False)])
def test_frozen_scale_and_offset(scale, center):
    inputs = normal(4, 3, 3, 5)
    layer = GhostBatchNormalization(2, scale=scale, center=center)
    outputs = layer(inputs, training=True)
    names = [variable.path.split('/')[-1] for variable in layer.trainable_variables]
    assert names == ['gamma'] * scale + ['beta'] * center
    np.testing.assert_allclose(array(outputs), by_group(inputs, 2)[0], atol=2e-5)


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('has_avx512', [True, False])
@pytest.mark.parametrize('make', [BatchNormalization, lambda: GhostBatchNormalization(4)])
def test_two_layers_of_one_shape_in_a_strategy_each_learn(make, has_avx512):
    """The second one's gradients went to the first one, whose graph the two shared."""
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(['CPU:0'])
    inputs = normal(8, 3, 3, 2)
    for _ in range(2):
        with strategy.scope():
            layer = make()
            layer.build(inputs.shape)
        layer.gamma.assign([2.0, 3.0])

        @tf.function(autograph=False)
        def gradients_of_a_square(layer):
            variables = [variable.value for variable in layer.trainable_variables]
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(layer(inputs, training=True))) / 2
            return tape.gradient(loss, variables)

        with device.override(has_avx512=has_avx512):
            # The sum of squares of normalized numbers is their count, 72, times the variance's
            # share that epsilon leaves.
            found = strategy.run(gradients_of_a_square, (layer,))
        np.testing.assert_allclose(found[0], [144.0, 216.0], rtol=1e-3)
        np.testing.assert_allclose(found[1], [0.0, 0.0], atol=1e-4)


def test_bfloat16_sums_in_float32():
    """256 + 1 is 256 in bfloat16: sums of many values would stop growing."""
    inputs = normal(8, 32, 32, 2) + 1
    layer = GhostBatchNormalization(4, momentum=0.0, dtype='mixed_bfloat16')
    outputs = layer(inputs, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == 'bfloat16'
    rounded = array(ops.cast(inputs, 'bfloat16'))
    expected, mean, variance = by_group(rounded, 4)
    np.testing.assert_allclose(array(outputs), expected, atol=0.03)
    np.testing.assert_allclose(array(layer.moving_mean), mean, rtol=1e-4)
    np.testing.assert_allclose(array(layer.moving_variance), variance, rtol=1e-4)


def test_constant_channels_stay_finite():
    inputs = np.full((4, 3, 3, 2), 1234.567, np.float32)
    layer = GhostBatchNormalization(2, epsilon=1e-12)
    assert np.isfinite(array(layer(inputs, training=True))).all()
    assert np.isfinite(array(layer(inputs))).all()


def test_the_batch_must_divide():
    layer = GhostBatchNormalization(48)
    layer.build((None, 2))
    # Keras adds the call's arguments.
    message = r'`ghost_batch_size` must divide the batch of 512\. Received: ghost_batch_size=48'
    with pytest.raises(ValueError, match=message):
        layer(np.zeros((512, 2), np.float32), training=True)
    assert layer(np.zeros((5, 2), np.float32)).shape == (5, 2)


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('shape', [(4, 3, 3, 2), (4, 2)])
def test_an_unknown_batch(shape):
    import tensorflow as tf

    layer = GhostBatchNormalization(2, momentum=0.0)
    layer.build((None, *shape[1:]))
    call = tf.function(
        lambda inputs: layer(inputs, training=True),
        input_signature=[tf.TensorSpec([None, *shape[1:]])],
    )
    inputs = normal(*shape)
    np.testing.assert_allclose(array(call(inputs)), by_group(inputs, 2)[0], atol=2e-5)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match='`ghost_batch_size` must divide the batch'
    ):
        call(inputs[:3])


def test_a_mask():
    layer = GhostBatchNormalization(2)
    with pytest.raises(ValueError, match='`mask` must be None in training'):
        layer(normal(4, 3, 2), training=True, mask=np.ones((4, 3), bool))


def test_symbolic_training():
    inputs = keras.Input((3, 3, 2))
    assert GhostBatchNormalization(32)(inputs, training=True).shape == (None, 3, 3, 2)


def test_config():
    layer = GhostBatchNormalization(8, momentum=0.6, epsilon=1e-12, scale=False, axis=1)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(twin) is GhostBatchNormalization
    assert (twin.ghost_batch_size, twin.momentum, twin.epsilon) == (8, 0.6, 1e-12)
    assert (twin.scale, twin.center, twin.axis) == (False, True, 1)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('ghost_batch_size', 0),
        ('ghost_batch_size', 2.0),
        ('momentum', 1.5),
        ('momentum', -0.1),
        ('epsilon', -1e-5),
        ('axis', 0),
        ('axis', 'x'),
        ('axis', 1.5),
        ('axis', [1]),
        ('momentum', 'a'),
        ('scale', 'no'),
        ('center', None),
        ('renorm', True),
        pytest.param('synchronized', True, marks=pytest.mark.backend('tensorflow')),
    ],
)
def test_bad_arguments(name, value):
    received = re.escape(f'Received: {name}={value!r}')
    with pytest.raises(ValueError, match=f'^`{name}` must .*{received}') as error:
        GhostBatchNormalization(**{name: value})
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', [BatchNormalization, FrozenBatchNormalization])
@pytest.mark.parametrize(('axis', 'shape'), [(7, (4, 3)), (2, (4, 3)), (-3, (4, 3))])
def test_an_axis_that_the_inputs_do_not_have(kind, axis, shape):
    message = rf'`axis` must be in \[-2, 2\) for inputs of rank 2\. Received: axis={axis}'
    with pytest.raises(ValueError, match=message):
        kind(axis=axis)(np.zeros(shape, np.float32))


@pytest.mark.parametrize('kind', [GhostBatchNormalization, FrozenBatchNormalization])
@pytest.mark.parametrize('shape', [(4, 3), (4, 2, 2, 3)])
def test_the_batch_axis_counted_from_the_end(kind, shape):
    message = f'`axis` must not be the batch axis. Received: axis=-{len(shape)}'
    with pytest.raises(ValueError, match=message):
        kind(axis=-len(shape))(np.zeros(shape, np.float32))


@pytest.mark.parametrize('has_avx512', [True, False])
@pytest.mark.parametrize('shape', [(0, 3), (0, 4, 4, 3)])
@pytest.mark.parametrize('make', [BatchNormalization, lambda: GhostBatchNormalization(2)])
def test_an_empty_batch(make, shape, has_avx512):
    """It comes back empty, and the moving averages stay."""
    layer = make()
    with device.override(has_avx512=has_avx512):
        assert layer(np.zeros(shape, np.float32), training=True).shape == shape
    assert array(layer.moving_mean).tolist() == [0, 0, 0]
    assert array(layer.moving_variance).tolist() == [1, 1, 1]

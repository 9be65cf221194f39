"""Frozen batch normalization: by hand, and beside the inference of Keras's own."""

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import BatchNormalization, FrozenBatchNormalization
from fenwicks.models import backbone, check_model

CONSTANT = keras.initializers.Constant


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, 'float32'))


def test_by_hand():
    """(x - 3) / 2 * 5 + 7, in training too."""
    layer = FrozenBatchNormalization(
        epsilon=1.0,
        gamma_initializer=CONSTANT(5.0),
        beta_initializer=CONSTANT(7.0),
        mean_initializer=CONSTANT(3.0),
        variance_initializer=CONSTANT(3.0),
    )
    inputs = np.array([[3.0], [5.0], [-1.0]], np.float32)
    for training in (False, True):
        outputs = array(layer(inputs, training=training))
        np.testing.assert_allclose(outputs[:, 0], [7, 12, -3], rtol=1e-6)
    assert layer.trainable_variables == []


@pytest.mark.parametrize('axis', [-1, 1])
def test_as_the_inference_of_batch_normalization(axis):
    rng = np.random.default_rng(0)
    shape = [4, 5, 6, 3] if axis == -1 else [4, 3, 5, 6]
    inputs = rng.standard_normal(shape).astype('float32')
    norm = keras.layers.BatchNormalization(axis=axis, epsilon=1e-5)
    norm.build((None, *shape[1:]))
    norm.set_weights([rng.uniform(0.5, 2, 3) for _ in range(4)])
    layer = FrozenBatchNormalization(axis=axis)
    layer.build((None, *shape[1:]))
    layer.set_weights(norm.get_weights())
    np.testing.assert_allclose(array(layer(inputs)), array(norm(inputs)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'parts', [{}, {'scale': False}, {'center': False}, {'scale': False, 'center': False}]
)
def test_the_weights_of_a_network_freeze_its_normalizations(parts):
    options = {'widths': (4, 4, 8, 8), 'extra': (2,), 'residual': (3,)}
    model = backbone((8, 8, 3), normalization=BatchNormalization(**parts), **options)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.weights])
    frozen = backbone((8, 8, 3), normalization=FrozenBatchNormalization(**parts), **options)
    frozen.set_weights(model.get_weights())
    np.testing.assert_allclose(
        check_model(frozen, (8, 8, 3)), check_model(model, (8, 8, 3)), rtol=1e-4
    )
    assert {v.path.split('/')[-1] for v in frozen.trainable_variables} == {'kernel'}


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'axis': 0}, 'axis'),
        ({'axis': 'x'}, 'axis'),
        ({'axis': 1.5}, 'axis'),
        ({'axis': [1]}, 'axis'),
        ({'epsilon': -1e-3}, 'epsilon'),
        ({'epsilon': 'small'}, 'epsilon'),
        ({'center': 1}, 'center'),
        ({'scale': 'no'}, 'scale'),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .*Received: {name}='):
        FrozenBatchNormalization(**arguments)

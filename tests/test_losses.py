"""Label-smoothed cross-entropy against NumPy, PyTorch, Keras and closed forms."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.losses import CrossEntropy, cross_entropy

SMOOTHINGS = [0.0, 0.09, 0.2, 0.9]


def examples(batch=16, classes=10, scale=3.0):
    rng = np.random.default_rng(0)
    logits = (scale * rng.standard_normal((batch, classes))).astype('float32')
    return rng.integers(0, classes, batch), logits


def log_softmax(logits):
    logits = logits.astype('float64')
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def reference(labels, logits, smoothing):
    log_p = log_softmax(logits)
    picked = log_p[np.arange(len(labels)), labels]
    return -(1 - smoothing) * picked - smoothing * log_p.mean(axis=-1)


def gradient(function, at):
    """The gradient of a scalar function at a NumPy array, by the backend at hand."""
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        at = tf.constant(at)
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = function(at)
        return tape.gradient(value, at).numpy()
    if keras.backend.backend() == 'jax':
        import jax

        return np.asarray(jax.jit(jax.grad(function))(at))
    import torch

    at = torch.tensor(at, requires_grad=True)
    function(at).backward()
    return at.grad.numpy()


def test_worked_by_hand():
    # p = (1/4, 3/4): -log p = (1.386294, 0.287682), their mean 0.836988.
    logits = np.float32([[0.0, np.log(3.0)]])
    plain = cross_entropy(np.array([0]), logits)
    smoothed = cross_entropy(np.array([0]), logits, label_smoothing=0.2)
    np.testing.assert_allclose(ops.convert_to_numpy(plain), [1.386294], rtol=1e-6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(smoothed), [0.8 * 1.386294 + 0.2 * 0.836988], rtol=1e-6
    )


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_against_numpy(smoothing):
    labels, logits = examples()
    loss = ops.convert_to_numpy(cross_entropy(labels, logits, smoothing))
    assert loss.shape == (16,)
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, reference(labels, logits, smoothing), rtol=1e-5)


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_against_torch(smoothing):
    torch = pytest.importorskip('torch')
    labels, logits = examples()
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing, reduction='none'
    )
    loss = ops.convert_to_numpy(cross_entropy(labels, logits, smoothing))
    np.testing.assert_allclose(loss, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_is_keras_categorical_crossentropy_with_one_hot_labels(smoothing):
    labels, logits = examples()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = ops.convert_to_numpy(loss(np.eye(10, dtype='float32')[labels], logits))
    ours = ops.convert_to_numpy(CrossEntropy(smoothing)(labels, logits))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_gradient_is_softmax_minus_target(smoothing):
    labels, logits = examples()
    target = (1 - smoothing) * np.eye(10)[labels] + smoothing / 10
    found = gradient(lambda x: ops.sum(cross_entropy(labels, x, smoothing)), logits)
    np.testing.assert_allclose(found, np.exp(log_softmax(logits)) - target, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_computed_in_float32_whatever_the_logits(dtype):
    if dtype == 'float64' and keras.backend.backend() == 'jax':
        pytest.skip('JAX has no float64 by default')
    labels, logits = examples()
    rounded = ops.cast(logits, dtype)
    loss = cross_entropy(labels, rounded, 0.2)
    assert keras.backend.standardize_dtype(loss.dtype) == 'float32'
    # The same numbers in float32 give the same loss: nothing is lost after the rounding.
    exact = ops.convert_to_numpy(ops.cast(rounded, 'float32'))
    np.testing.assert_allclose(ops.convert_to_numpy(loss), reference(labels, exact, 0.2), rtol=1e-5)


@pytest.mark.parametrize('size', [1e2, 1e4, 1e30])
@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_extreme_logits_stay_finite(size, smoothing):
    logits = np.float32([[size, -size, 0.0], [-size, size, 0.0]])
    labels = np.array([0, 0])
    loss = ops.convert_to_numpy(cross_entropy(labels, logits, smoothing))
    np.testing.assert_allclose(loss, reference(labels, logits, smoothing), rtol=1e-6)
    slope = gradient(lambda x: ops.sum(cross_entropy(labels, x, smoothing)), logits)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize('dtype', ['uint8', 'int32', 'int64'])
def test_labels_of_any_integer_type(dtype):
    labels, logits = examples()
    loss = ops.convert_to_numpy(cross_entropy(labels.astype(dtype), logits))
    np.testing.assert_allclose(loss, reference(labels, logits, 0.0), rtol=1e-5)


def test_any_leading_shape():
    labels, logits = examples()
    loss = cross_entropy(labels.reshape(4, 4), logits.reshape(4, 4, 10), 0.2)
    np.testing.assert_allclose(
        ops.convert_to_numpy(loss).ravel(), reference(labels, logits, 0.2), rtol=1e-5
    )


@pytest.mark.parametrize('shape', [(16,), (16, 1)])
@pytest.mark.parametrize('dtype', ['uint8', 'int64'])
def test_loss_class_takes_flat_and_column_labels(shape, dtype):
    labels, logits = examples()
    expected = reference(labels, logits, 0.2)
    labels = labels.astype(dtype).reshape(shape)
    mean = ops.convert_to_numpy(CrossEntropy(0.2)(labels, logits))
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-5)
    each = ops.convert_to_numpy(CrossEntropy(0.2, reduction=None)(labels, logits))
    np.testing.assert_allclose(each, expected, rtol=1e-5)


def test_loss_class_weights_examples():
    labels, logits = examples()
    weights = np.arange(16, dtype='float32')
    loss = CrossEntropy(0.2, reduction='sum')(labels, logits, sample_weight=weights)
    np.testing.assert_allclose(
        ops.convert_to_numpy(loss), (weights * reference(labels, logits, 0.2)).sum(), rtol=1e-5
    )


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16', 'mixed_float16'])
def test_fit_and_evaluate(policy):
    labels, logits = examples(batch=32, classes=4)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, kernel_initializer='identity', dtype=policy),
        ]
    )
    model.compile(optimizer='sgd', loss=CrossEntropy(0.2), metrics=['accuracy'])
    start = model.evaluate(logits, labels, verbose=0)
    # The identity hands the logits on, rounded to the policy's precision.
    np.testing.assert_allclose(
        start[0], reference(labels, logits, 0.2).mean(), rtol=1e-5 if policy == 'float32' else 1e-2
    )
    history = model.fit(logits, labels, epochs=20, verbose=0).history
    assert history['loss'][-1] < start[0]
    assert history['accuracy'][-1] >= start[1]


def test_config_round_trip():
    loss = CrossEntropy(label_smoothing=0.2, reduction='sum', name='smoothed')
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert type(again) is CrossEntropy
    assert again.get_config() == loss.get_config()
    assert (again.label_smoothing, again.reduction, again.name) == (0.2, 'sum', 'smoothed')


@pytest.mark.parametrize('smoothing', [-0.1, 1.0, 2.0, float('nan')])
def test_bad_label_smoothing(smoothing):
    labels, logits = examples()
    rule = r'^`label_smoothing` must be a number in \[0, 1\). Received: label_smoothing='
    with pytest.raises(ValueError, match=rule):
        cross_entropy(labels, logits, smoothing)
    with pytest.raises(ValueError, match=rule):
        CrossEntropy(smoothing)


def test_bad_labels():
    labels, logits = examples()
    with pytest.raises(ValueError, match=r'^`labels` must be integers.* Received: float32'):
        cross_entropy(labels.astype('float32'), logits)
    for wrong in (labels[:8], labels[:, None], np.eye(10, dtype='int32')[labels]):
        with pytest.raises(ValueError, match=r'^`labels` must have the shape.* labels of'):
            cross_entropy(wrong, logits)
    with pytest.raises(ValueError, match=r'^`labels` must have the shape'):
        CrossEntropy()(np.eye(10)[labels], logits)

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


def test_lists_are_arrays():
    logits, labels = [[1.0, 2.0], [2.0, 1.0]], [0, 1]
    expected = CrossEntropy()(np.array(labels), np.float32(logits))
    for y_true in (labels, np.array(labels), [[0], [1]], [[1.0, 0.0], [0.0, 1.0]]):
        for y_pred in (logits, np.float32(logits)):
            np.testing.assert_allclose(CrossEntropy()(y_true, y_pred), expected, rtol=1e-6)


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


@pytest.mark.parametrize('values', [None, 'a', ['a', 'b'], np.array(['a', 'b']), [[1], [1, 2]]])
def test_what_is_no_number(values):
    logits = np.zeros((2, 3), np.float32)
    for call, name in (
        (lambda: CrossEntropy()(values, logits), 'y_true'),
        (lambda: CrossEntropy()(np.array([0, 1]), values), 'y_pred'),
        (lambda: cross_entropy(values, logits), 'labels'),
        (lambda: cross_entropy(np.array([0, 1]), values), 'logits'),
    ):
        rule = f'^`{name}` must be an array of numbers. Received: {name}='
        with pytest.raises(ValueError, match=rule) as error:
            call()
        assert '\n' not in str(error.value)


def test_bad_labels():
    labels, logits = examples()
    with pytest.raises(ValueError, match=r'^`labels` must be integers.* Received: float32'):
        cross_entropy(labels.astype('float32'), logits)
    for wrong in (labels[:8], labels[:, None], np.eye(10, dtype='int32')[labels]):
        with pytest.raises(ValueError, match=r'^`labels` must have the shape.* labels of'):
            cross_entropy(wrong, logits)


@pytest.mark.parametrize('labels', [np.float32([0, 1, 1, 0]), np.array([0, 1, 1, 0])])
@pytest.mark.parametrize('column', [False, True])
def test_a_single_logit_is_refused(labels, column):
    labels = labels[:, None] if column else labels
    for call in (cross_entropy, CrossEntropy(0.1)):
        with pytest.raises(ValueError, match=r'^`logits` .*BinaryCrossentropy.*\(4, 1\)$'):
            call(labels, np.zeros((4, 1), 'float32'))


def compiled(loss, classes=3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(classes)])
    model.compile('sgd', loss)
    return model


@pytest.mark.parametrize(
    ('labels', 'classes', 'rule'),
    [
        (np.zeros(8, 'int32'), 1, '`logits` must .*BinaryCrossentropy'),
        (np.full(8, 0.7, 'float32'), 3, '`labels` must be integers.* Received: float32 labels'),
        (np.full((8, 1), 0.7, 'float32'), 3, '`labels` must be integers.* Received: float32'),
        (np.zeros((8, 2), 'float32'), 3, '`labels` must be integers.* Received: float32'),
        (np.eye(3, dtype='int32')[[0] * 8], 3, '`labels` must have .* floats where .* one-hot'),
        (np.zeros((8, 2), 'int32'), 3, '`labels` must have the shape'),
        (np.zeros(8, 'bool'), 3, '`labels` must be integers.* Received: bool'),
    ],
)
def test_labels_that_fit_refuses(labels, classes, rule):
    for train in (True, False):
        model = compiled(CrossEntropy(), classes)
        run = model.fit if train else model.evaluate
        with pytest.raises(ValueError, match=rule):
            run(np.zeros((8, 4), 'float32'), labels, batch_size=8, verbose=0)


@pytest.mark.backend('tensorflow', 'torch')  # nothing can be noted on JAX's tensors
def test_a_model_that_ends_in_softmax_is_refused():
    for last in (
        [keras.layers.Dense(3, activation='softmax')],
        [keras.layers.Dense(3), keras.layers.Softmax()],
    ):
        model = keras.Sequential([keras.Input((4,)), *last])
        model.compile('sgd', CrossEntropy())
        with pytest.raises(ValueError, match='must be logits: remove the softmax'):
            model.fit(np.zeros((8, 4), 'float32'), np.zeros(8, 'int32'), verbose=0)


@pytest.mark.parametrize('wrong', [[-1, 2], [0, 10], [255, 0]])
def test_class_indices_out_of_range(wrong):
    logits = np.zeros((2, 10), 'float32')
    for call in (cross_entropy, CrossEntropy()):
        with pytest.raises(ValueError, match=r'^`labels` must be in \[0, 10\).* Received: labels'):
            call(np.array(wrong), logits)


@pytest.mark.parametrize(
    'wrong', [[0.5, 0.4], [1.5, -0.5], [1.0, 1.0], [float('nan'), 1.0], [0.0, 0.0]]
)
def test_floats_that_are_no_probabilities(wrong):
    labels = np.float32([[0.5, 0.5], wrong])
    for call in (cross_entropy, CrossEntropy()):
        with pytest.raises(ValueError, match=r'^`labels` that are floats must be probabilities'):
            call(labels, np.zeros((2, 2), 'float32'))


def test_no_examples_give_no_losses():
    assert cross_entropy(np.zeros(0, 'int32'), np.zeros((0, 3), 'float32')).shape == (0,)
    assert cross_entropy(np.zeros((0, 3), 'float32'), np.zeros((0, 3), 'float32')).shape == (0,)


def soft_labels(batch=16, classes=10):
    values = np.random.default_rng(3).exponential(size=(batch, classes))
    return (values / values.sum(axis=1, keepdims=True)).astype('float32')


@pytest.mark.parametrize('labels', [[0.7, 0.2], [[0.7], [0.2]], [0.0, float('nan')]])
def test_call_refuses_floats_that_are_no_class_indices(labels):
    """Whole ones it takes: Keras makes floats of integers before it calls `call`."""
    loss, logits = CrossEntropy(), np.zeros((2, 2), 'float32')
    with pytest.raises(ValueError, match=r'^`labels` must be integers.* Received: \[') as error:
        loss.call(np.float32(labels), logits)
    assert '\n' not in str(error.value)
    loss.call(np.float32([1, 0]), logits)


@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_probabilities_as_labels(smoothing):
    _, logits = examples()
    soft = soft_labels()
    targets = (1 - smoothing) * soft + smoothing / 10
    expected = -(targets * log_softmax(logits)).sum(axis=-1)
    found = ops.convert_to_numpy(cross_entropy(soft, logits, smoothing))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    np.testing.assert_allclose(
        ops.convert_to_numpy(CrossEntropy(smoothing)(soft, logits)),
        ops.convert_to_numpy(keras_loss(soft, logits)),
        rtol=1e-5,
    )
    slope = gradient(lambda x: ops.sum(cross_entropy(soft, x, smoothing)), logits)
    np.testing.assert_allclose(slope, np.exp(log_softmax(logits)) - targets, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_one_hot_floats_are_class_indices(smoothing, dtype):
    labels, logits = examples()
    expected = ops.convert_to_numpy(CrossEntropy(smoothing)(labels, logits))
    one_hot = np.eye(10, dtype=dtype)[labels]
    found = ops.convert_to_numpy(CrossEntropy(smoothing)(one_hot, logits))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_probabilities_of_torch():
    torch = pytest.importorskip('torch')
    _, logits = examples()
    soft = soft_labels()
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(soft), label_smoothing=0.2, reduction='none'
    )
    found = ops.convert_to_numpy(cross_entropy(soft, logits, 0.2))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_fit_with_probabilities_and_with_column_labels():
    x = np.random.default_rng(1).standard_normal((16, 4)).astype('float32')
    for labels in (soft_labels(16, 3), np.arange(16)[:, None] % 3, np.arange(16) % 3):
        model = compiled(CrossEntropy(0.1))
        start = model.evaluate(x, labels, verbose=0)
        expected = ops.convert_to_numpy(CrossEntropy(0.1)(labels, model.predict(x, verbose=0)))
        np.testing.assert_allclose(start, expected, rtol=1e-4)
        model.fit(x, labels, epochs=5, verbose=0)
        assert model.evaluate(x, labels, verbose=0) < start


def test_smoothing_of_numpy_is_a_plain_number():
    loss = CrossEntropy(np.float32(0.25))
    assert json.loads(json.dumps(loss.get_config()))['label_smoothing'] == 0.25


def test_the_function_as_a_loss_of_compile_names_the_class():
    model = compiled(cross_entropy)  # to a function Keras passes integer labels as floats
    with pytest.raises(ValueError, match=r'compile takes losses\.CrossEntropy\(\), .* Received: f'):
        model.fit(np.zeros((8, 4), 'float32'), np.zeros(8, 'int32'), verbose=0)

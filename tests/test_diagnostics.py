"""Curvature, norms and outputs against closed forms and dense computations."""

import keras
import numpy as np
import pytest
from keras import ops
from training_toys import conv_model, dense_model, make, toy

from fenwicks import assemble, diagnostics, layers, losses, optimizers

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def images(count=12):
    pixels, labels = toy(count)
    return pixels / np.float32(255), labels


def test_the_hessian_of_a_linear_model_in_closed_form():
    """Of logistic regression: mean of x x^T times diag(p) - p p^T, over the classes."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((7, 3)).astype('float32'), rng.integers(0, 2, 7)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    hessian = diagnostics.Hessian(model, losses.CrossEntropy(), inputs, labels, batch_size=3)
    logits = inputs @ model.get_weights()[0]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    dense = np.mean(
        [
            np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q))
            for x, q in zip(inputs.astype('float64'), p, strict=True)
        ],
        axis=0,
    )
    assert hessian.size == 6
    for row in np.eye(6):
        np.testing.assert_allclose(hessian.product(row), dense @ row, rtol=1e-5, atol=1e-6)
    one_hot = np.eye(2)[labels]
    gradient = np.mean(inputs[:, :, None] * (p - one_hot)[:, None, :], axis=0).ravel()
    np.testing.assert_allclose(hessian.gradient(), gradient, rtol=1e-4, atol=1e-6)


def network(norm):
    """Layers that have kernels of their own; smooth, so that differences of gradients converge."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.ConvBN(4, normalization=norm, activation=layers.GELU(name='gelu')),
            layers.ConvBlk(
                4,
                pool=keras.layers.AveragePooling2D(2),
                normalization=norm,
                activation=layers.SiLU(name='silu'),
            ),
            keras.layers.GlobalAveragePooling2D(),
            layers.Classifier(3),
        ]
    )


def values_of_each(labels, outputs):
    return keras.losses.mean_squared_error(labels, outputs)


@pytest.mark.parametrize('loss', ['mse', values_of_each])
def test_losses_that_become_means(loss):
    """A function's values were added up; and labels of float64 ended in an error."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((5, 3)), rng.standard_normal((5, 1))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    hessian = diagnostics.Hessian(model, loss, inputs, labels, batch_size=2)
    model.layers[0].trainable = False  # the vectors stay what they were
    errors = inputs @ model.get_weights()[0] - labels
    np.testing.assert_allclose(hessian.gradient(), 2 * (inputs * errors).mean(0), rtol=1e-5)
    expected = 2 * (inputs.T @ inputs / 5)[1]
    np.testing.assert_allclose(hessian.product(np.eye(3)[1]), expected, rtol=1e-5)


def test_max_pooling_in_closed_form():
    """The loss is the mean of (w * max(x))**2 over images of one maximum each."""
    pixels = np.random.default_rng(0).permutation(64).reshape(4, 4, 4, 1).astype('float32') / 64
    maxima = pixels.reshape(4, 2, 2, 2, 2).max((2, 4)).mean((1, 2))
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(1, 1, use_bias=False, kernel_initializer='ones'),
            layers.MaxPooling2D(2),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    for training in (False, True):
        hessian = diagnostics.Hessian(
            model,
            keras.losses.MeanSquaredError(),
            pixels,
            np.zeros((4, 1), 'float32'),
            training=training,
        )
        np.testing.assert_allclose(hessian.product([1.0]), [2 * (maxima**2).mean()], rtol=1e-5)


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('options', [{'axis': 1}, {'renorm': True}, {'dtype': 'float64'}])
def test_statistics_that_tensorflow_differentiates_once_are_refused(options):
    keras.config.set_dtype_policy(options.pop('dtype', 'float32'))
    norm = layers.BatchNormalization(**options)
    with pytest.raises(ValueError, match=r'^`model` must normalize by .* Received: \w+, a BatchNo'):
        diagnostics.Hessian(network(norm), losses.CrossEntropy(), *images(8), training=True)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('norm', [None, layers.GhostBatchNormalization(4, name='n')])
def test_products_beside_differences_of_gradients(training, norm):
    model = network(norm)
    if norm and training and keras.backend.backend() == 'tensorflow':
        with pytest.raises(ValueError, match=r'^`model` must normalize by .* a GhostBatchNormaliz'):
            diagnostics.Hessian(model, losses.CrossEntropy(), *images(8), training=True)
        return
    hessian = diagnostics.Hessian(
        model, losses.CrossEntropy(), *images(8), batch_size=4, training=training
    )
    before = model.get_weights()
    vector = np.random.default_rng(0).standard_normal(hessian.size)
    vector /= np.linalg.norm(vector)
    found = hessian.product(vector)
    step = 3e-3
    slopes = []
    for sign in (1, -1):
        at = 0
        for variable in model.trainable_variables:
            size = int(np.prod(variable.shape))
            part = vector[at : at + size].reshape(variable.shape)
            variable.assign(ops.convert_to_numpy(variable) + (sign * step * part).astype('float32'))
            at += size
        slopes.append(hessian.gradient())
        model.set_weights(before)
    expected = (slopes[0] - slopes[1]) / (2 * step)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    for one, two in zip(model.get_weights(), before, strict=True):  # the moving statistics, too
        np.testing.assert_array_equal(one, two)
    other = np.random.default_rng(1).standard_normal(hessian.size)
    assert found @ other == pytest.approx(vector @ hessian.product(other), rel=1e-3, abs=1e-4)


def test_leading_eigenvalues_beside_those_of_the_dense_hessian():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation='tanh'),
            keras.layers.Dense(3),
        ]
    )
    hessian = diagnostics.Hessian(model, losses.CrossEntropy(), *images())
    dense = np.stack([hessian.product(row) for row in np.eye(hessian.size)])
    np.testing.assert_allclose(dense, dense.T, atol=1e-6)
    expected = np.linalg.eigvalsh(dense)[::-1][:4]
    found = diagnostics.leading_eigenpairs(hessian.product, hessian.size, 4, tolerance=1e-6)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-5 * expected[0])
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-10)
    for value, vector, residual in zip(found.values, found.vectors, found.residuals, strict=True):
        actual = np.linalg.norm(hessian.product(vector) - value * vector)
        assert actual <= residual + 1e-6 * expected[0]
    assert found.products <= hessian.size


@pytest.mark.parametrize('which', ['LA', 'LM', 'SA'])
def test_lanczos_with_a_known_spectrum(which):
    rng = np.random.default_rng(0)
    spectrum = np.concatenate([[90.0, 50.0, -70.0, -20.0], rng.uniform(-1, 1, 296)])
    rotation, _ = np.linalg.qr(rng.standard_normal((300, 300)))
    matrix = rotation * spectrum @ rotation.T
    expected = {'LA': [90, 50], 'LM': [90, -70], 'SA': [-70, -20]}[which]
    found = diagnostics.leading_eigenpairs(
        lambda v: matrix @ v, 300, 2, which=which, tolerance=1e-10
    )
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)
    assert found.products < 40
    residuals = [np.linalg.norm(matrix @ v - x * v) for x, v in zip(*found[:2], strict=True)]
    np.testing.assert_allclose(residuals, found.residuals, atol=1e-10)


def test_lanczos_where_the_basis_closes():
    """Of a matrix with one eigenvalue each vector is a basis: it begins anew with others."""
    found = diagnostics.leading_eigenpairs(lambda v: 3 * v, 6, 4)
    np.testing.assert_allclose(found.values, [3, 3, 3, 3])
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-12)
    zero = diagnostics.leading_eigenpairs(lambda v: 0 * v, 3, 3)
    np.testing.assert_allclose(zero.values, [0, 0, 0])


def test_residuals_say_how_far_it_came():
    matrix = np.diag(np.linspace(0, 1, 200))
    few = diagnostics.leading_eigenpairs(lambda v: matrix @ v, 200, 3, max_products=10)
    assert few.products == 10
    assert few.residuals.max() > 1e-3
    for value, residual in zip(few.values, few.residuals, strict=True):
        assert np.abs(np.diag(matrix) - value).min() <= residual


def test_subspace_overlap():
    basis = np.array([[1.0, 0, 0, 0], [1.0, 1e-3, 0, 0], [2.0, 0, 0, 0]])  # the first two axes
    vectors = [[0, 5.0, 0, 0], [0, 0, 1.0, 0], [3.0, 0, 4.0, 0]]
    found = diagnostics.subspace_overlap(vectors, basis)
    np.testing.assert_allclose(found, [1, 0, 9 / 25], atol=1e-12)
    rng = np.random.default_rng(0)
    random = diagnostics.subspace_overlap(
        rng.standard_normal((50, 1000)), rng.standard_normal((100, 1000))
    )
    assert random.mean() == pytest.approx(0.1, abs=0.01)


class Halve(keras.callbacks.Callback):
    """Halves the first kernel and turns the second by a right angle, at the end of each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        first, second = (v for v in self.model.trainable_variables if v.path.endswith('kernel'))
        first.assign(first * 0.5)
        second.assign(np.array([[0.0, 3.0], [3.0, 0.0]][epoch], 'float32')[:, None])


@pytest.mark.parametrize('size', [1e-200, 1e200])
def test_subspace_overlap_of_any_length(size):
    assert diagnostics.subspace_overlap([[size, 0]], [[1, 0]]).tolist() == [1]
    assert diagnostics.subspace_overlap([[1, 0]], [[size, 0]]).tolist() == [1]


def test_a_product_may_change_its_vector():
    def product(vector):
        vector *= [5.0, -7.0, 1.0, 2.0]
        return vector

    assert diagnostics.leading_eigenpairs(product, 4, 2).values.round(6).tolist() == [5, 2]


def test_norms_of_weights_and_of_their_updates():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1, use_bias=False)]
    )
    model.compile(keras.optimizers.SGD(0.0), 'mse')
    model.layers[0].kernel.assign(np.array([[3.0, 0.0], [0.0, 4.0]]))
    model.layers[1].kernel.assign(np.array([[3.0], [0.0]]))
    norms = diagnostics.WeightNorms()
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=[Halve(), norms])
    assert norms.paths == [layer.kernel.path for layer in model.layers]
    np.testing.assert_allclose(norms.initial, [5, 3])
    assert [record['epoch'] for record in norms.history] == [1, 2]
    first, second = norms.history
    np.testing.assert_allclose(first['norm'], [2.5, 3], rtol=1e-6)
    np.testing.assert_allclose(first['update'], [2.5, np.sqrt(18)], rtol=1e-6)
    np.testing.assert_allclose(first['angle'], [0, np.pi / 2], atol=1e-7)
    np.testing.assert_allclose(second['norm'], [1.25, 3], rtol=1e-6)


def test_norms_of_averages_go_on_from_fit_to_fit():
    """The first update of a second `fit` was from the weights of the last step."""
    trainers = [
        make(dense_model(), averaging=optimizers.EMA(0.5, every=2), batch_size=8) for _ in range(2)
    ]
    whole, parts = diagnostics.WeightNorms(), diagnostics.WeightNorms()
    trainers[0].fit(*toy(), 2, callbacks=[whole], verbose=0)
    for epochs in (1, 2):
        trainers[1].fit(*toy(), epochs, callbacks=[parts], verbose=0)
    assert parts.history == whole.history


def test_norms_of_another_model_begin_anew():
    norms = diagnostics.WeightNorms()
    for widths in ((3,), (3, 2)):
        model = keras.Sequential(
            [keras.Input((2,)), *(keras.layers.Dense(n, name=f'd{n}') for n in widths)]
        )
        model.compile(keras.optimizers.SGD(0.1), 'mse')
        model.fit(np.ones((4, 2)), np.ones((4, widths[-1])), epochs=1, verbose=0, callbacks=[norms])
        assert len(norms.initial) == len(norms.paths) == len(widths)
        assert [len(record['norm']) for record in norms.history] == [len(widths)]


def test_norms_that_match_nothing():
    norms = diagnostics.WeightNorms('.*nothing')
    norms.set_model(conv_model())
    with pytest.raises(ValueError, match=r"^`match` must match .*Received: match='.*nothing'"):
        norms.on_train_begin()
    with pytest.raises(ValueError, match=r'^`match` must be a valid regular expression'):
        diagnostics.WeightNorms('(')
    with pytest.raises(ValueError, match=r'^`match` must be a non-empty string'):
        diagnostics.WeightNorms(None)


@pytest.mark.parametrize(('match', 'names'), [('bias', {'bias', 'beta'}), ('.*/bias', {'bias'})])
def test_norms_by_a_word(match, names):
    model = conv_model()
    norms = diagnostics.WeightNorms(match)
    norms.set_model(model)
    norms.on_train_begin()
    assert norms.paths == [v.path for v in model.trainable_variables if v.name in names]
    assert len(norms.paths) == len(names)


def test_output_statistics_in_closed_form():
    inputs = np.random.default_rng(0).standard_normal((4000, 1)).astype('float32')
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Rescaling(2.0, offset=1.0, name='map'),
            keras.layers.ReLU(name='relu'),
            keras.layers.BatchNormalization(epsilon=1e-6, name='norm'),
        ]
    )
    scaled, relu, norm = diagnostics.output_statistics(model, inputs, training=True)
    assert [found.layer for found in (scaled, relu, norm)] == ['map', 'relu', 'norm']
    assert scaled.mean == pytest.approx(1, abs=0.1)
    assert scaled.deviation == pytest.approx(2, rel=0.05)
    assert scaled.varying == pytest.approx(4 / 5, abs=0.03)
    assert abs(scaled.skew) < 0.15
    assert relu.skew > 0.5
    assert norm.varying == pytest.approx(1, abs=1e-5)
    assert norm.deviation == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(model.layers[-1].get_weights()[2], [0])  # it didn't move


def test_output_statistics_of_constants():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, kernel_initializer='zeros')])
    (found,) = diagnostics.output_statistics(model, np.ones((5, 3)))
    assert found[1:] == (0, 0, 0, 0)


def test_output_statistics_of_models_within_models():
    inputs = keras.Input((2, 2, 1))
    inner = keras.Model(inputs, keras.layers.Rescaling(2.0)(inputs), name='inner')
    inner(keras.Input((2, 2, 1)))  # its first call belongs to no model here
    model = keras.Sequential([keras.Input((2, 2, 1)), inner, keras.layers.Flatten(name='flat')])
    numbers = np.arange(8, dtype='float32').reshape(2, 2, 2, 1)
    one, flat = diagnostics.output_statistics(model, numbers)
    assert (one.layer, one.mean, flat.layer, flat.mean) == ('inner', 7.0, 'flat', 7.0)
    assert 'call' not in vars(inner)
    ready = assemble.with_normalization(model, [1.0], [1.0], input_shape=(2, 2, 1))
    assert [found.mean for found in diagnostics.output_statistics(ready, numbers)] == [2.5, 5]


def test_output_statistics_leave_a_call_of_the_users_own():
    model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    (layer,) = model.layers
    original = layer.call
    layer.call = lambda inputs: 3 * original(inputs)
    (found,) = diagnostics.output_statistics(model, np.ones((2, 2)))
    assert found.mean == float(ops.convert_to_numpy(model(np.ones((1, 2))))[0, 0]) == 3


def test_output_statistics_of_one_number_for_each_example():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Reshape(())])
    (found,) = diagnostics.output_statistics(model, np.array([[-1.0], [1.0]]))
    assert (found.deviation, found.varying) == (1, 1)


def of_loss(loss):
    return diagnostics.Hessian(conv_model(), loss, *toy(3))


class Halves(keras.layers.Layer):
    def call(self, inputs):
        return ops.split(inputs, 2, axis=-1)


def of_layer(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(inputs)[0])


def of_two_inputs():
    inputs = [keras.Input((4,)) for _ in range(2)]
    return keras.Model(inputs, keras.layers.Add()(inputs))


def of_two_outputs():
    inputs = keras.Input((4,))
    return keras.Model(inputs, [keras.layers.Dense(1)(inputs) for _ in range(2)])


def hessian_of(model, inputs):
    if not model.trainable_variables:
        model = keras.Model(model.inputs, keras.layers.Dense(1)(model.output))
    return diagnostics.Hessian(model, 'mse', inputs, np.zeros((4, 1)))


def channels_first():
    layer = keras.layers.Activation('relu'), keras.layers.MaxPooling2D(data_format='channels_first')
    return keras.Sequential([keras.Input((3, 8, 8)), *layer])


@pytest.mark.parametrize(
    ('call', 'line'),
    [
        (lambda: of_loss(losses.CrossEntropy()).product(np.ones(2)), '`vector`'),
        (lambda: of_loss(None), '`loss`'),
        (lambda: of_loss('none'), '`loss`'),
        (lambda: of_loss(losses.CrossEntropy(reduction='sum')), '`loss`'),
        (lambda: of_loss(losses.CrossEntropy(reduction=None)), '`loss`'),
        (lambda: diagnostics.Hessian(conv_model(), None, toy(3)[0], [1, 2]), '`labels`'),
        (lambda: diagnostics.Hessian(keras.Sequential(), None, *toy(3)), '`model`'),
        (lambda: diagnostics.Hessian(3, None, *toy(3)), '`model`'),
        (lambda: diagnostics.Hessian(conv_model(), losses.CrossEntropy, *toy(3)), '`loss`'),
        (lambda: diagnostics.Hessian(conv_model(), None, *toy(3), training='no'), '`training`'),
        (lambda: diagnostics.output_statistics(3, np.ones((2, 8, 8, 3))), '`model`'),
        (lambda: diagnostics.output_statistics(conv_model(), *toy(3)), '`training`'),
        (lambda: diagnostics.leading_eigenpairs(abs, 3, 4), '`count`'),
        (lambda: diagnostics.leading_eigenpairs(abs, 0), '`size`'),
        (lambda: diagnostics.leading_eigenpairs(abs, 3, 1, which='top'), '`which`'),
        (lambda: diagnostics.leading_eigenpairs(abs, 3, 1, tolerance=0), '`tolerance`'),
        (lambda: diagnostics.leading_eigenpairs(lambda v: v * np.nan, 3, 1), '`product`'),
        (lambda: diagnostics.leading_eigenpairs(lambda v: v[:, None], 3, 1), '`product`'),
        (lambda: diagnostics.leading_eigenpairs(lambda v: v[1:], 3, 1), '`product`'),
        (lambda: diagnostics.subspace_overlap(np.ones((2, 3)), np.ones((2, 4))), '`basis`'),
        (lambda: diagnostics.subspace_overlap(np.ones((2, 3)), [[np.nan] * 3]), '`basis`'),
        (lambda: diagnostics.subspace_overlap([[np.nan] * 3], np.ones((2, 3))), '`vectors`'),
        (lambda: diagnostics.output_statistics(of_layer(Halves()), np.ones((2, 4))), '`model`'),
        (lambda: diagnostics.output_statistics(of_two_inputs(), np.ones((2, 4))), '`model`'),
        (lambda: diagnostics.output_statistics(channels_first(), np.ones((2, 3, 8, 8))), '`model`'),
        (lambda: hessian_of(of_two_inputs(), [np.ones((4, 4))] * 2), '`model`'),
        (lambda: hessian_of(of_two_inputs(), {'a': np.ones((4, 4))}), '`model`'),
        (lambda: hessian_of(of_two_outputs(), np.ones((4, 4))), '`model`'),
        (lambda: diagnostics.subspace_overlap(np.zeros((2, 3)), np.ones((2, 3))), '`vectors`'),
        (lambda: diagnostics.output_statistics(conv_model(), np.ones((1, 8, 8, 3))), '`inputs`'),
    ],
)
def test_bad_input_is_one_line(call, line):
    with pytest.raises(ValueError, match=f'^{line} must .*Received: ') as raised:
        call()
    assert '\n' not in str(raised.value)


def test_the_gradient_is_that_of_the_trainer():
    model = dense_model()
    trainer = make(model)
    pixels, labels = toy(8)
    _, expected = trainer.gradients(pixels, labels)
    hessian = diagnostics.Hessian(model, losses.CrossEntropy(), pixels / 255, labels, training=True)
    expected = np.concatenate([gradient.ravel() for gradient in expected])
    np.testing.assert_allclose(hessian.gradient(), expected, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_regularizer_is_in_the_gradient():
    """TensorFlow failed: the weights were None to the regularizer."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_regularizer='l2')])
    inputs, labels = np.ones((4, 3), 'float32'), np.array([0, 1, 0, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    model.layers[0].kernel.assign(np.repeat(kernel[:, :1], 2, axis=1))  # so both are as likely
    found = diagnostics.Hessian(model, loss, inputs, labels).gradient()
    expected = 2 * 0.01 * np.repeat(kernel[:, :1], 2, axis=1)
    np.testing.assert_allclose(found[:6].reshape(3, 2), expected, atol=1e-6)

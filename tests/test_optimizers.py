"""SGD against hand-worked steps, NumPy and PyTorch; saving and loading."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_run import COMPILED, assert_same, gradients, numpy_of, train, variables_of

from fenwicks.losses import CrossEntropy
from fenwicks.optimizers import SGD, ParameterGroup, sgd_step
from fenwicks.schedules import OneCycle

STEPS = 60
# Peaks high enough that the velocity matters, and both slopes are walked.
RATES = OneCycle(peak=0.4, total_steps=STEPS, warmup_steps=15, final=0.02)
VARIANTS = [
    {},
    {'weight_decay': 0.02},
    {'momentum': 0.9},
    {'momentum': 0.9, 'weight_decay': 0.02},
    {'momentum': 0.9, 'nesterov': True},
    {'momentum': 0.85, 'nesterov': True, 'weight_decay': 0.02},
]
GROUPS = (
    ParameterGroup('bias', learning_rate=4.0, weight_decay=0.25),
    ParameterGroup(r'head/.*kernel', learning_rate=0.5, weight_decay=0.0),
)
# The factors of GROUPS on the variables of `weights()`.
FACTORS = ((1.0, 1.0), (4.0, 0.25), (4.0, 0.25), (0.5, 0.0))


def weights():
    """Four variables with Keras's usual names, the same at each call."""
    shapes = {'conv/kernel': (3, 3), 'bn/beta': (3,), 'head/bias': (2,), 'head/kernel': (3, 2)}
    return variables_of(shapes)


def numpy_train(rates, momentum=0.0, nesterov=False, weight_decay=0.0, factors=None):
    """An independent implementation in float64, in the form of TF1's MomentumOptimizer."""
    weights_now = [w.astype('float64') for w in numpy_of(weights())]
    accumulators = [np.zeros_like(w) for w in weights_now]
    for step in range(STEPS):
        grads = gradients(step, weights_now)
        for i, (w, a) in enumerate(zip(weights_now, accumulators, strict=True)):
            rate_factor, decay_factor = factors[i] if factors else (1.0, 1.0)
            rate = rates(step) * rate_factor
            g = grads[i] + weight_decay * decay_factor * w
            a *= momentum
            a += g
            if nesterov:
                w -= g * rate
                w -= a * momentum * rate
            else:
                w -= a * rate
    return weights_now


def page_train(rates, momentum, nesterov=False, weight_decay=0.0, factors=None):
    """An independent implementation in float64, in the form of Page's `nesterov_update`."""
    weights_now = [w.astype('float64') for w in numpy_of(weights())]
    velocities = [np.zeros_like(w) for w in weights_now]
    for step in range(STEPS):
        grads = gradients(step, weights_now)
        for i, (w, v) in enumerate(zip(weights_now, velocities, strict=True)):
            rate_factor, decay_factor = factors[i] if factors else (1.0, 1.0)
            grads[i] += weight_decay * decay_factor * w
            grads[i] *= -rates(step) * rate_factor
            v *= momentum
            v += grads[i]
            w += grads[i] + momentum * v if nesterov else v
    return weights_now


def torch_train(rates, factors=None, weight_decay=0.0, **options):
    torch = pytest.importorskip('torch')
    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in numpy_of(weights())]
    factors = factors or [(1.0, 1.0)] * len(parameters)
    groups = [
        {'params': [p], 'weight_decay': weight_decay * decay}
        for p, (_, decay) in zip(parameters, factors, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, **options)
    for step in range(STEPS):
        for group, (rate, _) in zip(optimizer.param_groups, factors, strict=True):
            group['lr'] = rates(step) * rate
        values = [p.detach().numpy() for p in parameters]
        for p, gradient in zip(parameters, gradients(step, values), strict=True):
            p.grad = torch.tensor(gradient)
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


def test_update_worked_by_hand():
    # d = 2 + 0.1 * 10 = 3; v = 0.5 * 4 + 3 = 5.
    options = {'momentum': 0.5, 'weight_decay': 0.1}
    assert sgd_step(10.0, 2.0, 4.0, 0.2, **options) == (0.2 * 5.0, 5.0)
    # Nesterov's step: d + 0.5 * v = 5.5.
    assert sgd_step(10.0, 2.0, 4.0, 0.2, nesterov=True, **options) == (0.2 * 5.5, 5.0)
    assert sgd_step(10.0, 2.0, None, 0.2) == (0.2 * 2.0, None)
    assert sgd_step(10.0, 2.0, None, 0.2, weight_decay=0.1) == (0.2 * 3.0, None)


def test_update_with_the_rate_in_the_velocity_worked_by_hand():
    # d = 0.2 * (2 + 0.1 * 10) = 0.6; v = 0.5 * 4 + 0.6 = 2.6; Nesterov's step: 0.6 + 0.5 * 2.6.
    options = {'momentum': 0.5, 'weight_decay': 0.1, 'rate_in_velocity': True}
    assert sgd_step(10.0, 2.0, 4.0, 0.2, **options) == pytest.approx((2.6, 2.6))
    assert sgd_step(10.0, 2.0, 4.0, 0.2, nesterov=True, **options) == pytest.approx((1.9, 2.6))
    assert sgd_step(10.0, 2.0, None, 0.2, rate_in_velocity=True) == (0.4, None)


def test_two_steps_worked_by_hand():
    variable = keras.Variable(np.float32([1.0]), name='kernel')
    optimizer = SGD(0.1, momentum=0.5, nesterov=True, weight_decay=0.2)
    # d = 1 + 0.2 * 1 = 1.2; v = 1.2; w = 1 - 0.1 * (1.2 + 0.6) = 0.82.
    optimizer.apply([ops.convert_to_tensor(np.float32([1.0]))], [variable])
    np.testing.assert_allclose(numpy_of([variable])[0], [0.82], rtol=1e-6)
    # d = -1 + 0.2 * 0.82 = -0.836; v = 0.6 - 0.836 = -0.236;
    # w = 0.82 - 0.1 * (-0.836 - 0.118) = 0.9154.
    optimizer.apply([ops.convert_to_tensor(np.float32([-1.0]))], [variable])
    np.testing.assert_allclose(numpy_of([variable])[0], [0.9154], rtol=1e-6)
    np.testing.assert_allclose(numpy_of(optimizer.velocities)[0], [-0.236], rtol=1e-5)
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 2


@pytest.mark.parametrize('compiled', COMPILED)
@pytest.mark.parametrize('options', VARIANTS)
def test_many_steps_equal_numpy(options, compiled):
    found = train(SGD(RATES, **options), weights(), STEPS, compiled=compiled)
    assert_same(found, numpy_train(RATES, **options))


@pytest.mark.parametrize('options', VARIANTS)
def test_many_steps_equal_torch(options):
    expected = torch_train(RATES, **options)
    assert_same(train(SGD(RATES, **options), weights(), STEPS), expected)


@pytest.mark.parametrize('compiled', COMPILED)
def test_groups_equal_numpy(compiled):
    options = {'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.02}
    # The groups quadruple a rate, so a lower one keeps the steps stable.
    rates = OneCycle(0.1, STEPS, 15)
    found = train(SGD(rates, groups=GROUPS, **options), weights(), STEPS, compiled=compiled)
    assert_same(found, numpy_train(rates, factors=FACTORS, **options))


def test_groups_equal_torch_parameter_groups():
    options = {'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.02}
    rates = OneCycle(0.1, STEPS, 15)
    expected = torch_train(rates, factors=FACTORS, **options)
    assert_same(train(SGD(rates, groups=GROUPS, **options), weights(), STEPS), expected)


@pytest.mark.parametrize('compiled', COMPILED)
@pytest.mark.parametrize('options', VARIANTS[2:])
def test_many_steps_with_the_rate_in_the_velocity_equal_page(options, compiled):
    optimizer = SGD(RATES, rate_in_velocity=True, **options)
    assert_same(train(optimizer, weights(), STEPS, compiled=compiled), page_train(RATES, **options))


def test_groups_with_the_rate_in_the_velocity_equal_page():
    options = {'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.02}
    rates = OneCycle(0.1, STEPS, 15)
    optimizer = SGD(rates, groups=GROUPS, rate_in_velocity=True, **options)
    expected = page_train(rates, factors=FACTORS, **options)
    assert_same(train(optimizer, weights(), STEPS), expected)


@pytest.mark.parametrize('nesterov', [False, True])
def test_with_the_rate_in_the_velocity_it_is_keras_sgd_without_decay(nesterov):
    options = {'momentum': 0.9, 'nesterov': nesterov}
    ours = train(SGD(RATES, rate_in_velocity=True, **options), weights(), STEPS)
    assert_same(ours, train(keras.optimizers.SGD(RATES, **options), weights(), STEPS))


def test_how_keras_sgd_differs_when_the_rate_changes():
    # A gradient of 1 at rates 1 and then 0.1, momentum 0.5, from 0:
    # here v = 1, then 1.5, so w = -1 - 0.1 * 1.5; Keras's velocity -1 still holds the old rate,
    # so w = -1 + (0.5 * -1 - 0.1).
    ends = []
    for kind in (SGD, keras.optimizers.SGD):
        variable = keras.Variable(np.zeros(1, 'float32'), name='kernel')
        optimizer = kind(1.0, momentum=0.5)
        for rate in (1.0, 0.1):
            optimizer.learning_rate = rate
            optimizer.apply([ops.convert_to_tensor(np.ones(1, 'float32'))], [variable])
        ends.append(numpy_of([variable])[0][0])
    np.testing.assert_allclose(ends, [-1.15, -1.6], rtol=1e-6)


def test_how_keras_sgd_differs_in_weight_decay():
    # No gradient, decay 0.1, rate 0.5, momentum 0.5, from 1. Both reach 0.95; then
    # here d = 0.095, v = 0.5 * 0.1 + d = 0.145, w = 0.95 - 0.5 * v; Keras only scales by 0.95.
    ends = []
    for kind in (SGD, keras.optimizers.SGD):
        variable = keras.Variable(np.ones(1, 'float32'), name='kernel')
        optimizer = kind(0.5, momentum=0.5, weight_decay=0.1)
        for _ in range(2):
            optimizer.apply([ops.convert_to_tensor(np.zeros(1, 'float32'))], [variable])
        ends.append(numpy_of([variable])[0][0])
    np.testing.assert_allclose(ends, [0.8775, 0.9025], rtol=1e-6)


@pytest.mark.parametrize('nesterov', [False, True])
def test_keras_sgd_agrees_at_a_constant_rate_without_decay(nesterov):
    ours = train(SGD(0.1, momentum=0.9, nesterov=nesterov), weights(), STEPS)
    keras_sgd = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov)
    assert_same(ours, train(keras_sgd, weights(), STEPS))


def test_a_rate_factor_of_zero_freezes():
    variables = weights()
    before = numpy_of(variables)
    group = ParameterGroup('kernel', learning_rate=0.0)
    after = train(SGD(0.1, momentum=0.9, weight_decay=0.1, groups=[group]), variables, steps=3)
    for i, moved in enumerate((False, True, True, False)):
        assert np.array_equal(before[i], after[i]) is not moved


def test_clips_before_decay():
    def end(**clip):
        variable = keras.Variable(np.float32([10.0, 0.0]), name='kernel')
        optimizer = SGD(1.0, weight_decay=0.1, **clip)
        optimizer.apply([ops.convert_to_tensor(np.float32([3.0, 4.0]))], [variable])
        return numpy_of([variable])[0]

    np.testing.assert_allclose(end(), [6.0, -4.0], rtol=1e-6)
    np.testing.assert_allclose(end(clipnorm=1.0), [8.4, -0.8], rtol=1e-5)
    np.testing.assert_allclose(end(global_clipnorm=1.0), [8.4, -0.8], rtol=1e-5)
    np.testing.assert_allclose(end(clipvalue=3.5), [6.0, -3.5], rtol=1e-6)


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'learning_rate': -0.1}, 'learning_rate'),
        ({'learning_rate': float('nan')}, 'learning_rate'),
        ({'learning_rate': 'fast'}, 'learning_rate'),
        ({'momentum': 1.0}, 'momentum'),
        ({'momentum': 1.5}, 'momentum'),
        ({'momentum': -0.1}, 'momentum'),
        ({'weight_decay': -1e-4}, 'weight_decay'),
        ({'weight_decay': float('inf')}, 'weight_decay'),
        ({'nesterov': True}, 'nesterov'),
        ({'rate_in_velocity': 'no'}, 'rate_in_velocity'),
        ({'groups': ['bias']}, 'groups'),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` .*Received: ') as error:
        SGD(**{'learning_rate': 0.1, **arguments})
    assert '\n' not in str(error.value)


def test_exclusions_by_method_are_refused():
    with pytest.raises(NotImplementedError, match='ParameterGroup'):
        SGD(0.1).exclude_from_weight_decay(var_names=['bias'])


@pytest.mark.parametrize('rate', [0.1, 1, RATES], ids=['float', 'int', 'schedule'])
def test_config_round_trip(rate):
    optimizer = SGD(
        rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        rate_in_velocity=True,
        groups=GROUPS,
        clipnorm=2.0,
        name='s',
    )
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(config)
    assert type(again) is SGD
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.nesterov, again.weight_decay) == (0.9, True, 5e-4)
    assert (again.groups, again.clipnorm, again.name) == (GROUPS, 2.0, 's')
    assert again.rate_in_velocity
    assert_same([float(ops.convert_to_numpy(again.learning_rate))],
                [rate(0) if callable(rate) else rate])  # fmt: skip


def test_velocities_only_with_momentum():
    for momentum, count in ((0.0, 2), (0.9, 2 + 4)):
        optimizer = SGD(0.1, momentum=momentum)
        optimizer.build(weights())
        assert len(optimizer.variables) == count


def classifier():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, use_bias=False, name='hidden'),
            keras.layers.BatchNormalization(name='bn'),
            keras.layers.Activation('relu'),
            keras.layers.Dense(3, name='head'),
        ]
    )


def blobs():
    """48 points, three classes that a small network can tell apart."""
    rng = np.random.default_rng(2)
    labels = np.arange(48) % 3
    return (np.eye(6)[labels] + 0.1 * rng.standard_normal((48, 6))).astype('float32'), labels


def new_optimizer():
    return SGD(
        OneCycle(peak=0.1, total_steps=12, warmup_steps=4, final=0.01),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        groups=[ParameterGroup('bias', learning_rate=2.0, weight_decay=0.5)],
    )


def fit(model, epochs):
    points, labels = blobs()
    return model.fit(points, labels, batch_size=16, epochs=epochs, shuffle=False, verbose=0)


def test_fit_save_load_and_go_on_as_if_never_stopped(tmp_path):
    whole = classifier()
    whole.compile(optimizer=new_optimizer(), loss=CrossEntropy(0.1), metrics=['accuracy'])
    history = fit(whole, epochs=4).history
    assert history['loss'][-1] < history['loss'][0]

    halves = classifier()
    halves.compile(optimizer=new_optimizer(), loss=CrossEntropy(0.1), metrics=['accuracy'])
    fit(halves, epochs=2)
    halves.save(tmp_path / 'half.keras')
    loaded = keras.models.load_model(tmp_path / 'half.keras')
    assert type(loaded.optimizer) is SGD
    assert loaded.optimizer.groups == halves.optimizer.groups
    assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 6
    assert_same(numpy_of(loaded.optimizer.velocities), numpy_of(halves.optimizer.velocities),
                rtol=0, atol=0)  # fmt: skip
    resumed = fit(loaded, epochs=2).history
    np.testing.assert_allclose(resumed['loss'], history['loss'][2:], rtol=1e-6)
    assert_same(loaded.get_weights(), whole.get_weights(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('policy', ['mixed_bfloat16', 'mixed_float16'])
def test_fit_in_mixed_precision_follows_float32(policy):
    ends = []
    for each in ('float32', policy):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(each)
        try:
            model = classifier()
            model.compile(optimizer=new_optimizer(), loss=CrossEntropy(0.1))
            fit(model, epochs=2)
        finally:
            keras.config.set_dtype_policy(before)
        ends.append(numpy_of(model.trainable_variables))
    # float16 has Keras wrap the optimizer; either way weights and velocities stay float32.
    inner = getattr(model.optimizer, 'inner_optimizer', model.optimizer)
    assert (inner is model.optimizer) == (policy == 'mixed_bfloat16')
    assert type(inner) is SGD
    assert {keras.backend.standardize_dtype(v.dtype) for v in inner.velocities} == {'float32'}
    assert int(ops.convert_to_numpy(inner.iterations)) == 6
    assert_same(*ends, rtol=0.1, atol=0.05)


def test_embedding_gradients():
    # TensorFlow's are sparse, yet decay and momentum move every row.
    model = keras.Sequential(
        [keras.Input((2,), dtype='int32'), keras.layers.Embedding(4, 3), keras.layers.Flatten()]
    )
    before = np.array(model.get_weights()[0])
    model.compile(optimizer=SGD(0.5, momentum=0.9, weight_decay=0.1), loss='mse')
    points, labels = np.zeros((8, 2), 'int32'), np.ones((8, 6), 'float32')
    model.fit(points, labels, batch_size=8, verbose=0)
    after = np.array(model.get_weights()[0])
    np.testing.assert_allclose(after[1:], 0.95 * before[1:], rtol=1e-5)
    # Row 0 is read twice in each example, out of six outputs: 2 / 3 * (w - 1), and the decay.
    slope = 2 / 3 * (before[0] - 1) + 0.1 * before[0]
    np.testing.assert_allclose(after[0], before[0] - 0.5 * slope, rtol=1e-5, atol=1e-6)

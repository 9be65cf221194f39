"""Muon against hand-worked steps, NumPy and PyTorch; which variable goes where; saving."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops
from newton_schulz_by_hand import COEFFICIENTS, through_singular_values
from optimizer_run import BACKEND, COMPILED, assert_same, gradients, numpy_of, train, variables_of

from fenwicks.losses import CrossEntropy
from fenwicks.optimizers import SGD, Muon, ParameterGroup, muon_rescale, muon_step
from fenwicks.schedules import AtSteps, OneCycle, PiecewiseLinear

STEPS = 25
RATES = OneCycle(peak=0.2, total_steps=STEPS, warmup_steps=10, final=0.02)
OTHER_RATES = PiecewiseLinear([(0, 0.05), (STEPS, 0.0)])
SHAPES = {
    'conv/kernel': (3, 3, 2, 5),
    'conv/bias': (5,),
    'wide/kernel': (2, 1, 1, 7),
    'dense/kernel': (6, 4),
    'bn/beta': (5,),
    'head/kernel': (4, 3),
}
VARIANTS = [
    {'momentum': 0.0, 'nesterov': False},
    {'nesterov': False},
    {'momentum': 0.9, 'ns_steps': 5},
    {'normalize_weights': True},
    {'weight_decay': 0.1, 'ns_steps': 1},
    {'normalize_weights': AtSteps([1, 4, 9, 15]), 'ns_coefficients': (3.4576, -4.7391, 2.0843)},
]


def new_muon(**options):
    others = SGD(
        OTHER_RATES,
        momentum=0.8,
        nesterov=True,
        weight_decay=0.01,
        groups=[
            ParameterGroup('head/kernel', learning_rate=2.0, weight_decay=0.5),
            ParameterGroup('conv/bias', schedule=PiecewiseLinear([(0, 0.1), (9, 0.0)])),
        ],
    )
    return Muon(RATES, others=others, others_match=['head/.*'], **options)


def numpy_train(
    momentum=0.6,
    nesterov=True,
    ns_steps=3,
    normalize_weights=False,
    weight_decay=0.0,
    ns_coefficients=COEFFICIENTS,
    steps=STEPS,
):
    """An independent Muon in float64, in the papers' layout: (outputs, inputs, height, width)."""
    names = list(SHAPES)
    weights = [w.astype('float64') for w in numpy_of(variables_of(SHAPES))]
    buffers = [np.zeros_like(w) for w in weights]
    for step in range(steps):
        for i, g in enumerate(gradients(step, weights)):
            if names[i] in ('conv/kernel', 'wide/kernel', 'dense/kernel'):
                w, g = np.moveaxis(weights[i], -1, 0), np.moveaxis(g, -1, 0)
                if w.ndim == 4:
                    w, g = w.transpose(0, 3, 1, 2), g.transpose(0, 3, 1, 2)
                buffers[i] = buffers[i].reshape(g.shape) * momentum + g
                g = g + momentum * buffers[i] if nesterov else buffers[i]
                every = isinstance(normalize_weights, bool)
                if normalize_weights if every else normalize_weights(step):
                    w = w * (len(w) ** 0.5 / np.linalg.norm(w))
                w = w * (1 - RATES(step) * weight_decay)
                matrix = g.reshape(len(g), -1)
                update = through_singular_values(matrix, ns_steps, ns_coefficients)
                w = w - RATES(step) * update.reshape(g.shape)
                w = w.transpose(0, 2, 3, 1) if w.ndim == 4 else w
                weights[i] = np.moveaxis(w, 0, -1)
            else:
                rate = {
                    'head/kernel': 2.0 * OTHER_RATES(step),
                    'conv/bias': 0.1 * max(0.0, 1 - step / 9),
                }.get(names[i], OTHER_RATES(step))
                decay = 0.005 if names[i] == 'head/kernel' else 0.01
                g = g + decay * weights[i]
                buffers[i] = 0.8 * buffers[i] + g
                weights[i] = weights[i] - rate * (g + 0.8 * buffers[i])
    return weights


def test_update_worked_by_hand():
    # A diagonal gradient (3, 4) has the norm 5; one step: s -> s * (1.5 - 0.5 * s**2) would be
    # the cubic; here a = 3.4445 etc. on s = 0.6 and 0.8.
    a, b, c = COEFFICIENTS
    s = np.array([0.6, 0.8])
    u = np.diag(a * s + b * s**3 + c * s**5)
    weight, gradient = np.float32([[2.0, 1.0], [0.0, 2.0]]), np.float32([[3.0, 0.0], [0.0, 4.0]])
    tensors = [ops.convert_to_tensor(x) for x in (gradient, 0 * gradient)]
    decrease, velocity = muon_step(*tensors, 0.1, momentum=0.5, ns_steps=1)
    assert_same(numpy_of([decrease, velocity]), [0.1 * u, gradient])
    # The norm of the weight is 3; it is brought to sqrt(2).
    weight = ops.convert_to_tensor(weight)
    assert_same(numpy_of([muon_rescale(weight, 0.1)]), numpy_of([weight]), rtol=0, atol=0)
    scaled = muon_rescale(weight, 0.1, normalize_weights=True)
    assert_same(numpy_of([scaled]), [numpy_of([weight])[0] * 2**0.5 / 3])
    scaled = muon_rescale(weight, 0.1, weight_decay=0.5)
    assert_same(numpy_of([scaled]), [numpy_of([weight])[0] * 0.95])


def test_one_step_worked_by_hand():
    a, b, c = COEFFICIENTS
    s = np.array([0.6, 0.8])
    u = np.diag(a * s + b * s**3 + c * s**5)
    weight, gradient = np.float32([[2.0, 1.0], [0.0, 2.0]]), np.float32([[3.0, 0.0], [0.0, 4.0]])
    for options, start in (
        ({}, weight),
        ({'normalize_weights': True}, weight * 2**0.5 / 3),
        ({'weight_decay': 0.5}, weight * 0.95),
    ):
        variable = keras.Variable(weight, name='kernel')
        optimizer = Muon(0.1, momentum=0.5, ns_steps=1, **options)
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        assert_same(numpy_of([variable]), [start - 0.1 * u])
        assert_same(numpy_of(optimizer.velocities), [gradient])


@pytest.mark.parametrize('options', VARIANTS)
def test_many_steps_equal_numpy(options):
    # Compiled as a graph where there is such a thing, which is the quickest.
    found = train(new_muon(**options), variables_of(SHAPES), STEPS, COMPILED[:2][-1])
    assert_same(found, numpy_train(**options), rtol=1e-3, atol=5e-4)


@pytest.mark.parametrize('compiled', COMPILED)
def test_few_steps_eagerly_and_compiled(compiled):
    found = train(new_muon(normalize_weights=True), variables_of(SHAPES), 4, compiled)
    assert_same(found, numpy_train(steps=4, normalize_weights=True), rtol=1e-3, atol=5e-4)


@pytest.mark.backend('tensorflow', 'jax')
def test_inside_a_compiled_loop():
    ones = [ops.convert_to_tensor(np.ones(shape, 'float32')) for shape in SHAPES.values()]
    expected = train(new_muon(), variables_of(SHAPES), 12, COMPILED[1], lambda *_: ones)
    optimizer, variables = new_muon(), variables_of(SHAPES)
    optimizer.build(variables)
    if BACKEND == 'tensorflow':
        import tensorflow as tf

        def body(step):
            optimizer.apply(ones, variables)
            return (step + 1,)

        tf.function(lambda: tf.while_loop(lambda step: step < 12, body, (tf.constant(0),)))()
        found = variables
    else:
        import jax

        state = [[v.value for v in part] for part in (variables, optimizer.variables)]
        found, _ = jax.jit(
            lambda *state: jax.lax.fori_loop(
                0, 12, lambda _, both: optimizer.stateless_apply(both[1], ones, both[0]), state
            )
        )(*state)
    assert_same(numpy_of(found), expected, atol=1e-4)


def test_many_steps_equal_torch():
    # The orthogonalisation in the record's form, on PyTorch's kernel layout.
    torch = pytest.importorskip('torch')
    a, b, c = COEFFICIENTS
    kernels = {'conv/kernel': (3, 3, 2, 5), 'dense/kernel': (6, 4)}
    weights = [torch.tensor(np.moveaxis(w, -1, 0)) for w in numpy_of(variables_of(kernels))]
    buffers = [torch.zeros_like(w) for w in weights]
    for step in range(STEPS):
        values = [np.moveaxis(w.numpy(), 0, -1) for w in weights]
        for w, buffer, g in zip(weights, buffers, gradients(step, values), strict=True):
            g = torch.tensor(np.moveaxis(g, -1, 0))
            buffer.mul_(0.6).add_(g)
            g = g.add(buffer, alpha=0.6).flatten(1)
            x = g / g.norm()
            for _ in range(3):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            w.mul_(len(w) ** 0.5 / w.norm()).sub_(RATES(step) * x.view(w.shape))
    found = train(
        Muon(RATES, normalize_weights=True), variables_of(kernels), STEPS, COMPILED[:2][-1]
    )
    assert_same(found, [np.moveaxis(w.numpy(), 0, -1) for w in weights], rtol=1e-3, atol=5e-4)


@pytest.mark.parametrize('rate', [0.1, RATES], ids=['constant', 'schedule'])
def test_without_others_the_rest_is_sgd_at_the_same_rate(rate):
    shapes = {'bn/beta': (5,), 'head/kernel': (4, 3)}
    muon = Muon(rate, momentum=0.7, weight_decay=0.1, others_match=['kernel'])
    found = train(muon, variables_of(shapes), 10)
    expected = train(SGD(rate, momentum=0.7, nesterov=True), variables_of(shapes), 10)
    assert_same(found, expected, rtol=1e-6)


def test_the_state_can_be_set():
    shapes = {'dense/kernel': (4, 3), 'dense/bias': (3,)}
    one, other = (Muon(0.1, others=SGD(rate, momentum=0.9)) for rate in (0.2, 0.3))
    variables, others = variables_of(shapes), variables_of(shapes)
    train(one, variables, 3)
    other.build(others)
    state = numpy_of(one.variables)
    with pytest.raises(ValueError, match=r'^`weights` must be arrays of the shapes of `variables`'):
        other.set_weights([*state[:-1], np.zeros(7)])
    assert int(other.iterations) == 0
    other.set_weights(state)
    assert_same(numpy_of(other.variables), state, rtol=0, atol=0)
    assert float(other.others.learning_rate) == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r'^the optimizer must be built'):
        Muon(0.1).set_weights(state)


def test_constant_rates_can_be_set_anew():
    shapes = {'dense/kernel': (4, 3), 'dense/bias': (3,)}
    variables = variables_of(shapes)
    muon = Muon(0.1, others=SGD(0.2))
    ends = [numpy_of(variables), train(muon, variables, 1)]
    muon.learning_rate = 0.0
    ends.append(train(muon, variables, 1))
    muon.others.learning_rate = 0.0
    ends.append(train(muon, variables, 1))
    moved = [
        [not np.array_equal(a, b) for a, b in zip(*pair, strict=True)]
        for pair in itertools.pairwise(ends)
    ]
    assert moved == [[True, True], [False, True], [False, False]]


def test_velocities_only_with_momentum():
    for momentum, other, count in ((0.0, 0.0, 0), (0.6, 0.0, 3), (0.0, 0.9, 3), (0.6, 0.9, 6)):
        muon = Muon(RATES, momentum=momentum, nesterov=False, others=SGD(RATES, momentum=other),
                    others_match=['head/kernel'])  # fmt: skip
        muon.build(variables_of(SHAPES))
        assert len(muon.variables) == 1 + count


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'learning_rate': -0.1}, 'learning_rate'),
        ({'learning_rate': 'fast'}, 'learning_rate'),
        ({'momentum': 1.0}, 'momentum'),
        ({'momentum': 0.0}, 'nesterov'),
        ({'ns_steps': 0}, 'ns_steps'),
        ({'ns_dtype': 'float16'}, 'ns_dtype'),
        ({'ns_coefficients': (1, 2)}, 'ns_coefficients'),
        ({'ns_coefficients': ('a', 2, 3)}, 'ns_coefficients'),
        ({'normalize_weights': abs}, 'normalize_weights'),
        ({'normalize_weights': 'yes'}, 'normalize_weights'),
        ({'normalize_weights': [1, 2]}, 'normalize_weights'),
        ({'normalize_weights': AtSteps}, 'normalize_weights'),
        ({'weight_decay': 0.1, 'normalize_weights': AtSteps([1])}, 'weight_decay'),
        ({'weight_decay': -0.1}, 'weight_decay'),
        ({'weight_decay': 0.1, 'normalize_weights': True}, 'weight_decay'),
        ({'others': keras.optimizers.SGD(0.1)}, 'others'),
        ({'others': SGD(0.1, clipnorm=1.0)}, 'others'),
        ({'others_match': 'head'}, 'others_match'),
        ({'others_match': ['(']}, 'others_match'),
        ({'others_match': [3]}, 'others_match'),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` .*Received: ') as error:
        Muon(**{'learning_rate': 0.1, **arguments})
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'rule'),
    [
        ({'others_match': ['head']}, r"`others_match` must match .*Received: others_match='head'"),
        # A kernel of Muon's is no business of the groups of SGD.
        ({'others': SGD(0.1, groups=[ParameterGroup('conv/kernel')])}, '`groups` must match'),
    ],
)
def test_patterns_that_match_nothing_leave_the_optimizer_unbuilt(options, rule):
    optimizer = Muon(0.1, **options)
    with pytest.raises(ValueError, match=rule):
        optimizer.build(variables_of(SHAPES))
    assert not optimizer.built


def test_biases_of_rank_two_are_no_kernels():
    attention = keras.layers.MultiHeadAttention(2, 3)
    attention.build((None, 4, 6), (None, 4, 6))
    weights = attention.trainable_variables
    assert any(each.name == 'bias' and len(each.shape) == 2 for each in weights)
    optimizer = Muon(0.0, momentum=0.0, nesterov=False, others=SGD(1.0))
    optimizer.build(weights)
    before = [np.array(ops.convert_to_numpy(each)) for each in weights]
    optimizer.apply([ops.ones(each.shape) for each in weights])
    for weight, old in zip(weights, before, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(weight), old - (weight.name == 'bias'))


def test_exclusions_by_method_are_refused():
    with pytest.raises(NotImplementedError, match='others_match'):
        Muon(0.1).exclude_from_weight_decay(var_names=['bias'])


@pytest.mark.parametrize('others', [None, SGD(OTHER_RATES, momentum=0.8), SGD(0.1)])
def test_config_round_trip(others):
    optimizer = Muon(RATES, 0.7, False, 4, 'bfloat16', True, 0.0, others, ['head/.*'], name='m')
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(config)
    assert type(again) is Muon
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.nesterov, again.ns_steps) == (0.7, False, 4)
    assert (again.ns_dtype, again.normalize_weights, again.name) == ('bfloat16', True, 'm')
    assert again.others_match == ('head/.*',)
    assert (again.others is None) == (others is None)
    assert Muon.from_config(Muon(0.1, weight_decay=0.2).get_config()).weight_decay == 0.2


def test_when_to_normalize_and_the_coefficients_are_saved():
    optimizer = Muon(0.1, normalize_weights=AtSteps([2, 5]), ns_coefficients=(3, -4, 2))
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(config)
    assert again.normalize_weights.steps == (2, 5)
    assert again.ns_coefficients == (3.0, -4.0, 2.0)
    assert again.get_config() == optimizer.get_config()


def classifier(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(scale=False),
            keras.layers.Activation('relu'),
            keras.layers.GlobalMaxPool2D(),
            keras.layers.Dense(3, name='head'),
        ]
    )
    model.compile(optimizer=optimizer, loss=CrossEntropy(0.1))
    return model


def fit(model, epochs):
    rng = np.random.default_rng(2)
    labels = np.arange(48) % 3
    images = 0.3 * rng.standard_normal((48, 6, 6, 2)) + np.eye(6)[labels][:, :, None, None]
    history = model.fit(
        images.astype('float32'), labels, 16, epochs=epochs, shuffle=False, verbose=0
    )
    return history.history['loss']


def fitting_muon():
    rate = OneCycle(peak=0.1, total_steps=12, warmup_steps=4)
    others = SGD(0.1, momentum=0.9, groups=[ParameterGroup('bias', 2.0)])
    return Muon(rate, normalize_weights=True, others=others, others_match=['.*head/kernel'])


def test_fit_save_load_and_go_on_as_if_never_stopped(tmp_path):
    whole = classifier(fitting_muon())
    losses = fit(whole, epochs=4)
    assert losses[-1] < 0.9 * losses[0]
    halves = classifier(fitting_muon())
    fit(halves, epochs=2)
    halves.save(tmp_path / 'half.keras')
    loaded = keras.models.load_model(tmp_path / 'half.keras')
    assert type(loaded.optimizer) is Muon
    assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 6
    np.testing.assert_allclose(fit(loaded, epochs=2), losses[2:], rtol=1e-5)
    assert_same(loaded.get_weights(), whole.get_weights(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('policy', ['mixed_float16', 'bfloat16'])
def test_fit_in_low_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = classifier(fitting_muon())
    losses = fit(model, epochs=4)
    assert losses[-1] < 0.95 * losses[0]
    inner = getattr(model.optimizer, 'inner_optimizer', model.optimizer)
    assert type(inner) is Muon
    dtype = 'bfloat16' if policy == 'bfloat16' else 'float32'
    assert {v.dtype for v in inner.velocities} == {dtype}


@pytest.mark.parametrize('rate', [0.3, PiecewiseLinear([(0, 0.1), (10, 0)])])
def test_a_new_rate_of_the_others_costs_no_state(rate, tmp_path):
    """After a schedule in the place of a number nothing of the optimizer was loaded."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(Muon(0.02, others=SGD(0.1, momentum=0.9)), CrossEntropy())
    data = np.ones((4, 4), np.float32), np.arange(4) % 3
    model.fit(*data, verbose=0)
    model.optimizer.others.learning_rate = rate
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras').optimizer
    assert int(loaded.iterations) == 1
    for one, other in zip(loaded.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
    assert float(loaded.others.learning_rate) == pytest.approx(0.3 if rate == 0.3 else 0.1)

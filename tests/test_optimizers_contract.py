"""The contract of all optimizers: what each of them does as Keras's own do."""

import functools
import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_run import COMPILED, assert_same, numpy_of, train, variables_of

from fenwicks.optimizers import LARS, SGD, Muon, ParameterGroup
from fenwicks.schedules import OneCycle, PiecewiseLinear

GROUPS = (
    ParameterGroup('bias', learning_rate=2.0, weight_decay=0.5),
    ParameterGroup('.*head/kernel', schedule=PiecewiseLinear([(0, 0.02), (9, 0.0)])),
)
OPTIMIZERS = {
    'sgd': functools.partial(SGD),
    'sgd_nesterov': functools.partial(
        SGD, momentum=0.9, nesterov=True, weight_decay=0.01, groups=GROUPS
    ),
    'sgd_page': functools.partial(
        SGD, momentum=0.9, nesterov=True, weight_decay=0.01, groups=GROUPS, rate_in_velocity=True
    ),
    'lars': functools.partial(LARS, weight_decay=0.01, trust_coefficient=0.5, groups=GROUPS),
    'muon': functools.partial(Muon),
    'muon_others': functools.partial(
        Muon,
        normalize_weights=True,
        others=SGD(0.05, momentum=0.8, weight_decay=0.01, groups=GROUPS),
        others_match=['.*head/kernel'],
    ),
}
SHAPES = {'conv/kernel': (3, 3, 2, 5), 'conv/bias': (5,), 'bn/gamma': (5,), 'head/kernel': (4, 3)}
SCHEDULE = OneCycle(peak=0.05, total_steps=12, warmup_steps=4, final=0.01)
# What `keras.optimizers.SGD` takes beside the settings of its update.
KERAS_ARGUMENTS = (
    'clipnorm',
    'clipvalue',
    'global_clipnorm',
    'use_ema',
    'ema_momentum',
    'ema_overwrite_frequency',
    'loss_scale_factor',
    'gradient_accumulation_steps',
    'name',
)

each = pytest.mark.parametrize('make', OPTIMIZERS.values(), ids=OPTIMIZERS)


def weights():
    return variables_of(SHAPES)


def apply_all(optimizer, variables, steps):
    """Applies each of the lists of NumPy gradients in turn; returns the weights."""
    for gradients in steps:
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    return numpy_of(variables)


def some_gradients(count, scale=1.0):
    rng = np.random.default_rng(7)
    return [
        [scale * rng.standard_normal(shape).astype('float32') for shape in SHAPES.values()]
        for _ in range(count)
    ]


def through_json(optimizer):
    return keras.optimizers.deserialize(
        json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    )


@pytest.fixture(name='_promotion_of_keras')
def _promotion_of_keras_fixture():
    """On JAX Keras's own moving average multiplies integers by floats."""
    if keras.backend.backend() != 'jax':
        yield
        return
    import jax

    with jax.numpy_dtype_promotion('standard'):
        yield


@each
@pytest.mark.usefixtures('_promotion_of_keras')
@pytest.mark.parametrize('rate', [0.05, SCHEDULE], ids=['constant', 'schedule'])
def test_config_round_trip(make, rate):
    optimizer = make(rate, clipnorm=2.0, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7,
                     loss_scale_factor=8.0, gradient_accumulation_steps=3, name='mine')  # fmt: skip
    again = through_json(optimizer)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    for name in inspect.signature(type(optimizer)).parameters:
        if name not in ('learning_rate', 'groups', 'others'):
            assert getattr(again, name) == getattr(optimizer, name), name
        assert name in optimizer.get_config()
    steps = some_gradients(6)
    assert_same(apply_all(again, weights(), steps), apply_all(make(rate, clipnorm=2.0,
                use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7, loss_scale_factor=8.0,
                gradient_accumulation_steps=3), weights(), steps), rtol=1e-6)  # fmt: skip


@each
def test_takes_the_arguments_of_keras_optimizers(make):
    parameters = inspect.signature(make.func).parameters
    for name in KERAS_ARGUMENTS:
        assert name in parameters
        keras_default = inspect.signature(keras.optimizers.SGD).parameters[name].default
        assert parameters[name].default == (None if name == 'name' else keras_default)


@each
def test_a_constant_rate_is_a_constant_schedule(make):
    steps = some_gradients(4)
    schedule = PiecewiseLinear([(0, 0.05), (1, 0.05)])
    expected = apply_all(make(0.05), weights(), steps)
    assert_same(apply_all(make(schedule), weights(), steps), expected, rtol=1e-6)
    assert_same(apply_all(make(lambda: 0.05), weights(), steps), expected, rtol=1e-6)


@each
@pytest.mark.parametrize('compiled', COMPILED[1:])
def test_compiled_steps_are_the_eager_ones(make, compiled):
    expected = train(make(SCHEDULE), weights(), 5)
    found = train(make(SCHEDULE), weights(), 5, compiled)
    assert_same(found, expected, rtol=1e-3, atol=1e-4)


@each
def test_minimises_a_quadratic(make):
    target = [value + 0.3 for value in numpy_of(weights())]
    norm = np.sqrt(SHAPES['conv/kernel'][-1])

    def gradients(step, values):
        return [value - goal for value, goal in zip(values, target, strict=True)]

    optimizer = make(PiecewiseLinear([(0, 0.1), (60, 0.0)]))
    ends = train(optimizer, weights(), 60, COMPILED[:2][-1], gradients)
    if getattr(optimizer, 'normalize_weights', False):  # then the norm of a kernel is given
        target[0] = target[0] * norm / np.linalg.norm(target[0])
        ends[0] = ends[0] * norm / np.linalg.norm(ends[0])
    for name, start, end, goal in zip(SHAPES, numpy_of(weights()), ends, target, strict=True):
        away = np.linalg.norm(end - goal) / np.linalg.norm(start - goal)
        # The schedule of the head in GROUPS has ended long before.
        assert away < (0.9 if name == 'head/kernel' else 0.6), (name, away)


@each
def test_clipping_is_that_of_keras(make):
    steps = some_gradients(3, scale=4.0)
    flat = [np.concatenate([g.ravel() for g in gradients]) for gradients in steps]
    clipped = {
        'clipvalue': [[np.clip(g, -1.5, 1.5) for g in gradients] for gradients in steps],
        'clipnorm': [
            [g * min(1, 1.5 / np.linalg.norm(g)) for g in gradients] for gradients in steps
        ],
        'global_clipnorm': [
            [g * min(1, 1.5 / np.linalg.norm(all_of_them)) for g in gradients]
            for gradients, all_of_them in zip(steps, flat, strict=True)
        ],
    }
    for name, by_hand in clipped.items():
        found = apply_all(make(0.05, **{name: 1.5}), weights(), steps)
        assert_same(found, apply_all(make(0.05), weights(), by_hand), rtol=1e-4)


@each
def test_scaled_losses(make):
    steps = some_gradients(3)
    scaled = [[64.0 * g for g in gradients] for gradients in steps]
    optimizer = make(0.05, loss_scale_factor=64.0)
    assert float(ops.convert_to_numpy(optimizer.scale_loss(ops.convert_to_tensor(0.5)))) == 32.0
    found = apply_all(optimizer, weights(), scaled)
    assert_same(found, apply_all(make(0.05), weights(), steps), rtol=1e-5)


@each
@pytest.mark.parametrize('compiled', COMPILED[:2])
def test_accumulated_gradients_are_their_mean(make, compiled):
    steps = some_gradients(6)
    means = [[np.mean(pair, axis=0) for pair in zip(*steps[i : i + 3], strict=True)]
             for i in (0, 3)]  # fmt: skip
    found = train(
        make(0.05, gradient_accumulation_steps=3), weights(), 6, compiled, lambda i, _: steps[i]
    )
    # A schedule counts every step, so that of GROUPS is read at 2 and 5.
    groups = [
        ParameterGroup('bias', learning_rate=2.0, weight_decay=0.5),
        ParameterGroup(
            '.*head/kernel', schedule=PiecewiseLinear([(0, 0.02 * 7 / 9), (1, 0.02 * 4 / 9)])
        ),
    ]
    options = dict(make.keywords)
    if 'groups' in options:
        options['groups'] = groups
    if 'others' in options:
        options['others'] = SGD(0.05, momentum=0.8, weight_decay=0.01, groups=groups)
    expected = apply_all(make.func(0.05, **options), weights(), means)
    assert_same(found, expected, rtol=1e-3, atol=1e-5)


@each
@pytest.mark.parametrize('compiled', COMPILED[:2])
def test_averaged_weights_are_those_of_keras(make, compiled):
    steps = some_gradients(4)
    plain, averages = make(0.05), None
    variables = weights()
    for step in steps:
        values = apply_all(plain, variables, [step])
        averages = averages or values
        averages = [0.6 * a + 0.4 * v for a, v in zip(averages, values, strict=True)]
    optimizer, variables = make(0.05, use_ema=True, ema_momentum=0.6), weights()
    found = train(optimizer, variables, 4, compiled, lambda i, _: steps[i])
    assert_same(found, values)
    optimizer.finalize_variable_values(variables)
    assert_same(numpy_of(variables), averages)


@each
def test_numpy_numbers_become_plain_ones(make):
    given = {'clipnorm': np.float32(2.0), 'loss_scale_factor': np.float64(4.0),
             'gradient_accumulation_steps': np.int64(2), 'use_ema': np.bool_(True),
             'ema_momentum': np.float32(0.5), 'ema_overwrite_frequency': np.int32(3)}  # fmt: skip
    optimizer = make(np.float32(0.5), **given)
    json.dumps(optimizer.get_config())
    again = make(0.5, **{name: value.item() for name, value in given.items()})
    expected = {**again.get_config(), 'name': optimizer.name}
    assert optimizer.get_config() == expected


@each
@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'clipnorm': -1.0}, 'clipnorm'),
        ({'clipvalue': 'much'}, 'clipvalue'),
        ({'global_clipnorm': float('nan')}, 'global_clipnorm'),
        ({'ema_momentum': 1.5}, 'ema_momentum'),
        ({'ema_overwrite_frequency': 0}, 'ema_overwrite_frequency'),
        ({'loss_scale_factor': 0.0}, 'loss_scale_factor'),
        ({'gradient_accumulation_steps': 1}, 'gradient_accumulation_steps'),
        ({'gradient_accumulation_steps': 2.5}, 'gradient_accumulation_steps'),
        ({'learning_rate': True}, 'learning_rate'),
        ({'learning_rate': PiecewiseLinear}, 'learning_rate'),
        ({'nesterov': 'no'}, 'nesterov'),
        ({'use_ema': 1}, 'use_ema'),
        ({'weight_decay': None}, 'weight_decay'),
    ],
)
def test_bad_arguments(make, arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must be .*Received: {name}=') as error:
        make(**{'learning_rate': 0.1, **arguments})
    assert '\n' not in str(error.value)


def classifier(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(8, 3, name='conv'),
            keras.layers.BatchNormalization(),
            keras.layers.Activation('relu'),
            keras.layers.GlobalMaxPool2D(),
            keras.layers.Dense(3, name='head'),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def fit(model, epochs):
    rng = np.random.default_rng(2)
    labels = np.arange(48) % 3
    images = 0.3 * rng.standard_normal((48, 6, 6, 2)) + np.eye(6)[labels][:, :, None, None]
    images = images.astype('float32')
    history = model.fit(images, labels, 16, epochs=epochs, shuffle=False, verbose=0)
    return history.history['loss']


@each
@pytest.mark.parametrize(
    'arguments',
    [
        pytest.param({}, id='plain'),
        pytest.param(
            {'gradient_accumulation_steps': 2, 'clipnorm': 1.0},
            id='accumulating',
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_saved_amid_training_it_goes_on_as_if_never_stopped(make, arguments, tmp_path):
    whole = classifier(make(SCHEDULE, **arguments))
    losses = fit(whole, epochs=4)
    assert losses[-1] < losses[0]
    halves = classifier(make(SCHEDULE, **arguments))
    fit(halves, epochs=2)
    halves.save(tmp_path / 'half.keras')
    loaded = keras.models.load_model(tmp_path / 'half.keras')
    assert type(loaded.optimizer) is make.func
    assert_same(numpy_of(loaded.optimizer.variables), numpy_of(halves.optimizer.variables),
                rtol=0, atol=0)  # fmt: skip
    np.testing.assert_allclose(fit(loaded, epochs=2), losses[2:], rtol=1e-5)
    assert_same(loaded.get_weights(), whole.get_weights(), rtol=1e-5, atol=1e-6)


@each
@pytest.mark.parametrize(
    'policy',
    [
        'mixed_bfloat16',
        pytest.param('mixed_float16', marks=pytest.mark.thorough),
        pytest.param('bfloat16', marks=pytest.mark.thorough),
    ],
)
def test_fit_in_low_precision(make, policy):
    keras.config.set_dtype_policy(policy)
    model = classifier(make(SCHEDULE))
    losses = fit(model, epochs=4)
    assert losses[-1] < losses[0]
    inner = getattr(model.optimizer, 'inner_optimizer', model.optimizer)
    assert (inner is model.optimizer) == (policy != 'mixed_float16')
    kept = 'bfloat16' if policy == 'bfloat16' else 'float32'
    slots = [v for v in inner.variables if len(v.shape) > 0]
    assert {keras.backend.standardize_dtype(v.dtype) for v in slots} <= {kept}

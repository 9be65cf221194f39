"""LARS against hand-worked steps and an independent implementation in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_run import COMPILED, assert_same, gradients, numpy_of, train, variables_of

from fenwicks.optimizers import LARS, SGD, ParameterGroup, lars_step
from fenwicks.schedules import OneCycle

STEPS = 30
RATES = OneCycle(peak=2.0, total_steps=STEPS, warmup_steps=10, final=0.1)
SHAPES = {'conv/kernel': (3, 3, 2, 5), 'conv/bias': (5,), 'bn/gamma': (5,), 'head/kernel': (4, 3)}
VARIANTS = [
    {'momentum': 0.0},
    {},
    {'weight_decay': 0.05},
    {'weight_decay': 0.05, 'nesterov': True},
    {'weight_decay': 0.05, 'rate_in_velocity': False},
    {'momentum': 0.5, 'nesterov': True, 'rate_in_velocity': False},
]


def numpy_train(momentum=0.9, nesterov=False, weight_decay=0.0, rate_in_velocity=True):
    """The paper's algorithm in float64: kernels scaled, vectors not."""
    weights = [w.astype('float64') for w in numpy_of(variables_of(SHAPES))]
    velocities = [np.zeros_like(w) for w in weights]
    for step in range(STEPS):
        rate = RATES(step)
        for i, g in enumerate(gradients(step, weights)):
            w, local = weights[i], 1.0
            if w.ndim > 1:
                size, slope = np.sqrt((w**2).sum()), np.sqrt((g.astype('float64') ** 2).sum())
                local = 0.1 * size / (slope + weight_decay * size)
            pull = local * (g + weight_decay * w)
            inside, outside = (rate, 1.0) if rate_in_velocity else (1.0, rate)
            velocities[i] = momentum * velocities[i] + inside * pull
            ahead = inside * pull + momentum * velocities[i]
            weights[i] = w - outside * (ahead if nesterov else velocities[i])
    return weights


def test_update_worked_by_hand():
    # norm(w) = 5, norm(g) = 10: trust = 0.1 * 5 / (10 + 0.2 * 5) = 1 / 22;
    # g + 0.2 * w = [[0.6, 6], [8, 0.8]]; at a rate of 2 d = that / 11.
    weight, gradient = np.float32([[3, 0], [0, 4]]), np.float32([[0, 6], [8, 0]])
    d = np.float32([[0.6, 6.0], [8.0, 0.8]]) / 11
    velocity = np.float32([[1, 0], [0, 0]])
    tensors = [ops.convert_to_tensor(x) for x in (weight, gradient, velocity)]
    options = {'momentum': 0.5, 'weight_decay': 0.2, 'trust_coefficient': 0.1}
    v = 0.5 * velocity + d
    assert_same(numpy_of(lars_step(*tensors, 2.0, **options)), [v, v])
    found = lars_step(*tensors, 2.0, nesterov=True, **options)
    assert_same(numpy_of(found), [d + 0.5 * v, v])
    # With the rate outside the velocity: v = 0.5 * velocity + d / 2, and twice that is taken.
    v = 0.5 * velocity + d / 2
    found = lars_step(*tensors, 2.0, rate_in_velocity=False, **options)
    assert_same(numpy_of(found), [2 * v, v])


@pytest.mark.parametrize('zero', ['weight', 'gradient', 'both'])
def test_a_norm_of_zero_leaves_the_rate(zero):
    weight = ops.convert_to_tensor(np.zeros((2, 2), 'float32') + (zero == 'gradient'))
    gradient = ops.convert_to_tensor(np.zeros((2, 2), 'float32') + 2 * (zero == 'weight'))
    step, _ = lars_step(weight, gradient, 0 * weight, 0.5, momentum=0.9, weight_decay=0.1)
    expected = {'weight': 1.0, 'gradient': 0.05, 'both': 0.0}[zero]
    assert_same(numpy_of([step]), [np.full((2, 2), expected)])


def test_a_step_is_a_share_of_the_norm_whatever_the_gradients_scale():
    rng = np.random.default_rng(0)
    weight, gradient = rng.standard_normal((2, 4, 3)).astype('float32')
    for scale in (1e-6, 1.0, 1e6):
        step, _ = lars_step(
            ops.convert_to_tensor(weight),
            ops.convert_to_tensor(scale * gradient),
            None,
            3.0,
            momentum=0.0,
            epsilon=0.0,
        )
        norms = [np.linalg.norm(x) for x in (*numpy_of([step]), weight)]
        np.testing.assert_allclose(norms[0], 0.003 * norms[1], rtol=1e-5)


@pytest.mark.parametrize('compiled', COMPILED)
@pytest.mark.parametrize('options', VARIANTS)
def test_many_steps_equal_numpy(options, compiled):
    optimizer = LARS(RATES, trust_coefficient=0.1, epsilon=0.0, **options)
    found = train(optimizer, variables_of(SHAPES), STEPS, compiled)
    assert_same(found, numpy_train(**options), rtol=1e-3, atol=1e-4)


def test_the_two_forms_agree_at_a_constant_rate():
    ends = [
        train(LARS(0.5, trust_coefficient=0.1, rate_in_velocity=form), variables_of(SHAPES), STEPS)
        for form in (True, False)
    ]
    assert_same(*ends)


def test_vectors_are_updated_by_sgd_and_groups_hold_for_all():
    groups = [ParameterGroup('bias', 3.0, 0.0), ParameterGroup('head/.*', 0.0)]
    start = numpy_of(variables_of(SHAPES))
    options = {'momentum': 0.9, 'weight_decay': 0.1, 'groups': groups}
    lars = train(LARS(0.1, **options), variables_of(SHAPES), 4)
    sgd = train(SGD(0.1, rate_in_velocity=True, **options), variables_of(SHAPES), 4)
    for i, (name, shape) in enumerate(SHAPES.items()):
        if len(shape) == 1:
            assert_same([lars[i]], [sgd[i]], rtol=1e-6)
        else:
            assert np.array_equal(lars[i], start[i]) == (name == 'head/kernel')


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'trust_coefficient': 0.0}, 'trust_coefficient'),
        ({'trust_coefficient': float('inf')}, 'trust_coefficient'),
        ({'epsilon': -1.0}, 'epsilon'),
        ({'momentum': 1.0}, 'momentum'),
        ({'rate_in_velocity': 1}, 'rate_in_velocity'),
        ({'groups': ['bias']}, 'groups'),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .*Received: '):
        LARS(**{'learning_rate': 1.0, **arguments})


def test_devices_do_not_divide_its_kernels():
    assert not LARS(1.0).elementwise
    assert SGD(1.0).elementwise


def test_configuration():
    optimizer = LARS(RATES, 0.8, True, 0.1, np.float32(0.5), 1e-6, False, name='l')
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is LARS
    assert again.get_config() == optimizer.get_config()
    assert (again.trust_coefficient, again.epsilon, again.rate_in_velocity) == (0.5, 1e-6, False)

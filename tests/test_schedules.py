"""Schedules against closed forms: at 0, at each knot, between, at the end and beyond."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.optimizers import SGD
from fenwicks.schedules import AtSteps, OneCycle, PiecewiseLinear, PowerRise, Warmup

KNOTS = [(0, 0.0), (10, 1.0), (40, 0.1), (50, 0.1), (50.5, 0.7)]
# One step before, at, between and beyond the knots, and their values worked by hand.
POINTS = [
    (-3, 0.0), (0, 0.0), (1, 0.1), (5, 0.5), (9, 0.9), (10, 1.0), (11, 0.97), (25, 0.55),
    (39, 0.13), (40, 0.1), (45, 0.1), (50, 0.1), (51, 0.7), (1000, 0.7), (10**7, 0.7),
]  # fmt: skip


def compiled(function):
    """The function compiled by the backend at hand (torch: as it is)."""
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if keras.backend.backend() == 'jax':
        import jax

        return jax.jit(function)
    return function


def at(schedule, step, dtype='int32'):
    """A schedule's value at an integer tensor, eagerly and compiled; both must agree."""
    step = ops.convert_to_tensor(step, dtype=dtype)
    eager, jitted = schedule(step), compiled(schedule)(step)
    for value in (eager, jitted):
        assert keras.backend.standardize_dtype(value.dtype) == 'float32'
    eager, jitted = ops.convert_to_numpy(eager), ops.convert_to_numpy(jitted)
    np.testing.assert_allclose(eager, jitted, rtol=1e-5, atol=1e-8)
    return eager


@pytest.mark.parametrize(('step', 'value'), POINTS)
def test_piecewise_linear_at_every_kind_of_point(step, value):
    schedule = PiecewiseLinear(KNOTS)
    np.testing.assert_allclose(at(schedule, step), value, rtol=1e-5)
    assert schedule(step) == pytest.approx(value)


def test_piecewise_linear_meets_knots_and_ends_exactly():
    schedule = PiecewiseLinear([(0, 0.3), (7, 0.4), (21, 0.0)])
    assert at(schedule, 0) == np.float32(0.3)
    assert at(schedule, 7) == np.float32(0.4)
    assert at(schedule, 21) == 0.0
    assert at(schedule, 22) == 0.0
    assert at(schedule, 20) > 0.0


def test_piecewise_linear_starts_late():
    schedule = PiecewiseLinear([(5, 0.2), (6, 0.4)])
    np.testing.assert_allclose([at(schedule, step) for step in (0, 4, 5, 6, 7)],
                               [0.2, 0.2, 0.2, 0.4, 0.4], rtol=1e-6)  # fmt: skip


@pytest.mark.parametrize('dtype', ['int32', 'int64', 'uint8', 'float32'])
def test_piecewise_linear_takes_any_number_type_and_shape(dtype):
    if dtype == 'int64' and keras.backend.backend() == 'jax':
        pytest.skip('JAX has no int64 by default')
    steps = [[0, 5], [25, 60]]
    values = at(PiecewiseLinear(KNOTS), steps, dtype)
    np.testing.assert_allclose(values, [[0.0, 0.5], [0.55, 0.7]], rtol=1e-5)


def test_piecewise_linear_between_whole_steps():
    values = at(PiecewiseLinear(KNOTS), [0.25, 50.0, 50.25, 50.5], 'float32')
    np.testing.assert_allclose(values, [0.025, 0.1, 0.4, 0.7], rtol=1e-5)


def test_piecewise_linear_takes_variables():
    iterations = keras.Variable(25, dtype='int', trainable=False)
    value = PiecewiseLinear(KNOTS)(iterations)
    np.testing.assert_allclose(ops.convert_to_numpy(value), 0.55, rtol=1e-6)


SCHEDULES = {
    'piecewise': PiecewiseLinear(KNOTS),
    'one_cycle': OneCycle(0.4, 100, 20, final=0.01),
    'one_cycle_without_warmup': OneCycle(0.4, 100, 0),
    'power_rise': PowerRise(0.95**5, 100, 3),
    'at_steps': AtSteps([0, 3, 57]),
    'warmup': Warmup(PiecewiseLinear(KNOTS), 7, initial=0.2),
    'warmup_of_number': Warmup(0.3, 7),
    'warmup_of_keras': Warmup(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9), 7),
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_plain_steps_give_plain_numbers_equal_to_the_tensors(name):
    schedule = SCHEDULES[name]
    steps = np.arange(120)
    curve = schedule(steps)
    assert isinstance(curve, np.ndarray)
    assert curve.shape == (120,)
    np.testing.assert_allclose(curve, at(schedule, steps), rtol=2e-5, atol=1e-7)
    for step in (3, 3.0, np.int64(3), np.float32(3)):
        assert type(schedule(step)) is float
        assert schedule(step) == pytest.approx(curve[3])


@pytest.mark.parametrize('name', SCHEDULES)
def test_config_round_trip(name):
    schedule = SCHEDULES[name]
    config = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    again = keras.optimizers.schedules.deserialize(config)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    steps = np.arange(120)
    np.testing.assert_array_equal(again(steps), schedule(steps))


def test_arguments_are_attributes():
    schedule = OneCycle(peak=0.4, total_steps=100, warmup_steps=20, final=0.1)
    assert (schedule.peak, schedule.total_steps) == (0.4, 100)
    assert (schedule.warmup_steps, schedule.final) == (20, 0.1)
    assert schedule.knots == ((0, 0), (20, 0.4), (100, 0.1))
    inner = PiecewiseLinear(KNOTS)
    warmup = Warmup(inner, 7, initial=0.2)
    assert (warmup.schedule, warmup.warmup_steps, warmup.initial) == (inner, 7, 0.2)
    assert inner.knots == tuple(KNOTS)


@pytest.mark.parametrize('step', [0, 1, 484, 485, 486, 1000, 2327, 2328, 5000])
def test_one_cycle_closed_form(step):
    # 24 epochs of 97 steps, five of them rising to 0.4.
    if step < 485:
        expected = 0.4 * step / 485
    else:
        expected = 0.4 * max(2328 - step, 0) / (2328 - 485)
    schedule = OneCycle(peak=0.4, total_steps=2328, warmup_steps=485)
    np.testing.assert_allclose(at(schedule, step), expected, rtol=1e-5)
    assert schedule(step) == pytest.approx(expected)


def test_one_cycle_without_warmup_starts_at_the_peak():
    schedule = OneCycle(peak=0.4, total_steps=100, warmup_steps=0, final=0.2)
    np.testing.assert_allclose(at(schedule, [0, 50, 100, 200]), [0.4, 0.3, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize('power', [0.5, 1, 3.0])
@pytest.mark.parametrize('step', [-2, 0, 1, 50, 99, 100, 101, 5000])
def test_power_rise_closed_form(step, power):
    expected = 0.8 * min(max(step, 0) / 100, 1) ** power
    schedule = PowerRise(0.8, 100, power)
    np.testing.assert_allclose(at(schedule, step), expected, rtol=1e-5, atol=1e-9)
    assert schedule(step) == pytest.approx(expected)
    assert (schedule.peak, schedule.total_steps, schedule.power) == (0.8, 100, power)


@pytest.mark.parametrize('step', [0, 1, 4, 9, 10, 11, 30, 75])
def test_warmup_before_exponential_decay(step):
    decay = keras.optimizers.schedules.ExponentialDecay(0.5, decay_steps=20, decay_rate=0.1)
    schedule = Warmup(decay, warmup_steps=10, initial=0.1)
    if step < 10:
        expected = 0.1 + (0.5 - 0.1) * step / 10
    else:
        expected = 0.5 * 0.1 ** ((step - 10) / 20)
    np.testing.assert_allclose(at(schedule, step), expected, rtol=1e-5)
    assert schedule(step) == pytest.approx(expected, rel=1e-5)


def test_warmup_of_a_linear_decay_is_one_cycle():
    linear = keras.optimizers.schedules.PolynomialDecay(0.4, 80, end_learning_rate=0.0, power=1.0)
    steps = np.arange(130)
    np.testing.assert_allclose(
        at(Warmup(linear, 20), steps), OneCycle(0.4, 100, 20)(steps), rtol=1e-5, atol=1e-7
    )


def test_warmup_of_a_number_stays_there():
    np.testing.assert_allclose(at(Warmup(0.3, 4), [0, 1, 4, 9]), [0, 0.075, 0.3, 0.3], rtol=1e-6)


def test_the_optimizer_uses_step_k_for_update_k_plus_one():
    weight = keras.Variable(np.zeros(1, 'float32'), name='kernel')
    optimizer = SGD(PiecewiseLinear([(0, 1.0), (1, 10.0), (2, 100.0)]))
    seen = []
    for _ in range(4):
        optimizer.apply([ops.convert_to_tensor(np.float32([-1.0]))], [weight])
        seen.append(float(ops.convert_to_numpy(weight)[0]))
    np.testing.assert_allclose(np.diff([0.0, *seen]), [1, 10, 100, 100], rtol=1e-6)


@pytest.mark.parametrize(
    ('knots', 'rule'),
    [
        ([], 'two or more'),
        ([(0, 1.0)], 'two or more'),
        ([(0, 1.0), 5], 'two or more'),
        ([(0, 1.0), (1, 2.0, 3.0)], 'two or more'),
        ([(0, 1.0), (1, float('nan'))], 'finite'),
        ([(0, 1.0), (float('inf'), 0.0)], 'finite'),
        ([(0, 'a'), (1, 'b')], 'two or more'),
        ([('0', '1'), ('1', '0')], 'two or more'),
        (['01', '12'], 'two or more'),
        ([(0, True), (1, 0.0)], 'two or more'),
        ([(False, 1.0), (1, 0.0)], 'two or more'),
        (None, 'two or more'),
        ([(0, 1.0), (0, 2.0)], 'strictly increasing'),
        ([(0, 1.0), (9, 2.0), (5, 2.0)], 'strictly increasing'),
        ([(0, 1.0), (1, -0.1)], '>= 0'),
    ],
)
def test_bad_knots(knots, rule):
    with pytest.raises(ValueError, match=rf'^`knots` must .*{rule}.* Received: knots='):
        PiecewiseLinear(knots)


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ((0.4, 100, 100), 'warmup_steps'),
        ((0.4, 100, -1), 'warmup_steps'),
        ((0.4, 0, 0), 'warmup_steps'),
        ((-0.4, 100, 10), 'peak'),
        ((float('nan'), 100, 10), 'peak'),
        ((0.4, 100, 10, -0.1), 'final'),
    ],
)
def test_bad_one_cycle(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .* Received: {name}='):
        OneCycle(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ((0.4, 0), 'warmup_steps'),
        ((0.4, -2), 'warmup_steps'),
        ((0.4, float('inf')), 'warmup_steps'),
        ((0.4, 5, -1.0), 'initial'),
        ((-0.4, 5), 'schedule'),
        ((lambda step: step, 5), 'schedule'),
    ],
)
def test_bad_warmup(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .* Received: {name}='):
        Warmup(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ((-0.1, 100, 3), 'peak'),
        ((float('nan'), 100, 3), 'peak'),
        ((0.8, 0, 3), 'total_steps'),
        ((0.8, float('inf'), 3), 'total_steps'),
        ((0.8, 100, 0), 'power'),
        ((0.8, 100, float('inf')), 'power'),
    ],
)
def test_bad_power_rise(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .* Received: {name}='):
        PowerRise(*arguments)


@pytest.mark.parametrize('step', [0, 1, 2, 3, 4, 5, 99])
def test_at_steps(step):
    schedule = AtSteps([1, 4])
    expected = float(step in (1, 4))
    assert schedule(step) == expected
    np.testing.assert_array_equal(at(schedule, step), expected)
    np.testing.assert_array_equal(at(schedule, [[step, 4]]), [[expected, 1]])
    assert at(AtSteps([]), step) == AtSteps([])(step) == 0


def test_at_steps_counts_integers_exactly():
    """In float32 2**24 and the step after it are equal."""
    schedule = AtSteps([300, 2**24])
    steps = np.int32([2**24 - 1, 2**24, 2**24 + 1])
    found = schedule(keras.ops.convert_to_tensor(steps))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), [0, 1, 0])
    narrow = schedule(keras.ops.convert_to_tensor(np.uint8([300 - 256])))  # 300 is beyond it
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(narrow), [0])


@pytest.mark.parametrize('step', [-5, -0.5])
def test_before_its_start_a_warmup_stays_at_its_first_value(step):
    for schedule in (Warmup(0.4, 10, 0.05), Warmup(OneCycle(0.4, 100, 0, 0.1), 10, 0.05)):
        assert schedule(step) == 0.05
        np.testing.assert_allclose(at(schedule, step), 0.05, rtol=1e-6)


@pytest.mark.parametrize('steps', [(1, -1), (1.5,), 3, None])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match=r'^`steps` must .* Received: steps='):
        AtSteps(steps)


def test_numpy_numbers_become_plain_ones():
    number, count = np.float32(0.5), np.int64
    for schedule, plain in (
        (OneCycle(number, count(9), count(3), np.float16(0.25)), OneCycle(0.5, 9, 3, 0.25)),
        (PowerRise(number, count(9), count(3)), PowerRise(0.5, 9, 3)),
        (Warmup(number, count(9), np.float64(0.25)), Warmup(0.5, 9, 0.25)),
        (Warmup(OneCycle(0.5, 9, 3), np.float32(2.5)), Warmup(OneCycle(0.5, 9, 3), 2.5)),
        (PiecewiseLinear(np.float32([[0, 1], [2, 0]])), PiecewiseLinear([(0, 1.0), (2, 0.0)])),
    ):
        assert json.dumps(schedule.get_config()) == json.dumps(plain.get_config())
        assert schedule(4) == plain(4)

"""The checks of numbers: which types pass, which values, and what the messages say."""

import fractions
import math

import numpy as np
import pytest

import fenwicks as fw
from fenwicks._checks import finite_number, flag, integer, positive_integer, sequence
from fenwicks.training.metrics import MetricSet


@pytest.mark.parametrize('value', [1, 24, np.int64(24), np.uint8(3)])
def test_positive_integers_come_back_plain(value):
    checked = positive_integer('epochs', value)
    assert type(checked) is int
    assert checked == value


@pytest.mark.parametrize('value', [0, -1, 2.0, np.float32(2), True, np.True_, None, '3', [3]])
def test_anything_else(value):
    with pytest.raises(ValueError, match=r'^`epochs` must be a positive integer\. Received: epo'):
        positive_integer('epochs', value)


@pytest.mark.parametrize('value', [True, False, np.True_, np.False_])
def test_flags_come_back_plain(value):
    assert flag('scale', value) is bool(value)


@pytest.mark.parametrize('value', ['no', 'yes', '', 0, 1, 1.0, None, [], np.array([True])])
def test_flags_that_are_none(value):
    with pytest.raises(ValueError, match=r'^`scale` must be True or False\. Received: scale='):
        flag('scale', value)


@pytest.mark.parametrize('value', [0, 7, np.int32(7), 2**31 - 1])
def test_integers_within_their_range_come_back_plain(value):
    checked = integer('seed', value, low=0, below=2**31)
    assert type(checked) is int
    assert checked == value


@pytest.mark.parametrize('value', [-1, 2**31, 1.0, np.float64(1), False, None, '3', math.nan])
def test_integers_beyond_their_range(value):
    with pytest.raises(
        ValueError, match=r'^`seed` must be an integer in \[0, 2\*\*31\)\. Received: '
    ):
        integer('seed', value, low=0, below=2**31)


def test_an_integer_without_an_upper_limit():
    assert integer('whitening', np.uint8(0), low=0) == 0
    with pytest.raises(ValueError, match=r'^`whitening` must be an integer >= 0\. Received: whi'):
        integer('whitening', -1, low=0)


@pytest.mark.parametrize(
    'value',
    [
        0,
        1,
        0.5,
        np.float32(0.1),
        np.float16(0.5),
        np.float64(1),
        np.int64(1),
        fractions.Fraction(1),
    ],
)
def test_finite_numbers_come_back_as_floats_of_the_same_value(value):
    checked = finite_number('momentum', value, low=0, high=1)
    assert type(checked) is float
    assert checked == value


@pytest.mark.parametrize(
    'value',
    [
        *(math.nan, math.inf, -math.inf, np.float32('nan'), np.float64('inf'), 10**400),
        *(True, False, np.True_, None, '0.5', [0.5], np.array(0.5), np.array([0.5]), 1j),
    ],
)
def test_what_is_no_finite_number(value):
    with pytest.raises(ValueError, match=r'^`rate` must be a finite number\. Received: rate='):
        finite_number('rate', value)


@pytest.mark.parametrize(
    ('limits', 'allowed', 'refused', 'rule'),
    [
        ({'low': 0}, [0, 1e300], [-1e-9], 'a finite number >= 0'),
        ({'above': 0}, [1e-9], [0, -1], 'a finite number above 0'),
        ({'high': 1}, [1, -5], [1.001], 'a finite number <= 1'),
        ({'below': 1}, [0.999], [1], 'a finite number below 1'),
        ({'low': 0, 'below': 1}, [0, 0.999], [-0.001, 1], 'a number in [0, 1)'),
        ({'low': 0, 'high': 1}, [0, 1], [-0.001, 1.001], 'a number in [0, 1]'),
        ({'above': 0, 'below': 1}, [0.5], [0, 1], 'a number in (0, 1)'),
        ({'above': 0, 'high': 1}, [1], [0, 1.5], 'a number in (0, 1]'),
    ],
)
def test_limits(limits, allowed, refused, rule):
    for value in allowed:
        assert finite_number('x', value, **limits) == value
    for value in [*refused, math.nan, None]:
        with pytest.raises(ValueError) as raised:
            finite_number('x', value, **limits)
        assert str(raised.value) == f'`x` must be {rule}. Received: x={value!r}'


@pytest.mark.parametrize('values', [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), iter([1, 2])])
def test_sequences_come_back_as_tuples(values):
    assert sequence('steps', values, 'integers') == (1, 2)


@pytest.mark.parametrize(
    ('call', 'name'),
    [
        (lambda: fw.optimizers.SGD(0.1, groups=fw.optimizers.ParameterGroup('bias')), 'groups'),
        (lambda: fw.optimizers.SGD(0.1, groups='bias'), 'groups'),
        (lambda: fw.optimizers.Muon(0.1, others_match='bias'), 'others_match'),
        (lambda: fw.optimizers.Muon(0.1, others_match=3), 'others_match'),
        (lambda: fw.layers.ClassNames('cat'), 'class_names'),
        (lambda: fw.layers.ClassNames(None), 'class_names'),
        (lambda: MetricSet('accuracy', loss=None), 'metrics'),
    ],
)
def test_one_thing_is_no_sequence(call, name):
    """A text would be taken apart into its letters."""
    with pytest.raises(ValueError, match=f'^`{name}` must be a sequence of .* Received: {name}='):
        call()

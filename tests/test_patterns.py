"""Matching without backtracking: as Python's own, in bounded time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fenwicks.optimizers import SGD, Muon, ParameterGroup
from fenwicks.optimizers.patterns import check_match, matches, nearest

ATOMS = ['a', 'b', '/', '.', r'\w', r'\d', '[ab]', '[^a]', '[a-c1]', r'\b', '^', '$', 'A', '']
REPEATS = ['*', '+', '?', '{2}', '{1,3}', '{2,}', '*?', '+?', '??']
AROUND = ['({})', '(?i:{})', '(?={})', '(?!{})', '(?<=a){}', '(?<!/){}']


def combined(patterns):
    return st.one_of(
        st.tuples(patterns, patterns).map(''.join),
        st.tuples(patterns, patterns).map('(?:{0[0]}|{0[1]})'.format),
        st.tuples(patterns, st.sampled_from(REPEATS)).map('(?:{0[0]}){0[1]}'.format),
        st.tuples(patterns, st.sampled_from(AROUND)).map(lambda pair: pair[1].format(pair[0])),
    )


PATTERNS = st.recursive(st.sampled_from(ATOMS), combined, max_leaves=6)


@settings(max_examples=400, deadline=None)
@given(pattern=PATTERNS, text=st.text('ab/1A', max_size=6))
def test_matches_as_python_does(pattern, text):
    expected = re.fullmatch(pattern, text) is not None
    assert matches(pattern or '(?:)', text) is expected


HOSTILE = [
    '(a+)+b',
    '((a*)*)*b',
    '(a|a)*b',
    '(a|aa)+b',
    '.*' * 12 + 'x',
    '((((.*)*)*)*)*x',
    '(((a{1,1000}){1,1000}){1,1000})b',
    'a?' * 25 + 'a' * 25 + 'b',
]


@pytest.mark.parametrize('pattern', HOSTILE)
def test_hostile_patterns_end_soon(pattern):
    started = time.process_time()
    check_match('match', pattern)
    assert not matches(pattern, 'a' * 200)
    assert time.process_time() - started < 5


def test_what_takes_too_long_is_refused():
    started = time.process_time()
    pattern = '(?:' * 30 + 'a?' + '){99}' * 30 + 'b'
    check_match('match', pattern)
    with pytest.raises(ValueError, match=r'must be simpler.* Received: ') as error:
        matches(pattern, 'a' * 5000)
    assert time.process_time() - started < 5
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    'pattern',
    [
        r'(a)\1',
        '(a)?(?(1)b|c)',
        'a++b',
        '(?>a)b',
        'a*' * 51,
        '(' * 60 + 'a' + ')' * 60,
        '(' * 900 + 'a' + ')' * 900,
        '(',
        'a{2,1}',
        'a{99999999999999999999}',
        'a' * 3000,
    ],
)
def test_patterns_that_are_refused(pattern):
    for name, make in (
        ('match', lambda: ParameterGroup(pattern)),
        ('others_match', lambda: Muon(0.1, others_match=[pattern])),
    ):
        with pytest.raises(ValueError, match=rf'^`{name}` must .*Received: {name}=') as error:
            make()
        assert '\n' not in str(error.value)
        assert len(str(error.value)) < 400


def test_a_hostile_model_file_is_refused_or_loads():
    config = SGD(0.1, groups=[ParameterGroup('bias')]).get_config()
    config['groups'][0]['match'] = r'(a)\1'
    with pytest.raises(ValueError, match=r'^`match` must have no back-references'):
        SGD.from_config(config)


def test_the_nearest_paths_come_first():
    paths = ['prep/conv/kernel', 'classifier/dense/kernel', 'prep/norm/beta', 'stage/conv/kernel']
    assert nearest(r'.*clasifier/.*kernel', paths)[0] == 'classifier/dense/kernel'
    assert nearest('bias', paths, 1) == ['prep/norm/beta']
    assert nearest('x', []) == []

"""Parameter groups: which variables they match, and rates on schedules of their own."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
from optimizer_run import COMPILED, assert_same, numpy_of, train, variables_of

from fenwicks.optimizers import SGD, ParameterGroup
from fenwicks.schedules import OneCycle, PiecewiseLinear

DECAY = PiecewiseLinear([(0, 1.0), (4, 0.0)])
LINE = PiecewiseLinear([(0, 0.5), (5, 0.1)])


def ones(values):
    return [np.ones_like(value) for value in values]


def weights():
    return variables_of({'conv/kernel': (3, 3), 'head/bias': (2,), 'head/kernel': (3, 2)})


@pytest.mark.parametrize(
    ('group', 'path', 'matches'),
    [
        ('bias', 'dense/bias', True),
        ('bias', 'bias', True),
        ('bias', 'model/bn/beta', True),
        ('bias', 'model/bn/gamma', False),
        ('bias', 'bias/kernel', False),
        ('bias', 'dense/debias', False),
        ('scale', 'model/bn/gamma', True),
        ('scale', 'model/bn/beta', False),
        ('kernel', 'dense/kernel', True),
        ('kernel', 'conv/depthwise_kernel', True),
        ('kernel', 'kernel/bias', False),
        (r'head/.*', 'head/kernel', True),
        (r'head', 'head/kernel', False),
        (r'.*/(beta|gamma)', 'bn/gamma', True),
    ],
)
def test_which_variables_a_group_matches(group, path, matches):
    assert ParameterGroup(group).matches(path) is matches


def test_words_match_the_variables_of_keras_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.DepthwiseConv2D(3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    names = {
        word: [v.name for v in model.trainable_variables if ParameterGroup(word).matches(v.path)]
        for word in ('bias', 'scale', 'kernel')
    }
    assert names['bias'] == ['bias', 'beta', 'bias']
    assert names['scale'] == ['gamma']
    assert len(names['kernel']) == 3
    assert sum(map(len, names.values())) == len(model.trainable_variables)


def test_overlapping_groups_name_the_variable_and_leave_the_optimizer_unbuilt():
    optimizer = SGD(0.1, groups=[ParameterGroup('bias'), ParameterGroup('head/.*')])
    rule = r"^`groups` must not overlap.* Received: variable 'head/bias' matches \['bias', 'head/"
    with pytest.raises(ValueError, match=rule):
        optimizer.build(weights())
    assert not optimizer.built


def test_a_group_that_matches_nothing():
    optimizer = SGD(0.1, groups=[ParameterGroup('bias'), ParameterGroup('scale')])
    with pytest.raises(ValueError, match=r"must match at least one .*Received: match='scale'"):
        optimizer.build(weights())


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        (('',), 'match'),
        ((3,), 'match'),
        (('(',), 'match'),
        (('bias', -1.0), 'learning_rate'),
        (('bias', float('inf')), 'learning_rate'),
        (('bias', '2'), 'learning_rate'),
        (('bias', lambda step: 1.0), 'learning_rate'),
        (('bias', 1.0, -0.5), 'weight_decay'),
        (('bias', 1.0, DECAY), 'weight_decay'),
        (('bias', 1.0, 1.0, 0.1), 'schedule'),
        (('bias', 1.0, float('nan')), 'weight_decay'),
    ],
)
def test_bad_group(arguments, name):
    with pytest.raises(ValueError, match=rf'^`{name}` .*must be .*Received: {name}=') as error:
        ParameterGroup(*arguments)
    assert '\n' not in str(error.value)


def test_groups_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ParameterGroup('bias').learning_rate = 2.0


@pytest.mark.parametrize('compiled', COMPILED)
@pytest.mark.parametrize('rate', [0.2, OneCycle(0.2, 12, 3)], ids=['constant', 'schedule'])
def test_scheduled_factors_and_rates_of_their_own(rate, compiled):
    groups = [
        ParameterGroup('bias', learning_rate=DECAY),
        ParameterGroup('head/kernel', learning_rate=0.5, schedule=LINE),
    ]
    optimizer = SGD(rate, groups=groups)
    variables = weights()
    rows = [numpy_of(variables)]
    for _ in range(8):
        # One step at a time, from the weights at hand: the step made shows the rate used.
        rows.append(train(optimizer, variables, 1, compiled, lambda _, values: ones(values)))
    for step, (before, after) in enumerate(itertools.pairwise(rows)):
        common = rate(step) if callable(rate) else rate
        rates = [common, common * max(0.0, 1 - step / 4), 0.5 * (0.5 - 0.08 * min(step, 5))]
        # conv/kernel, head/bias, head/kernel: each moved by its rate.
        for b, a, moved in zip(before, after, rates, strict=True):
            assert_same([b - a], [np.full(b.shape, moved)])


def test_a_bias_whose_schedule_has_ended_stays_bit_for_bit():
    # Momentum still carries its velocity, decay its pull: a rate of 0 stops both.
    group = ParameterGroup('bias', schedule=PiecewiseLinear([(0, 0.3), (3, 0.0)]))
    variables = weights()
    optimizer = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01, groups=[group])
    ends = [train(optimizer, variables, 1)[1] for _ in range(6)]
    assert not np.array_equal(ends[1], ends[2])
    assert np.array_equal(ends[2], ends[3])
    assert np.array_equal(ends[2], ends[5])


def test_schedules_survive_serialisation():
    groups = (
        ParameterGroup('bias', learning_rate=DECAY),
        ParameterGroup('kernel', 2.0, 0.5, schedule=LINE),
    )
    config = json.loads(json.dumps(keras.optimizers.serialize(SGD(0.1, groups=groups))))
    again = keras.optimizers.deserialize(config).groups
    assert [group.match for group in again] == ['bias', 'kernel']
    assert again[0].learning_rate.knots == DECAY.knots
    assert (again[0].schedule, again[0].weight_decay) == (None, 1.0)
    assert again[1].schedule.knots == LINE.knots
    assert (again[1].learning_rate, again[1].weight_decay) == (2.0, 0.5)


def test_configs_from_before_schedules_load():
    group = ParameterGroup.from_config(
        {'match': 'bias', 'learning_rate': 64.0, 'weight_decay': 0.5}
    )
    assert group == ParameterGroup('bias', 64.0, 0.5)

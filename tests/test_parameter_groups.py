"""Parameter groups: which variables they match, and rates on schedules of their own."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_run import COMPILED, assert_same, numpy_of, train, variables_of

from fenwicks.optimizers import SGD, Muon, ParameterGroup
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


def test_numpy_factors_become_plain_ones():
    group = ParameterGroup('bias', np.float32(0.5), np.int64(2))
    assert group == ParameterGroup('bias', 0.5, 2.0)
    json.dumps(group.get_config())


@pytest.mark.parametrize(
    ('optimizer', 'match'),
    [
        (SGD(0.1, groups=[ParameterGroup('haed/kernel')]), 'haed/kernel'),
        (SGD(0.1, groups=[ParameterGroup(r'model/head/.*')]), r'model/head/\.\*'),
        (Muon(0.1, others_match=['haed/.*']), r'haed/\.\*'),
    ],
)
def test_a_pattern_that_matches_nothing_lists_the_nearest_paths(optimizer, match):
    shapes = {f'layer_{i}/kernel': (3, 3) for i in range(8)}
    variables = variables_of({**shapes, 'head/bias': (2,), 'head/kernel': (3, 2)})
    rule = rf"{match}', which matches none of 10 variables; the nearest of their paths: 'head/"
    with pytest.raises(ValueError, match=rule) as error:
        optimizer.build(variables)
    assert "'head/kernel'" in str(error.value)
    assert '\n' not in str(error.value)
    assert not optimizer.built


def nested(optimizer):
    """A model whose body is a Sequential of its own, as whose variables load with other paths."""
    keras.utils.set_random_seed(3)
    body = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(4)], name='body')
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name='head')(body(inputs)))
    model.compile(optimizer, 'mse')
    return model


def step_sizes(model):
    """How far one step of training moves each variable, for gradients of 1."""
    before = numpy_of(model.trainable_variables)
    gradients = [ops.ones(variable.shape) for variable in model.trainable_variables]
    # float16 has Keras wrap the optimizer in one that scales gradients down.
    optimizer = getattr(model.optimizer, 'inner_optimizer', model.optimizer)
    optimizer.apply(gradients, model.trainable_variables)
    after = numpy_of(model.trainable_variables)
    return [float(np.abs(a - b).mean()) for a, b in zip(after, before, strict=True)]


def train_briefly(model):
    model.fit(np.ones((4, 4), 'float32'), np.ones((4, 2), 'float32'), batch_size=4, verbose=0)


GROUPINGS = {
    'not the body': lambda: SGD(0.1, groups=[ParameterGroup(r'(?!body/).*', 0.25)]),
    'the body': lambda: SGD(0.1, momentum=0.5, groups=[ParameterGroup(r'body/.*kernel', 0.5)]),
    'others': lambda: Muon(0.1, others=SGD(0.02), others_match=[r'body/dense.*/kernel']),
    'groups of others': lambda: Muon(
        0.1, others=SGD(0.02, groups=[ParameterGroup('(?!body/).*bias', 3.0)])
    ),
}


@pytest.mark.parametrize('make', GROUPINGS.values(), ids=GROUPINGS)
@pytest.mark.parametrize('policy', ['float32', 'mixed_float16'])
def test_groups_survive_saving_though_paths_change(make, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = nested(make())
    train_briefly(model)
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')
    paths = [[v.path for v in m.trainable_variables] for m in (model, loaded)]
    assert paths[0] != paths[1], 'Keras keeps the paths: the test has lost its point'
    expected = step_sizes(model)
    assert len({round(size, 4) for size in expected}) > 1
    np.testing.assert_allclose(step_sizes(loaded), expected, rtol=1e-3)
    loaded.save(tmp_path / 'again.keras')
    again = keras.models.load_model(tmp_path / 'again.keras')
    assert getattr(again.optimizer, 'inner_optimizer', again.optimizer)._assignments is not None
    np.testing.assert_allclose(step_sizes(again), step_sizes(loaded), rtol=1e-3)


def test_a_load_that_cannot_know_the_groups_says_so(tmp_path):
    model = nested(GROUPINGS['not the body']())  # never trained: its optimizer isn't built
    model.save(tmp_path / 'model.keras')
    with pytest.warns(UserWarning, match='the parameter groups were not saved with this model'):
        keras.models.load_model(tmp_path / 'model.keras')
    # The words mean the same whatever the paths.
    model = nested(SGD(0.1, groups=[ParameterGroup('bias', 2.0)]))
    model.save(tmp_path / 'model.keras')
    keras.models.load_model(tmp_path / 'model.keras')


@pytest.mark.parametrize(
    'make',
    [
        lambda: SGD(0.1, groups=[ParameterGroup('body/.*', 0.5)]),
        lambda: SGD(0.1, groups=[ParameterGroup('body/.*', 0.5), ParameterGroup('.*bias')]),
        lambda: Muon(0.1, others_match=['body/.*']),
    ],
)
@pytest.mark.filterwarnings('ignore:Skipping variable loading for optimizer')
def test_an_optimizer_that_was_never_built_loads_with_a_warning(make, tmp_path):
    """Though its patterns match nothing any more, or overlap."""
    body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)], name='body')
    model = keras.Sequential([keras.Input((4,)), body, keras.layers.Dense(2, name='head')])
    model.compile(make(), 'mse')
    model.save(tmp_path / 'model.keras')
    with pytest.warns(UserWarning, match='train the model or build its optimizer before') as found:
        loaded = keras.models.load_model(tmp_path / 'model.keras')
    message, *others = [str(each.message) for each in found if 'groups' in str(each.message)]
    assert not others
    assert '\n' not in message
    assert loaded.optimizer.built
    train_briefly(loaded)


def twins():
    """A model of two bodies alike, whose variables load with the same paths."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name='d')], name=name)
        for name in 'ab'
    ]
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(4, name='c')(layers[1](layers[0](inputs)))
    return keras.Model(inputs, keras.layers.Dense(2, name='head')(outputs))


def choices(optimizer):
    return [choice for _, _, choice in optimizer._assignments]


@pytest.mark.parametrize(
    ('frozen', 'expected'),
    [
        ('a', [1, 1, None, None, None, None]),
        ('b', [0, 0, None, None, None, None]),
        ('c', [0, 0, 1, 1, None, None]),
        ('head', [0, 0, 1, 1, None, None]),
    ],
)
@pytest.mark.filterwarnings('ignore:Skipping variable loading for optimizer')  # its velocities
def test_what_is_left_after_freezing_keeps_its_groups(frozen, expected, tmp_path):
    model = twins()
    groups = [ParameterGroup('a/.*', 0.1), ParameterGroup('b/.*', 0.2)]
    model.compile(SGD(0.1, momentum=0.5, groups=groups), 'mse')
    train_briefly(model)
    model.get_layer(frozen).trainable = False
    for _ in range(2):
        model.save(tmp_path / 'model.keras')
        model = keras.models.load_model(tmp_path / 'model.keras')
        assert choices(model.optimizer) == expected
    # Outside a file all variables are kept, those frozen among them.
    model = twins()
    optimizer = SGD(0.1, groups=groups)
    optimizer.build(model.trainable_variables)
    model.get_layer(frozen).trainable = False
    config = json.loads(json.dumps(optimizer.get_config()))
    again = SGD.from_config(config)
    assert again.get_config() == optimizer.get_config()
    again.build(twins().trainable_variables)
    assert choices(again) == choices(optimizer) == [0, 0, 1, 1, None, None, None, None]
    assert 'frozen_assignments' not in again.get_config()


@pytest.mark.filterwarnings('ignore:Skipping variable loading for optimizer')
def test_a_model_that_loads_with_more_variables_than_were_saved(tmp_path):
    model = twins()
    model.get_layer('a').trainable = False
    model.compile(SGD(0.1, groups=[ParameterGroup('b/.*', 0.2)]), 'mse')
    train_briefly(model)
    model.get_layer('a').trainable = True
    model.save(tmp_path / 'model.keras')
    with pytest.warns(UserWarning, match='saved for 6 variables, and .* is built for 8 others'):
        keras.models.load_model(tmp_path / 'model.keras')


class Pair(keras.layers.Layer):
    """A layer of layers without names, which Keras names anew on loading."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(4)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, inputs):
        return self.second(self.first(inputs))


def test_groups_survive_names_that_keras_makes_anew(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Pair(), keras.layers.Dense(2, name='head')])
    second = model.layers[0].second.kernel.path
    model.compile(SGD(0.1, groups=[ParameterGroup(second, 0.5)]), 'mse')
    train_briefly(model)
    expected = choices(model.optimizer)
    for _ in range(3):
        model.save(tmp_path / 'model.keras')
        model = keras.models.load_model(tmp_path / 'model.keras', custom_objects={'Pair': Pair})
        assert model.layers[0].second.kernel.path != second
        assert choices(model.optimizer) == expected == [None, None, 0, None, None, None]
        train_briefly(model)


def chain(names):
    shapes = {'kernel': (3, 3), 'bias': (3,)}
    return variables_of({f'{name}/{part}': shapes[part] for name in names for part in shapes})


def test_variables_in_another_order_are_known_by_their_paths():
    optimizer = SGD(0.1, groups=[ParameterGroup('a/.*', 0.1)])
    optimizer.build(chain('ab'))
    config = optimizer.get_config()
    for names, expected in (('ab', [0, 0, None, None]), ('ba', [None, None, 0, 0])):
        again = SGD.from_config(config)
        again.build(chain(names))
        assert choices(again) == expected


def test_variables_with_other_paths_are_not_taken_for_those_in_their_place():
    optimizer = SGD(0.1, groups=[ParameterGroup('(a|c)/.*', 0.1)])
    optimizer.build(chain('ab'))
    again = SGD.from_config(optimizer.get_config())
    with pytest.warns(UserWarning, match='saved for 4 variables, and .* is built for 4 others'):
        again.build(chain('bc'))
    assert choices(again) == [None, None, 0, 0]
    # A name that ends alike is another name.
    again = SGD.from_config(optimizer.get_config())
    with (
        pytest.warns(UserWarning, match='is built for 4 others'),
        pytest.raises(ValueError, match='must match at least one'),
    ):
        again.build(chain(['xa', 'b']))


def test_variables_that_lost_the_first_part_of_their_paths_are_known_by_their_place():
    model = twins()
    optimizer = SGD(0.1, groups=[ParameterGroup('a/.*', 0.1)])
    optimizer.build(model.trainable_variables)
    copy = keras.models.clone_model(model)
    paths = [variable.path for variable in copy.trainable_variables]
    assert paths[:4] == ['d/kernel', 'd/bias'] * 2, 'Keras keeps the paths'
    again = SGD.from_config(optimizer.get_config())
    again.build(copy.trainable_variables)
    assert choices(again) == choices(optimizer)


@pytest.mark.parametrize('frozen', [3, ['0'], [4], [-1]])
def test_damaged_places_of_frozen_variables(frozen):
    optimizer = SGD(0.1, groups=[ParameterGroup('a/.*')])
    optimizer.build(chain('ab'))
    with pytest.raises(ValueError, match=r'^`frozen_assignments` in the configuration'):
        SGD.from_config({**optimizer.get_config(), 'frozen_assignments': frozen})


def test_a_configuration_for_other_variables():
    optimizer = SGD(0.1, groups=[ParameterGroup('.*head/.*', 2.0)])
    optimizer.build(weights())
    config = json.loads(json.dumps(optimizer.get_config()))
    # Some of the same, as after layers were frozen: by their paths.
    some = SGD.from_config(config)
    some.build(weights()[1:])
    assert [choice for _, _, choice in some._assignments] == [0, 0]
    others = SGD.from_config(config)
    with pytest.warns(UserWarning, match='saved for 3 variables, and .* is built for 2 others'):
        others.build(variables_of({'body/kernel': (5, 2), 'head/kernel': (2, 7)}))
    assert [choice for _, _, choice in others._assignments] == [None, 0]
    # Unbuilt, it keeps what it was given.
    assert SGD.from_config(config).get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    'assignments', [3, [['a']], [['a', [2], 7]], [[3, [2], None]], [['a', 'bc', 0]]]
)
def test_damaged_assignments(assignments):
    config = SGD(0.1, groups=[ParameterGroup('bias')]).get_config()
    with pytest.raises(ValueError, match=r'^`assignments` in the configuration'):
        SGD.from_config({**config, 'assignments': assignments})


def test_without_patterns_nothing_is_recorded():
    for optimizer in (SGD(0.1, momentum=0.9), Muon(0.1)):
        optimizer.build(weights())
        assert 'assignments' not in optimizer.get_config()

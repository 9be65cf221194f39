"""Variables that stop learning during a training: their values, those of the others, resuming."""

import keras
import numpy as np
import pytest
from keras import ops
from training_toys import STEPS, assert_same, interrupted, make, numbers, toy, values

import fenwicks
from fenwicks import optimizers, schedules
from fenwicks.training.phases import Phase, Phases

pytestmark = pytest.mark.backend('tensorflow', 'jax')

BIASES = 'net/first/norm/beta'
FREEZE = ((1.4, BIASES),)  # from the third of five steps of the second epoch on


def two_layers(sides=(None, None)):
    return keras.Sequential(
        [
            keras.Input((*sides, 3)),
            fenwicks.layers.ConvBN(4, name='first'),
            fenwicks.layers.ConvBN(4, name='second'),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, dtype='float32', name='head'),
        ],
        name='net',
    )


def trainer(schedule=None, **options):
    groups = [] if schedule is None else [optimizers.ParameterGroup(BIASES, schedule=schedule)]
    rule = optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, groups=groups)
    return make(two_layers(), rule, **options)


def of(trainer):
    """The model's values by their paths."""
    variables = trainer.model.variables
    return {variable.path: np.array(ops.convert_to_numpy(variable)) for variable in variables}


def test_the_phases_of_each_epoch():
    plan = Phases(((0, 24), (3, 32)), ((0.25, 'a'), (3.5, 'b')))
    start, first = Phase(24, ()), Phase(24, ('a',))
    grown, both = Phase(32, ('a',)), Phase(32, ('a', 'b'))
    assert plan.all == (start, first, grown, both)
    assert plan.of_epoch(0, 10) == [(0, start), (3, first)]
    assert plan.of_epoch(1, 10) == plan.of_epoch(2, 10) == [(0, first)]
    assert plan.of_epoch(3, 10) == [(0, grown), (5, both)]
    assert plan.of_epoch(9, 10) == [(0, both)]
    assert plan.of_epoch(0, 1) == [(0, start)]
    assert Phases((), ()).of_epoch(4, 10) == [(0, Phase(None, ()))]


@pytest.mark.parametrize('steps', [10, 24, 97, 391])
def test_a_phase_begins_at_the_step_that_was_said(steps):
    """At each step of later epochs, though 1.1 - 1 is a little more than 0.1."""
    for step in range(5 * steps):
        plan = Phases((), ((step / steps, 'a'),))
        epoch, at = divmod(step, steps)
        assert plan.of_epoch(epoch, steps)[-1] == (at, Phase(None, ('a',)))


@pytest.mark.thorough
@pytest.mark.parametrize('whole', [False, True])
def test_where_the_rate_is_zero_freezing_changes_no_number(whole):
    """The bias learns for seven steps; then its rate is 0, or it is frozen as well."""
    schedule = schedules.PiecewiseLinear([(0, 0.05), (7, 0.0)])
    options = {'jit_compile': True} if whole else {}
    plain, frozen = trainer(schedule, **options), trainer(schedule, freeze=FREEZE, **options)
    plain.fit(*toy(), 3)
    frozen.fit(*toy(), 3)
    close = {'rtol': 1e-5, 'atol': 1e-6} if whole else {'rtol': 0, 'atol': 0}
    for path, value in of(plain).items():
        np.testing.assert_allclose(of(frozen)[path], value, err_msg=path, **close)
    if not whole:
        assert numbers(plain.records) == numbers(frozen.records)


def check_only_biases_stay(learning):
    """Trains on past the step of FREEZE; returns the values at that step."""
    learning.fit(*toy(), 1)
    learning.run_steps(1, 0, 2)
    before = of(learning)
    learning.run_steps(1, 2, STEPS)
    after = of(learning)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == set(before) - {BIASES}
    return before


def test_a_frozen_variable_keeps_its_value_whatever_its_rate():
    learning = trainer(freeze=FREEZE, averaging=optimizers.Lookahead(0.0, every=1))
    check_only_biases_stay(learning)


def test_lookahead_leaves_a_frozen_variable_alone():
    """Frozen a step after an averaging, when the average is another number than the value."""
    learning = trainer(freeze=FREEZE, averaging=optimizers.Lookahead(0.5, every=3))
    before = check_only_biases_stay(learning)
    with learning.averaged():
        np.testing.assert_array_equal(of(learning)[BIASES], before[BIASES])


def test_steps_across_the_boundary_are_those_on_both_sides():
    whole, parts = trainer(freeze=FREEZE), trainer(freeze=FREEZE)
    for one in (whole, parts):
        one.load(*toy())
    totals = whole.run_steps(1, 0, STEPS)
    first, second = parts.run_steps(1, 0, 2), parts.run_steps(1, 2, STEPS)
    assert (totals.steps, totals.correct) == (STEPS, first.correct + second.correct)
    assert totals.last_loss == second.last_loss
    for ours, theirs in zip(values(whole), values(parts), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.thorough
@pytest.mark.parametrize('after', [1, 2])
def test_resuming_ends_bit_for_bit(tmp_path, after):
    path, options = tmp_path / 'c.npz', {'freeze': FREEZE, 'image_sizes': ((0, 6), (2, 8))}
    whole = trainer(**options)
    whole.fit(*toy(), 3)
    interrupted(trainer(**options), path, 3, after)
    resumed = trainer(**options)
    resumed.fit(*toy(), 3, checkpoint=path, resume=True)
    assert_same(whole, resumed)
    with pytest.raises(ValueError, match=r'must go on with the settings of .* freeze'):
        trainer(image_sizes=options['image_sizes'], freeze=((1, BIASES),)).fit(
            *toy(), 4, checkpoint=path, resume=True
        )


@pytest.mark.backend('tensorflow')
def test_what_only_frozen_variables_need_is_not_computed():
    def kernel_gradients(trainer, epoch):
        trainer.load(*toy())
        graph = trainer._engines.at(epoch).graph().as_graph_def()
        nodes = [node.op for function in graph.library.function for node in function.node_def]
        return nodes.count('Conv2DBackpropFilter'), nodes.count('Conv2DBackpropInput')

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name='first'),
            keras.layers.Conv2D(4, 3, name='second'),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, dtype='float32'),
        ]
    )
    rule = optimizers.SGD(0.01)
    frozen = make(model, rule, freeze=((1, '.*first/.*'),))
    before, after = kernel_gradients(frozen, 0), kernel_gradients(frozen, 1)
    # A convolution's gradients are traced together; what isn't asked for is pruned.
    assert (before, after) == ((2, 2), (1, 1))


@pytest.mark.parametrize(
    ('freeze', 'message'),
    [
        (4, r'^`freeze` must be pairs \(epoch, match\)'),
        (((1,),), r'^`freeze` must be pairs \(epoch, match\)'),
        (((-1, BIASES),), r'^`freeze` must be pairs \(epoch, match\)'),
        ((('1', BIASES),), r'^`freeze` must be pairs \(epoch, match\)'),
        (((1, '('),), '^`freeze` must be '),
        (
            ((1, 'third/.*'),),
            '^`freeze` must match at least one trainable variable.*; the nearest of ',
        ),
        (((1, '.*'),), '^`freeze` must leave variables to train'),
        (((0, 'bias'), (2, '.*kernel|.*gamma')), '^`freeze` must leave variables to train'),
    ],
)
def test_what_cannot_be_frozen(freeze, message):
    with pytest.raises(ValueError, match=message) as raised:
        trainer(freeze=freeze)
    assert '\n' not in str(raised.value)

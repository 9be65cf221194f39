"""Layers that are frozen and unfrozen between two calls of `fit`."""

import keras
import numpy as np
import pytest
from training_toys import STEPS, conv_model, dense_model, make, toy

from fenwicks import optimizers, schedules

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def two_layers():
    return dense_model(keras.layers.Dense(5, activation='relu', name='body'), name='head')


OPTIMIZERS = {
    'sgd': lambda: optimizers.SGD(
        0.05, momentum=0.9, groups=[optimizers.ParameterGroup('bias', learning_rate=0.5)]
    ),
    'adam': lambda: keras.optimizers.Adam(0.01),
    'muon': lambda: optimizers.Muon(0.05, others=optimizers.SGD(0.05), others_match=['.*head/.*']),
    'scaled': lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9)),
}


def slots(optimizer):
    return {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in optimizer.variables}


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_a_frozen_layer_stays_and_the_slots_of_others_survive(kind, monkeypatch):
    trainer = make(two_layers(), OPTIMIZERS[kind](), averaging=optimizers.EMA(0.5, every=2))
    body, head = trainer.model.get_layer('body'), trainer.model.get_layer('head')
    trainer.fit(*toy(), 1)
    before, whole = body.get_weights(), slots(trainer.optimizer)
    body.trainable = False
    noted = []
    start = trainer._start_feed
    monkeypatch.setattr(
        trainer,
        '_start_feed',
        lambda *arguments: noted.append(slots(trainer.optimizer)) or start(*arguments),
    )
    trainer.fit(*toy(), 2)
    left = {path for path in whole if 'body' not in path}
    assert noted[0].keys() == left < whole.keys()
    for path in left:
        np.testing.assert_array_equal(noted[0][path], whole[path], err_msg=path)
    for old, new in zip(before, body.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    moved, frozen = head.get_weights(), slots(trainer.optimizer)
    assert len(trainer.optimizer.variables) == len(left)

    body.trainable = True
    trainer.fit(*toy(), 3)
    assert noted[1].keys() == whole.keys()
    for path in left:
        np.testing.assert_array_equal(noted[1][path], frozen[path], err_msg=path)
    for path in whole.keys() - left:
        assert not noted[1][path].any()
    assert not np.array_equal(before[0], body.get_weights()[0])
    assert not np.array_equal(moved[0], head.get_weights()[0])
    assert int(trainer.optimizer.iterations) == 3 * STEPS


def test_a_group_that_would_match_nothing_leaves_the_slots_as_they_are():
    groups = [optimizers.ParameterGroup('.*head/.*')]
    trainer = make(model := two_layers(), optimizers.SGD(0.1, momentum=0.9, groups=groups))
    body, head = model.get_layer('body'), model.get_layer('head')
    body.trainable = False
    trainer.fit(*toy(), 1)
    before = slots(trainer.optimizer)
    body.trainable, head.trainable = True, False
    with pytest.raises(ValueError, match='match'):
        trainer.fit(*toy(), 2)
    body.trainable, head.trainable = False, True
    trainer.load(*toy())
    after = slots(trainer.optimizer)
    assert after.keys() == before.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)


@pytest.mark.parametrize('rule', [optimizers.Lookahead(0.5, every=3), optimizers.EMA(0.5, every=3)])
def test_averages_leave_a_frozen_layer_alone(rule):
    """Its moving statistics, too; frozen two steps after an averaging."""
    trainer = make(conv_model(), optimizers.SGD(0.05), averaging=rule)
    trainer.fit(*toy(), 1)
    block = trainer.model.layers[0]
    block.trainable = False
    before = block.get_weights()
    trainer.fit(*toy(), 2)
    for old, new in zip(before, block.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_freezing_and_unfreezing_without_a_step_changes_nothing():
    """The training is that of a Trainer that was left alone, but for the slots of the layer."""
    alone, frozen = (make(two_layers(), optimizers.SGD(0.05)) for _ in range(2))
    for trainer in (alone, frozen):
        trainer.fit(*toy(), 1)
    frozen.model.get_layer('body').trainable = False
    frozen.fit(*toy(), 1)  # none is left to train
    frozen.model.get_layer('body').trainable = True
    for trainer in (alone, frozen):
        trainer.fit(*toy(), 2)
    for one, other in zip(alone.model.weights, frozen.model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_new_learning_rate_goes_with_it():
    trainer = make(two_layers(), optimizers.SGD(0.05, momentum=0.9))
    trainer.fit(*toy(), 1)
    trainer.model.get_layer('body').trainable = False
    trainer.optimizer.learning_rate = 0.0
    before = trainer.model.get_layer('head').get_weights()
    velocities = [v for v in trainer.optimizer.variables if 'velocity' in v.path]
    for velocity in velocities:
        velocity.assign(np.zeros(velocity.shape, 'float32'))
    trainer.fit(*toy(), 2)
    for old, new in zip(before, trainer.model.get_layer('head').get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_batch_norm_without_weights_is_frozen():
    """Only trainable variables were compared, of which it has none."""
    norm = keras.layers.BatchNormalization(center=False, scale=False)
    trainer = make(dense_model(norm), optimizers.SGD(0.05))
    trainer.fit(*toy(), 1)
    before = norm.get_weights()
    norm.trainable = False
    trainer.fit(*toy(), 2)
    for old, new in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def never():
    return schedules.PiecewiseLinear([(0, 0.0), (1, 0.0)])


@pytest.mark.parametrize('rate', [0.1, schedules.PiecewiseLinear([(0, 0.1), (1, 0.1)])])
def test_another_schedule_between_two_fits(rate):
    """The compiled steps went on with the first, and the record said otherwise."""
    trainer = make(two_layers(), keras.optimizers.SGD(rate))
    trainer.fit(*toy(), 1)
    before = trainer.model.get_weights()
    trainer.optimizer.learning_rate = never()
    trainer.fit(*toy(), 2)
    assert [record['learning_rate'] for record in trainer.records] == pytest.approx([0.1, 0.0])
    for old, new in zip(before, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize('what', ['another learning rate schedule', 'layers frozen or unfrozen'])
def test_what_a_callback_changes_in_vain(what):
    trainer = make(two_layers(), keras.optimizers.SGD(0.1))

    def change(epoch, logs):
        if 'rate' in what:
            trainer.optimizer.learning_rate = never()
        else:
            trainer.model.get_layer('body').trainable = False

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=change)
    with pytest.raises(ValueError, match=f'callbacks must leave .* Received: {what}$'):
        trainer.fit(*toy(), 1, callbacks=[callback])
    trainer.fit(*toy(), 1)  # which follows it


def test_a_multi_optimizer_says_what_to_do():
    rates = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {})
    trainer = make(two_layers(), keras.optimizers.MultiOptimizer(rates))
    trainer.fit(*toy(), 1)
    trainer.model.get_layer('body').trainable = False
    with pytest.raises(ValueError, match='under a MultiOptimizer: make another one, and another T'):
        trainer.fit(*toy(), 2)

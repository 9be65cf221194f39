"""The Trainer's averages against NumPy, and the flips that alternate over its epochs."""

import keras
import numpy as np
import pytest
from keras import ops
from training_toys import (
    BATCH,
    COUNT,
    RATES,
    SEED,
    STEPS,
    Recorder,
    assert_same,
    conv_model,
    dense_model,
    make,
    numbers,
    toy,
    values,
)

from fenwicks import augment, optimizers
from fenwicks.optimizers import EMA, Lookahead, WeightAveraging
from fenwicks.optimizers.averaging import averaged_variables
from fenwicks.training.averages import Averages

pytestmark = pytest.mark.backend('tensorflow', 'jax')


class MeanLogit(keras.losses.Loss):
    """A loss whose gradient is constant, so that the bias falls by a third of each step's rate."""

    def call(self, y_true, y_pred):
        return ops.mean(y_pred, axis=-1)


def bias_of(model):
    return model.get_weights()[1]


@pytest.mark.parametrize('every', [1, 2, 7])
def test_ema_of_known_weights(every):
    """Steps are counted over the whole training: 7 is more than an epoch has."""
    rule = EMA(0.9, every=every)
    trainer = make(dense_model(), optimizers.SGD(RATES), loss=MeanLogit(), averaging=rule)
    bias, taken, average = 0.0, [], 0.0
    for epoch in range(3):
        trainer.fit(*toy(), epoch + 1)
        for step in range(epoch * STEPS, (epoch + 1) * STEPS):
            bias -= RATES(step) / 3
            if (step + 1) % every == 0:
                taken.append(bias)
        ages = np.arange(len(taken))[::-1]
        # Before the first update, the weights as they are.
        average = np.average(taken, weights=0.9 ** (every * ages)) if taken else bias
        np.testing.assert_allclose(bias_of(trainer.model), bias, rtol=1e-5)
        with trainer.averaged():
            np.testing.assert_allclose(bias_of(trainer.model), average, rtol=1e-5)
    assert abs(average - bias) > 0.01


def test_other_data_between_two_updates_change_no_count_of_steps():
    """Two steps of an epoch of two, then five of an epoch of five: the third and sixth count."""
    trainer = make(
        dense_model(), optimizers.SGD(RATES), loss=MeanLogit(), averaging=EMA(0.5, every=3)
    )
    trainer.fit(*toy(2 * BATCH), 1)
    trainer.fit(*toy(), 2)
    falls = np.cumsum([-RATES(step) / 3 for step in range(2 + STEPS)])
    third, sixth = falls[2], falls[5]
    np.testing.assert_allclose(bias_of(trainer.model), falls[-1], rtol=1e-5)
    with trainer.averaged():
        expected = np.average([third, sixth], weights=[0.5**3, 1])
        np.testing.assert_allclose(bias_of(trainer.model), expected, rtol=1e-5)


def test_single_steps_are_counted_too():
    trainer = make(
        dense_model(), optimizers.SGD(RATES), loss=MeanLogit(), averaging=EMA(0.5, every=2)
    )
    trainer.load(*toy())
    for start, stop in ((0, 1), (1, 3), (3, 4)):
        trainer.run_steps(0, start, stop)
    falls = np.cumsum([-RATES(step) / 3 for step in range(4)])
    with trainer.averaged():
        expected = np.average([falls[1], falls[3]], weights=[0.5**2, 1])
        np.testing.assert_allclose(bias_of(trainer.model), expected, rtol=1e-5)


def test_lookahead_of_known_weights():
    rule = Lookahead(lambda step: step / 20, every=3)
    trainer = make(dense_model(), optimizers.SGD(RATES), loss=MeanLogit(), averaging=rule)
    trainer.fit(*toy(), 3)
    bias = average = 0.0
    for step in range(3 * STEPS):
        bias -= RATES(step) / 3
        if (step + 1) % 3 == 0:
            keep = (step + 1) / 20
            bias = average = keep * average + (1 - keep) * bias
    np.testing.assert_allclose(bias_of(trainer.model), bias, rtol=1e-5)
    with trainer.averaged():
        np.testing.assert_allclose(bias_of(trainer.model), average, rtol=1e-5)


def test_statistics_of_batch_norm_are_averaged_and_used():
    """One step an epoch, so that the weights of every step can be read."""
    images, labels = toy()
    trainer = make(batch_size=COUNT, averaging=EMA(0.6, every=2))
    model = trainer.model
    names = [variable.name for variable in averaged_variables(model)]
    assert {'moving_mean', 'moving_variance', 'kernel'} <= set(names)
    taken = []
    for epoch in range(1, 7):
        trainer.fit(images, labels, epoch)
        if epoch % 2 == 0:
            taken.append(model.get_weights())
    averages = [
        np.average(each, 0, weights=(0.36**2, 0.36, 1)) for each in zip(*taken, strict=True)
    ]
    raw = model.get_weights()
    logits = trainer.predict(images, 10)
    for before, after in zip(raw, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    twin = conv_model()
    twin.set_weights(averages)
    inputs = images / np.float32(255)
    np.testing.assert_allclose(logits, twin.predict(inputs, verbose=0), rtol=1e-3, atol=1e-4)
    assert np.abs(logits - model.predict(inputs, verbose=0)).max() > 0.01
    score, expected = trainer.evaluate(images, labels), np.argmax(logits, -1) == labels
    assert score.accuracy == expected.mean()


def test_averages_begin_at_the_weights_with_which_training_begins():
    trainer = make(dense_model(), optimizers.SGD(0.0), averaging=Lookahead(0.5, every=1))
    trainer.model.set_weights([np.ones_like(weight) for weight in trainer.model.get_weights()])
    trainer.fit(*toy(), 1)
    with trainer.averaged():
        for weight in trainer.model.get_weights():
            np.testing.assert_array_equal(weight, 1)


@pytest.mark.parametrize('rule', [EMA(0.9, every=99), Lookahead(0.5, every=99)])
def test_before_the_first_update_the_weights_stay(rule, caplog):
    trainer = make(averaging=rule)
    trainer.fit(*toy(), 2)
    (told,) = caplog.messages
    assert f'`every` should be at most the {2 * STEPS} steps of the training' in told
    assert told.endswith('Received: every=99')
    weights = trainer.model.get_weights()
    with trainer.averaged():
        for a, b in zip(weights, trainer.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    plain = make()
    plain.fit(*toy(), 2)
    np.testing.assert_array_equal(trainer.predict(toy()[0]), plain.predict(toy()[0]))


@pytest.mark.parametrize(('start', 'late'), [(9, False), (10, True), (99, True)])
def test_averages_that_begin_after_the_training_say_so(start, late, caplog):
    trainer = make(averaging=Lookahead(0.5, every=2, start=start))
    trainer.fit(*toy(), 2)
    told = f'`start` should be at most 9, for an average within the {2 * STEPS} steps of the '
    assert [told + f'training. Received: start={start}' in each for each in caplog.messages] == (
        [True] if late else []
    )


def test_a_fit_that_is_too_short_for_an_average_says_so(caplog):
    images, labels = toy()
    model = dense_model()
    model.compile('sgd', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    averaging = WeightAveraging(EMA(0.9, every=5))
    options = {'batch_size': COUNT // 2, 'verbose': 0, 'callbacks': [averaging]}
    model.fit(images, labels, epochs=2, **options)
    (told,) = caplog.messages
    assert '`every` should be at most the 4 steps of the training. Received: every=5' in told
    model.fit(images, labels, epochs=1, **options)  # its steps come to those before
    assert caplog.messages == [told]


def test_an_ema_leaves_the_training_alone():
    plain, averaged = make(), make(averaging=EMA(0.5, every=2))
    for trainer in (plain, averaged):
        trainer.fit(*toy(), 2)
    assert numbers(plain.records) == numbers(averaged.records)
    for a, b in zip(plain.model.get_weights(), averaged.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('rule', [EMA(0.7, every=3), Lookahead(0.5, every=3)])
def test_calls_of_any_length_average_alike(rule):
    whole, cut = make(averaging=rule), make(averaging=rule, seconds_per_call=1e-9)
    for trainer in (whole, cut):
        trainer.fit(*toy(), 2)
    assert_same(whole, cut)


def test_the_averages_come_and_go(tmp_path):
    trainer = make(averaging=EMA(0.5, every=2))
    trainer.fit(*toy(), 2)
    images = toy()[0]
    raw, expected = trainer.model.get_weights(), trainer.predict(images)
    path = tmp_path / 'model.keras'
    with trainer.averaged():
        trainer.model.save(path)
        np.testing.assert_array_equal(trainer.predict(images), expected)
        with trainer.averaged():
            pass
        averages = trainer.model.get_weights()
        with pytest.raises(ValueError, match=r'leave `averaged\(\)` first'):
            trainer.fit(*toy(), 3)
    with pytest.raises(KeyError), trainer.averaged():
        raise KeyError
    for a, b in zip(raw, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    loaded = keras.saving.load_model(path)
    for a, b, c in zip(averages, loaded.get_weights(), raw, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    trainer.fit(*toy(), 3)  # and training goes on where it was
    straight = make(averaging=EMA(0.5, every=2))
    straight.fit(*toy(), 3)
    assert_same(straight, trainer)


def test_without_a_rule_the_averages_are_the_weights():
    trainer = make()
    trainer.fit(*toy(), 1)
    weights = trainer.model.get_weights()
    with trainer.averaged():
        for a, b in zip(weights, trainer.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(values(trainer)) == len(trainer.model.variables + trainer.optimizer.variables)


def test_weights_of_another_model_are_refused():
    trainer = make(dense_model(), averaging=EMA(0.9))
    weights, averages = trainer.get_weights()
    other = [*weights[:-1], np.zeros((2, 2))]
    for wrong, message in (
        (([], []), r'`weights` must be the 2 arrays .* Received: 0 of them$'),
        ((None, averages), r'`weights` must be .* Received: NoneType$'),
        ((other, averages), r'2 of them, of which one has the shape \(2, 2\), not \(3,\)$'),
        ((weights, averages[:1]), '`averages` must be the 2 arrays .* Received: 1 of them'),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.set_weights(*wrong)
    trainer.set_weights(weights, averages)


def test_weights_of_low_precision_are_averaged_in_float32():
    layer = keras.layers.Dense(3, dtype='bfloat16')
    layer.build((None, 2))
    assert {weight.dtype for weight in layer.weights} == {'bfloat16'}
    averages = Averages(EMA(0.5, every=2), layer, in_one_call=lambda function: function)
    assert [average.dtype for average in averages.variables] == ['float32'] * 2


def test_a_rule_that_is_none():
    with pytest.raises(ValueError, match=r'`averaging` must be a rule .* averaging=0\.99$'):
        make(averaging=0.99)


# Alternating flips


def seen(trainer, recorder, epochs):
    """For each epoch, from the image's number to whether it was mirrored."""
    images = np.zeros((COUNT, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(1, COUNT + 1)  # on the left
    trainer.fit(images, np.zeros(COUNT, np.int32), epochs)
    batches = np.rint(np.stack(recorder.batches) * 255).astype(int)
    left, right = (batches[:, :, 0, column, 0].reshape(epochs, -1) for column in (0, -1))
    assert ((left == 0) != (right == 0)).all()
    return [
        dict(zip(numbers, mirrored, strict=True))
        for numbers, mirrored in zip(left + right - 1, right > 0, strict=True)
    ]


def test_each_image_is_flipped_every_other_epoch():
    recorder = Recorder()
    chain = augment.compose([augment.alternating_flip, recorder])
    epochs = seen(make(dense_model(), augment=chain), recorder, 6)
    coin = {}
    for epoch, mirrored in enumerate(epochs):
        assert len(mirrored) == STEPS * BATCH
        for number, flipped in mirrored.items():
            assert coin.setdefault(number, flipped ^ (epoch % 2)) == flipped ^ (epoch % 2)
    assert len(coin) == COUNT
    assert 4 < sum(coin.values()) < COUNT - 4
    other = Recorder()
    chain = augment.compose([augment.alternating_flip, other])
    (first,) = seen(make(dense_model(), augment=chain, seed=SEED + 1), other, 1)
    assert any(first[number] != coin[number] for number in first)


def test_a_bare_augmentation_learns_epoch_indices_and_seed():
    """Not only within a chain; and only what it asks for."""
    noted = Recorder()

    def note(images, seed, indices, epoch):
        return noted(images, ops.stack([epoch, indices[0]]))

    trainer = make(dense_model(), augment=note)
    trainer.fit(*toy(), 2)
    assert [epoch for epoch, _ in noted.seeds] == [0] * STEPS + [1] * STEPS
    assert {index for _, index in noted.seeds} <= set(range(COUNT))
    assert len({index for _, index in noted.seeds[:STEPS]}) == STEPS

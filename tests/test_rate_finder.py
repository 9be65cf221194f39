"""The learning-rate finder: its rates and losses, what it leaves untouched, what it suggests."""

import keras
import numpy as np
import pytest
from training_toys import conv_model, dense_model, make, sgd, toy, values

from fenwicks import augment, diagnostics, losses, optimizers, plots, schedules
from fenwicks.diagnostics import rates
from fenwicks.diagnostics.rate_finder import _suggest

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def find(trainer, **options):
    return diagnostics.find_learning_rate(trainer, *toy(), **{'steps': 12, **options})


def trained(averaging=None):
    model = dense_model(keras.layers.Dropout(0.5, seed=3), keras.layers.BatchNormalization())
    trainer = make(model, augment=augment.random_flip, averaging=averaging)
    trainer.fit(*toy(), 1)
    return trainer


@pytest.mark.parametrize('averaging', [None, optimizers.Lookahead(0.5, every=2)])
def test_everything_is_restored_to_the_bit(averaging):
    trainer, twin = trained(averaging), trained(averaging)
    before = values(trainer)
    find(trainer, start=1e-2, stop=10.0)
    for one, two in zip(values(trainer), before, strict=True):
        np.testing.assert_array_equal(one, two)
    for each in (trainer, twin):  # and goes on as if nothing had been
        each.fit(*toy(), 2)
    for one, two in zip(values(trainer), values(twin), strict=True):
        np.testing.assert_array_equal(one, two)


def test_within_the_averages_the_averages_are_restored():
    """On JAX they were given away with the weights that the sweep trained."""
    trainer = trained(optimizers.EMA(0.5, every=1))
    weights, averages = trainer.get_weights()
    with trainer.averaged():
        find(trainer)
        for one, two in zip(trainer.model.get_weights(), averages, strict=True):
            np.testing.assert_array_equal(one, two)
    trainer.evaluate(*toy())
    for one, two in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, two)
    trainer.fit(*toy(), 2)


def test_everything_is_restored_after_an_error():
    trainer = trained()
    before = values(trainer)

    def broken(images, seed):
        raise ZeroDivisionError

    trainer.augment = broken
    with pytest.raises(ZeroDivisionError):
        find(trainer)
    for one, two in zip(values(trainer), before, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_losses_are_those_of_steps_at_the_rates():
    """A Trainer with the same rates as a schedule, step by step; with a frozen kernel, too."""
    frozen = {'freeze': ((0, '.*conv/kernel'),)}
    found = find(make(**frozen), start=1e-3, stop=0.1)
    np.testing.assert_allclose(found.learning_rates, np.geomspace(1e-3, 0.1, 12), rtol=1e-12)
    knots = [(step, float(rate)) for step, rate in enumerate(found.learning_rates)]
    other = make(optimizer=sgd(schedules.PiecewiseLinear(knots)), **frozen)
    other.load(*toy())
    other.compile()
    losses = [other.run_steps(*divmod(step, 5), step % 5 + 1).last_loss for step in range(12)]
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    # The average's closed form.
    weights = 0.9 ** np.arange(12)[::-1]
    np.testing.assert_allclose(found.smoothed[-1], (weights * losses).sum() / weights.sum(), 1e-4)
    assert not found.diverged


def test_the_sweep_ends_where_the_loss_explodes():
    found = find(make(), start=1e-2, stop=1e6, steps=40, smoothing=0.5)
    assert found.diverged
    assert 2 < len(found.losses) == len(found.learning_rates) == len(found.smoothed) < 40
    assert not found.smoothed[-1] <= 4 * np.nanmin(found.smoothed)


def test_a_negative_loss_explodes_where_it_rises():
    """The sweep ended after its first step."""

    def negative(labels, outputs):
        return losses.cross_entropy(labels, outputs) - 100.0

    found = find(make(dense_model(), loss=negative), start=1e-4, stop=1e-3)
    assert len(found.losses) == 12
    assert not found.diverged


def test_what_is_suggested():
    grid = np.geomspace(1e-4, 1.0, 21)
    falls = 2.0 - np.arange(21) / 20
    rate, reason = _suggest(grid, falls, False, 21)
    assert rate == pytest.approx(0.1)
    assert 'the loss still fell at the last rate' in reason
    falls[15:] = 3.0
    rate, reason = _suggest(grid, falls, True, 21)
    assert rate == pytest.approx(grid[14] / 10)
    assert reason == (
        'a tenth of 0.0631, the rate at which the smoothed loss was least: 1.3, down from 2'
    )
    rate, reason = _suggest(grid, np.arange(21.0) + 1, True, 21)
    assert rate is None
    assert 'did not fall below 1' in reason
    assert _suggest(grid[:1], np.array([np.nan]), True, 21)[0] is None


def built(optimizer, model):
    optimizer.build(model.trainable_variables)
    return optimizer


def test_rates_within_an_optimizer_keep_their_ratios():
    rises = schedules.PiecewiseLinear([(0, 0.0), (7, 0.4), (20, 0.0)])
    bias = schedules.PiecewiseLinear([(0, 0.0), (7, 4.0), (20, 0.0)])
    group = optimizers.ParameterGroup('bias', learning_rate=3.0, schedule=bias)
    copy = rates.with_sweep(
        built(optimizers.SGD(rises, momentum=0.9, groups=[group]), conv_model()), 0.01, 1.0, 11
    )
    assert (copy.momentum, copy.groups[0].learning_rate) == (0.9, 3.0)
    for step, rate in ((0, 0.01), (5, 0.1), (10, 1.0)):
        assert float(copy.rate_at(step)) == pytest.approx(rate, rel=1e-5)
        assert float(copy.groups[0].schedule(step)) == pytest.approx(10 * rate, rel=1e-5)

    twice = schedules.PiecewiseLinear([(0, 0.0), (7, 2.0)])  # a factor, at the peak 2
    group = optimizers.ParameterGroup('bias', learning_rate=twice)
    copy = rates.with_sweep(
        built(optimizers.SGD(rises, groups=[group]), conv_model()), 0.01, 1.0, 11
    )
    assert copy.groups[0].learning_rate == 2.0

    muon = optimizers.Muon(0.2, others=optimizers.SGD(0.05), others_match=['.*dense.*'])
    copy = rates.with_sweep(built(muon, conv_model()), 0.01, 1.0, 11)
    assert float(copy.others.rate_at(10)) == pytest.approx(0.25, rel=1e-5)

    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=8.0)
    copy = rates.with_sweep(scaled, 0.01, 1.0, 11)
    assert copy.initial_scale == 8.0
    assert float(copy.inner_optimizer.learning_rate) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        ({'start': 0}, '`start` must be a finite number above 0'),
        ({'start': 1.0, 'stop': 0.5}, '`stop` must be a finite number above 1.0'),
        ({'steps': 3}, '`steps` must be an integer >= 10'),
        ({'smoothing': 1}, '`smoothing` must be a number in [0, 1)'),
        ({'divergence': 1}, '`divergence` must be a finite number above 1'),
    ],
)
def test_bad_arguments(options, line):
    with pytest.raises(ValueError) as raised:
        find(make(), **options)
    assert str(raised.value).startswith(line)
    assert '\n' not in str(raised.value)


def test_bad_data_and_trainers():
    with pytest.raises(
        ValueError, match=r'`trainer` must be a training\.Trainer\. Received: trainer'
    ):
        find(conv_model())
    images, labels = toy()
    with pytest.raises(ValueError, match=r'`labels` must .*Received'):
        diagnostics.find_learning_rate(make(), images, labels + 7)
    with pytest.raises(ValueError, match=r'`batch_size` must be at most the 3'):
        diagnostics.find_learning_rate(make(), images[:3], labels[:3])


def test_its_curve():
    pytest.importorskip('matplotlib')
    found = find(make(), start=1e-3, stop=0.1)
    figure = plots.learning_rate_finder(
        found.learning_rates, found.smoothed, found.suggestion, measured=found.losses
    )
    measured, smoothed = figure.axes[0].lines[:2]
    np.testing.assert_array_equal(measured.get_ydata(), found.losses)
    np.testing.assert_array_equal(smoothed.get_ydata(), found.smoothed)


class Unknown(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that isn't registered."""

    def __call__(self, step):
        return 0.1 + 0 * step

    def get_config(self):
        return {}


def constant():
    return 0.1


@pytest.mark.parametrize('rate', [constant, Unknown()])
def test_rates_that_no_copy_can_be_made_of_are_refused_in_one_line(rate, monkeypatch):
    monkeypatch.setattr(Unknown, '__module__', 'elsewhere')  # as that of a notebook
    trainer = make(dense_model(), optimizer=optimizers.SGD(rate))
    with pytest.raises(ValueError, match='`trainer` must have an optimizer whose rates are') as e:
        find(trainer)
    assert len(str(e.value).splitlines()) == 1
    assert '<fenwicks.optimizers.sgd.SGD object' in str(e.value)


def test_a_minimum_that_came_too_early_is_said_to_be_one():
    learning_rates = np.geomspace(1e-5, 1, 40)
    smoothed = np.linspace(1, 2, 40)
    smoothed[1] = 0.9
    rate, reason = _suggest(learning_rates, smoothed, diverged=False, steps=40)
    assert rate is None
    assert reason.startswith(f'the loss was least at the rate {learning_rates[1]:.3g}, too early')


def test_a_sweep_that_explodes_at_once_suggests_nothing():
    rates, smoothed = np.array([1.0, 1.26, 1.58]), np.array([2.3, 2.29, 50.0])
    rate, reason = _suggest(rates, smoothed, diverged=True, steps=100)
    assert rate is None
    assert reason.startswith('the loss was least at the rate 1.26, too early to say more')

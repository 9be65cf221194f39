"""The lab on posts 1 to 3: the rules on made logs, and how steps are timed and losses asked for."""

import importlib.util
import math
import types

import keras
import numpy as np
import pytest
from scripts import ROOT, loaded

import fenwicks as fw

pytestmark = pytest.mark.backend('tensorflow', 'jax')
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec('matplotlib') is None, reason='Matplotlib is not installed'
)


def load(name):
    return loaded(ROOT / 'examples' / 'lab' / f'{name}.py')


@pytest.fixture(scope='module')
def baseline():
    with load('01_baseline') as script:
        yield script


@pytest.fixture(scope='module')
def batches():
    with load('02_mini_batches') as script:
        yield script


@pytest.fixture(scope='module')
def regularisation():
    with load('03_regularisation_and_time') as script:
        yield script


def held(script, runs):
    return [claim.judge(runs).held for claim in script.EXPERIMENT.claims]


def noise(seed):
    """A small number for each seed, whose mean over three of them is 0."""
    return 0.002 * (seed - 1)


def baseline_runs(cleaned=0.9, repeated=0.9, slower=1.05, seeds=3):
    runs = []
    for seed in range(seeds):
        for name, accuracy in (('cleaned', cleaned), ('repeated', repeated)):
            found = None if accuracy is None else accuracy + noise(seed)
            curves = {'train_losses': [2.0, 1.0], 'learning_rates': [0.1, 0.0]}
            runs.append({'network': name, 'seed': seed, 'accuracy': found, **curves})
        seconds = {'cleaned': [1.0, 1.1], 'repeated': [slower, 1.1 * slower + noise(seed)]}
        runs.append({'network': 'both, timed', 'seed': seed, 'seconds': seconds})
    return runs


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, [True, True]),
        ({'slower': 1.0}, [False, True]),
        ({'cleaned': 0.89}, [True, False]),
        ({'cleaned': 0.93}, [True, True]),
        ({'cleaned': None}, [True, False]),  # diverged
    ],
)
def test_the_rules_of_the_baseline(baseline, changes, expected):
    assert held(baseline, baseline_runs(**changes)) == expected


def test_how_many_times_the_errors(baseline):
    one, other = [{'accuracy': 0.88}, {'accuracy': 0.86}], [{'accuracy': 0.9}, {'accuracy': None}]
    ratio, factor = baseline.comparing.times_the_errors(one, other)
    assert ratio == pytest.approx(math.sqrt(12 * 14 / (10 * 90)))  # of geometric means
    errors = [2 * abs(math.log(a / b)) / 2 for a, b in ((12, 14), (10, 90))]
    assert factor == pytest.approx(math.exp(math.hypot(*errors)))
    assert baseline.comparing.times(0.5, 1.25) == '0.500 times (0.400 to 0.625)'
    assert baseline.comparing.times(0.5, math.inf) == '0.500 times'


def test_runs_without_an_error_can_be_compared(baseline):
    perfect, other = [{'accuracy': 1.0}] * 2, [{'accuracy': 0.9}] * 2
    assert baseline.comparing.times_the_errors(perfect, other)[0] == pytest.approx(0.05 / 10)


def test_the_baseline_counts_a_run_that_diverged(baseline):
    runs = baseline_runs()
    runs[0] |= {'accuracy': None, 'train_losses': [], 'learning_rates': []}
    assert '(1 diverged, counted as 10 %)' in baseline.judge_accuracy(runs).because


def batch_runs(script, best=None, gap=lambda rate: 0.1 + rate, lost=(), cost=0.0, seeds=3):
    """Runs on the small settings whose lowest loss is at the rate that `best` gives."""
    settings = script.EXPERIMENT.small
    smallest = settings['batch_sizes'][0]

    def as_claimed(name, batch_size):
        if name == 'large':
            return 0.08
        return 1.28 if batch_size == smallest else 0.32

    runs = []
    for seed in range(seeds):
        for variant in script.variants(settings):
            name, batch_size, rate = variant.values()
            distance = abs(math.log(rate / (best or as_claimed)(name, batch_size)))
            run = {
                'train_loss': 0.1 + distance,
                'accuracy': 0.9 - cost * (batch_size > smallest) + noise(seed),
                'just_seen': 1.0,
                'epoch_ago': 1.0 + gap(rate) + noise(seed),
                'never_seen': 2.0,
            }
            if (name, batch_size) in lost:
                run = dict.fromkeys(run)
            runs.append({**variant, 'seed': seed, **run})
    return runs


EVERYWHERE = [('large', 32), ('large', 128), ('large', 192), ('small', 32), ('small', 192)]


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, [True, True, True, True]),
        ({'cost': 0.02}, [False, True, True, True]),
        ({'gap': lambda rate: 0.0}, [True, False, True, True]),
        ({'gap': lambda rate: 0.1}, [True, False, True, True]),  # no more than at the lowest rate
        ({'best': lambda name, size: 2.56 / size}, [True, True, False, False]),
        ({'best': lambda name, size: 0.08}, [True, True, True, False]),
        ({'lost': [('large', 192)]}, [False, True, False, True]),
        ({'lost': [('small', 32)]}, [True, True, True, False]),
        ({'lost': EVERYWHERE}, [False, False, False, False]),
    ],
)
def test_the_rules_of_mini_batches(batches, changes, expected):
    assert held(batches, batch_runs(batches, **changes)) == expected


def test_mini_batches_count_the_runs_that_diverged(batches):
    runs = batch_runs(batches, lost=[('small', 192)])
    assert '(12 of 60 runs diverged)' in batches.judge_batches(runs).because


def test_a_loss_in_training_uses_the_images_statistics_and_changes_nothing(batches):
    model = keras.Sequential([keras.Input((2, 2, 1)), fw.layers.BatchNormalization()])
    model.add(keras.layers.Flatten())
    model.layers[0].moving_mean.assign([50.0])
    trainer = types.SimpleNamespace(model=model, batch_size=2, normalize=np.asarray)
    images = np.array([1, 2, 3, 4, 9])[:, None, None, None] * np.ones((1, 2, 2, 1), 'float32')
    loss = batches.loss_in_training(trainer, images.astype('float32'), np.array([0, 1, 2, 3, 0]))
    assert loss == pytest.approx(math.log(4), rel=1e-4)  # the four outputs of an image are equal
    assert float(model.layers[0].moving_mean[0]) == 50.0


def test_what_was_just_seen_is_what_the_last_steps_trained_on(batches, monkeypatch):
    """The order that is asked for is that in which the Trainer fetched the batches."""
    fetched, asked = [], []
    stored_batch = fw.data.ImageBatches.stored_batch

    def spy(self, index):
        batch = stored_batch(self, index)
        fetched.append(batch[0])
        return batch

    def loss(trainer, images, labels):
        asked.append((images, list(fetched)))
        return 1.0

    def network(name, width, dataset):
        inputs = keras.Input(dataset.image_shape)
        return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))

    monkeypatch.setattr(fw.data.ImageBatches, 'stored_batch', spy)
    monkeypatch.setattr(batches, 'loss_in_training', loss)
    monkeypatch.setattr(batches.dawnbench, 'network', network)
    sizes = {'large': 32, 'small': 16, 'budget': 128, 'batch_sizes': [8]}
    variant = {'set': 'large', 'batch_size': 8, 'rate': 0.01}
    dataset = fw.data.load('digits')
    found = batches.train({**batches.EXPERIMENT.small, **sizes}, variant, 0, dataset)
    assert 0 < found['accuracy'] < 1
    (just_seen, before), (epoch_ago, _), (never_seen, _) = asked
    trained, ordered = before[-8:-4], before[-4:]  # an epoch has four batches
    np.testing.assert_array_equal(ordered, trained)
    np.testing.assert_array_equal(just_seen, trained[-1])
    np.testing.assert_array_equal(epoch_ago, trained[0])
    np.testing.assert_array_equal(never_seen, dataset.test_images[:8])
    assert not np.array_equal(trained, before[-12:-8])  # those of the epoch before


def regularisation_runs(script, profiled=True, slower=1.1, norm=20.0, seeds=3, **accuracies):
    runs = []
    usual = {'cutout': 0.91, 'earlier peak': 0.92, 'shorter': 0.91}
    arms = {**dict.fromkeys(script.ARMS, 0.9), **usual, **accuracies}
    for seed in range(seeds):
        for size in (32, 128):
            seconds = {'single': [1.0, 1.0], 'half': [slower, slower + noise(seed)]}
            run = {'timed_batch_size': size, 'seed': seed, 'seconds': seconds}
            kinds = dict(zip(script.KINDS, (60.0, norm, 5.0, 5.0, 3.0, 4.0), strict=True))
            milliseconds = {name: {**kinds, 'rest': 3.0} for name in ('single', 'half')}
            runs.append({**run, 'milliseconds': milliseconds} if profiled else run)
        for name, accuracy in arms.items():
            found = None if accuracy is None else accuracy + noise(seed)
            runs.append({**script.ARMS[name], 'seed': seed, 'accuracy': found})
    return runs


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, [True, True, True, True, True]),
        ({'norm': 6.0}, [False, True, True, True, True]),
        ({'profiled': False}, [False, True, True, True, True]),
        ({'slower': 1.0}, [True, False, True, True, True]),
        ({'cutout': 0.9}, [True, True, False, True, True]),
        ({'shorter, plain': 0.91}, [True, True, False, True, True]),
        ({'earlier peak': 0.91}, [True, True, True, False, True]),
        ({'shorter': 0.88, 'shorter, plain': 0.86}, [True, True, True, True, False]),
        ({'plain': None}, [True, True, True, True, True]),  # counts as a guess
        ({'shorter': None}, [True, True, False, True, False]),
    ],
)
def test_the_rules_of_regularisation(regularisation, changes, expected):
    assert held(regularisation, regularisation_runs(regularisation, **changes)) == expected


def test_half_precision_is_that_of_the_norms_weights_only(regularisation):
    layer = regularisation.HalfBatchNormalization(dtype='mixed_bfloat16')
    layer.build((None, 2, 2, 3))
    assert {str(weight.dtype) for weight in layer.weights} == {'bfloat16'}
    images = np.random.default_rng(0).normal(3.0, 2.0, (8, 2, 2, 3)).astype('float32')
    outputs = np.asarray(keras.ops.convert_to_numpy(layer(images, training=True)), 'float32')
    assert abs(outputs.mean()) < 0.02
    assert abs(outputs.std() - 1) < 0.02
    moved = np.asarray(keras.ops.convert_to_numpy(layer.moving_mean), 'float32')
    np.testing.assert_allclose(moved, 0.1 * images.mean((0, 1, 2)), rtol=0.02)


def test_a_profile_as_a_table(regularisation):
    profile = {'convolution, forward': 2.0, 'convolution, kernel gradient': 3.0, 'loss': 0.5}
    profile |= {'batch norm, backward': 1.0, 'augmentation': 0.25, 'no operation running': 0.25}
    found = regularisation.table(profile)
    assert list(found) == [*regularisation.KINDS, 'rest']
    assert (found['convolution'], found['batch norm'], found['data']) == (5.0, 1.0, 0.25)
    assert (found['rest'], sum(found.values())) == (0.75, 7.0)


def test_turns_alternate(baseline):
    order = []

    def trainer(name):
        return types.SimpleNamespace(run_steps=lambda *steps: order.append((name, *steps)))

    trainers = {name: trainer(name) for name in ('a', 'b')}
    seconds = baseline.timing.in_turns(trainers, steps=4, turns=3)
    assert order == [(name, 0, 0, 4) for name in 'abbaab']
    assert {name: len(each) for name, each in seconds.items()} == {'a': 3, 'b': 3}
    runs = [{'seconds': {'a': [2.0, 3.0], 'b': [1.0, 2.0]}}, {'seconds': {'a': [4.0], 'b': [1.0]}}]
    assert baseline.timing.ratios(runs, 'a', 'b') == [2.0, 1.5, 4.0]


def test_a_schedule_is_stretched_to_the_steps(baseline):
    config = baseline.dawnbench.optimizer(0.2, 70).get_config()
    schedule = keras.saving.deserialize_keras_object(config['learning_rate'])
    found = [schedule(step) for step in (0, 15, 30, 60, 70)]
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.01, 0.0])
    assert (config['momentum'], config['nesterov'], config['weight_decay']) == (0.9, True, 5e-4)


@needs_matplotlib
def test_figures_of_runs_that_diverged(baseline, batches, regularisation):
    """Also where nothing is left to draw."""
    lost = [run | {'train_losses': [], 'learning_rates': []} for run in baseline_runs(None, None)]
    assert len(baseline.draw(lost).axes) == 4
    assert len(batches.draw(batch_runs(batches, lost=EVERYWHERE)).axes) == 3
    runs = regularisation_runs(regularisation, profiled=False, plain=None)
    assert len(regularisation.draw(runs).axes) == 3

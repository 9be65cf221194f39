"""What the parts of a Trainer keep from call to call: its data, its epochs, its metrics."""

import weakref

import keras
import numpy as np
import pytest
from stream_toys import Changed
from training_toys import BATCH, STEPS, dense_model, make, sgd, toy, values

from fenwicks import data, optimizers

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy(24)
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
CATEGORICAL = keras.metrics.CategoricalAccuracy
QUIET = {'verbose': 0}


def two_layers():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation='relu', name='body'),
            keras.layers.Dense(3, name='head'),
        ]
    )


@pytest.mark.parametrize('trained_on', [LABELS, ONE_HOT])
@pytest.mark.parametrize('validated_on', [LABELS, ONE_HOT])
def test_validation_reads_its_labels_as_they_are(trained_on, validated_on):
    """Its metrics took integers for rows of numbers where the training had those."""
    trainer = make(dense_model(), metrics=[CATEGORICAL(name='ca')])
    held_out = IMAGES, validated_on
    trainer.fit(IMAGES, trained_on, 1, validation_data=held_out, **QUIET)
    record = trainer.records[-1]
    assert record['val_ca'] == pytest.approx(record['val_accuracy'])
    again = trainer.evaluate(IMAGES, validated_on)
    assert (again.accuracy, again.others['ca']) == pytest.approx(2 * (record['val_ca'],))


def test_evaluating_in_a_callback_leaves_the_metrics_of_the_training_alone():
    plain, watched = (
        make(two_layers(), metrics=[CATEGORICAL(name='ca')], freeze=((1, '.*body/.*'),))
        for _ in range(2)
    )
    evaluates = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: watched.evaluate(IMAGES, ONE_HOT)
    )
    plain.fit(IMAGES, LABELS, 2, **QUIET)
    watched.fit(IMAGES, LABELS, 2, callbacks=[evaluates], **QUIET)
    assert watched.history.history['ca'] == plain.history.history['ca']


def test_there_is_no_accuracy_where_no_answer_is_right_or_wrong():
    def loss(labels, outputs):
        labels = keras.ops.cast(labels, 'float32')
        return keras.ops.mean(keras.ops.square(outputs)) + 0 * keras.ops.mean(labels)

    trainer = make(dense_model(), loss=loss)
    trainer.fit(IMAGES, LABELS, 1, validation_data=(IMAGES, ONE_HOT), **QUIET)
    assert 'val_accuracy' not in trainer.records[-1]
    assert 'train_accuracy' in trainer.records[-1]


@pytest.mark.parametrize('first', [1.5, 0.5])
def test_a_part_of_an_epoch_ends_a_training_on_other_data_too(first):
    trainer = make(dense_model())
    trainer.fit(IMAGES, LABELS, first, **QUIET)
    with pytest.raises(ValueError, match=r'a training that ended with a part of an epoch .* after'):
        trainer.fit(IMAGES[:12], LABELS[:12], 6, **QUIET)
    assert len(trainer.records) == np.ceil(first)
    trainer.fit(IMAGES[:12], LABELS[:12], first, **QUIET)  # as long as it is
    assert len(trainer.records) == np.ceil(first)


def test_a_refused_fit_leaves_the_data_as_they_were():
    trainer = make(dense_model())
    bad = {'validation_data': (IMAGES, LABELS[:3])}
    with pytest.raises(ValueError, match='labels'):
        trainer.fit(IMAGES, LABELS, 1, **bad, **QUIET)
    with pytest.raises(ValueError, match='the Trainer must have data to train on'):
        trainer.compile()
    trainer.load(IMAGES[:8], LABELS[:8])
    with pytest.raises(ValueError, match='labels'):
        trainer.fit(IMAGES, LABELS, 1, **bad, **QUIET)
    assert trainer.run_steps(0, 0, 2).steps == 2
    assert trainer.history.params['steps'] == 2


def batches():
    return data.ImageBatches(IMAGES, LABELS, BATCH, drop_remainder=True)


def test_a_stream_leaves_nothing_behind():
    """Its last chunk stayed, and other steps were taken on what is in it."""
    trainer = make(dense_model())
    trainer.fit(batches(), epochs=1, **QUIET)
    for call in (trainer.compile, lambda: trainer.run_steps(0, 0, 2)):
        with pytest.raises(ValueError, match='the Trainer must have data to train on'):
            call()
    trainer.fit(batches(), epochs=2, **QUIET)
    assert len(trainer.records) == 2


def test_the_workers_of_a_stream_end_with_the_fit():
    passes = []

    class Pass:
        """An iterator over a source, as that of a DataLoader, which ends its workers with it."""

        def __init__(self):
            self.rest = iter([(IMAGES[n : n + BATCH], LABELS[n : n + BATCH]) for n in (0, 4, 8)])

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.rest)

    class Source:
        def __len__(self):
            return 3

        def __iter__(self):
            found = Pass()
            passes.append(weakref.ref(found))
            return found

    trainer = make(dense_model())
    trainer.fit(Source(), epochs=2, **QUIET)
    import gc

    gc.collect()
    assert passes
    assert [each() for each in passes] == [None] * len(passes)


def test_an_epoch_that_got_no_data_is_not_half_trained():
    class Fails(Changed):
        broken = False

        def __len__(self):
            return STEPS

        def __getitem__(self, index):
            if self.broken and self.epoch:
                raise OSError('the disk is gone')
            return IMAGES[:BATCH], LABELS[:BATCH]

        epoch = 0

    source = Fails(-1, None)
    source.broken = True  # from the second epoch on
    trainer = make(dense_model())
    with pytest.raises(OSError, match='the disk is gone'):
        trainer.fit(source, epochs=2, **QUIET)
    assert len(trainer.records) == 1
    source.broken = False
    trainer.fit(source, epochs=2, **QUIET)
    assert len(trainer.records) == 2


def test_an_interrupted_swap_of_averages_leaves_all_weights():
    """The Ctrl-C fell between two weights; the averages of the first were lost among them."""
    import os
    import signal

    trainer = make(dense_model(), averaging=optimizers.EMA(0.5, every=1))
    trainer.fit(IMAGES, LABELS, 1, **QUIET)
    before = values(trainer)
    assign = trainer._averages._assign

    def interrupted(given):
        os.kill(os.getpid(), signal.SIGINT)
        return assign(given)

    trainer._averages._assign = interrupted
    with pytest.raises(KeyboardInterrupt), trainer.averaged():
        pass
    trainer._averages._assign = assign
    for old, new in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(new, old)
    trainer.fit(IMAGES, LABELS, 2, **QUIET)


@pytest.mark.parametrize(
    ('saved', 'more', 'message'),
    [
        (2, {'initial_epoch': 1}, '`initial_epoch` must be 2'),
        (1.5, {}, 'ended with a part of an epoch'),
    ],
)
def test_a_refused_checkpoint_leaves_all_as_it_was(tmp_path, saved, more, message):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(IMAGES, LABELS, saved, checkpoint=path, **QUIET)
    trainer = make(dense_model())
    before = values(trainer)
    with pytest.raises(ValueError, match=message):
        trainer.fit(IMAGES, LABELS, 3, checkpoint=path, resume=True, **more, **QUIET)
    assert trainer.records == []
    for old, new in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(
    'steps', [(0, 0, STEPS + 1), (0, -1, 1), (-1, 0, 1), (0, 2, 1), (0, 0.0, 1), (0, False, 1)]
)
def test_steps_that_no_epoch_has(steps):
    trainer = make(dense_model())
    trainer.load(*toy())
    with pytest.raises(ValueError, match='`epoch`, `start` and `stop` must be integers'):
        trainer.run_steps(*steps)


def test_no_steps_are_taken_with_the_averages_in_place():
    trainer = make(dense_model(), averaging=optimizers.EMA(0.5, every=1))
    trainer.fit(*toy(), 1)
    with trainer.averaged(), pytest.raises(ValueError, match=r'leave `averaged\(\)` first'):
        trainer.run_steps(1, 0, 1)


def test_the_rate_is_traced_once_for_all_fits():
    trainer = make(dense_model())
    trainer.fit(IMAGES, LABELS, 1, **QUIET)
    read = trainer._learning_rate._read
    trainer.fit(IMAGES, LABELS, 2, **QUIET)
    assert trainer._learning_rate._read is read


def multi(**options):
    rates = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1, **options), {})
    return keras.optimizers.MultiOptimizer(rates)


@pytest.mark.parametrize(
    ('optimizer', 'message'),
    [
        (multi, 'with a MultiOptimizer'),
        (lambda: keras.optimizers.LossScaleOptimizer(multi()), 'with a MultiOptimizer'),
        (lambda: keras.optimizers.SGD(0.1, use_ema=True), 'that has use_ema'),
    ],
)
def test_freeze_is_refused_where_the_optimizer_would_move_what_is_frozen(optimizer, message):
    with pytest.raises(ValueError, match=f'`freeze` must be empty .*{message}'):
        make(two_layers(), optimizer(), freeze=((1, '.*body/.*'),))


def test_all_that_is_left_frozen_is_refused():
    trainer = make(two_layers(), freeze=((1, '.*head/.*'),))
    trainer.fit(IMAGES, LABELS, 1, **QUIET)
    trainer.model.get_layer('body').trainable = False
    with pytest.raises(ValueError, match='`freeze` must leave variables to train'):
        trainer.fit(IMAGES, LABELS, 2, **QUIET)


@pytest.mark.parametrize('frozen', ['last', 'b'])
def test_layers_of_one_path_are_not_taken_for_each_other(frozen):
    inputs = keras.Input((8, 8, 3))
    outputs = []
    for name in 'ab':
        inner = keras.Input((8, 8, 3))
        same = keras.layers.Dense(3, name='same')(keras.layers.Flatten()(inner))
        outputs.append(keras.Model(inner, same, name=name)(inputs))
    first = keras.layers.Rescaling(0.5)(keras.layers.Add()(outputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name='last')(first))
    trainer = make(model, sgd())
    trainer.fit(IMAGES, LABELS, 1, **QUIET)
    model.get_layer(frozen).trainable = False
    with pytest.raises(ValueError, match='`model` must have weights of different paths'):
        trainer.fit(IMAGES, LABELS, 2, **QUIET)


def test_a_metric_that_does_not_take_the_validation_is_refused_first():
    sparse = keras.metrics.SparseCategoricalAccuracy(name='sa')
    trainer = make(dense_model(), metrics=[sparse])
    with pytest.raises(ValueError, match='`metrics` must take the labels'):
        trainer.fit(IMAGES, LABELS, 1, validation_data=(IMAGES, ONE_HOT), **QUIET)
    assert trainer.records == []


def test_a_stream_that_does_not_fit_leaves_the_arrays():
    trainer = make(dense_model(), memory_budget=10_000)
    trainer.load(IMAGES[:8], LABELS[:8])
    images = np.zeros((4 * BATCH, 8, 8, 3), np.uint8)
    stream = data.ImageBatches(images, LABELS[: len(images)], BATCH, drop_remainder=True)
    trainer.memory_budget = 100
    with pytest.raises(ValueError, match='`memory_budget` must hold two batches'):
        trainer.fit(stream, epochs=1, **QUIET)
    assert trainer.run_steps(0, 0, 2).steps == 2
    assert trainer.history.params['steps'] == 2

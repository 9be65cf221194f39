"""What `fit` has of Keras's: validation, history, callbacks; and kill and resume with them."""

import csv
import json

import keras
import numpy as np
import pytest
from training_toys import (
    BATCH,
    STEPS,
    Stop,
    assert_same,
    conv_model,
    dense_model,
    interrupted,
    make,
    numbers,
    sgd,
    toy,
    values,
)

from fenwicks import optimizers, training
from fenwicks.training import DivergedError, callbacks
from fenwicks.training import checkpoint as checkpoints

pytestmark = pytest.mark.backend('tensorflow', 'jax')
HELD_OUT = toy(23, seed=3)  # one image more than the data, and no multiple of a batch


def fit(trainer, epochs=2, *given, **options):
    options = {'validation_data': HELD_OUT, 'callbacks': given} | options
    return trainer.fit(*toy(), epochs, **options)


def ema(**options):
    return make(optimizer=sgd(0.02), averaging=optimizers.EMA(0.5, every=2), **options)


# Validation and history


def test_validation_is_keras_evaluate_of_the_averages():
    trainer = ema()
    history = fit(trainer)
    score = trainer.evaluate(*HELD_OUT)
    with trainer.averaged():
        model = keras.models.clone_model(trainer.model)
        model.set_weights(trainer.model.get_weights())
    model.compile(loss=trainer.loss, metrics=['accuracy'])
    loss, accuracy = model.evaluate(HELD_OUT[0] / np.float32(255), HELD_OUT[1], verbose=0)
    assert history.history['val_loss'][-1] == pytest.approx(loss, rel=1e-4)
    assert history.history['val_loss'][-1] == pytest.approx(score.loss, rel=1e-5)
    assert history.history['val_accuracy'][-1] == score.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize('size', [3, 10, 23, 500])
def test_every_image_is_validated_once_whatever_the_batch(size, monkeypatch):
    monkeypatch.setattr(training.validation, 'BATCH_SIZE', size)
    trainer = make(dense_model())
    history = fit(trainer, 1)
    score = trainer.evaluate(*HELD_OUT)
    assert history.history['val_loss'] == [pytest.approx(score.loss, rel=1e-5)]
    assert history.history['val_accuracy'] == [score.accuracy]


def test_validation_changes_no_number_of_the_training():
    plain, validated = ema(), ema()
    plain.fit(*toy(), 2)
    fit(validated)
    for a, b in zip(values(plain), values(validated), strict=True):
        np.testing.assert_array_equal(a, b)
    assert numbers(plain.records) == [
        {key: value for key, value in record.items() if not key.startswith('val_')}
        for record in numbers(validated.records)
    ]


@pytest.mark.parametrize(('freq', 'epochs'), [(2, [2, 4]), ([1, 4], [1, 4])])
def test_validation_freq(freq, epochs):
    trainer = make(dense_model())
    history = fit(trainer, 4, validation_freq=freq)
    assert [r['epoch'] for r in trainer.records if 'val_loss' in r] == epochs
    assert len(history.history['val_loss']) == 2
    assert len(history.history['loss']) == 4


def test_the_loss_of_a_validation_has_the_regularizers(capsys):
    trainer = make(dense_model(kernel_regularizer='l2'))
    history = fit(trainer, 1)
    plain = trainer.evaluate(*HELD_OUT).loss
    penalty = float(sum(keras.ops.convert_to_numpy(loss) for loss in trainer.model.losses))
    assert penalty > 0
    assert history.history['val_loss'][0] == pytest.approx(plain + penalty, rel=1e-4)
    assert f'val_loss {history.history["val_loss"][0]:.4f}' in capsys.readouterr().err


def test_fit_returns_keras_history():
    trainer = make(dense_model())
    history = fit(trainer)
    assert isinstance(history, keras.callbacks.History)
    assert list(history.history) == [
        'loss',
        'accuracy',
        'learning_rate',
        'val_loss',
        'val_accuracy',
    ]
    assert history.epoch == [0, 1]
    assert history.params == {'steps': STEPS, 'epochs': 2}
    assert history.history['loss'] == [record['train_loss'] for record in trainer.records]
    assert trainer.history.history == history.history
    assert json.loads(json.dumps(trainer.records)) == trainer.records


def test_initial_epoch_is_checked():
    trainer = make(dense_model())
    fit(trainer, 1, initial_epoch=0)
    with pytest.raises(ValueError, match=r'`initial_epoch` must be 1, .* initial_epoch=0$'):
        fit(trainer, 2, initial_epoch=0)
    assert fit(trainer, 2, initial_epoch=1).epoch == [0, 1]


# Keras's callbacks


def test_early_stopping_stops_and_restores_the_best_averages():
    trainer = ema()
    stopping = keras.callbacks.EarlyStopping(
        'val_loss', patience=2, min_delta=10.0, restore_best_weights=True
    )
    history = fit(trainer, 9, stopping)
    assert history.epoch == [0, 1, 2]  # nothing improves by 10: the first epoch is the best
    assert stopping.best_epoch == 0
    score = trainer.evaluate(*HELD_OUT)
    assert score.loss == pytest.approx(history.history['val_loss'][0], rel=1e-5)
    restored = trainer.model.get_weights()
    with trainer.averaged():
        for a, b in zip(restored, trainer.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    shorter = ema()
    fit(shorter, 1)
    with shorter.averaged():
        for a, b in zip(restored, shorter.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    fit(trainer, 4)  # and a later `fit` goes on


def test_model_checkpoint_saves_what_was_validated(tmp_path):
    trainer = ema()
    path = tmp_path / 'best.keras'
    history = fit(trainer, 3, keras.callbacks.ModelCheckpoint(path, save_best_only=True))
    model = keras.models.load_model(path)
    loss, accuracy = model.evaluate(HELD_OUT[0] / np.float32(255), HELD_OUT[1], verbose=0)
    best = int(np.argmin(history.history['val_loss']))
    assert loss == pytest.approx(history.history['val_loss'][best], rel=1e-4)
    assert accuracy == pytest.approx(history.history['val_accuracy'][best])
    plain = ema()
    fit(plain, 3)  # training has gone on from its own weights
    assert_same(plain, trainer)


def test_csv_logger(tmp_path):
    trainer = make(dense_model())
    path = tmp_path / 'log.csv'
    fit(trainer, 2, callbacks.LearningRateLogger(), keras.callbacks.CSVLogger(path))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row['epoch'] for row in rows] == ['0', '1']
    for row, record in zip(rows, trainer.records, strict=True):
        assert float(row['val_loss']) == record['val_loss']
        assert float(row['accuracy']) == record['train_accuracy']
        assert float(row['learning_rate']) == record['learning_rate']


def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, write_steps_per_second=True)
    fit(make(dense_model()), 2, board)
    for folder in ('train', 'validation'):
        assert sum(path.stat().st_size for path in (tmp_path / folder).iterdir()) > 200


def test_reduce_lr_on_plateau():
    trainer = make(optimizer=sgd(0.02))
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=100.0)
    history = fit(trainer, 4, plateau)
    assert history.history['learning_rate'] == pytest.approx([0.02, 0.02, 0.01, 0.005])


def test_learning_rate_scheduler_reaches_the_steps():
    trainer = make(optimizer=sgd(0.02))
    before = trainer.model.get_weights()
    history = fit(trainer, 2, keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0))
    assert history.history['learning_rate'] == [0.0, 0.0]
    kernels = zip(before, trainer.model.get_weights(), strict=True)
    for a, b in [pair for pair in kernels if pair[0].ndim > 1]:
        np.testing.assert_array_equal(a, b)


def test_terminate_on_nan_ends_with_the_epochs_before():
    def rate(epoch):
        return 3e38 if epoch == 1 else 0.02

    ended = []
    trainer = make(dense_model(), sgd(0.02))
    history = fit(
        trainer,
        4,
        keras.callbacks.LearningRateScheduler(rate),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.EarlyStopping('loss', patience=9, restore_best_weights=True),
        keras.callbacks.LambdaCallback(on_train_end=ended.append),
    )
    assert history.epoch == [0]
    assert ended == [{}]
    assert np.isfinite(trainer.predict(HELD_OUT[0])).all()
    with pytest.raises(ValueError, match='from a whole epoch'):
        fit(trainer, 4)
    raising = keras.callbacks.TerminateOnNaN(raise_error=True)
    for given, error in (((raising,), RuntimeError), ((), DivergedError)):
        with pytest.raises(error):
            fit(make(dense_model(), sgd(3e38)), 2, *given)


def test_lambda_callbacks_are_called_in_kerass_order():
    calls = []

    def note(name):
        return lambda *arguments: calls.append((name, *arguments))

    names = ('on_epoch_begin', 'on_epoch_end', 'on_train_begin', 'on_train_end')
    hooks = {name: note(name) for name in (*names, 'on_test_begin', 'on_test_end')}
    trainer = make(dense_model())
    fit(trainer, 1, keras.callbacks.LambdaCallback(**hooks))
    assert [call[0] for call in calls] == [
        'on_train_begin',
        'on_epoch_begin',
        'on_test_begin',
        'on_test_end',
        'on_epoch_end',
        'on_train_end',
    ]
    record = trainer.records[0]
    assert calls[3][1] == {'loss': record['val_loss'], 'accuracy': record['val_accuracy']}
    assert calls[4][1:] == (
        0,
        {
            'loss': record['train_loss'],
            'accuracy': record['train_accuracy'],
            'val_loss': record['val_loss'],
            'val_accuracy': record['val_accuracy'],
        },
    )


class AtEachBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (AtEachBatch(), 'a AtEachBatch with on_train_batch_end$'),
        (keras.callbacks.LambdaCallback(on_train_batch_begin=print), 'with on_train_batch_begin$'),
        (
            keras.callbacks.ModelCheckpoint('a.keras', save_freq=3),
            "save_freq='epoch'.* save_freq=3",
        ),
        (keras.callbacks.TensorBoard(update_freq='batch'), "update_freq='epoch'.* update_freq=1"),
        (keras.callbacks.BackupAndRestore('a'), 'BackupAndRestore: pass `checkpoint` and resume'),
        (optimizers.WeightAveraging(optimizers.EMA()), 'WeightAveraging: pass its rule as `av'),
        ('early', 'keras.callbacks.Callback objects. Received: '),
    ],
)
def test_callbacks_that_are_refused(given, message):
    trainer = make(dense_model())
    with pytest.raises(ValueError, match=f'`callbacks` must .*{message}') as raised:
        fit(trainer, 1, given)
    assert '\n' not in str(raised.value)
    assert trainer.first_step_at is None


@pytest.mark.backend('tensorflow')  # on JAX it needs Python 3.12
def test_a_profile_of_batches_is_refused():
    profiling = keras.callbacks.TensorBoard(profile_batch=(0, 2))
    with pytest.raises(ValueError, match=r'must have profile_batch=0, .* that profiles batches$'):
        fit(make(dense_model()), 1, profiling)


# The library's callbacks


def test_best_weights_come_back_with_their_averages():
    trainer, shorter = ema(), ema()
    best = callbacks.BestWeights('epoch_number', mode='min')
    number = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(epoch_number=epoch)
    )
    fit(trainer, 3, number, best)
    fit(shorter, 1)
    assert (best.best, best.best_epoch) == (0, 0)
    for a, b in zip(trainer.get_weights(), shorter.get_weights(), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(trainer.predict(HELD_OUT[0]), shorter.predict(HELD_OUT[0]))


def test_stop_at_accuracy():
    trainer = make(optimizer=sgd(0.02))
    stop = callbacks.StopAtAccuracy(0.01, 'accuracy')
    history = fit(trainer, 5, stop)
    assert (history.epoch, stop.reached_epoch) == ([0], 0)
    assert stop.train_seconds == trainer.train_seconds > 0
    for target in (0, 1.5, '0.9'):
        with pytest.raises(ValueError, match='`target` must be a number in'):
            callbacks.StopAtAccuracy(target)


# Kill and resume


def watchers():
    return (
        keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=100.0, cooldown=1),
        keras.callbacks.EarlyStopping(
            'loss', patience=3, min_delta=100.0, restore_best_weights=True
        ),
        callbacks.BestWeights('val_loss'),
    )


@pytest.mark.parametrize('after', [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_resuming_with_callbacks_ends_bit_for_bit(tmp_path, after):
    path = tmp_path / 'c.npz'
    whole = ema()
    fit(whole, 6, *watchers())
    assert len(whole.records) == 4  # stopped early, with two rates
    first = ema()
    interrupted(first, path, 6, after, validation_data=HELD_OUT, callbacks=watchers())
    resumed, given = ema(), watchers()
    fit(resumed, 6, *given, checkpoint=path, resume=True)
    assert_same(whole, resumed)
    np.testing.assert_array_equal(whole.predict(HELD_OUT[0]), resumed.predict(HELD_OUT[0]))
    # A training that was stopped stays stopped, and ends alike.
    again = ema()
    fit(again, 6, *watchers(), checkpoint=path, resume=True)
    assert_same(whole, again)


class KeepsVariables(keras.callbacks.Callback):
    """Averages copies in place, beside a list of the model's own variables."""

    def on_train_begin(self, logs=None):
        self.variables = list(self.model.weights)
        self.sums = [np.zeros(each.shape, np.float32) for each in self.model.weights]

    def on_epoch_end(self, epoch, logs=None):
        for total, variable in zip(self.sums, self.variables, strict=True):
            total += keras.ops.convert_to_numpy(variable.value)


def test_resuming_leaves_a_callback_its_variables(tmp_path):
    path, whole, parts = tmp_path / 'c.npz', KeepsVariables(), KeepsVariables()
    fit(make(dense_model()), 2, whole, validation_data=None)
    fit(make(dense_model()), 1, KeepsVariables(), checkpoint=path, validation_data=None)
    trainer = make(dense_model())
    fit(trainer, 2, parts, checkpoint=path, resume=True, validation_data=None)
    assert parts.variables[0] is trainer.model.weights[0]
    for one, other in zip(whole.sums, parts.sums, strict=True):
        np.testing.assert_array_equal(one, other)


def stopping(monitor='loss', **options):
    return keras.callbacks.EarlyStopping(monitor, min_delta=100.0, **options)


@pytest.mark.parametrize(
    ('given', 'epochs'),
    [
        ([stopping(patience=1)], 2),  # it stays stopped
        ([keras.callbacks.Callback(), stopping(patience=1)], 2),
        ([stopping(patience=3)], 4),
        ([stopping(patience=1, verbose=1), keras.callbacks.Callback()], 3),
        ([], 5),
    ],
)
def test_a_training_stays_stopped_by_the_callback_that_stopped_it(tmp_path, given, epochs):
    path = tmp_path / 'c.npz'
    watching = [keras.callbacks.LearningRateScheduler(lambda epoch: 0.02), stopping(patience=1)]
    options = {'checkpoint': path, 'validation_data': None}
    fit(make(dense_model(), sgd(0.02)), 5, *watching, **options)
    trainer = make(dense_model(), sgd(0.02))
    fit(trainer, 5, *given, resume=True, **options)
    assert len(trainer.records) == epochs


def test_callbacks_of_one_class_know_their_own(tmp_path):
    path = tmp_path / 'c.npz'
    monitors = 'loss', 'val_accuracy', 'accuracy'
    first = [stopping(monitor, patience=9) for monitor in monitors]
    fit(make(dense_model()), 2, *first, checkpoint=path)
    given = [stopping(monitor, patience=9) for monitor in ('val_loss', *monitors[:0:-1])]
    fit(make(dense_model()), 2, *given, checkpoint=path, resume=True)
    assert [each.best for each in given] == [None, first[2].best, first[1].best]
    assert given[1].wait == given[2].wait == 1


def test_a_kill_within_a_callback_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / 'c.npz'

    def kill(epoch, logs):
        if epoch == 1:
            raise Stop

    broken = keras.callbacks.LambdaCallback(on_epoch_end=kill)
    trainer, whole = ema(), ema()
    with pytest.raises(Stop):
        fit(trainer, 3, broken, checkpoint=path)
    assert len(checkpoints.load_state(path)['history']) == 1
    resumed = ema()
    fit(resumed, 3, checkpoint=path, resume=True)
    fit(whole, 3)
    assert_same(whole, resumed)


# Bad validation data


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (HELD_OUT[0], r'\(images, labels\) or .* Received: ndarray'),
        ((HELD_OUT[0][:, :6], HELD_OUT[1]), 'like the training data: `images` must have the shape'),
        ((HELD_OUT[0], HELD_OUT[1] + 1), r'`labels` must be in \[0, 3\)'),
        (
            (HELD_OUT[0], HELD_OUT[1][:3]),
            'the same length as the images. Received: 23 images and 3',
        ),
        ((*HELD_OUT, np.ones(4)), r'`sample_weight` must be numbers of the shape \(23,\)'),
    ],
)
def test_validation_data_that_are_refused(data, message):
    trainer = make(conv_model(), batch_size=BATCH)
    with pytest.raises(ValueError, match=message) as raised:
        trainer.fit(*toy(), 1, validation_data=data)
    assert '\n' not in str(raised.value)
    assert str(raised.value).startswith('`validation_data` must be ')
    assert trainer.first_step_at is None

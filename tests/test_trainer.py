"""The Trainer against a loop of its own in eager Keras, its errors and what it prints."""

import functools
import json
import math
import signal

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
    adam,
    assert_same,
    conv_model,
    dense_model,
    make,
    order_of,
    toy,
    values,
)

from fenwicks import augment, layers, optimizers
from fenwicks.training import DivergedError, StepTotals
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training.epochs import Epochs
from fenwicks.training.interrupts import Interrupts

pytestmark = pytest.mark.backend('tensorflow', 'jax')
tensorflow_only = pytest.mark.backend('tensorflow')


@tensorflow_only
def test_three_epochs_against_an_eager_loop():
    """The same shuffle and draws; everything else stock Keras, eager, one step at a time."""
    import tensorflow as tf

    images, labels = toy()
    normalize = functools.partial(augment.normalize, mean=[100, 110, 120], std=[60, 61, 62])
    changes = [functools.partial(augment.random_crop, padding=2), augment.random_flip]
    trainer = make(normalize=normalize, augment=augment.compose(changes))
    model = conv_model()
    model.set_weights(trainer.model.get_weights())
    trainer.fit(images, labels, 3)

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    velocities = [np.zeros(variable.shape, np.float32) for variable in model.trainable_variables]
    mean, std = np.float32([100, 110, 120]), np.float32([60, 61, 62])
    for epoch in range(3):
        losses, hits = [], 0
        for step in range(STEPS):
            batch = order_of(epoch)[step * BATCH : (step + 1) * BATCH]
            inputs = (images[batch].astype(np.float32) - mean) / std
            seed = augment.fold(augment.fold((SEED, 0), epoch), step)
            for number, change in enumerate(changes):
                inputs = change(tf.constant(inputs), augment.fold(seed, number))
            with tf.GradientTape() as tape:
                logits = model(inputs, training=True)
                loss = loss_of(labels[batch], logits)
            losses.append(float(loss))
            hits += int((np.argmax(logits, axis=1) == labels[batch]).sum())
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            rate = np.float32(RATES(epoch * STEPS + step))
            for i, variable in enumerate(model.trainable_variables):
                decayed = np.asarray(gradients[i]) + 5e-4 * np.asarray(variable)
                velocities[i] = 0.9 * velocities[i] + decayed
                variable.assign_sub(rate * (decayed + 0.9 * velocities[i]))
        record = trainer.records[epoch]
        assert record['epoch'] == epoch + 1
        assert record['train_loss'] == pytest.approx(np.mean(losses), rel=1e-4)
        assert record['train_accuracy'] == hits / (STEPS * BATCH)
        assert record['learning_rate'] == pytest.approx(RATES((epoch + 1) * STEPS), abs=1e-7)
        assert record['images_per_second'] == pytest.approx(STEPS * BATCH / record['seconds'])
    for mine, theirs in zip(model.get_weights(), trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-5)
    assert trainer.train_seconds == pytest.approx(
        sum(epoch['seconds'] for epoch in trainer.records)
    )


def test_each_epoch_sees_each_image_at_most_once_in_an_order_of_its_own():
    images = np.zeros((COUNT, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(COUNT)
    recorder = Recorder()
    trainer = make(dense_model(), augment=recorder)
    trainer.fit(images, np.zeros(COUNT, np.int32), 4)
    seen = np.rint(np.stack(recorder.batches)[:, :, 0, 0, 0] * 255).astype(int)
    assert seen.shape == (4 * STEPS, BATCH)
    epochs = seen.reshape(4, STEPS * BATCH)
    for number, epoch in enumerate(epochs):
        assert len(set(epoch)) == STEPS * BATCH
        np.testing.assert_array_equal(epoch, order_of(number)[: STEPS * BATCH])
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set(seen.ravel()) == set(range(COUNT))  # others are left out each time
    assert len(set(recorder.seeds)) == 4 * STEPS


def test_another_seed_is_another_shuffle():
    images, labels = toy()
    trainers = [make(dense_model(), seed=seed) for seed in (7, 7, 8)]
    for trainer in trainers:
        trainer.fit(images, labels, 1)
    assert_same(trainers[0], trainers[1])
    assert trainers[0].records[0]['train_loss'] != trainers[2].records[0]['train_loss']


def test_the_schedule_is_read_at_every_step():
    """With the constant gradient that a loss without logits has, the weight sums up the rates."""

    class Constant(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(y_pred, axis=-1)

    model = dense_model(kernel_initializer='zeros')
    images, labels = toy()
    trainer = make(model, optimizers.SGD(RATES), loss=Constant())
    total = 0.0
    for epoch in range(1, 4):
        trainer.fit(images, labels, epoch)
        total += sum(RATES(step) for step in range((epoch - 1) * STEPS, epoch * STEPS))
        np.testing.assert_allclose(model.get_weights()[1], -total / 3, rtol=1e-5)
    assert int(trainer.optimizer.iterations) == 3 * STEPS
    assert len(trainer.records) == 3


@pytest.mark.parametrize('seconds', [1e-9, math.inf])
def test_calls_of_any_length_make_the_same_training(seconds, monkeypatch):
    images, labels = toy()
    whole, cut = make(), make(seconds_per_call=seconds)
    calls = []
    run = cut._engines.at(0).run
    monkeypatch.setattr(
        cut._engines.at(0), 'run', lambda *args, **kw: calls.append(args) or run(*args, **kw)
    )
    whole.fit(images, labels, 2)
    cut.fit(images, labels, 2)
    assert_same(whole, cut)
    steps = [call[:3] for call in calls if call]  # the compilation passes its zeros by name
    if seconds == math.inf:
        assert steps == [(0, 0, 1), (0, 1, STEPS), (1, 0, STEPS)]
    else:
        assert steps == [(epoch, step, step + 1) for epoch in range(2) for step in range(STEPS)]


def test_a_call_takes_about_the_seconds_it_is_given():
    """The first call is one step, to learn the pace; no call goes past the epoch's end."""
    trainer = make(seconds_per_call=1.0)
    calls = []

    def run(epoch, start, stop, steps_before, loss_sum):
        calls.append((start, stop))
        clock[0] += 0.3 * (stop - start)
        return StepTotals(0.0, 0, stop - start, 0.0, True)

    clock = [0.0]
    trainer._engines.at(0).run = run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('time.perf_counter', lambda: clock[0])
        trainer._state.steps_per_epoch = 10
        loop = Epochs(
            trainer._engines,
            trainer._state,
            1.0,
            variables=[],
            learning_rate=lambda: 0.1,
            accuracy=lambda *counts: None,
            progress=Silent(),
            interrupts=Interrupts(),
        )
        for epoch in range(2):
            trainer._state.add_epoch(loop.train(epoch, 10), 10)
    assert calls == [(0, 1), (1, 4), (4, 7), (7, 10), (0, 3), (3, 6), (6, 9), (9, 10)]
    assert trainer.first_step_at == pytest.approx(0.3)


class Silent:
    def advance(self, *args):
        pass

    def finish_epoch(self, record):
        pass


def test_nan_stops_and_says_where(tmp_path):
    """The images of the third step of the second epoch are spoilt."""
    eighth = augment.fold(augment.fold((SEED, 0), 1), 2)

    def spoil(images, seed):
        return ops.where(ops.all(ops.equal(seed, eighth)), math.nan, 1.0) * images

    trainer = make(dense_model(), augment=spoil)
    images, labels = toy()
    with pytest.raises(DivergedError, match='Received: loss nan at epoch 2, step 3, learning'):
        trainer.fit(images, labels, 3, checkpoint=tmp_path / 'c.npz')
    assert int(trainer.optimizer.iterations) == 8  # no step is taken after it
    assert len(trainer.records) == 1
    state = checkpoints.load_state(tmp_path / 'c.npz')
    assert len(state['history']) == 1


def test_infinite_losses_stop_too():
    trainer = make(dense_model(), optimizers.SGD(3e38))
    images, labels = toy()
    with pytest.raises(DivergedError, match='must stay finite: lower the learning rate'):
        trainer.fit(images, labels, 1)


@pytest.mark.parametrize(
    ('optimizer', 'augment', 'advice'),
    [
        (lambda: keras.optimizers.SGD(math.nan), None, 'look at the optimizer and its schedule'),
        (
            lambda: optimizers.SGD(0.1),
            lambda images, seed: images * math.nan,
            'look at what `normalize`',
        ),
    ],
)
def test_the_first_step_is_blamed_on_what_was_given(optimizer, augment, advice):
    trainer = make(dense_model(), optimizer(), augment=augment)
    with pytest.raises(DivergedError, match=advice):
        trainer.fit(*toy(), 1)


def test_without_data_no_step_is_taken(tmp_path):
    trainer = make(dense_model())
    for call in (trainer.compile, trainer.graph, lambda: trainer.run_steps(0, 0, 1)):
        with pytest.raises(ValueError, match=r'^the Trainer must have data .* call `load` first'):
            call()
    with pytest.raises(ValueError, match=r'`count` must be at least the batch size, 4\. Rec'):
        trainer.program(3, (8, 8, 3))
    trainer.fit(*toy(), 1)


class SpoiltLast(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that is not a number in the last step of the second epoch."""

    def __call__(self, step):
        return ops.where(ops.cast(step, 'int32') == 2 * STEPS - 1, math.nan, 0.1)


def test_weights_spoilt_by_the_last_step_stop_too(tmp_path):
    """No loss is computed of them any more."""
    trainer = make(dense_model(), optimizers.SGD(SpoiltLast()))
    expected = r'training weights must stay finite: .* Received: loss [\d.]+ at epoch 2, step 5, '
    with pytest.raises(DivergedError, match=expected) as raised:
        trainer.fit(*toy(), 2, checkpoint=tmp_path / 'c.npz')
    assert '\n' not in str(raised.value)
    assert len(checkpoints.load_state(tmp_path / 'c.npz')['history']) == 1
    with pytest.raises(ValueError, match='from a whole epoch'):
        trainer.fit(*toy(), 3)


def test_an_interrupted_trainer_still_predicts(tmp_path):
    """Also after an interrupt between two steps of a call."""
    trainer = make(dense_model(), seconds_per_call=math.inf)
    images, labels = toy()
    trainer.load(images, labels)
    trainer.compile()
    name = '_compiled' if keras.backend.backend() == 'jax' else '_run'
    program, calls = getattr(trainer._engines.at(0), name), []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return program(*arguments)

    setattr(trainer._engines.at(0), name, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(images, labels, 3)
    assert np.isfinite(trainer.predict(images)).all()
    trainer.model.save(tmp_path / 'model.keras')
    with pytest.raises(ValueError, match=r'a half-trained epoch \d$'):
        trainer.fit(images, labels, 3)


@pytest.mark.backend('jax')
@pytest.mark.parametrize('jit_compile', [None, True])
def test_ctrl_c_right_after_a_step_loses_no_weight(jit_compile):
    """The step has taken the memory of the weights, and nobody has its results yet."""
    trainer = make(seconds_per_call=math.inf, jit_compile=jit_compile)
    images, labels = toy()
    trainer.load(images, labels)
    trainer.compile()
    engine = trainer._engines.at(0)
    program = engine._compiled

    def interrupted(*arguments):
        results = program(*arguments)
        signal.raise_signal(signal.SIGINT)
        return results

    engine._compiled = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(images, labels, 3)
    assert np.isfinite(trainer.predict(images)).all()


@tensorflow_only
def test_many_trainers_in_one_process_are_no_retracing(monkeypatch):
    """TensorFlow warns where one function is traced again and again."""
    import tensorflow as tf

    warnings = []
    monkeypatch.setattr(tf.get_logger(), 'warning', lambda *args: warnings.append(args))
    from tensorflow.python.platform import tf_logging

    monkeypatch.setattr(tf_logging, 'warning', lambda *args: warnings.append(args))
    for _ in range(7):
        trainer = make(dense_model())
        trainer.fit(*toy(), 1)
        trainer.predict(toy()[0])
    assert not warnings


# Evaluation and what is printed


def test_evaluation_counts_every_image_whatever_the_batch():
    images, labels = toy(23)
    trainer = make()
    trainer.fit(images, labels, 1)
    model = trainer.model
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=['sparse_categorical_accuracy'],
    )
    loss, accuracy = model.evaluate(images / np.float32(255), labels, verbose=0)
    before = values(trainer)
    for batch_size in (1, 7, 23, 500):
        score = trainer.evaluate(images, labels, batch_size)
        assert score.accuracy == pytest.approx(accuracy, abs=1e-7)
        assert score.loss == pytest.approx(loss, rel=1e-4)
    logits = trainer.predict(images, 10)
    assert logits.shape == (23, 3)
    assert logits.dtype == np.float32
    for old, new in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(old, new)  # inference moves no statistics


def test_epochs_print_their_lines(capsys):
    trainer = make(dense_model())
    trainer.fit(*toy(), 2)
    output = capsys.readouterr()
    assert output.out == ''
    lines = output.err.strip().splitlines()
    assert len(lines) == 2  # no bar where standard error is no terminal
    for number, (line, record) in enumerate(zip(lines, trainer.records, strict=True), 1):
        assert line.split()[:2] == ['epoch', f'{number}/2']
        for key in ('train_loss', 'train_accuracy', 'learning_rate'):
            assert f'{record[key]:.4f}' in line
        assert 'images/s' in line


def test_a_terminal_shows_a_bar(monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setenv('COLUMNS', '140')
    make(dense_model(), seconds_per_call=1e-9).fit(*toy(), 2)
    shown = terminal.getvalue()
    assert f'{2 * STEPS * BATCH}/{2 * STEPS * BATCH}' in shown
    for word in ('epoch 2/2', 'loss', 'accuracy', 'rate', 'images/s'):
        assert word in shown


def test_times_are_kept_apart():
    trainer = make(dense_model())
    assert trainer.train_seconds == trainer.compile_seconds == 0.0
    trainer.fit(*toy(), 1)
    assert trainer.compile_seconds > trainer.train_seconds > 0.0
    assert trainer.preprocess_seconds > 0.0


def test_the_records_are_json():
    trainer = make(dense_model())
    trainer.fit(*toy(), 2)
    assert json.loads(json.dumps(trainer.records)) == trainer.records
    assert list(trainer.records[0]) == [
        'epoch',
        'train_loss',
        'train_accuracy',
        'learning_rate',
        'seconds',
        'images_per_second',
    ]


# Bad input


@pytest.mark.parametrize('epochs', [0, -1, -2.5, True, '3', None, float('nan'), math.inf])
def test_epochs_that_are_no_positive_number(epochs):
    with pytest.raises(ValueError) as raised:
        make(dense_model()).fit(*toy(), epochs)
    assert str(raised.value) == (
        f'`epochs` must be a finite number above 0. Received: epochs={epochs!r}'
    )


@pytest.mark.parametrize('batch_size', [0, -4, 2.5, True, None])
def test_batch_sizes_that_are_no_positive_integer(batch_size):
    with pytest.raises(ValueError, match='`batch_size` must be a positive integer'):
        make(dense_model(), batch_size=batch_size)


def test_numpys_integers_are_integers(tmp_path):
    trainer = make(dense_model(), batch_size=np.int64(4), seed=np.int32(3))
    trainer.fit(*toy(), np.int64(1), checkpoint=tmp_path / 'c.npz')
    assert len(trainer.records) == 1


@pytest.mark.parametrize('seed', [-1, 2**31, 1.5, None, '3', True])
def test_seeds_that_are_none(seed):
    with pytest.raises(ValueError, match=rf'`seed` must be an integer in .* seed={seed!r}$'):
        make(dense_model(), seed=seed)


@pytest.mark.parametrize(
    ('name', 'value', 'rule'),
    [
        ('optimizer', 'sgd2', 'a Keras optimizer, or the name of one, such as adam'),
        ('loss', 'mse2', r'a keras\.losses\.Loss, the name of one, or a .* and outputs'),
        ('loss', 3, r'a keras\.losses\.Loss, the name of one, or a .* and outputs'),
        ('optimizer', 0.1, 'a Keras optimizer'),
        ('jit_compile', 'yes', 'be True, False or None'),
        ('jit_compile', 1, 'be True, False or None'),
        ('normalize', 1 / 255, 'be a function of a batch of images, .* or None'),
        ('replicas', 4, r'come from training\.replicate'),
    ],
)
def test_names_and_numbers_instead_of_objects(name, value, rule):
    with pytest.raises(ValueError, match=rf'`{name}` must .*{rule}\. Received: {name}={value!r}$'):
        make(dense_model(), **{name: value})


def scaled():
    return keras.optimizers.LossScaleOptimizer(optimizers.SGD(0.1))


@pytest.mark.parametrize('optimizer', [adam, scaled])
def test_an_optimizer_stays_with_its_model(optimizer):
    model, optimizer = dense_model(), optimizer()
    make(model, optimizer)
    count = len(optimizer.variables)
    make(model, optimizer).fit(*toy(), 1)
    assert len(optimizer.variables) == count
    with pytest.raises(ValueError, match='`optimizer` must be new, or that of this model'):
        make(dense_model(), optimizer)
    model.layers[-1].trainable = False
    with pytest.raises(ValueError, match='`optimizer` must be new, or that of this model'):
        make(model, optimizer)


@pytest.mark.parametrize('seconds', [0, -1.0, math.nan, 'a', True, np.ones(2)])
def test_seconds_that_are_not_positive(seconds):
    with pytest.raises(ValueError, match='`seconds_per_call` must be a finite number above 0'):
        make(dense_model(), seconds_per_call=seconds)


@pytest.mark.parametrize('model', ['resnet9', layers.Sequential([keras.layers.Dense(3)])])
def test_what_is_no_model(model):
    with pytest.raises(ValueError, match=r'^`model` must be a Keras model\. Received: model='):
        make(model)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match='`model` must be built'):
        make(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]))


def test_a_loss_that_is_no_scalar():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    with pytest.raises(ValueError, match=r'`loss` must return a scalar. Received: shape=\(4,\)'):
        make(dense_model(), loss=loss).fit(*toy(), 1)


IMAGES, LABELS = toy()


@pytest.mark.parametrize(
    ('images', 'labels', 'rule'),
    [
        (IMAGES.astype(np.float32), LABELS, '`images` must be uint8. Received: dtype=float32'),
        (None, LABELS, '`images` must be an array. Received: NoneType'),
        (3, LABELS, '`images` must be an array. Received: int'),
        (IMAGES, [[0], [1, 2]], '`labels` another. Received: list of parts of several shapes'),
        (IMAGES[0], LABELS, r'`images` must have the shape \(n, height, width, channels\)'),
        (IMAGES[:, :6], LABELS, r'the shape \(count, 8, 8, 3\) .* shape=\(22, 6, 8, 3\)'),
        (IMAGES[..., :1], LABELS, r'the shape \(count, 8, 8, 3\) .* shape=\(22, 8, 8, 1\)'),
        (IMAGES[:0], LABELS[:0], '`images` must not be empty'),
        (IMAGES, LABELS[:-1], 'the same length as the images. Received: 22 images and 21'),
        (
            IMAGES,
            LABELS[:, None].repeat(2, 1),
            r'`labels` must be integers \(n,\), or',
        ),
        (IMAGES, LABELS.astype(np.float32), '`labels` must be integers'),
        (IMAGES, LABELS + 1, r'`labels` must be in \[0, 3\). Received: labels from 1 to 3'),
        (IMAGES, LABELS - 1, r'`labels` must be in .* Received: labels from -1 to 1'),
    ],
)
def test_bad_images_and_labels(images, labels, rule):
    trainer = make(dense_model())
    for method, arguments in ((trainer.fit, (1,)), (trainer.evaluate, ())):
        with pytest.raises(ValueError, match=rule) as raised:
            method(images, labels, *arguments)
        assert '\n' not in str(raised.value)
    if rule.startswith(('`images`', 'the shape')):
        for method in (trainer.predict, trainer.predict_views):
            with pytest.raises(ValueError, match=rule):
                method(images)
    assert trainer.first_step_at is None


def test_a_batch_larger_than_the_data():
    with pytest.raises(ValueError, match=r'at most the 22 .* batch_size=23$'):
        make(dense_model(), batch_size=23).fit(*toy(), 1)
    make(dense_model(), batch_size=22).fit(*toy(), 1)


def test_labels_of_any_integer_type():
    images, labels = toy()
    trainers = [make(dense_model()) for _ in range(2)]
    trainers[0].fit(images, labels, 1)
    trainers[1].fit(images, labels.astype(np.uint8), 1)
    assert_same(*trainers)

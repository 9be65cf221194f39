"""The Trainer against a loop of its own in eager Keras, its checkpoints, precisions and errors."""

import functools
import json
import math

import keras
import numpy as np
import pytest
from keras import ops

import fenwicks
from fenwicks import augment, optimizers, schedules
from fenwicks.training import DivergedError, Trainer
from fenwicks.training import checkpoint as checkpoints

pytestmark = pytest.mark.backend('tensorflow', 'jax')
tensorflow_only = pytest.mark.backend('tensorflow')

COUNT, BATCH, SEED = 22, 4, 7  # five steps an epoch, two images left over
STEPS = COUNT // BATCH
RATES = schedules.PiecewiseLinear([(0, 0.02), (4, 0.1), (15, 0.0)])


def toy(count=COUNT, size=8, seed=0):
    """Images of three classes, told apart by the column that is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    images = rng.integers(0, 100, (count, size, size, 3))
    images[np.arange(count), :, labels * 2] += 150
    return images.astype(np.uint8), labels


def conv_model(size=8):
    """Convolution, batch normalization, pooling: a network with running statistics."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            fenwicks.layers.ConvBN(4),
            fenwicks.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, dtype='float32'),
        ]
    )


def dense_model(*before, **options):
    return keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), *before, keras.layers.Dense(3, **options)]
    )


def sgd(rate=RATES):
    return optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-4)


def make(model=None, optimizer=None, **options):
    keras.utils.set_random_seed(0)
    options = {'batch_size': BATCH, 'seed': SEED} | options
    return Trainer(model or conv_model(), optimizer or sgd(), **options)


def values(trainer):
    return [np.array(ops.convert_to_numpy(variable)) for variable in trainer._variables()]


def assert_same(one, other):
    """Bit for bit, variables and history; the times are the machine's own."""
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert numbers(one.history) == numbers(other.history)


def numbers(history):
    times = ('seconds', 'images_per_second')
    return [{key: epoch[key] for key in epoch if key not in times} for epoch in history]


def order_of(epoch):
    """The shuffle, written down a second time: a stable sort of the generator's numbers."""
    seed = augment.fold((SEED, 0), epoch)
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        numbers = tf.random.stateless_uniform([COUNT], seed, None, None, 'int32', alg='philox')
    else:
        import jax

        key = jax.random.wrap_key_data(seed.astype('uint32'), impl='threefry2x32')
        numbers = jax.random.uniform(key, [COUNT])
    return np.argsort(np.asarray(numbers), kind='stable')


class Recorder:
    """An augmentation that changes nothing and notes the batches and seeds that it is given."""

    def __init__(self):
        self.batches, self.seeds = [], []

    def note(self, images, seed):
        self.batches.append(np.array(images))
        self.seeds.append(tuple(np.asarray(seed).tolist()))
        return np.asarray(images)

    def __call__(self, images, seed):
        if keras.backend.backend() == 'tensorflow':
            import tensorflow as tf

            noted = tf.numpy_function(self.note, [images, seed], images.dtype)
            noted.set_shape(images.shape)
            return noted
        from jax import ShapeDtypeStruct
        from jax.experimental import io_callback

        shape = ShapeDtypeStruct(images.shape, images.dtype)
        return io_callback(self.note, shape, images, seed, ordered=True)


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
    history = trainer.fit(images, labels, 3)

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
        record = history[epoch]
        assert record['epoch'] == epoch + 1
        assert record['train_loss'] == pytest.approx(np.mean(losses), rel=1e-4)
        assert record['train_accuracy'] == hits / (STEPS * BATCH)
        assert record['learning_rate'] == pytest.approx(RATES((epoch + 1) * STEPS), abs=1e-7)
        assert record['images_per_second'] == pytest.approx(STEPS * BATCH / record['seconds'])
    for mine, theirs in zip(model.get_weights(), trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-5)
    assert trainer.train_seconds == pytest.approx(sum(epoch['seconds'] for epoch in history))


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
    assert trainers[0].history[0]['train_loss'] != trainers[2].history[0]['train_loss']


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
    assert len(trainer.history) == 3


@pytest.mark.parametrize('seconds', [1e-9, math.inf])
def test_calls_of_any_length_make_the_same_training(seconds, monkeypatch):
    images, labels = toy()
    whole, cut = make(), make(seconds_per_call=seconds)
    calls = []
    run = cut._engine.run
    monkeypatch.setattr(
        cut._engine, 'run', lambda *args, **kw: calls.append(args) or run(*args, **kw)
    )
    whole.fit(images, labels, 2)
    cut.fit(images, labels, 2)
    assert_same(whole, cut)
    steps = [call[:3] for call in calls if call]  # the compilation passes its zeros by name
    if seconds == math.inf:
        assert steps == [(0, 0, STEPS), (1, 0, STEPS)]
    else:
        assert steps == [(epoch, step, step + 1) for epoch in range(2) for step in range(STEPS)]


def test_a_call_takes_about_the_seconds_it_is_given():
    """The first call is one step, to learn the pace; no call goes past the epoch's end."""
    trainer = make(seconds_per_call=1.0)
    calls = []

    def run(epoch, start, stop, loss_sum):
        calls.append((start, stop))
        clock[0] += 0.3 * (stop - start)
        return 0.0, 0, stop - start, 0.0, True

    clock = [0.0]
    trainer._engine.run = run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('time.perf_counter', lambda: clock[0])
        for epoch in range(2):
            trainer._train_epoch(epoch, 10, Silent())
    assert calls == [(0, 1), (1, 4), (4, 7), (7, 10), (0, 3), (3, 6), (6, 9), (9, 10)]


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
    with pytest.raises(DivergedError, match=r'Received: loss nan at epoch 2, step 3, learning rate'):
        trainer.fit(images, labels, 3, checkpoint=tmp_path / 'c.npz')
    assert int(trainer.optimizer.iterations) == 8  # no step is taken after it
    assert len(trainer.history) == 1
    state, _ = checkpoints.load(tmp_path / 'c.npz')
    assert len(state['history']) == 1


def test_infinite_losses_stop_too():
    trainer = make(dense_model(), optimizers.SGD(3e38))
    images, labels = toy()
    with pytest.raises(DivergedError, match='must stay finite: lower the learning rate'):
        trainer.fit(images, labels, 1)


# Checkpoints


class Stop(Exception):
    pass


def interrupted(trainer, path, epochs, after, **options):
    """Trains, with an end in the epoch that follows `after` whole ones."""
    run = trainer._engine.run

    def broken(epoch, start, stop, loss_sum=0.0):
        if epoch == after and stop:
            run(epoch, start, min(stop, 2), loss_sum)
            raise Stop
        return run(epoch, start, stop, loss_sum)

    trainer._engine.run = broken
    with pytest.raises(Stop):
        trainer.fit(*toy(), epochs, checkpoint=path, **options)


def with_dropout():
    return dense_model(keras.layers.Dropout(0.5, seed=3))


def adam():
    return keras.optimizers.Adam(0.01)


@pytest.mark.parametrize(
    ('model', 'optimizer'), [(conv_model, sgd), (with_dropout, adam)], ids=['conv', 'dropout']
)
@pytest.mark.parametrize('after', [0, 2])
def test_resuming_ends_bit_for_bit_as_if_never_stopped(tmp_path, model, optimizer, after):
    path, fingerprint = tmp_path / 'c.npz', {'knots': ((0, 1), (2, 3))}
    whole = make(model(), optimizer(), augment=augment.random_flip)
    whole.fit(*toy(), 4)
    first = make(model(), optimizer(), augment=augment.random_flip)
    interrupted(first, path, 4, after, fingerprint=fingerprint)
    assert path.exists() == (after > 0)
    second = make(model(), optimizer(), augment=augment.random_flip)
    history = second.fit(*toy(), 4, checkpoint=path, resume=True, fingerprint=fingerprint)
    assert_same(whole, second)
    assert len(history) == 4
    assert second.train_seconds == pytest.approx(sum(epoch['seconds'] for epoch in history))
    # The same Trainer can go on too: its half epoch is undone.
    if after:
        del first._engine.run
        checkpoints.save(path, *_saved_at(whole, after, model, optimizer, fingerprint))
        first.fit(*toy(), 4, checkpoint=path, resume=True, fingerprint=fingerprint)
        assert_same(whole, first)


def _saved_at(whole, epochs, model, optimizer, fingerprint):
    twin = make(model(), optimizer(), augment=augment.random_flip)
    twin.fit(*toy(), epochs)
    state = {
        'fingerprint': fingerprint,
        'history': twin.history,
        'seed': SEED,
        'train_seconds': 1.0,
    }
    return twin._variables(), state


def test_a_finished_training_trains_no_more(tmp_path):
    path = tmp_path / 'c.npz'
    first = make(dense_model())
    first.fit(*toy(), 2, checkpoint=path)
    second = make(dense_model())
    second.fit(*toy(), 2, checkpoint=path, resume=True)
    assert_same(first, second)
    assert second.first_step_at is None
    second.fit(*toy(), 3)  # and goes on where more is asked
    first.fit(*toy(), 3)
    assert_same(first, second)
    assert len(second.history) == 3


def test_without_resume_a_checkpoint_is_ignored_and_replaced(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 2, checkpoint=path)
    trainer = make(dense_model())
    trainer.fit(*toy(), 1, checkpoint=path)
    assert len(trainer.history) == 1
    assert len(checkpoints.load(path)[0]['history']) == 1


def test_resuming_with_other_settings(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path, fingerprint={'batch_size': 4})
    for options, fingerprint, difference in [
        ({}, {'batch_size': 8}, 'settings.batch_size=8 instead of 4$'),
        ({}, None, 'settings.batch_size=None instead of 4'),
        ({'seed': 8}, {'batch_size': 4}, 'seed=8 instead of 7$'),
        ({'seed': 8}, {'batch_size': 4, 'seed': 7}, 'seed=8 instead of 7, settings.seed=7'),
    ]:
        trainer = make(dense_model(), **options)
        before = values(trainer)
        with pytest.raises(ValueError, match=f'settings of the checkpoint .* {difference}'):
            trainer.fit(*toy(), 2, checkpoint=path, resume=True, fingerprint=fingerprint)
        for old, new in zip(before, values(trainer), strict=True):
            np.testing.assert_array_equal(old, new)
        assert trainer.history == []


def test_resuming_with_another_model(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    with pytest.raises(ValueError, match='must fit the model and its optimizer'):
        make(conv_model()).fit(*toy(), 2, checkpoint=path, resume=True)


def test_a_damaged_checkpoint_is_an_error_of_one_line(tmp_path):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r'the checkpoint must be whole: .*c\.npz') as raised:
        make(dense_model()).fit(*toy(), 2, checkpoint=path, resume=True)
    assert '\n' not in str(raised.value)


def test_a_fingerprint_that_is_no_json_fails_before_any_step():
    trainer = make(dense_model())
    with pytest.raises(TypeError):
        trainer.fit(*toy(), 1, fingerprint=np.float32(1))
    assert trainer.first_step_at is None


# Precision, other optimizers, other models


@pytest.mark.parametrize('policy', ['mixed_bfloat16', 'mixed_float16'])
def test_mixed_precision_learns_and_resumes(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    path = tmp_path / 'c.npz'

    def trainer():
        optimizer = sgd(0.05)
        if policy == 'mixed_float16':
            # Far too large at first, so that the scale falls; then it grows every third step.
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=2.0**30, dynamic_growth_steps=3
            )
        return make(optimizer=optimizer)

    whole = trainer()
    whole.fit(*toy(40), 12)
    assert all(variable.dtype == 'float32' for variable in whole.model.trainable_variables)
    assert whole.model.layers[0].compute_dtype == policy.removeprefix('mixed_')
    assert whole.evaluate(*toy(40)).accuracy > 0.9
    if policy == 'mixed_float16':
        assert 0 < 12 * 10 - int(whole.optimizer.iterations) < 60  # steps skipped
    make_half = trainer()
    make_half.fit(*toy(40), 5, checkpoint=path)
    second = trainer()
    second.fit(*toy(40), 12, checkpoint=path, resume=True)
    assert_same(whole, second)


def test_a_users_own_model_with_keras_own_adam():
    images, labels = toy(64)
    model = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, activation='relu'),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.build((None, 8, 8, 3))
    trainer = Trainer(model, keras.optimizers.Adam(0.01), batch_size=16)
    history = trainer.fit(images, labels, epochs=8)
    score = trainer.evaluate(*toy(100, seed=1))
    assert history[-1]['train_loss'] < history[0]['train_loss'] / 4
    assert score.accuracy > 0.95
    assert score.loss < 0.3


def test_adam_is_keras_own_fit():
    """Without a shuffle that matters: one batch an epoch, so `fit` makes the same steps."""
    images, labels = toy(16)
    mine, theirs = dense_model(), dense_model()
    theirs.set_weights(mine.get_weights())
    Trainer(mine, keras.optimizers.Adam(0.01), batch_size=16).fit(images, labels, 5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.Adam(0.01), loss)
    theirs.fit(images / np.float32(255), labels, batch_size=16, epochs=5, verbose=0)
    for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_subclass_of_model():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, images):
            return self.dense(self.flatten(images))

    model = Net()
    model(np.zeros((1, 8, 8, 3), np.float32))
    trainer = make(model, adam())
    trainer.fit(*toy(), 2)
    assert 0 <= trainer.evaluate(*toy()).accuracy <= 1
    with pytest.raises(ValueError, match=r'`labels` must be in \[0, 3\)'):
        trainer.fit(toy()[0], toy()[1] + 1, 3)


def test_an_averaging_optimizer_puts_its_averages_in_place():
    plain, averaged = dense_model(), dense_model()
    averaged.set_weights(plain.get_weights())
    make(plain, keras.optimizers.SGD(0.1)).fit(*toy(), 2)
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    make(averaged, optimizer).fit(*toy(), 2)
    averages = optimizer._model_variables_moving_average
    weights = zip(averaged.get_weights(), averages, plain.get_weights(), strict=True)
    for weight, average, raw in weights:
        np.testing.assert_array_equal(weight, np.asarray(average))
        assert not np.array_equal(weight, raw)


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'])
def test_regularizers_join_the_loss(policy):
    keras.config.set_dtype_policy(policy)
    images, labels = toy()
    plain = dense_model(kernel_initializer='ones')
    weighted = dense_model(
        kernel_initializer='ones', kernel_regularizer=keras.regularizers.L2(0.01)
    )
    active = dense_model(
        kernel_initializer='ones', activity_regularizer=keras.regularizers.L1(0.01)
    )
    losses = []
    for model in (plain, weighted, active):
        trainer = make(model, optimizers.SGD(0.0))
        losses.append(trainer.fit(images, labels, 1)[0]['train_loss'])
    assert losses[1] - losses[0] == pytest.approx(0.01 * 192 * 3, rel=1e-3)
    batches = order_of(0)[: STEPS * BATCH]
    outputs = images[batches].sum(axis=(1, 2, 3)) / 255 * 3
    assert losses[2] - losses[0] == pytest.approx(0.01 * outputs.mean(), rel=0.02)
    pulled = make(weighted, optimizers.SGD(0.1)).model
    before = np.abs(pulled.get_weights()[0]).mean()
    make(pulled, optimizers.SGD(1.0)).fit(images, labels, 3)
    assert np.abs(pulled.get_weights()[0]).mean() < before


@tensorflow_only
def test_the_program_for_accelerators_makes_the_same_training(monkeypatch):
    """XLA compiles the whole epoch, on this machine's CPU."""
    from fenwicks.training import tensorflow_engine

    images, labels = toy()
    changes = [
        functools.partial(augment.random_crop, padding=2),
        augment.random_flip,
        functools.partial(augment.random_cutout, size=2),
    ]
    plain = make(augment=augment.compose(changes))
    engine = functools.partial(tensorflow_engine.TensorFlowEngine)

    def compiled_engine(*args, jit_compile):
        return engine(*args, jit_compile=True)

    monkeypatch.setattr(tensorflow_engine, 'TensorFlowEngine', compiled_engine)
    compiled = make(augment=augment.compose(changes))
    for trainer in (plain, compiled):
        trainer.fit(images, labels, 2)
    assert numbers(plain.history)[0] == pytest.approx(numbers(compiled.history)[0], rel=1e-3)
    for a, b in zip(values(plain), values(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert plain.evaluate(images, labels).loss == pytest.approx(
        compiled.evaluate(images, labels).loss, rel=1e-3
    )


def test_it_learns_digits():
    """Real images: 600 of the embedded sample, a narrow ResNet-9, a few seconds."""
    digits = fenwicks.data.load('digits').limit(600)
    mean, std = fenwicks.data.mean_std(digits.train_images)
    shrink = keras.layers.AveragePooling2D(2)
    images = keras.Input((32, 32, 3))
    model = keras.Model(
        images, fenwicks.models.resnet9((16, 16, 3), 10, widths=(8, 8, 16, 16))(shrink(images))
    )
    trainer = make(
        model,
        sgd(schedules.OneCycle(peak=0.4, total_steps=8 * 18, warmup_steps=30)),
        batch_size=32,
        normalize=functools.partial(augment.normalize, mean=mean, std=std),
        augment=functools.partial(augment.random_crop, padding=2),
    )
    trainer.fit(digits.train_images, digits.train_labels, 8)
    score = trainer.evaluate(digits.test_images, digits.test_labels)
    assert score.accuracy > 0.85, score


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
    for number, (line, record) in enumerate(zip(lines, trainer.history, strict=True), 1):
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


def test_the_history_is_json():
    trainer = make(dense_model())
    history = trainer.fit(*toy(), 2)
    assert json.loads(json.dumps(history)) == history
    assert list(history[0]) == [
        'epoch',
        'train_loss',
        'train_accuracy',
        'learning_rate',
        'seconds',
        'images_per_second',
    ]


# Bad input


@pytest.mark.parametrize('epochs', [0, -1, 2.5, 3.0, True, '3', None, float('nan'), math.inf])
def test_epochs_that_are_no_positive_integer(epochs):
    with pytest.raises(ValueError) as raised:
        make(dense_model()).fit(*toy(), epochs)
    assert str(raised.value) == (
        f'`epochs` must be a positive integer. Received: epochs={epochs!r}'
    )


@pytest.mark.parametrize('batch_size', [0, -4, 2.5, True, None])
def test_batch_sizes_that_are_no_positive_integer(batch_size):
    with pytest.raises(ValueError, match='`batch_size` must be a positive integer'):
        make(dense_model(), batch_size=batch_size)


def test_numpys_integers_are_integers(tmp_path):
    trainer = make(dense_model(), batch_size=np.int64(4), seed=np.int32(3))
    trainer.fit(*toy(), np.int64(1), checkpoint=tmp_path / 'c.npz')
    assert len(trainer.history) == 1


@pytest.mark.parametrize('seed', [-1, 2**31])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match=rf'`seed` must be in .* Received: seed={seed}$'):
        make(dense_model(), seed=seed)


@pytest.mark.parametrize('seconds', [0, -1.0, math.nan])
def test_seconds_that_are_not_positive(seconds):
    with pytest.raises(ValueError, match='`seconds_per_call` must be positive'):
        make(dense_model(), seconds_per_call=seconds)


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
        (IMAGES[0], LABELS, r'`images` must have the shape \(n, height, width, channels\)'),
        (IMAGES[:, :6], LABELS, r'the shape \(count, 8, 8, 3\) .* shape=\(22, 6, 8, 3\)'),
        (IMAGES[..., :1], LABELS, r'the shape \(count, 8, 8, 3\) .* shape=\(22, 8, 8, 1\)'),
        (IMAGES[:0], LABELS[:0], '`images` must not be empty'),
        (IMAGES, LABELS[:-1], 'the same length. Received: 22 images and 21 labels'),
        (IMAGES, LABELS[:, None], r'`labels` must have the shape \(n,\)'),
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

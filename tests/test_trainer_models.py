"""The Trainer with other precisions, optimizers and models."""

import functools

import keras
import numpy as np
import pytest
from training_toys import (
    BATCH,
    COUNT,
    STEPS,
    adam,
    assert_same,
    dense_model,
    make,
    numbers,
    order_of,
    sgd,
    toy,
    values,
)

import fenwicks
from fenwicks import augment, optimizers, schedules
from fenwicks.training import Trainer

pytestmark = pytest.mark.backend('tensorflow', 'jax')
tensorflow_only = pytest.mark.backend('tensorflow')


@pytest.mark.parametrize(
    'policy', ['mixed_bfloat16', pytest.param('mixed_float16', marks=pytest.mark.thorough)]
)
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
    trainer.fit(images, labels, epochs=8)
    score = trainer.evaluate(*toy(100, seed=1))
    assert trainer.records[-1]['train_loss'] < trainer.records[0]['train_loss'] / 4
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


def test_layers_within_a_subclass_learn_whether_they_are_trained():
    """From Keras's context: the model doesn't hand it on."""

    class Net(keras.Model):
        def __init__(self, parts):
            super().__init__()
            self.parts = parts

        def call(self, images):
            for part in self.parts:
                images = part(images)
            return images

    def parts():
        return [
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=3),
            keras.layers.Dense(3, kernel_regularizer='l2'),
        ]

    own, plain = Net(parts()), keras.Sequential([keras.Input((8, 8, 3)), *parts()])
    own(np.zeros((1, 8, 8, 3), np.float32))
    own.set_weights(plain.get_weights())
    normalize = functools.partial(augment.normalize, mean=0, std=255)
    own, plain = (make(model, sgd(0.05), normalize=normalize) for model in (own, plain))
    for trainer in (own, plain):
        trainer.fit(*toy(), 2)
    assert numbers(own.records) == numbers(plain.records)
    np.testing.assert_array_equal(own.predict(toy()[0]), plain.predict(toy()[0]))
    assert np.abs(own.model.parts[1].moving_mean).max() > 0.01


def test_an_optimizer_for_each_part():
    def multi(**options):
        rates = {'.*bias': keras.optimizers.SGD(0.0)}
        default = keras.optimizers.SGD(0.1, **options)
        return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, rates))

    parted = dense_model()
    before = parted.get_weights()
    history = make(parted, multi()).fit(*toy(), 1)
    assert history.history['learning_rate'] == [0]
    kernel, bias = parted.get_weights()
    np.testing.assert_array_equal(bias, before[1])
    assert not np.array_equal(kernel, before[0])
    averaging = make(optimizer=multi(use_ema=True))
    averaging.fit(*toy(), 1)
    with pytest.raises(ValueError, match='whose optimizer has use_ema must train in one go'):
        averaging.fit(*toy(), 2)


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
    # Averages and weights are apart again: a compiled step may use the memory of both.
    assert make(averaged, optimizer).fit(*toy(), 1).epoch == [0]


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
        losses.append(trainer.fit(images, labels, 1).history['loss'][0])
    assert losses[1] - losses[0] == pytest.approx(0.01 * 192 * 3, rel=1e-3)
    batches = order_of(0)[: STEPS * BATCH]
    outputs = images[batches].sum(axis=(1, 2, 3)) / 255 * 3
    assert losses[2] - losses[0] == pytest.approx(0.01 * outputs.mean(), rel=0.02)
    pulled = make(weighted, optimizers.SGD(0.1)).model
    before = np.abs(pulled.get_weights()[0]).mean()
    make(pulled, optimizers.SGD(1.0)).fit(images, labels, 3)
    assert np.abs(pulled.get_weights()[0]).mean() < before


@pytest.mark.thorough
@tensorflow_only
def test_the_program_for_accelerators_makes_the_same_training():
    """XLA compiles the whole epoch, on this machine's CPU."""
    images, labels = toy()
    changes = [
        functools.partial(augment.random_crop, padding=2),
        augment.random_flip,
        functools.partial(augment.random_cutout, size=2),
        augment.alternating_flip,
    ]
    rule = optimizers.Lookahead(0.5, every=3)
    plain = make(augment=augment.compose(changes), averaging=rule)
    compiled = make(augment=augment.compose(changes), averaging=rule, jit_compile=True)
    for trainer in (plain, compiled):
        trainer.fit(images, labels, 2)
    assert numbers(plain.records)[0] == pytest.approx(numbers(compiled.records)[0], rel=1e-3)
    for a, b in zip(values(plain), values(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert plain.evaluate(images, labels).loss == pytest.approx(
        compiled.evaluate(images, labels).loss, rel=1e-3
    )


@pytest.mark.backend('jax')
def test_the_loop_for_accelerators_makes_the_same_training():
    """On a CPU steps are compiled singly; the loop that other devices run must do what they do."""
    images, labels = toy()
    changes = augment.compose([augment.random_crop, augment.alternating_flip])
    rule = optimizers.EMA(0.8, every=3)
    single = make(augment=changes, averaging=rule)
    loop = make(augment=changes, averaging=rule, jit_compile=True)
    for trainer in (single, loop):
        trainer.fit(images, labels, 2)
    for a, b in zip(values(single), values(loop), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(single.records, loop.records, strict=True):
        assert a['train_loss'] == pytest.approx(b['train_loss'], rel=1e-4)
        assert a['train_accuracy'] == b['train_accuracy']


@pytest.mark.backend('jax')
def test_the_program_needs_no_data_to_be_lowered():
    """Nor the device: it is what `fenwicks.tpu` compiles ahead of time."""
    import jax

    trainer = make(averaging=optimizers.EMA(0.8, every=3))
    program, arguments = trainer.program(COUNT, (8, 8, 3))
    text = program.lower(*arguments).as_text()
    assert 'stablehlo.while' in text
    state, totals = jax.eval_shape(program, *arguments)
    assert state == arguments[0]
    used_again = text.count('tf.aliasing_output') + text.count('jax.buffer_donor')
    assert used_again == len(jax.tree.leaves(state))
    assert [total.dtype.name for total in totals] == [
        'float32',
        'int32',
        'int32',
        'float32',
        'bool',
    ]


@pytest.mark.backend('jax')
def test_the_program_of_another_seed_is_the_same():
    """So that JAX's compilation cache has it; the seed is one of its arguments."""
    changes = augment.compose([augment.random_crop, augment.alternating_flip])
    trainers = [make(seed=seed, augment=changes) for seed in (0, 1)]
    texts = []
    for trainer in trainers:
        program, arguments = trainer.program(COUNT, (8, 8, 3))
        texts.append(program.lower(*arguments).as_text())
    assert texts[0] == texts[1]
    first, second = (trainer.fit(*toy(), 1).history['loss'] for trainer in trainers)
    assert first != second


@tensorflow_only
@pytest.mark.parametrize(
    'rule',
    [
        None,
        pytest.param(optimizers.EMA(0.8, every=3), marks=pytest.mark.thorough),
        pytest.param(optimizers.Lookahead(0.5, every=3), marks=pytest.mark.thorough),
    ],
)
def test_the_pure_program_makes_the_same_training(rule):
    """It is what `fenwicks.tpu` compiles: a function of the state that leaves the model alone."""
    import tensorflow as tf

    from fenwicks.tpu.tensorflow_program import flattened

    images, labels = toy()
    changes = augment.compose([augment.random_flip, augment.alternating_flip])
    trained, pure = make(averaging=rule, augment=changes), make(averaging=rule, augment=changes)
    trained.load(images, labels)
    expected = trained.run_steps(1, 0, STEPS)
    before = values(pure)
    program, arguments = pure.program(COUNT, (8, 8, 3))
    assert 'while(' in flattened(program, arguments)(stage='hlo')
    state = [tf.cast(value, spec.dtype) for value, spec in zip(before, arguments[0], strict=True)]
    numbers = [tf.constant(number) for number in (1, 0, 0, STEPS)]
    state, totals = program(state, images, (labels,), *numbers, tf.constant(0.0))
    loss_sum, correct, steps, last_loss, finite = (total.numpy().item() for total in totals)
    assert loss_sum == pytest.approx(expected.loss_sum, rel=1e-3)
    assert (correct, steps, finite) == (expected.correct, STEPS, True)
    assert last_loss == pytest.approx(expected.last_loss, rel=1e-3)
    for value, new in zip(values(trained), state, strict=True):
        np.testing.assert_allclose(new, value, rtol=1e-3, atol=1e-4)
    for old, value in zip(before, values(pure), strict=True):
        np.testing.assert_array_equal(old, value)


def test_gradients_of_a_batch():
    """As `keras.ops` computes them by differences; the model and its statistics stay."""
    trainer = make(dense_model(), keras.optimizers.LossScaleOptimizer(sgd()))
    images, labels = toy()
    before = values(trainer)
    loss, gradients = trainer.gradients(images, labels)
    assert loss == pytest.approx(trainer.evaluate(images, labels).loss, rel=1e-5)
    for old, value in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(old, value)
    weights = trainer.model.trainable_variables
    assert [gradient.shape for gradient in gradients] == [tuple(w.shape) for w in weights]
    bias = weights[1]
    for place in range(3):
        changed = before[1].copy()
        changed[place] += 0.01
        bias.assign(changed)
        difference = trainer.evaluate(images, labels).loss - loss
        assert difference / 0.01 == pytest.approx(gradients[1][place], rel=0.05, abs=1e-3)
        bias.assign(before[1])


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

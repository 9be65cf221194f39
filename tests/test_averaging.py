"""Averaging rules against closed forms; the callback against a training written out by hand."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.optimizers import (
    EMA,
    SGD,
    Lookahead,
    WeightAveraging,
    averaged_variables,
    initial_averages,
)
from fenwicks.optimizers.averaging import frozen_variables
from fenwicks.schedules import PowerRise

BACKEND = keras.backend.backend()
RULES = [
    EMA(0.9, every=2),
    Lookahead(0.6, every=2),
    Lookahead(PowerRise(0.8, 12, 3), every=4),
    Lookahead(0.7, every=2, start=6),
]


def tensors(*values, dtype='float32'):
    return [ops.convert_to_tensor(np.asarray(value, dtype='float32'), dtype) for value in values]


def numpy_of(values):
    return [np.array(ops.convert_to_numpy(ops.cast(value, 'float32'))) for value in values]


def assert_same(found, expected, **tolerance):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **{'rtol': 1e-5, 'atol': 1e-6, **tolerance})


def test_ema_of_a_line():
    # The sum of r**(N - n) * n for n = 1, 2, ..., N, over that of r**(N - n), is
    # N / (1 - r**N) - r / (1 - r). What the average began with is nowhere in it.
    rule, averages = EMA(0.8, every=3), tensors([1e3])
    for n in range(1, 21):
        averages, values = rule.update(averages, tensors([float(n)]), 3 * n - 1)
        assert numpy_of(values)[0] == n
    r = 0.8**3
    assert_same(numpy_of(averages), [[20 / (1 - r**20) - r / (1 - r)]])


def test_lookahead_with_a_constant_pull():
    # Between updates the value moves by +1: a <- a + (1 - s), hence (1 - s) * n after n of them.
    rule, averages, values = Lookahead(0.75, every=5), tensors([0.0]), tensors([0.0])
    for n in range(1, 9):
        averages, values = rule.update(averages, [values[0] + 1.0], 5 * n - 1)
        assert_same(numpy_of(averages), [[0.25 * n]])
        assert_same(numpy_of(values), numpy_of(averages), rtol=0, atol=0)


def test_lookahead_that_starts_late():
    """Up to the step `start` nothing changes; from there on the pull is constant."""
    rule = Lookahead(0.7, every=4, start=8)
    averages, values = tensors([0.1]), tensors([0.1])
    expected = 0.1
    for made in range(4, 25, 4):
        value = values[0] + 1.0
        averages, values = rule.update(averages, [value], made - 1)
        expected = expected + 1 if made <= 8 else expected + 0.3
        exactly = {'rtol': 0, 'atol': 0} if made <= 8 else {}
        assert_same(numpy_of(values), numpy_of([value]) if made <= 8 else [[expected]], **exactly)
        assert_same(numpy_of(averages), numpy_of(values), rtol=0, atol=0)


@pytest.mark.parametrize('step', [4, 9, 99])
def test_strength_is_that_of_the_steps_made(step):
    total = 100
    rule = Lookahead(PowerRise(0.95**5, total, power=3), every=5)
    s = 0.95**5 * ((step + 1) / total) ** 3
    # The step as a host's number and as a tensor of a compiled loop.
    for each in (step, ops.convert_to_tensor(np.int32(step))):
        averages, values = rule.update(tensors([1.0]), tensors([3.0]), each)
        assert_same(numpy_of(averages + values), [[s + (1 - s) * 3.0]] * 2)


@pytest.mark.parametrize('rule', RULES)
def test_values_at_their_average_stay_exactly(rule):
    values = tensors(np.random.default_rng(0).standard_normal(1000))
    averages = initial_averages(values)
    for step in range(rule.every - 1, 60, rule.every):
        averages, values_after = rule.update(averages, values, step)
        assert_same(numpy_of(averages + values_after), numpy_of(values * 2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('rule', 'weight_of_the_first'),
    [
        (EMA(0.999, every=1), 0.999**50 * 0.001 / (1 - 0.999**51)),
        (EMA(0.999999, every=1), 1 / 51),
        (EMA(0.0, every=1), 0),
        (Lookahead(0.999, every=1), 0.999**50),
    ],
)
def test_averages_of_bfloat16_values_accumulate_in_float32(rule, weight_of_the_first):
    # bfloat16 has 8 bits: 1 + 0.001 * (2 - 1) would stay 1 for ever.
    averages = initial_averages(tensors([1.0], dtype='bfloat16'))
    assert keras.backend.standardize_dtype(averages[0].dtype) == 'float32'
    for step in range(51):
        value = 2.0 if step else 1.0
        averages, values = rule.update(averages, tensors([value], dtype='bfloat16'), step)
    assert keras.backend.standardize_dtype(values[0].dtype) == 'bfloat16'
    assert_same(numpy_of(averages), [[2.0 - weight_of_the_first]])


@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize('rule', RULES)
def test_inside_a_compiled_loop(rule):
    steps = 12

    def train(compare, loop):
        def body(step, average, value):
            value = value * 0.9 + ops.cast(step, 'float32')

            def update():
                (new_average,), (new_value,) = rule.update([average], [value], step)
                return new_average, new_value

            average, value = compare((step + 1) % rule.every == 0, update, lambda: (average, value))
            return step + 1, average, value

        return loop(body)

    start = np.float32([1.0, -2.0])
    if BACKEND == 'tensorflow':
        import tensorflow as tf

        def loop(body):
            state = (tf.constant(0), tf.constant(start), tf.constant(start))
            return tf.while_loop(lambda step, *_: step < steps, body, state)

        compiled = [tf.function(lambda: train(tf.cond, loop), jit_compile=xla)
                    for xla in (False, True)]  # fmt: skip
    else:
        import jax

        def loop(body):
            state = (0, ops.convert_to_tensor(start), ops.convert_to_tensor(start))
            return jax.lax.while_loop(
                lambda carry: carry[0] < steps, lambda carry: body(*carry), state
            )

        compiled = [jax.jit(lambda: train(jax.lax.cond, loop))]

    average, value = start.astype('float64'), start.astype('float64')
    for step in range(steps):
        value = 0.9 * value + step
        if (step + 1) % rule.every == 0:
            average, value = by_hand(rule, average, value, step)
    for run in compiled:
        assert_same(numpy_of(run()[1:]), [average, value])


def by_hand(rule, average, value, step):
    """One update in float64 NumPy."""
    if isinstance(rule, EMA):
        kept, updates = rule.decay**rule.every, (step + 1) // rule.every
        keep = (kept - kept**updates) / (1 - kept**updates)
        return keep * average + (1 - keep) * value, value
    keep = rule.strength
    if callable(keep):
        keep = 0.8 * min((step + 1) / 12, 1) ** 3
    if step + 1 <= rule.start:
        keep = 0
    average = keep * average + (1 - keep) * value
    return average, average


@pytest.mark.parametrize(
    ('make', 'name'),
    [
        (lambda: EMA(decay=1.0), 'decay'),
        (lambda: EMA(decay=-0.1), 'decay'),
        (lambda: EMA(decay=float('nan')), 'decay'),
        (lambda: EMA(every=0), 'every'),
        (lambda: EMA(every=2.5), 'every'),
        (lambda: Lookahead(1.0), 'strength'),
        (lambda: Lookahead(-0.5), 'strength'),
        (lambda: Lookahead(0.5, start=-1), 'start'),
        (lambda: Lookahead('strong'), 'strength'),
        (lambda: Lookahead(None), 'strength'),
        (lambda: Lookahead(0.5, every=-1), 'every'),
        (lambda: WeightAveraging('ema'), 'rule'),
        (lambda: WeightAveraging(EMA(), swap_at_end='no'), 'swap_at_end'),
        (lambda: Lookahead(EMA), 'strength'),
        (lambda: averaged_variables(3), 'model'),
        (lambda: averaged_variables(keras.Model), 'model'),
    ],
)
def test_bad_arguments(make, name):
    with pytest.raises(ValueError, match=rf'^`{name}` must be .*Received: {name}=') as error:
        make()
    assert '\n' not in str(error.value)


def test_numpy_numbers_become_plain_ones():
    assert repr(EMA(np.float32(0.5), np.int64(2))) == repr(EMA(0.5, 2))
    assert repr(Lookahead(np.float64(0.5), np.int32(2))) == repr(Lookahead(0.5, 2))


def new_model(steps_per_execution=1):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        optimizer=SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=steps_per_execution,
    )
    return model


def points():
    rng = np.random.default_rng(5)
    return rng.standard_normal((40, 4)).astype('float32'), np.arange(40) % 2


def fit(model, *callbacks, epochs=3, **options):
    x, y = points()
    return model.fit(
        x, y, 8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options
    )


@functools.cache
def reference(rule, epochs=3):
    """Averages and training weights after every epoch, from a training step by step."""
    model, (x, y) = new_model(), points()
    model.build()
    variables = averaged_variables(model)
    averages = [value.astype('float64') for value in numpy_of(variables)]
    history = []
    for step in range(5 * epochs):
        rows = slice(step % 5 * 8, step % 5 * 8 + 8)
        model.train_on_batch(x[rows], y[rows])
        if (step + 1) % rule.every == 0:
            pairs = [by_hand(rule, a, v, step)
                     for a, v in zip(averages, numpy_of(variables), strict=True)]  # fmt: skip
            averages = [average for average, _ in pairs]
            for variable, (_, value) in zip(variables, pairs, strict=True):
                variable.assign(value.astype('float32'))
        if step % 5 == 4:
            history.append(([a.copy() for a in averages], numpy_of(variables)))
    return history


class Witness(keras.callbacks.Callback):
    """Notes the weights that evaluation sees, those at an epoch's end, and those trained on."""

    def __init__(self):
        super().__init__()
        self.tested, self.ended, self.trained = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            self.trained.append(numpy_of(averaged_variables(self.model)))

    def on_test_batch_end(self, batch, logs=None):
        if hasattr(self.model, 'jax_state_sync'):
            self.model.jax_state_sync()
        self.tested.append(numpy_of(averaged_variables(self.model)))

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(numpy_of(averaged_variables(self.model)))


def test_which_variables_are_averaged():
    names = [variable.name for variable in averaged_variables(new_model())]
    statistics = ['moving_mean', 'moving_variance']
    assert names == ['kernel', 'bias', 'gamma', 'beta', *statistics, 'kernel', 'bias']


@pytest.mark.thorough
@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize('rule', RULES)
def test_callback_equals_a_training_by_hand(rule):
    expected = reference(rule)
    model, averaging, witness = new_model(), WeightAveraging(rule), Witness()
    x, y = points()
    fit(model, averaging, witness, validation_data=(x, y), validation_batch_size=40)
    assert len(witness.tested) == len(expected) == 3
    assert len(witness.trained) == 2
    for i, (averages, values) in enumerate(expected):
        assert_same(witness.tested[i], averages, rtol=1e-4, atol=1e-5)
        assert_same(witness.ended[i], witness.tested[i], rtol=0, atol=0)
        if i < 2:
            assert_same(witness.trained[i], values, rtol=1e-4, atol=1e-5)
    averages, values = expected[-1]
    # Statistics of batch norm among them, and far from one another: the test can fail.
    assert max(np.abs(a - v).max() for a, v in zip(averages, values, strict=True)) > 0.01
    variables = averaged_variables(model)
    assert_same(numpy_of(variables), averages, rtol=1e-4, atol=1e-5)
    averaging.restore()
    assert_same(numpy_of(variables), values, rtol=1e-4, atol=1e-5)
    averaging.restore()
    assert_same(numpy_of(variables), values, rtol=1e-4, atol=1e-5)
    averaging.use_averages()
    averaging.use_averages()
    assert_same(numpy_of(variables), averages, rtol=1e-4, atol=1e-5)
    averaging.restore()
    assert_same(numpy_of(variables), values, rtol=1e-4, atol=1e-5)


def test_evaluation_after_fit_sees_what_is_in_place():
    model, averaging = new_model(), WeightAveraging(EMA(0.9, every=2))
    fit(model, averaging)
    x, y = points()
    averaged = model.evaluate(x, y, verbose=0)
    assert model.evaluate(x, y, verbose=0, callbacks=[averaging]) == averaged
    averaging.restore()
    raw = model.evaluate(x, y, verbose=0)
    assert abs(raw - averaged) > 1e-4
    assert model.evaluate(x, y, verbose=0, callbacks=[averaging]) == averaged
    assert model.evaluate(x, y, verbose=0) == raw


def test_evaluation_after_a_fit_that_ended_in_an_error_leaves_the_weights():
    """The averages stayed in the model, as within a `fit`."""

    def fail(batch, logs):
        if batch == 3:
            raise ZeroDivisionError

    model, averaging = new_model(), WeightAveraging(EMA(0.9, every=2))
    failing = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    x, y = points()
    model.compile(SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ZeroDivisionError):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[averaging, failing])
    before = model.get_weights()
    model.evaluate(x, y, verbose=0, callbacks=[averaging])
    assert_same(model.get_weights(), before, rtol=0, atol=0)
    assert averaging.step == 4


@pytest.mark.parametrize('swap_at_end', [True, False])
def test_a_second_fit_goes_on(swap_at_end):
    rule = Lookahead(PowerRise(0.8, 12, 3), every=3)
    whole = new_model()
    fit(whole, WeightAveraging(rule, swap_at_end), epochs=2)
    halves, averaging = new_model(), WeightAveraging(rule, swap_at_end)
    fit(halves, averaging, epochs=1)
    assert averaging.step == 5
    fit(halves, averaging, epochs=1)
    assert averaging.step == 10
    assert_same(halves.get_weights(), whole.get_weights())


@pytest.mark.backend('tensorflow', 'jax')
def test_lookahead_leaves_a_layer_alone_that_was_frozen_after_it():
    model, averaging = new_model(), WeightAveraging(Lookahead(0.5, every=3), swap_at_end=False)
    fit(model, averaging, epochs=1)
    frozen = model.layers[:2]
    for layer in frozen:
        layer.trainable = False
    before = [numpy_of(layer.weights) for layer in frozen]
    model.compile(SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit(model, averaging, epochs=2)
    averaging.use_averages()
    for layer, old in zip(frozen, before, strict=True):
        assert_same(numpy_of(layer.weights), old, rtol=0, atol=0)


def test_a_layer_that_learns_in_a_frozen_one_is_not_frozen():
    backbone = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    )
    model = keras.Sequential([keras.Input((4,)), backbone, keras.layers.Dense(2)])
    backbone.trainable = False
    backbone.layers[-1].trainable = True
    frozen = frozen_variables(model)
    assert list(map(id, frozen)) == list(map(id, backbone.layers[0].variables))


def test_without_a_swap_the_training_weights_stay():
    plain = new_model()
    fit(plain)
    averaged = new_model()
    fit(averaged, WeightAveraging(EMA(0.9, every=2), swap_at_end=False))
    assert_same(averaged.get_weights(), plain.get_weights())


@pytest.mark.backend('tensorflow', 'jax')
def test_steps_per_execution():
    expected, together = new_model(), new_model(steps_per_execution=5)
    fit(expected, WeightAveraging(EMA(0.9, every=5)))
    fit(together, WeightAveraging(EMA(0.9, every=5)))
    assert_same(together.get_weights(), expected.get_weights())
    with pytest.raises(ValueError, match=r'`every` .*every=3, steps_per_execution=5$'):
        fit(together, WeightAveraging(EMA(0.9, every=3)))


@pytest.mark.parametrize('rule', [EMA(0.9, every=11), Lookahead(0.5, every=11)])
def test_before_the_first_update_the_weights_stay(rule):
    plain = new_model()
    fit(plain, epochs=2)
    averaged = new_model()
    fit(averaged, WeightAveraging(rule), epochs=2)  # 10 steps
    assert_same(averaged.get_weights(), plain.get_weights())


def test_misuse_of_the_callback():
    averaging = WeightAveraging(EMA())
    with pytest.raises(ValueError, match='averages come with `fit`'):
        averaging.use_averages()
    fit(new_model(), averaging)
    with pytest.raises(ValueError, match='must stay with its model'):
        fit(new_model(), averaging)


@pytest.mark.backend('tensorflow', 'jax')
def test_mixed_precision():
    keras.config.set_dtype_policy('mixed_bfloat16')
    model, averaging = new_model(), WeightAveraging(EMA(0.9, every=2))
    fit(model, averaging)
    assert {v.dtype for v in averaged_variables(model)} == {'float32'}
    assert all(np.isfinite(value).all() for value in model.get_weights())


def fresh_model(kind):
    """A model that `fit` builds: a Sequential without an Input, or a subclass."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Dense(5, use_bias=False),  # no gradient before batch norm
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    if kind == 'half built':  # some of its variables exist, some don't
        layers[0].build((None, 4))
    if kind != 'sequential':

        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden, self.norm, self.head = layers

            def call(self, inputs, training=None):
                return self.head(self.norm(self.hidden(inputs), training=training))

        model = Model()
    model.compile(
        optimizer=SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


@pytest.mark.parametrize('kind', ['sequential', 'subclass', 'half built'])
def test_a_model_that_fit_builds_is_averaged(kind):
    model, averaging = fresh_model(kind), WeightAveraging(EMA(0.9, every=1))
    assert not model.built
    fit(model, averaging, epochs=2)
    assert len(averaged_variables(model)) == 7
    averages = numpy_of(averaged_variables(model))
    averaging.restore()
    raw = numpy_of(averaged_variables(model))
    assert min(np.abs(a - r).max() for a, r in zip(averages, raw, strict=True)) > 1e-4
    fit(model, averaging, epochs=1)  # the second `fit` goes on
    assert averaging.step == 15


def test_averages_of_a_model_that_fit_builds_are_those_of_the_steps():
    model, averaging, seen = fresh_model('subclass'), WeightAveraging(EMA(0.8, every=1)), []

    class Values(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if hasattr(self.model, 'jax_state_sync'):
                self.model.jax_state_sync()
            seen.append(numpy_of(averaged_variables(self.model)))

    fit(model, averaging, Values(), epochs=1)
    shares = 0.8 ** np.arange(len(seen))[::-1]
    expected = [
        sum(share * value for share, value in zip(shares, values, strict=True)) / shares.sum()
        for values in zip(*seen, strict=True)
    ]
    assert_same(numpy_of(averaged_variables(model)), expected)


@pytest.mark.backend('tensorflow')  # the others build models before the first step
@pytest.mark.parametrize('kind', ['sequential', 'subclass', 'half built'])
def test_lookahead_needs_a_built_model(kind):
    with pytest.raises(ValueError, match=r'Lookahead starts from the weights .* must be built'):
        fit(fresh_model(kind), WeightAveraging(Lookahead(0.5)))


def test_unbuilt_models_have_no_averaged_variables_yet():
    with pytest.raises(ValueError, match=r'^`model` must be built.* Received: model='):
        averaged_variables(fresh_model('sequential'))


def test_an_optimizer_that_averages_too_is_refused():
    model = new_model()
    model.compile(optimizer=SGD(0.1, use_ema=True), loss='mse')
    with pytest.raises(ValueError, match='WeightAveraging must be the only average'):
        model.fit(np.zeros((8, 4)), np.zeros((8, 2)), verbose=0,
                  callbacks=[WeightAveraging(EMA())])  # fmt: skip


def test_two_averages_are_refused():
    """The second took the averages of the first for the weights to go on with."""
    model, first = new_model(), WeightAveraging(EMA(0.5, every=1))
    with pytest.raises(ValueError, match=r'must be the only average.* Received: two WeightAverag'):
        fit(model, first, WeightAveraging(EMA(0.9, every=1)), epochs=1)
    fit(model, first, epochs=1)
    fit(model, first, epochs=1)


def held_out():
    """Points of another draw, on which the model soon gets worse, so that the best isn't last."""
    rng = np.random.default_rng(11)
    return rng.standard_normal((40, 4)).astype('float32'), np.arange(40) % 2


# Where the averages stand among callbacks that choose weights.
ORDERS = pytest.mark.parametrize('place', [0, 1, 2])


def fit_with_choice(place, tmp_path, *, swap_at_end=True, epochs=6, **options):
    model, averaging = new_model(), WeightAveraging(EMA(0.7, every=2), swap_at_end)
    model.optimizer.learning_rate = 0.5
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / 'best.keras'), monitor='val_loss', save_best_only=True
    )
    stopping = keras.callbacks.EarlyStopping(
        monitor='val_loss', patience=epochs, restore_best_weights=True
    )
    callbacks = [checkpoint, stopping]
    callbacks.insert(place, averaging)
    history = fit(model, *callbacks, epochs=epochs, validation_data=held_out(), **options).history
    return model, averaging, history['val_loss']


@pytest.mark.thorough
@ORDERS
@pytest.mark.parametrize('swap_at_end', [True, False])
def test_what_was_validated_is_saved_and_restored(place, swap_at_end, tmp_path):
    model, averaging, losses = fit_with_choice(place, tmp_path, swap_at_end=swap_at_end)
    assert np.argmin(losses) < len(losses) - 1
    saved = keras.models.load_model(tmp_path / 'best.keras')
    for chosen in (saved, model):
        np.testing.assert_allclose(
            chosen.evaluate(*held_out(), batch_size=8, verbose=0), min(losses), rtol=1e-5
        )
    if swap_at_end:
        averaging.restore()
        plain = new_model()
        plain.optimizer.learning_rate = 0.5
        fit(plain, epochs=6, validation_data=held_out())  # which draws random numbers on PyTorch
        assert_same(model.get_weights(), plain.get_weights(), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@ORDERS
@pytest.mark.filterwarnings('ignore:.*val_loss.*')
def test_what_was_restored_stays_after_an_epoch_without_validation(place, tmp_path):
    model, _, losses = fit_with_choice(place, tmp_path, epochs=5, validation_freq=2)
    assert len(losses) == 2
    np.testing.assert_allclose(
        model.evaluate(*held_out(), batch_size=8, verbose=0), min(losses), rtol=1e-5
    )


@ORDERS
def test_stopping_early_ends_with_the_best_averages(place):
    model, averaging = new_model(), WeightAveraging(EMA(0.7, every=2))
    model.optimizer.learning_rate = 0.5
    callbacks = [
        keras.callbacks.EarlyStopping('val_loss', patience=2, restore_best_weights=True),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    ]
    callbacks.insert(place, averaging)
    losses = fit(model, *callbacks, epochs=30, validation_data=held_out()).history['val_loss']
    assert np.argmin(losses) == len(losses) - 3
    np.testing.assert_allclose(
        model.evaluate(*held_out(), batch_size=8, verbose=0), min(losses), rtol=1e-5
    )


class AssignsTheLast(keras.callbacks.Callback):
    """Assigns the weights of the last epoch's end, one by one, as no callback of Keras does."""

    def on_epoch_end(self, epoch, logs=None):
        self.kept = numpy_of(averaged_variables(self.model))

    def on_train_end(self, logs=None):
        for variable, value in zip(averaged_variables(self.model), self.kept, strict=True):
            variable.assign(value)


def chooses_the_last():
    """A callback to which each epoch is better than all before."""
    return keras.callbacks.EarlyStopping('epoch', mode='max', restore_best_weights=True)


class LogsEpochs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs['epoch'] = float(epoch)


@pytest.mark.thorough
@pytest.mark.parametrize('place', [0, 2])
@pytest.mark.parametrize('chooser', [chooses_the_last, AssignsTheLast])
@pytest.mark.parametrize('validated', [True, False])
@pytest.mark.parametrize('swap_at_end', [True, False])
def test_the_last_weights_stay_where_they_are_chosen(place, chooser, validated, swap_at_end):
    """They equal what was in place before, so that their values cannot say who put them there."""
    rule = EMA(0.7, every=2)
    averages, training = reference(rule)[-1]
    model, averaging = new_model(), WeightAveraging(rule, swap_at_end)
    callbacks = [LogsEpochs(), chooser()]
    callbacks.insert(place, averaging)
    fit(model, *callbacks, **({'validation_data': points()} if validated else {}))
    expected = averages if validated else training
    assert_same(numpy_of(averaged_variables(model)), expected, rtol=1e-4, atol=1e-5)
    if swap_at_end:
        averaging.restore()
        assert_same(numpy_of(averaged_variables(model)), training, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('place', [0, 2])
@pytest.mark.parametrize('swap_at_end', [True, False])
def test_every_callback_sees_at_the_end_what_fit_leaves(place, swap_at_end):
    seen, model = [], new_model()

    class Sees(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            model.evaluate(*points(), verbose=0)
            seen.append(model.get_weights())

    callbacks = [Sees(), Sees()]
    callbacks.insert(place, WeightAveraging(EMA(0.7, every=2), swap_at_end))
    fit(model, *callbacks)
    for weights in seen:
        assert_same(weights, model.get_weights(), rtol=0, atol=0)
    averages, training = reference(EMA(0.7, every=2))[-1]
    expected = averages if swap_at_end else training
    assert_same(numpy_of(averaged_variables(model)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize('again', [True, False])
def test_an_interrupted_fit_leaves_nothing_to_the_next(again):
    """Of the averages, which are put in place by a hook in the optimizer."""

    def interrupt(batch, logs):
        if batch == 3:
            raise InterruptedError

    model, averaging = new_model(), WeightAveraging(EMA(0.9, every=2))
    with pytest.raises(InterruptedError):
        fit(model, averaging, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
    plain = new_model()
    with pytest.raises(InterruptedError):
        fit(plain, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
    assert_same(model.get_weights(), plain.get_weights())
    fit(model, *([averaging] if again else []))
    fit(plain)
    if again:
        averaging.restore()
    assert_same(model.get_weights(), plain.get_weights())


@pytest.mark.thorough
def test_evaluation_within_an_epoch_leaves_the_training_alone():
    averaging = WeightAveraging(EMA(0.9, every=2), swap_at_end=False)

    class Evaluates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                if hasattr(self.model, 'jax_state_sync'):
                    self.model.jax_state_sync()
                averaging.on_test_begin()
                averaging.on_test_end()

    plain = new_model()
    fit(plain)
    averaged = new_model()
    fit(averaged, averaging, Evaluates())
    assert_same(averaged.get_weights(), plain.get_weights())


def test_a_resumed_backup_is_refused(tmp_path):
    def interrupt(epoch, logs):
        if epoch == 1:
            raise InterruptedError

    def run(*callbacks):
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / 'backup'))
        fit(new_model(), WeightAveraging(EMA(0.9, every=2)), backup, *callbacks)

    with pytest.raises(InterruptedError):
        run(keras.callbacks.LambdaCallback(on_epoch_begin=interrupt))
    with pytest.raises(ValueError, match=r'must see the training from its start: BackupAndRestore'):
        run()


def test_a_backup_resumed_within_the_first_epoch_is_refused(tmp_path):
    def interrupt(batch, logs):
        if batch == 2:
            raise InterruptedError

    def run(*callbacks, first):
        each = WeightAveraging(EMA(0.9, every=2))
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / 'backup'), save_freq=1)
        fit(new_model(), *((each, backup) if first else (backup, each)), *callbacks)

    with pytest.raises(InterruptedError):
        run(keras.callbacks.LambdaCallback(on_train_batch_end=interrupt), first=True)
    for first in (True, False):
        with pytest.raises(ValueError, match=r'BackupAndRestore .* resumed at epoch 0$'):
            run(first=first)


def test_a_backup_that_is_not_resumed_is_averaged(tmp_path):
    model = new_model()
    fit(model)  # a model trained before has a count of updates, too
    averaging = WeightAveraging(EMA(0.9, every=2))
    fit(model, keras.callbacks.BackupAndRestore(str(tmp_path / 'backup'), save_freq=1), averaging)
    assert averaging.step == 15


def test_a_fit_that_begins_at_a_later_epoch_is_averaged():
    model, averaging = new_model(), WeightAveraging(EMA(0.9, every=2))
    fit(model, averaging, epochs=3, initial_epoch=1)
    assert averaging.step == 10

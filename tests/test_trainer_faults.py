"""What a user's program does wrong, or what goes wrong under it, ends in one line."""

import gc
import os
import re
import signal
import weakref

import keras
import numpy as np
import pytest
from training_toys import (
    adam,
    assert_same,
    conv_model,
    dense_model,
    make,
    sgd,
    toy,
    values,
    warned,
)

from fenwicks import augment, layers, losses, optimizers
from fenwicks.training import DivergedError
from fenwicks.training import checkpoint as checkpoints

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def refused(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert re.search(message, str(raised.value)), raised.value  # JAX adds notes for `match`
    assert '\n' not in str(raised.value)


# The model


def two_outputs():
    images = keras.Input((8, 8, 3))
    features = keras.layers.Flatten()(images)
    return keras.Model(images, [keras.layers.Dense(n)(features) for n in (3, 2)])


class TwoOutputs(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.heads = [keras.layers.Dense(n) for n in (3, 2)]

    def call(self, images):
        features = self.flatten(images)
        return [head(features) for head in self.heads]


def test_a_model_of_two_outputs():
    message = r'one output, logits .*\. Received: outputs of shape \(None, 3\), \(None, 2\)$'
    refused(lambda: make(two_outputs()), message)
    model = TwoOutputs()
    model(np.zeros((1, 8, 8, 3), np.float32))
    trainer = make(model)
    refused(lambda: trainer.fit(*toy(), 1), message)
    refused(lambda: trainer.predict(toy()[0]), message)
    refused(lambda: trainer.evaluate(*toy()), message)


class TwoInputs(keras.Model):
    def call(self, images, others):
        return keras.ops.mean(images + others, axis=(1, 2))


def test_a_subclass_of_two_inputs():
    model = TwoInputs()
    model(*np.zeros((2, 1, 8, 8, 3), np.float32))
    trainer = make(model, normalize=to_floats)
    message = r'`model` must take a batch of images of the shape \(8, 8, 3\), its one input'
    refused(lambda: trainer.predict(toy()[0]), message)


def test_a_model_that_returns_a_list_of_one_output():
    """The error said that it must have one output, and that it has."""
    images = keras.Input((8, 8, 3))
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(images))
    for kind, outputs in (('list', [logits]), ('dict', {'logits': logits})):
        model = keras.Model([images], outputs)
        message = f'return its output itself: .* Received: a model that returns a {kind} of one'
        refused(lambda model=model: make(model).fit(*toy(), 1), message)
    make(keras.Model([images], logits)).fit(*toy(), 1)


def test_a_model_that_returns_images():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1)])
    refused(lambda: make(model).fit(*toy(), 1), r'outputs of shape \(None, 8, 8, 3\)$')


def test_a_model_whose_layers_are_all_frozen():
    model = dense_model()
    model.trainable = False
    trainer = make(model)
    refused(lambda: trainer.fit(*toy(), 1), r'`model` must have weights to train: unfreeze')
    assert trainer.predict(toy()[0]).shape == (22, 3)


def test_a_distribution_of_keras():
    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        model = dense_model()
        refused(
            lambda: make(model), r'divide the batches itself.* keras.distribution.DataParallel$'
        )
    finally:
        keras.distribution.set_distribution(None)


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_a_model_that_ends_in_probabilities(activation):
    message = rf"`model` must end in logits .* Received: dense\w* with activation='{activation}'$"
    refused(lambda: make(dense_model(activation=activation)), message)
    nested = keras.Sequential([keras.Input((8, 8, 3)), dense_model(activation=activation)])
    refused(lambda: make(nested), message)
    of_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    refused(lambda: make(dense_model(activation=activation), loss=of_logits), message)
    of_probabilities = keras.losses.SparseCategoricalCrossentropy()
    make(dense_model(activation=activation), loss=of_probabilities).fit(*toy(), 1)


@pytest.mark.parametrize(
    'layer', [keras.layers.Softmax, lambda: keras.layers.Activation('softmax')]
)
def test_a_layer_of_softmax(layer):
    model = dense_model()
    model.add(layer())
    refused(lambda: make(model), r"`model` must end in logits .* activation='softmax'$")


def test_a_loss_of_probabilities_on_logits():
    loss = keras.losses.SparseCategoricalCrossentropy()
    refused(lambda: make(dense_model(), loss=loss), r'`loss` must be of logits: pass from_logits')
    make(dense_model(), loss=losses.CrossEntropy(label_smoothing=0.1))


def test_whitening_that_was_not_adapted():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.PatchWhitening(name='whitening'),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    images, labels = toy()
    trainer = make(model, adam())
    refused(lambda: trainer.fit(images, labels, 1), r"call model.get_layer\('whitening'\).adapt")
    assert trainer.first_step_at is None
    model.get_layer('whitening').adapt(images / np.float32(255))
    trainer.fit(images, labels, 1)


# The augmentation


def draws_by_a_layer(images, seed):
    return keras.layers.RandomFlip(seed=1)(images, training=True)


def has_weights(images, seed):
    return keras.layers.Conv2D(3, 1)(images)


def halves(images, seed):
    return images[:2]


def returns_nothing(images, seed):
    images * 2


OUTSIDE = keras.layers.RandomFlip(seed=1)


def draws_by_a_layer_outside(images, seed):
    return OUTSIDE(images, training=True)


def makes_a_variable(images, seed):
    return images * keras.Variable(1.0)


def cuts(images, seed):
    return images[:, :4]


@pytest.mark.parametrize(
    ('augment', 'message'),
    [
        (makes_a_variable, r'`augment` must draw from its `seed` alone.*\(a variable\)$'),
        (cuts, r'`augment` must return images of the shape \(8, 8, 3\) .* Received: \(4, 8, 3\)$'),
        (draws_by_a_layer, r'`augment` must draw from its `seed` alone.*seed_generator'),
        (has_weights, r'`augment` must draw from its `seed` alone.*kernel, .*bias\)$'),
        (draws_by_a_layer_outside, r'`augment` must draw from its `seed` alone.*a variable\)$'),
        (halves, r'`augment` must return the 4 images .* Received: \(2, 8, 8, 3\)$'),
        (returns_nothing, r'`augment` must return the 4 images .* Received: None$'),
    ],
)
def test_augmentations_that_break_their_contract(augment, message):
    trainer = make(dense_model(), augment=augment)
    refused(lambda: trainer.fit(*toy(), 1), message)


@pytest.mark.parametrize(
    'augment',
    [
        [augment.random_flip],
        keras.layers.GaussianNoise(0.1),
        lambda images: images,
        lambda images, seed, strength: images,
    ],
)
def test_what_is_no_function_of_images_and_a_seed_is_no_augmentation(augment):
    with pytest.raises(ValueError, match=r'^`augment` must be a function of images and') as error:
        make(dense_model(), augment=augment)
    assert '\n' not in str(error.value)


def test_a_model_of_any_size_takes_what_augment_returns():
    images = keras.Input((None, None, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    make(keras.Model(images, keras.layers.Dense(3)(features)), augment=cuts).fit(*toy(), 1)


def to_floats(images):
    return keras.ops.cast(images, 'float32') / 255


@pytest.mark.parametrize(
    ('normalize', 'message'),
    [
        (lambda images: keras.layers.Dense(3)(to_floats(images)), r'dense\w*/kernel, .*bias\)$'),
        (lambda images: to_floats(images) * keras.Variable(1.0), r'a variable\)$'),
    ],
)
def test_a_normalisation_that_makes_a_layer(normalize, message):
    message = rf'^`normalize` must create or change no variable of a Keras layer.*{message}'
    trainer = make(dense_model(), normalize=normalize)
    refused(lambda: trainer.fit(*toy(), 1), message)
    refused(lambda: trainer.predict(toy()[0]), message)


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        (lambda y, p: keras.ops.mean(keras.layers.Dense(3)(p)), r'dense\w*/kernel, .*bias\)$'),
        (lambda y, p: keras.ops.mean(p * keras.Variable(1.0)), r'a variable\)$'),
    ],
)
def test_a_loss_that_makes_a_layer(loss, message):
    message = rf'^`loss` must create or change no variable of a Keras layer.*{message}'
    trainer = make(dense_model(), loss=loss)
    refused(lambda: trainer.fit(*toy(), 1), message)


def test_a_layer_that_was_adapted_may_normalise():
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(toy()[0])
    make(dense_model(), normalize=lambda images: layer(images)).fit(*toy(), 1)


def test_a_layer_without_variables_may_augment():
    layer = keras.layers.Rescaling(2.0)
    plain = make(dense_model(), augment=lambda images, seed: images * 2)
    own = make(dense_model(), augment=lambda images, seed: layer(images))
    for trainer in (plain, own):
        trainer.fit(*toy(), 1)
    assert_same(plain, own)


# Numbers that aren't finite


class Spoiler(keras.layers.Layer):
    """Returns its inputs and makes a variable that nothing depends on NaN at the third call."""

    def build(self, input_shape):
        self.calls = self.add_weight(shape=(), initializer='zeros', trainable=False, name='calls')
        self.spoilt = self.add_weight(
            shape=(2,), initializer='zeros', trainable=False, name='spoilt'
        )

    def call(self, inputs, training=False):
        if training:
            self.calls.assign_add(1.0)
            self.spoilt.assign(keras.ops.where(self.calls > 7, np.nan, self.spoilt.value))
        return inputs


def test_nan_in_the_statistics_of_a_layer(tmp_path):
    """The losses and the weights are finite all along."""
    trainer = make(dense_model(Spoiler(name='spoiler')), sgd(0.01))
    with pytest.raises(DivergedError, match=r'training state must .*spoiler/spoilt not finite$'):
        trainer.fit(*toy(), 3, checkpoint=tmp_path / 'c.npz')
    assert len(checkpoints.load_state(tmp_path / 'c.npz')['history']) == 1


class Overflowing:
    """A rule whose averages become infinite."""

    every, replaces_values = 1, False

    def update(self, averages, values, step):
        return [average * 1e20 + 1e20 for average in averages], values


def test_averages_that_overflow():
    trainer = make(dense_model(), sgd(0.01), averaging=Overflowing())
    with pytest.raises(DivergedError, match=r'training state must .*average\w* not finite$'):
        trainer.fit(*toy(), 1)


class Unknown(keras.metrics.Metric):
    """A metric without a value, of some images at least."""

    def update_state(self, labels, outputs, sample_weight=None):
        pass

    def result(self):
        return keras.ops.convert_to_tensor(np.nan, 'float32')


def test_a_metric_that_is_not_a_number_is_a_warning():
    trainer = make(dense_model(), metrics=[Unknown(name='unknown')])
    message = '`unknown` should be finite: the model, or the metric, may hold NaN. Received: unkno'
    warned(lambda: trainer.fit(*toy(), 1), message)
    assert np.isnan(trainer.records[-1]['train_unknown'])
    warned(lambda: trainer.evaluate(*toy()), message)
    warned(lambda: trainer.fit(*toy(), 2, validation_data=toy()), message)


def test_scoring_a_model_that_holds_nan_is_a_warning():
    trainer = make(dense_model(keras.layers.BatchNormalization()))
    statistics = trainer.model.layers[1].moving_mean
    statistics.assign(np.full(statistics.shape, np.nan, np.float32))
    with pytest.warns(UserWarning, match='`loss` should be finite: ') as found:
        trainer.evaluate(*toy())
    assert len(found) == 1


# Checkpoints


def test_other_data_of_the_same_size(tmp_path):
    path, (images, labels) = tmp_path / 'c.npz', toy()
    make(dense_model()).fit(images, labels, 1, checkpoint=path)
    other, relabelled = images.copy(), labels.copy()
    other[3, 2, 1, 0] ^= 1
    relabelled[5] = (relabelled[5] + 1) % 3
    for changed in ((other, labels), (images, relabelled)):
        trainer = make(dense_model())
        before = values(trainer)
        refused(
            lambda trainer=trainer, changed=changed: trainer.fit(
                *changed, 2, checkpoint=path, resume=True
            ),
            r"`resume` must go on with the settings of .*c\.npz\. Received: data_digest='\w+' inst",
        )
        for old, new in zip(before, values(trainer), strict=True):
            np.testing.assert_array_equal(old, new)


def test_another_version_of_the_library(tmp_path, monkeypatch):
    path = tmp_path / 'c.npz'
    make(dense_model()).fit(*toy(), 1, checkpoint=path)
    monkeypatch.setattr('fenwicks.__version__', '99')
    trainer = make(dense_model())
    refused(lambda: trainer.fit(*toy(), 2, checkpoint=path, resume=True), r"fenwicks='99' instead")


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    """It has no digest, no format and no version."""
    path = tmp_path / 'c.npz'
    whole, first, second = (make(dense_model()) for _ in range(3))
    whole.fit(*toy(), 3)
    first.fit(*toy(), 2, checkpoint=path)
    state = checkpoints.load_state(path)
    for key in checkpoints.origin(''):
        del state[key]
    checkpoints.save(path, first.variables, state)
    second.fit(*toy(), 3, checkpoint=path, resume=True)
    assert_same(whole, second)


# Interrupts


def interrupt_in_a_callback(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):  # somewhere here Python calls the handler
        pass


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_an_interrupt_in_a_callback_is_not_lost(monkeypatch):
    """An exception in a callback of the garbage collector is printed and dropped."""
    trainer = make(conv_model())
    run, calls = trainer._engines.at(0).run, []

    class Collected:
        pass

    def run_and_collect(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            collected = Collected()
            collected.itself = collected
            weakref.finalize(collected, interrupt_in_a_callback).atexit = False
            del collected
            gc.collect()
        return run(*arguments, **options)

    monkeypatch.setattr(trainer._engines.at(0), 'run', run_and_collect)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*toy(), 5)
    assert len(trainer.records) < 5
    assert signal.getsignal(signal.SIGINT) is before
    assert np.isfinite(trainer.predict(toy()[0])).all()


def test_an_averaging_rule_of_the_library_stays_finite():
    trainer = make(dense_model(), sgd(0.01), averaging=optimizers.EMA(0.9, every=2))
    trainer.fit(*toy(), 2)
    assert np.isfinite(trainer.records[-1]['train_loss'])

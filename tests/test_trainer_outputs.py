"""A loss of logits needs a model that returns logits, and one of probabilities probabilities."""

import re

import keras
import numpy as np
import pytest
from keras import ops
from training_toys import adam, assert_same, make, toy

from fenwicks import layers, losses

pytestmark = pytest.mark.backend('tensorflow', 'jax')

OF_PROBABILITIES = keras.losses.SparseCategoricalCrossentropy()
LOGITS_WANTED = r'^`model` must end in logits for a loss that applies the softmax itself'
PROBABILITIES_WANTED = r'^`loss` must be of logits: pass from_logits=True\. Received: sparse_cat'


def ends_in(*last):
    """A Sequential with these last layers."""
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), *last])


def returns(function):
    """A Functional model that ends in a function of features."""
    images = keras.Input((8, 8, 3))
    return keras.Model(images, function(keras.layers.Flatten()(images)))


class Subclass(keras.Model):
    def __init__(self, last):
        super().__init__()
        self.dense, self.last = keras.layers.Dense(3), last
        self(np.zeros((1, 8, 8, 3), np.float32))

    def call(self, images):
        return self.last(self.dense(ops.reshape(images, (-1, 192))))


def dense(activation='softmax', **options):
    return keras.layers.Dense(3, activation=activation, **options)


def to_float32():
    return keras.layers.Activation('linear', dtype='float32')


def refused(model, message, **options):
    options = {'optimizer': adam()} | options
    with pytest.raises(ValueError) as raised:
        make(model, **options).fit(*toy(), 1)
    assert re.search(message, str(raised.value)), raised.value
    assert '\n' not in str(raised.value)


ENDS_IN_SOFTMAX = {
    'then float32': lambda: ends_in(dense(), to_float32()),
    'then Identity': lambda: ends_in(dense(), keras.layers.Identity()),
    'then Reshape': lambda: ends_in(dense(), keras.layers.Reshape((3,))),
    'then ClassNames': lambda: ends_in(dense(), layers.ClassNames(['a', 'b', 'c'])),
    'then Dropout': lambda: ends_in(dense(), keras.layers.Dropout(0.1)),
    'half precision': lambda: ends_in(dense(dtype='mixed_bfloat16'), to_float32()),
    'zeros': lambda: ends_in(dense(kernel_initializer='zeros'), to_float32()),
    'in a Sequential': lambda: keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Sequential([keras.layers.Flatten(), dense()])]
    ),
    'in a model': lambda: keras.Sequential(
        [keras.Input((8, 8, 3)), ends_in(dense(), to_float32())]
    ),
    'of ops': lambda: returns(lambda features: ops.softmax(dense(None)(features))),
    'of activations': lambda: returns(
        lambda features: keras.activations.softmax(dense(None)(features))
    ),
    'in a subclass': lambda: Subclass(ops.softmax),
    'mean of two': lambda: returns(
        lambda features: keras.layers.Average()([dense()(features), dense()(features)])
    ),
    'sigmoid of ops': lambda: returns(lambda features: ops.sigmoid(dense(None)(features))),
    'sigmoid, then float32': lambda: ends_in(dense('sigmoid'), to_float32()),
    'sigmoid in a subclass': lambda: Subclass(ops.sigmoid),
}


@pytest.mark.parametrize('model', ENDS_IN_SOFTMAX.values(), ids=list(ENDS_IN_SOFTMAX))
def test_probabilities_for_a_loss_of_logits(model):
    refused(model(), LOGITS_WANTED)


@pytest.mark.parametrize('model', ENDS_IN_SOFTMAX.values(), ids=list(ENDS_IN_SOFTMAX))
def test_probabilities_for_a_loss_of_probabilities(model):
    make(model(), adam(), loss=OF_PROBABILITIES).fit(*toy(), 1)


ENDS_IN_LOGITS = {
    'then float32': lambda: ends_in(dense(None), to_float32()),
    'a Classifier': lambda: ends_in(layers.Classifier(3, weight=0.125)),
    'in a subclass': lambda: Subclass(ops.copy),
    'zeros': lambda: ends_in(dense(None, kernel_initializer='zeros'), to_float32()),
    'relu': lambda: ends_in(dense('relu')),
    'of ops': lambda: returns(lambda features: dense(None)(features) * 2.0),
    'normalised': lambda: ends_in(dense(None), keras.layers.UnitNormalization()),
    'log': lambda: ends_in(dense('log_softmax')),
}


@pytest.mark.parametrize('model', ENDS_IN_LOGITS.values(), ids=list(ENDS_IN_LOGITS))
def test_logits_for_a_loss_of_logits(model):
    make(model(), adam()).fit(*toy(), 1)


@pytest.mark.parametrize('model', ENDS_IN_LOGITS.values(), ids=list(ENDS_IN_LOGITS))
def test_logits_for_a_loss_of_probabilities(model):
    refused(model(), PROBABILITIES_WANTED, loss=OF_PROBABILITIES)


class Mixture(keras.layers.Layer):
    """Mixes the probabilities of two branches: only of probabilities does it give some."""

    def build(self, shapes):
        self.share = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.3))

    def call(self, inputs):
        one, other = inputs
        return self.share * one + (1 - self.share) * other


def test_what_the_last_layer_makes_of_other_numbers_is_no_matter():
    model = returns(lambda features: Mixture()([dense()(features), dense()(features)]))
    make(model, adam(), loss=OF_PROBABILITIES).fit(*toy(), 1)


def test_a_stream_and_a_model_of_any_size():
    class Batches:
        def __len__(self):
            return 5

        def __getitem__(self, number):
            images, labels = toy()
            return images[number * 4 : number * 4 + 4], labels[number * 4 : number * 4 + 4]

    images = keras.Input((None, None, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    model = keras.Model(images, ops.softmax(dense(None)(features)))
    with pytest.raises(ValueError, match=LOGITS_WANTED):
        make(model, adam()).fit(Batches(), epochs=1)


def test_the_check_changes_nothing(monkeypatch):
    """Neither the statistics of a batch norm nor the state of a random layer."""
    trainings = []
    for checked in (True, False):
        if not checked:
            monkeypatch.setattr('fenwicks.training.steps.check_outputs', lambda *arguments: None)
        keras.utils.set_random_seed(0)
        model = ends_in(
            dense(None), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=3)
        )
        trainer = make(model, adam(), loss=losses.CrossEntropy())
        trainer.fit(*toy(), 2)
        trainings.append(trainer)
    assert_same(*trainings)
    assert np.isfinite(trainings[0].records[-1]['train_loss'])

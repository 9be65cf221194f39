"""Callbacks of the Trainer whose names meet its own, or that wait for what never comes."""

import keras
import pytest
from training_toys import dense_model, make, toy, warned

from fenwicks import optimizers, training

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy(24)
HELD_OUT = {'validation_data': (IMAGES, LABELS), 'verbose': 0}


def test_a_number_of_the_trainers_own_name_does_not_replace_it():
    def add(epoch, logs):
        logs |= {'train_accuracy': 7.0, 'train_top': 0.5}

    trainer = make(dense_model(), batch_size=8)
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=add)]
    warned(
        lambda: trainer.fit(IMAGES, LABELS, 1, callbacks=callbacks, verbose=0),
        'callbacks should add numbers of other names to the logs',
    )
    assert trainer.records[0]['train_accuracy'] <= 1
    assert trainer.history.history['top'] == [0.5]


def test_a_model_compiled_with_the_same_optimizer():
    """Its metrics, which nobody had built, were taken for those of the Trainer."""
    model = dense_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.SGD(0.01), loss, metrics=['accuracy'])
    trainer = make(model, model.optimizer, batch_size=8)
    stop = keras.callbacks.EarlyStopping('val_accuracy')
    trainer.fit(IMAGES, LABELS, 1, callbacks=[stop], **HELD_OUT)
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name='top2')
    other = make(model, model.optimizer, batch_size=8, metrics=[top])
    stop = keras.callbacks.EarlyStopping('val_top2')
    other.fit(IMAGES, LABELS, 1, callbacks=[stop], **HELD_OUT)


@pytest.mark.parametrize('name', ['BestWeights', 'StopAtAccuracy'])
def test_a_name_that_never_comes(name):
    kind = getattr(training.callbacks, name)
    options = {'target': 0.5} if name == 'StopAtAccuracy' else {}
    trainer = make(dense_model(), batch_size=8)
    wrong = kind(monitor='val_acuracy', **options)
    with pytest.raises(ValueError, match=r'^`monitor` must be one of .*val_accuracy.*val_acuracy'):
        trainer.fit(IMAGES, LABELS, 1, callbacks=[wrong], **HELD_OUT)
    warned(
        lambda: make(dense_model(), batch_size=8).fit(
            IMAGES, LABELS, 1, callbacks=[kind(**options)], verbose=0
        ),
        f'{name} did nothing: no epoch had val_accuracy, which takes `validation_data`',
    )

"""Faults of the Trainer beside Keras's `fit`, each found by a user's program and mended."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from stream_toys import Changed, Shuffled
from training_toys import BATCH, COUNT, conv_model, dense_model, make, sgd, toy, values, warned

from fenwicks import augment, evaluate, losses, optimizers, training

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy(24)


def crossentropy(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


@pytest.mark.parametrize('best', ['keras', 'fenwicks'])
def test_the_best_weights_stay_though_the_optimizer_has_averages(best):
    """The averages came after the callback, in place of what it had put back."""
    worst_last = {'monitor': 'loss', 'mode': 'max'}  # so the best are not those of the end
    callback = {
        'keras': lambda: keras.callbacks.EarlyStopping(
            **worst_last, patience=9, restore_best_weights=True
        ),
        'fenwicks': lambda: training.callbacks.BestWeights(**worst_last),
    }[best]()
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(trainer.model.get_weights())
    )
    trainer = make(dense_model(), keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.9))
    trainer.fit(IMAGES, LABELS, 3, callbacks=[watch, callback], verbose=0)
    losses = trainer.history.history['loss']
    best_epoch = int(np.argmax(losses))
    for found, expected in zip(trainer.model.get_weights(), seen[best_epoch], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.backend('tensorflow')
def test_evaluate_says_the_same_within_the_scope():
    import tensorflow as tf

    class Two(tf.distribute.MirroredStrategy):
        """Keras divides a loss by this number in the scope."""

        num_replicas_in_sync = 2

    softmax = [keras.layers.Dense(3, activation='softmax')]
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), *softmax])
    trainer = make(model, loss=keras.losses.SparseCategoricalCrossentropy())
    outside = trainer.evaluate(IMAGES, LABELS).loss
    from fenwicks.training.replicas import tensorflow as mirroring

    strategy = Two(['CPU:0'])
    replicas = mirroring.MirroredReplicas(strategy, 'per_replica')
    settings = trainer._predictor.settings
    trainer._predictor.settings = dataclasses.replace(settings, replicas=replicas)
    with strategy.scope():
        assert trainer.evaluate(IMAGES, LABELS).loss == pytest.approx(outside, rel=1e-6)


def test_sums_are_refused_where_parts_of_a_batch_are_averaged():
    with pytest.raises(ValueError, match=r'`loss` must be a mean over the batch .*reduction=sum'):
        make(dense_model(), loss=crossentropy(reduction='sum'), accumulate=2)
    trainer = make(
        dense_model(), loss=crossentropy(reduction='mean_with_sample_weight'), accumulate=2
    )
    with pytest.raises(ValueError, match=r"`loss` must have reduction='sum_over_batch_size'"):
        trainer.fit(IMAGES, LABELS, 1, sample_weight=np.ones(24), verbose=0)


def mean_label(y_true, y_pred):
    return keras.ops.cast(y_true, 'float32')


def test_a_function_as_metric_gets_the_labels_as_they_are():
    for callbacks in (None, [keras.callbacks.EarlyStopping('loss')]):
        trainer = make(dense_model(), sgd(), metrics=[mean_label], batch_size=8)
        trainer.fit(IMAGES, LABELS, 2, callbacks=callbacks, verbose=0)
        assert trainer.history.history['mean_label'] == pytest.approx([LABELS.mean()] * 2)


def test_metrics_beside_labels_that_are_mixed():
    keras_ones = [
        keras.metrics.F1Score(name='f1'),
        keras.metrics.TopKCategoricalAccuracy(3, name='top'),
        keras.metrics.SparseTopKCategoricalAccuracy(3, name='sparse_top'),
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
    ]
    trainer = make(dense_model(), metrics=keras_ones, augment=augment.random_mixup, batch_size=8)
    history = trainer.fit(IMAGES, LABELS, 1, verbose=0).history
    assert history['top'] == history['sparse_top'] == [1.0]  # of three classes
    assert np.shape(history['f1']) == (1, 3)


@pytest.mark.parametrize('counts', [(24, 16), (16, 24), (24, 20)])
def test_other_data_of_another_size(counts):
    """The number of steps so far was counted in epochs of the data before."""
    first, second = counts
    trainer = make(dense_model(), optimizers.SGD(0.01))
    trainer.fit(IMAGES[:first], LABELS[:first], 1, verbose=0)
    trainer.fit(IMAGES[:second], LABELS[:second], 3, verbose=0)
    assert [record['epoch'] for record in trainer.records] == [1, 2, 3]
    assert int(trainer.optimizer.iterations.value) == (first + 2 * second) // 4


def test_resuming_without_a_setting_is_refused(tmp_path):
    path = tmp_path / 'checkpoint.npz'
    make(dense_model(), accumulate=2).fit(IMAGES, LABELS, 1, checkpoint=path, verbose=0)
    with pytest.raises(ValueError, match='accumulate=None instead of 2'):
        make(dense_model()).fit(IMAGES, LABELS, 2, checkpoint=path, resume=True, verbose=0)


def test_class_weights():
    make(dense_model()).fit(IMAGES, LABELS, 1, class_weight={0.0: 1.0, 1.0: 2.0}, verbose=0)
    with pytest.raises(ValueError, match=r'`class_weight` must be a dict'):
        make(dense_model()).fit(IMAGES, LABELS, 1, class_weight=[1.0, 2.0, 1.0], verbose=0)


def test_a_function_as_loss_is_what_evaluate_reports():
    def loss(labels, probabilities):
        each = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        return keras.ops.mean(each)

    trainer = make(dense_model(activation='softmax'), loss=loss)
    trainer.fit(IMAGES, LABELS, 1, validation_data=(IMAGES, LABELS), verbose=0)
    expected = trainer.history.history['val_loss'][-1]
    assert trainer.evaluate(IMAGES, LABELS).loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('kind', ['integers', 'one-hot', 'probabilities', 'binary'])
def test_evaluate_leaves_smoothing_out_whatever_the_labels(kind):
    """The loss of one-hot labels, and those of probabilities, were the smoothed one."""
    one_hot = np.eye(3, dtype=np.float32)[LABELS]
    labels = LABELS if kind == 'integers' else one_hot
    make_loss = {
        'integers': losses.CrossEntropy,
        'one-hot': losses.CrossEntropy,
        'probabilities': keras.losses.CategoricalCrossentropy,
        'binary': keras.losses.BinaryCrossentropy,
    }[kind]
    last = {'probabilities': 'softmax', 'binary': 'sigmoid'}.get(kind)
    dense = keras.layers.Dense(3, activation=last)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), dense])
    outputs = make(model, loss=make_loss()).predict(IMAGES)
    found = make(model, loss=make_loss(label_smoothing=0.3)).evaluate(IMAGES, labels).loss
    if kind in ('integers', 'one-hot'):
        outputs = evaluate.probabilities(outputs)
    true = np.log(outputs)[one_hot == 1].mean()
    if kind == 'binary':
        true = (np.log(outputs) * one_hot + np.log1p(-outputs) * (1 - one_hot)).mean()
    assert found == pytest.approx(-true, rel=1e-4)


@keras.saving.register_keras_serializable()
class Focal(keras.losses.Loss):
    """Of integers and logits, with arguments that its configuration may leave out."""

    def __init__(self, power, label_smoothing=0.0, from_logits=True):
        super().__init__()
        self.power, self.label_smoothing, self.from_logits = power, label_smoothing, from_logits

    def call(self, labels, outputs):
        each = keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=True)
        return (1 - keras.ops.exp(-each)) ** self.power * each + self.label_smoothing


class FocalWithConfig(Focal):
    def get_config(self):
        names = 'power', 'label_smoothing', 'from_logits'
        return {name: getattr(self, name) for name in names}


@pytest.mark.parametrize(
    ('loss', 'plain'),
    [
        (Focal(2.0, 0.3), Focal(2.0)),
        (FocalWithConfig(2.0, 0.3), Focal(2.0)),
        (crossentropy(ignore_class=0), crossentropy(ignore_class=0)),
        (crossentropy(reduction='sum'), crossentropy()),
        (losses.CrossEntropy(reduction='sum'), losses.CrossEntropy()),
    ],
)
def test_evaluate_reports_the_loss_itself_as_a_mean(loss, plain):
    trainer = make(dense_model(), loss=loss)
    expected = float(plain(LABELS, trainer.predict(IMAGES)))
    assert trainer.evaluate(IMAGES, LABELS).loss == pytest.approx(expected, rel=1e-5)


def test_evaluate_means_sums_of_one_hot_labels_too():
    trainer = make(dense_model(), loss=losses.CrossEntropy(reduction='sum'))
    found = trainer.evaluate(IMAGES, np.eye(3, dtype=np.float32)[LABELS]).loss
    assert found == pytest.approx(trainer.evaluate(IMAGES, LABELS).loss, rel=1e-5)


def test_averages_of_an_optimizer_that_took_no_step_stay_out():
    """They were zeros, and became the weights."""
    trainer = make(dense_model(), keras.optimizers.SGD(0.1, use_ema=True))
    before = values(trainer)

    def stop(logs):
        trainer.model.stop_training = True

    stopping = keras.callbacks.LambdaCallback(on_train_begin=stop)
    trainer.fit(IMAGES, LABELS, 1, callbacks=[stopping], verbose=0)
    for old, new in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(old, new)
    trainer.fit(IMAGES, LABELS, 1, verbose=0)  # it isn't at its end


def test_a_training_on_floats_is_not_validated_on_bytes():
    stream = Changed(-1, None, dtype=np.float32)
    trainer = make(dense_model())
    with pytest.raises(ValueError, match=r'must be like the training data.*float32.*: uint8$'):
        trainer.fit(stream, epochs=1, validation_data=(IMAGES, LABELS), verbose=0)


def test_a_number_that_a_callback_logs_by_a_name_of_the_records():
    logged = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(seconds=-1.5)
    )
    trainer = make(dense_model())
    fit = functools.partial(trainer.fit, IMAGES, LABELS, 1, callbacks=[logged], verbose=0)
    warned(fit, 'callbacks should add numbers of other names to the logs')
    assert trainer.records[0]['seconds'] > 0


def test_an_optimizer_trains_in_kerass_fit_as_before():
    """It never summed its gradients over the replicas of a strategy again."""
    trainer = make(dense_model())
    before = list(vars(trainer.optimizer))
    trainer.fit(IMAGES, LABELS, 1, verbose=0)
    assert list(vars(trainer.optimizer)) == before


@pytest.mark.parametrize('streamed', [False, True])
def test_a_loss_of_integers_is_refused_with_mixed_labels(streamed):
    """It was found while the program compiled, by a traceback."""
    mixing = augment.random_mixup
    trainer = make(dense_model(), loss=crossentropy(), augment=mixing)
    data = (Changed(-1, None), None) if streamed else toy()
    message = '`loss` must take probabilities .* Received: loss=sparse_categorical_crossentropy$'
    with pytest.raises(ValueError, match=message):
        trainer.fit(*data, 1)


@pytest.mark.parametrize('resumed', [False, True])
@pytest.mark.parametrize('kind', ['dataset', 'keras'])
def test_a_second_fit_goes_on_with_the_passes_of_a_stream(kind, resumed, tmp_path):
    """It asked for those of the first `fit` once more."""
    source = Shuffled() if kind == 'keras' else shuffled_dataset()
    whole, parts = make(dense_model()), make(dense_model())
    whole.fit(Shuffled() if kind == 'keras' else shuffled_dataset(), epochs=4)
    parts.fit(source, epochs=2)
    if resumed:
        options = {'checkpoint': tmp_path / 'c.npz', 'fingerprint': 'toy'}
        parts.fit(source, epochs=3, **options)
        parts.fit(source, epochs=4, resume=True, **options)
    else:
        parts.fit(source, epochs=4)
    for found, expected in zip(parts.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(found, expected)


def shuffled_dataset():
    tf = pytest.importorskip('tensorflow')
    batches = tf.data.Dataset.from_tensor_slices(toy()).shuffle(COUNT, seed=4)
    return batches.batch(BATCH, drop_remainder=True)


def test_a_source_of_batches_is_never_read_as_an_array():
    """NumPy asked it for batches until the memory was full."""
    source = Changed(-1, None)  # has no end
    trainer = make(dense_model())
    with pytest.raises(ValueError, match=r'`labels` must be None with a source.* int$'):
        trainer.fit(source, 10)
    with pytest.raises(ValueError, match=r'`labels` must be None with a source.* ndarray$'):
        trainer.evaluate(source, LABELS)


def check_gradients(trainer, expected=None):
    """That they are those of a second call, and that no variable is changed."""
    before = values(trainer)
    loss, gradients = trainer.gradients(*toy(8))
    for old, new in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(new, old)
    again = trainer.gradients(*toy(8)) if expected is None else expected
    np.testing.assert_allclose(loss, again[0], rtol=1e-5)
    for one, other in zip(gradients, again[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    return loss, gradients


def with_noise():
    return dense_model(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=3))


@pytest.mark.parametrize('network', [conv_model, with_noise])
def test_gradients_leave_the_model_as_it_was(network):
    check_gradients(make(network(), averaging=optimizers.EMA(0.5, every=1)))


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('batch_norm', ['per_replica', 'synchronized'])
def test_gradients_in_the_scope_of_a_strategy(batch_norm):
    import tensorflow as tf

    from fenwicks.training.replicas import tensorflow as mirroring

    keras.utils.set_random_seed(0)
    expected = check_gradients(make(conv_model()))
    replicas = mirroring.from_strategy(tf.distribute.MirroredStrategy(['CPU:0']), batch_norm)
    with replicas.scope():
        keras.utils.set_random_seed(0)
        trainer = make(conv_model(), replicas=replicas)
        check_gradients(trainer, expected)
    check_gradients(trainer, expected)

"""`HardExamples`: a part of each batch trains the network, the whole batch its proxy."""

import keras
import numpy as np
import pytest
from training_toys import BATCH, STEPS, assert_same, conv_model, dense_model, make, order_of, toy

from fenwicks import losses, optimizers
from fenwicks.training import HardExamples

pytestmark = pytest.mark.backend('tensorflow', 'jax')


def hard(network=None, proxy=None, share=0.5, proxy_share=0.25):
    keras.utils.set_random_seed(1)
    network = network or conv_model()
    with keras.name_scope('proxy'):
        proxy = proxy or dense_model()
    return HardExamples(network, proxy, share, proxy_share)


def functional(width):
    inputs = keras.Input((None, None, 3))
    pixels = keras.layers.Conv2D(width, 3, activation='relu', name='conv')(inputs)
    pixels = keras.layers.GlobalMaxPooling2D()(pixels)
    return keras.Model(inputs, keras.layers.Dense(3, name='head')(pixels))


def softmax_gradient(logits, labels):
    """Of the mean cross-entropy with respect to the logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True) - np.eye(3)[labels]) / len(labels)


def cross_entropy(logits, labels):
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]


def stepped(kernel, bias, inputs, labels, rate=0.5):
    """A dense layer after a step of plain descent on these images."""
    gradient = softmax_gradient(inputs @ kernel + bias, labels)
    return kernel - rate * inputs.T @ gradient, bias - rate * gradient.sum(axis=0)


@pytest.mark.parametrize(('parts', 'proxy_share'), [(1, 1), (2, 1), (1, 0.25), (2, 0.75)])
def test_a_step_by_hand(parts, proxy_share):
    """Two dense layers, in NumPy; each part of a batch chooses among its own images."""
    model = hard(dense_model(), share=0.5, proxy_share=proxy_share)
    weights = [np.array(np.asarray(weight)) for weight in model.trainable_variables]
    assert [variable.path.startswith('proxy/') for variable in model.variables] == [0, 0, 1, 1]
    images, labels = toy()
    trainer = make(model, optimizers.SGD(0.5), accumulate=parts, batch_size=8)
    trainer.load(images, labels)
    trainer.run_steps(0, 0, 1)
    rows = order_of(0)[:8]
    inputs = images[rows].reshape(8, -1) / 255
    labels, (kernel, bias, *proxy) = labels[rows], weights
    hardness = cross_entropy(inputs @ proxy[0] + proxy[1], labels)
    chosen = np.concatenate(
        [part[np.argsort(-hardness[part])[: 4 // parts]] for part in np.split(np.arange(8), parts)]
    )
    assert set(chosen) != set(range(4))
    own = np.concatenate(
        [part[: int(8 * proxy_share) // parts] for part in np.split(np.arange(8), parts)]
    )
    expected = [
        *stepped(kernel, bias, inputs[chosen], labels[chosen]),
        *stepped(*proxy, inputs[own], labels[own]),
    ]
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(np.asarray(variable), value, rtol=1e-4, atol=1e-6)


def test_a_loss_that_sums_trains_the_proxy_on_a_sum():
    images, labels = toy(4)
    gradients = {}
    for reduction in ('sum', 'sum_over_batch_size'):
        keras.utils.set_random_seed(0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        model = hard(dense_model(), share=0.5, proxy_share=0.5)
        _, gradients[reduction] = make(model, loss=loss).gradients(images, labels)
    for summed, mean in zip(*gradients.values(), strict=True):  # of two images each
        np.testing.assert_allclose(summed, 2 * np.asarray(mean), rtol=1e-5, atol=1e-7)


def test_loss_and_accuracy_are_those_of_the_chosen():
    """Nothing is trained, so the proxy and the network, which are equal, stay as they are."""
    model = hard(dense_model(), share=0.5)
    model.proxy.set_weights(model.network.get_weights())
    images, labels = toy()
    trainer = make(model, optimizers.SGD(0.0))
    trainer.fit(images, labels, 1)
    rows = order_of(0)[: STEPS * BATCH]
    logits = np.asarray(model.network(images / np.float32(255)))
    hardness = cross_entropy(logits, labels)
    batches = [batch[np.argsort(-hardness[batch])[: BATCH // 2]] for batch in rows.reshape(-1, 4)]
    chosen = np.concatenate(batches)
    (record,) = trainer.records
    assert record['train_loss'] == pytest.approx(hardness[chosen].mean(), rel=1e-5)
    right = (logits.argmax(axis=1) == labels)[chosen]
    assert record['train_accuracy'] == pytest.approx(right.mean())
    assert hardness[chosen].mean() > hardness.mean() + 0.05


def test_the_weights_of_images_count():
    """Of four equal images those of more weight are harder."""
    model = hard(dense_model(), share=0.25)
    images, labels = toy(1)
    images, labels = images.repeat(4, 0), labels.repeat(4)
    weights = np.float32([1, 3, 2, 0])
    trainer = make(model, optimizers.SGD(0.0))
    trainer.fit(images, labels, 1, sample_weight=weights)
    loss = cross_entropy(np.asarray(model.network(images / np.float32(255))), labels)[0]
    assert trainer.records[0]['train_loss'] == pytest.approx(3 * loss, rel=1e-5)


@pytest.mark.thorough
def test_resumed_it_ends_bit_for_bit_as_if_never_stopped(tmp_path):
    def trainer():
        rule = optimizers.EMA(0.9, every=2)
        return make(hard(), averaging=rule, image_sizes=(), metrics=['top_k_categorical_accuracy'])

    whole = trainer()
    whole.fit(*toy(), 3)
    trainer().fit(*toy(), 1, checkpoint=tmp_path / 'c.npz')
    resumed = trainer()
    resumed.fit(*toy(), 3, checkpoint=tmp_path / 'c.npz', resume=True)
    assert_same(whole, resumed)
    for shares in ((0.75, 0.25), (0.5, 0.5)):
        other = make(hard(None, None, *shares), averaging=optimizers.EMA(0.9, every=2))
        with pytest.raises(ValueError, match='share'):
            other.fit(*toy(), 4, checkpoint=tmp_path / 'c.npz', resume=True)


def test_both_learn_and_the_network_is_what_predicts(tmp_path):
    model = hard(proxy_share=0.5)
    images, labels = toy(64)
    trainer = make(model, optimizers.SGD(0.1, momentum=0.9), batch_size=8)
    trainer.fit(images, labels, 10)
    assert trainer.evaluate(images, labels).accuracy > 0.9
    inputs = images / np.float32(255)
    np.testing.assert_allclose(
        np.asarray(model(inputs)), np.asarray(model.network(inputs)), rtol=1e-6
    )
    assert (np.asarray(model.proxy(inputs)).argmax(axis=1) == labels).mean() > 0.7
    model.save(tmp_path / 'hard.keras')
    again = keras.saving.load_model(tmp_path / 'hard.keras')
    assert (type(again), again.name) == (HardExamples, model.name)
    assert (again.share, again.proxy_share) == (0.5, 0.5)
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_images_may_grow():
    with keras.name_scope('proxy'):
        proxy = functional(2)
    trainer = make(HardExamples(functional(4), proxy), image_sizes=[(0, 4), (1, 8)])
    trainer.fit(*toy(), 2)
    assert len(trainer.records) == 2


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        ({'share': 1.0}, r'^`share` must be a number in \(0, 1\). Received: share=1.0$'),
        ({'share': 0}, r'^`share` must be a number in \(0, 1\)'),
        ({'proxy_share': 0}, r'^`proxy_share` must be a number in \(0, 1\]. Received: '),
        ({'proxy_share': 1.5}, r'^`proxy_share` must be a number in \(0, 1\]'),
        ({'proxy': 7}, '^`proxy` must be a functional Keras model. Received: proxy=7$'),
        ({'network': keras.Sequential()}, '^`network` must be a functional Keras model. '),
        (
            {'proxy': keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])},
            '^`proxy` must have the inputs and outputs of the network, ',
        ),
    ],
)
def test_bad_arguments(arguments, line):
    with pytest.raises(ValueError, match=line):
        hard(**arguments)


def test_two_variables_of_one_path():
    with pytest.raises(ValueError, match=r'^`proxy` must have paths of its own: make it within '):
        HardExamples(functional(4), functional(2))


class Mean(keras.losses.Loss):
    def call(self, labels, logits):
        each = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return keras.ops.mean(each)


def test_a_loss_that_returns_its_mean():
    with pytest.raises(ValueError, match=r'^`loss` must have a value for each image, to choose '):
        make(hard(), loss=Mean(name='mean')).fit(*toy(), 1)


def test_a_loss_without_a_value_for_each_image():
    def mean(labels, logits):
        return keras.ops.mean(losses.cross_entropy(labels, logits))

    with pytest.raises(ValueError, match=r'^`loss` must be a keras.losses.Loss, which has a value'):
        make(hard(), loss=mean)

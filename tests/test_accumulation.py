"""`accumulate`: a batch in parts, one update from the mean of their gradients."""

import keras
import numpy as np
import pytest
from training_toys import BATCH, STEPS, conv_model, dense_model, make, order_of, sgd, toy

from fenwicks import augment, optimizers

pytestmark = pytest.mark.backend('tensorflow', 'jax')


@pytest.mark.parametrize(
    ('parts', 'jit_compile'),
    [(2, False), pytest.param(4, True, marks=pytest.mark.thorough)],
)
def test_without_batch_norm_it_is_the_whole_batch(parts, jit_compile):
    """Shuffle and augmentation too."""
    rule = optimizers.EMA(0.8, every=3)
    change = augment.compose([augment.random_crop, augment.alternating_flip])
    options = {'augment': change, 'averaging': rule, 'jit_compile': jit_compile}
    whole, parted = (make(dense_model(), accumulate=n, **options) for n in (1, parts))
    whole.fit(*toy(), 2)
    parted.fit(*toy(), 2)
    for one, other in zip(whole.variables, parted.variables, strict=True):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=1e-5, atol=1e-6)
    accuracies = [[e['train_accuracy'] for e in t.records] for t in (whole, parted)]
    assert accuracies[0] == accuracies[1]


def test_one_step_is_the_mean_of_the_gradients_of_the_parts():
    """With batch norm, which sees each part by itself: gradients of the parts, by Keras."""
    trainer, model = make(optimizer=optimizers.SGD(0.5), accumulate=2), conv_model()
    model.set_weights(trainer.model.get_weights())
    images, labels = toy()
    trainer.load(images, labels)
    rows = order_of(0)[:BATCH]
    gradients = []
    for part in np.split(rows, 2):
        gradients.append(gradients_of(model, images[part] / np.float32(255), labels[part]))
    before = [np.array(np.asarray(weight)) for weight in model.trainable_variables]
    trainer.run_steps(0, 0, 1)
    for weight, old, one, other in zip(
        trainer.model.trainable_variables, before, *gradients, strict=True
    ):
        expected = old - 0.5 * (one + other) / 2
        np.testing.assert_allclose(np.asarray(weight), expected, rtol=1e-4, atol=1e-6)
    # `model` has seen both parts as well: its moving statistics were updated twice.
    for mine, theirs in zip(
        trainer.model.non_trainable_variables, model.non_trainable_variables, strict=True
    ):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-5, atol=1e-6)
    whole = gradients_of(model, images[rows] / np.float32(255), labels[rows])
    assert any(
        np.abs(one - (a + b) / 2).max() > 1e-3 for one, a, b in zip(whole, *gradients, strict=True)
    )


def gradients_of(model, images, labels):
    """Of a training step of Keras, which also updates the moving statistics."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return [np.asarray(g) for g in tape.gradient(value, [v.value for v in weights(model)])]
    import jax

    fixed = [v.value for v in model.non_trainable_variables]

    def value_of(values):
        logits, fixed_after = model.stateless_call(values, fixed, images, training=True)
        return loss(labels, logits), fixed_after

    found, after = jax.grad(value_of, has_aux=True)([v.value for v in weights(model)])
    for variable, value in zip(model.non_trainable_variables, after, strict=True):
        variable.assign(value)
    return [np.asarray(g) for g in found]


def weights(model):
    return model.trainable_variables


@pytest.mark.filterwarnings('ignore:Gradients do not exist')
def test_weights_that_have_no_gradient():
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(flat) + Unused()(flat))
    trainer = make(model, sgd(), accumulate=2)
    trainer.fit(*toy(), 1)
    assert int(trainer.optimizer.iterations) == STEPS


class Unused(keras.layers.Layer):
    """A weight that the result doesn't depend on."""

    def build(self, shape):
        self.weight = self.add_weight(shape=(1,), name='unused')

    def call(self, inputs):
        return keras.ops.zeros((keras.ops.shape(inputs)[0], 3)) + keras.ops.stop_gradient(
            self.weight
        )


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (optimizers.SGD, {'clipnorm': 0.01}),
        (optimizers.SGD, {'global_clipnorm': 0.01}),
        (optimizers.SGD, {'clipvalue': 0.001}),
        (keras.optimizers.SGD, {'global_clipnorm': 0.01}),
    ],
)
def test_gradients_are_clipped(kind, options):
    """One step of plain descent: the change is the clipped gradient, computed with NumPy."""
    trainer = make(dense_model(), kind(1.0, **options), accumulate=2)
    images, labels = toy()
    trainer.load(images, labels)
    rows = order_of(0)[:BATCH]
    before = [np.array(np.asarray(weight)) for weight in trainer.model.trainable_variables]
    _, gradients = trainer.gradients(images[rows], labels[rows])
    trainer.run_steps(0, 0, 1)
    ((name, limit),) = options.items()
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    together = np.linalg.norm(norms)
    for weight, old, gradient, norm in zip(
        trainer.model.trainable_variables, before, gradients, norms, strict=True
    ):
        expected = {
            'clipnorm': gradient * min(1, limit / norm),
            'global_clipnorm': gradient * min(1, limit / together),
            'clipvalue': np.clip(gradient, -limit, limit),
        }[name]
        assert np.abs(expected - gradient).max() > 1e-4  # it is clipped
        np.testing.assert_allclose(old - np.asarray(weight), expected, rtol=1e-2, atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match='`accumulate` must divide the 4 images that a replica'):
        make(accumulate=3)
    with pytest.raises(ValueError, match='`accumulate` must be a positive integer'):
        make(accumulate=0)

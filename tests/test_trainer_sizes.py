"""Images that grow during a training: which size when, the same numbers as by hand, resuming."""

import functools

import keras
import numpy as np
import pytest
from training_toys import (
    BATCH,
    COUNT,
    STEPS,
    assert_same,
    conv_model,
    interrupted,
    make,
    toy,
    values,
)

import fenwicks
from fenwicks import augment, optimizers
from fenwicks.training import Trainer

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SIZES = ((0, 4), (1, 6), (3, 8))


def pooled_model(sides=(None, None)):
    """A network for images of any size."""
    return keras.Sequential(
        [
            keras.Input((*sides, 3)),
            fenwicks.layers.ConvBN(4),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, dtype='float32'),
        ]
    )


def growing(**options):
    return make(pooled_model(), **{'image_sizes': SIZES, **options})


class Noting(keras.layers.Layer):
    """Notes the sizes of the images that its model is traced for in training."""

    def __init__(self):
        super().__init__()
        self.sides = []

    def call(self, images, training=None):
        if training:
            self.sides.append(tuple(images.shape[1:3]))
        return images


def test_each_epoch_sees_images_of_its_size():
    noting = Noting()
    model = keras.Sequential([keras.Input((None, None, 3)), noting, *pooled_model().layers])
    trainer = make(model, image_sizes=SIZES)
    seen = []
    for epochs in (1, 2, 3, 4):
        noting.sides.clear()
        trainer.fit(*toy(), epochs)
        seen.append(set(noting.sides))
    # The third epoch has the program of the second.
    assert seen == [{(4, 4)}, {(6, 6)}, set(), {(8, 8)}]
    assert trainer.predict(toy()[0]).shape == (COUNT, 3)


@pytest.mark.thorough
def test_growing_is_a_resize_after_the_augmentation():
    """Epoch by epoch the numbers of Trainers whose augmentation resizes, on the same model."""
    flip = augment.compose([augment.alternating_flip])
    whole = growing(augment=flip, averaging=optimizers.EMA(0.9, every=2))
    history = whole.fit(*toy(), 4)

    def flip_and_resize(images, seed, epoch, indices, run_seed, *, size):
        images = flip(images, seed, epoch, indices, run_seed)
        return augment.resize(images, size, size, antialias=False)

    by_hand = []
    keras.utils.set_random_seed(0)
    model, optimizer = (
        pooled_model(),
        make(conv_model()).optimizer.__class__.from_config(whole.optimizer.get_config()),
    )
    averaged = None
    for epoch, size in enumerate((4, 6, 6, 8)):
        trainer = Trainer(
            model,
            optimizer,
            batch_size=BATCH,
            seed=whole.seed,
            augment=functools.partial(flip_and_resize, size=size),
            averaging=optimizers.EMA(0.9, every=2),
        )
        trainer.load(*toy())
        if averaged is not None:
            for variable, value in zip(trainer.variables[-len(averaged) :], averaged, strict=True):
                variable.assign(value)
        trainer._state.steps_taken = epoch * STEPS  # by the Trainers before, which averages count
        totals = trainer.run_steps(epoch, 0, STEPS)
        count = len(trainer.variables) - len(model.variables) - len(optimizer.variables)
        averaged = values(trainer)[-count:]
        by_hand.append(totals.loss_sum / STEPS)
    assert history.history['loss'] == by_hand
    for ours, theirs in zip(values(whole), values(trainer), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    'after',
    [
        pytest.param(1, marks=pytest.mark.thorough),
        2,
        pytest.param(3, marks=pytest.mark.thorough),
    ],
)
def test_resuming_amid_the_sizes_ends_bit_for_bit(tmp_path, after):
    path = tmp_path / 'c.npz'
    whole = growing()
    whole.fit(*toy(), 4)
    interrupted(growing(), path, 4, after)
    resumed = growing()
    resumed.fit(*toy(), 4, checkpoint=path, resume=True)
    assert_same(whole, resumed)


def test_resuming_with_other_sizes_is_refused(tmp_path):
    path = tmp_path / 'c.npz'
    growing().fit(*toy(), 1, checkpoint=path)
    other = growing(image_sizes=((0, 4), (1, 8)))
    with pytest.raises(ValueError, match=r'must go on with the settings of .* image_sizes'):
        other.fit(*toy(), 2, checkpoint=path, resume=True)


def test_the_images_own_size_changes_nothing():
    plain, same = make(pooled_model()), growing(image_sizes=((0, 8),))
    plain.fit(*toy(), 2)
    same.fit(*toy(), 2)
    assert_same(plain, same)


@pytest.mark.parametrize(
    'sizes',
    [
        ((1, 4),),
        ((0, 4), (0, 8)),
        ((0, 4), (2, 6), (1, 8)),
        ((0, 0),),
        ((0, 4.5),),
        (4, 8),
        ((0, 4, 4),),
        4,
        (('0', 4),),
    ],
)
def test_sizes_that_are_none(sizes):
    with pytest.raises(ValueError, match=r'^`image_sizes` must be pairs .* Received: ') as error:
        growing(image_sizes=sizes)
    assert '\n' not in str(error.value)


def test_a_model_of_one_size_is_refused():
    with pytest.raises(ValueError, match=r'a global pooling. Received: size 4 for .* 8x8 pixels'):
        make(conv_model(), image_sizes=((0, 4), (1, 8)))
    make(conv_model(), image_sizes=((0, 8),))


def test_a_size_too_small_for_the_model_is_refused():
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 5, padding='valid'),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3),
        ]
    )
    with pytest.raises(ValueError, match=r'^`image_sizes` must .* Received: size 4 \(') as error:
        make(model, image_sizes=((0, 4), (1, 8)))
    assert str(error.value).isprintable()

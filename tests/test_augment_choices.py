"""Erasing, choices for each image, and the Keras layer."""

import json
from functools import partial

import keras
import numpy as np
import pytest
from augment_runners import assert_uniform, pixels

from fenwicks import augment
from fenwicks.augment.boxes import random_box


def plus(amount):
    return augment.without_seed(lambda images: images + amount)


def test_erase_fills_rectangles_of_their_own():
    images = pixels(3, 8, 8) + 1
    top, left = np.array([1, -2, 0]), np.array([2, 6, 0])
    height, width = np.array([3, 4, 0]), np.array([4, 4, 5])
    result = augment.erase(images, top, left, height, width, value=-7)
    expected = images.copy()
    expected[0, 1:4, 2:6] = -7
    expected[1, :2, 6:] = -7
    np.testing.assert_array_equal(result, expected)


def test_random_erasing_draws_size_shape_and_place():
    images = np.ones((6000, 20, 30, 1), 'float32')
    area, ratio = (0.05, 0.3), (0.5, 2.0)
    result = augment.random_erasing(images, (3, 4), 0.5, area, ratio)
    hole = result[..., 0] == 0
    erased = hole.any((1, 2))
    assert 0.47 < erased.mean() < 0.53
    rows, columns = hole.any(2).sum(1)[erased], hole.any(1).sum(1)[erased]
    np.testing.assert_array_equal(hole.sum((1, 2))[erased], rows * columns)  # whole rectangles
    share = rows * columns / 600
    assert 0.03 < share.min() < 0.06
    assert 0.28 < share.max() < 0.33
    assert share.mean() == pytest.approx(0.175, abs=0.01)
    assert 0.4 < (rows / columns).min() < 0.6
    assert 1.7 < (rows / columns).max() < 2.4
    # Every place is reached, those at the border too.
    assert hole[:, 0].any()
    assert hole[:, -1].any()
    assert hole[:, :, 0].any()
    assert hole[:, :, -1].any()


def test_boxes_are_cut_to_the_image():
    images = np.zeros((500, 10, 40, 1), 'float32')
    top, left, height, width = random_box(images, (3, 4), 10, 40, (0.9, 1.0), (0.9, 1.1))
    np.testing.assert_array_equal(top, 0)
    np.testing.assert_array_equal(height, 10)
    assert ((left >= 0) & (left + width <= 40)).all()
    assert width.min() >= 1


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_extremes_of_the_probability(probability):
    images = np.ones((50, 8, 8, 1), 'float32')
    result = augment.random_erasing(images, (3, 4), probability)
    assert (result == 0).any((1, 2, 3)).mean() == probability
    result = augment.apply(plus(1), probability)(images, (3, 4))
    np.testing.assert_array_equal(result, images + probability)


def test_apply_chooses_each_image():
    images = np.zeros((4000, 1, 1, 1), 'float32')
    result = augment.apply(plus(1), 0.25)(images, (3, 4))[:, 0, 0, 0]
    assert set(result.tolist()) == {0, 1}
    assert 0.23 < result.mean() < 0.27


def test_choice_applies_exactly_one():
    images = np.zeros((4000, 1, 1, 1), 'float32')
    transforms = [plus(n) for n in range(5)]
    result = augment.choice(transforms)(images, (3, 4))[:, 0, 0, 0]
    assert_uniform(result, 5)
    result = augment.choice(transforms, weights=[0, 3, 0, 1, 0])(images, (3, 4))[:, 0, 0, 0]
    assert set(result.tolist()) == {1, 3}
    assert 0.72 < (result == 1).mean() < 0.78
    np.testing.assert_array_equal(augment.choice([plus(2)])(images, (3, 4)), images + 2)


def test_chosen_transforms_draw_apart():
    """Whether an image is chosen has nothing to do with what it draws."""
    images = np.zeros((4000, 1, 3, 1), 'float32') + np.arange(3)[:, None]
    result = augment.apply(augment.random_rotate, 0.5)  # a chain may hold choices
    chain = augment.compose([augment.apply(augment.random_flip_vertical, 0.5), result])
    assert chain(images, (1, 2)).shape == images.shape
    flipped = augment.apply(augment.random_jitter, 0.5)(images, (3, 4))
    changed = (flipped != images).any((1, 2, 3))
    shift = augment.random_jitter(images, augment.fold((3, 4), 1))[:, 0, 0, 0]
    assert abs((shift[changed] > 0).mean() - 0.5) < 0.05


def test_on_pixels_sees_pixels():
    seen = []

    def note(images, seed):
        seen.append(images)
        return images

    images = pixels(2)
    mean, std = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]
    normalised = augment.normalize(images, mean, std)
    result = augment.on_pixels(note, mean, std)(normalised, (1, 2))
    np.testing.assert_allclose(seen[0], images, atol=1e-3)
    np.testing.assert_allclose(result, normalised, atol=1e-5)


@pytest.mark.parametrize(
    ('change', 'received'),
    [
        (lambda images, seed: images[:, :1], r'shape \(1, 8, 3\) after'),
        (lambda images, seed: images[..., :1], r'shape \(8, 8, 1\) after'),
        (lambda images, seed: images.astype('float64'), 'float64 of shape'),
        (lambda images, seed: None, 'NoneType of shape'),
    ],
)
def test_transforms_that_are_chosen_keep_shape_and_dtype(change, received):
    for transform, name in (
        (augment.apply(change), 'transform'),
        (augment.choice([augment.random_flip, change]), 'transforms'),
        (augment.choice([change, augment.random_flip]), 'transforms'),
    ):
        with pytest.raises(
            ValueError, match=f'^`{name}` must keep the shape and dtype of images. .*{received}'
        ) as raised:
            transform(np.ones((4, 8, 8, 3), 'float32'), (1, 2))
        assert '\n' not in str(raised.value)


def test_sizes_that_are_unknown_when_traced_agree():
    tf = pytest.importorskip('tensorflow')
    change = augment.apply(lambda images, seed: tf.ensure_shape(images + 1, (None, 8, 8, 3)), 1.0)
    traced = tf.function(
        change, input_signature=[tf.TensorSpec([None] * 4), tf.TensorSpec(2, 'int32')]
    )
    found = traced(tf.zeros((2, 8, 8, 3)), tf.constant([1, 2]))
    np.testing.assert_array_equal(found, np.ones((2, 8, 8, 3)))
    narrower = augment.apply(lambda images, seed: images[..., :1])
    with pytest.raises(ValueError, match='`transform` must keep the shape'):
        tf.function(narrower)(tf.zeros((2, 8, 8, 3)), (1, 2))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: augment.apply(augment.random_flip, 1.5), '`probability` must be'),
        (lambda: augment.apply(augment.alternating_flip), '`transform` must take images and a'),
        (lambda: augment.choice([]), '`transforms` must hold at least one'),
        (lambda: augment.choice([augment.random_flip], [1, 2]), '`weights` must be 1 numbers'),
        (lambda: augment.choice([augment.random_flip], [0]), '`weights` must be 1 numbers'),
        (lambda: augment.choice([augment.random_flip], [-1]), '`weights` must be'),
        (lambda: augment.choice([None]), '`transforms` must be callables'),
        (
            lambda: augment.random_erasing(pixels(), (1, 2), area=(0.5, 0.1)),
            '`area` must be the smaller number first',
        ),
        (lambda: augment.random_erasing(pixels(), (1, 2), area=0.5), '`area` must be two numbers'),
        (lambda: augment.random_erasing(pixels(), (1, 2), probability=-1), '`probability` must'),
        (lambda: augment.layer(None), '`transform` must be callable'),
        (lambda: augment.apply(None), '`transform` must be callable'),
        (lambda: augment.compose(augment.random_flip), '`transforms` must be a sequence of call'),
        (lambda: augment.choice(augment.random_flip), '`transforms` must be a sequence of call'),
        (lambda: augment.layer(augment.random_mixup), 'a seed only. Received: .* needs labels$'),
        (lambda: augment.apply(augment.random_mixup), 'a seed only. Received: .* needs labels$'),
        (lambda: augment.in_groups(augment.random_cutmix), 'a seed only. Received: .* labels$'),
        (lambda: augment.choice([augment.random_mixup]), 'a seed only. Received: .* labels$'),
        (lambda: augment.layer(augment.compose([augment.random_mixup])), 'labels, epoch, ind'),
        (lambda: augment.layer(augment.random_flip, -1), r'`seed` must be .* \[0, 2\*\*31\)'),
        (lambda: augment.layer(augment.random_flip, 2**31), '`seed` must be an integer in'),
        (lambda: augment.layer(augment.random_flip, 1.5), '`seed` must be an integer in'),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The Keras layer.


needs_arrays = pytest.mark.backend('tensorflow', 'jax')


def augmented(layer, images, **kwargs):
    return keras.ops.convert_to_numpy(layer(images, **kwargs))


@needs_arrays
def test_the_layer_augments_in_training_only():
    images = pixels(16)
    layer = augment.layer(augment.random_jitter, seed=3)
    np.testing.assert_array_equal(augmented(layer, images), images)
    np.testing.assert_array_equal(augmented(layer, images, training=False), images)
    first, second = (augmented(layer, images, training=True) for _ in range(2))
    assert (first != images).any((1, 2, 3)).all()
    assert (first != second).any((1, 2, 3)).all()
    again = augmented(augment.layer(augment.random_jitter, seed=3), images, training=True)
    np.testing.assert_array_equal(first, again)


@needs_arrays
def test_a_model_with_the_layer_trains_and_is_saved(tmp_path):
    chain = augment.compose(
        [partial(augment.random_crop, padding=2), augment.random_flip, augment.random_affine]
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            augment.layer(chain, seed=1),
            augment.layer(partial(augment.random_resized_crop, height=8, width=8)),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.compile('sgd', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = pixels(8, 8, 8) / 128 - 1, np.arange(8) % 2
    model.fit(images, labels, batch_size=4, verbose=0)
    model.save(tmp_path / 'model.keras')
    loaded = keras.saving.load_model(tmp_path / 'model.keras')
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5
    )
    expected = augment.compose(chain.transforms)(images, (1, 2))
    np.testing.assert_array_equal(loaded.layers[0].transform(images, (1, 2)), expected)


@needs_arrays
@pytest.mark.parametrize(
    'transform',
    [
        augment.random_flip,
        partial(augment.random_affine, rotate=20, shift=np.float32(0.25)),
        partial(augment.random_erasing, area=(0.1, 0.2)),
        augment.rand_augment(1, 20, padding='reflect'),
        augment.trivial_augment(),
        augment.choice([augment.random_rotate_90, partial(augment.random_jitter)], [1, 3]),
        augment.compose(augment.inception_transforms(8, 8, training=False, central_fraction=0.8)),
        augment.compose(augment.inception_transforms(8, 8, flip_vertical=True)),
        augment.compose(augment.fastai_transforms(8, 8)),
        augment.on_pixels(augment.random_lighting, np.array([120.0, 110, 100]), 60.0),
        augment.compose(
            [
                augment.apply(augment.random_rotate, 0.3),
                augment.without_seed(partial(augment.imagenet_normalize, mode='torch')),
            ]
        ),
    ],
)
def test_the_layers_configuration_gives_the_same_transform(transform):
    config = json.loads(json.dumps(augment.layer(transform, seed=1).get_config()))
    copy = augment.Augment.from_config(config)
    images = pixels(8, 8, 8)
    np.testing.assert_array_equal(copy.transform(images, (1, 2)), transform(images, (1, 2)))
    assert copy.get_config() == config


@needs_arrays
def test_the_layer_keeps_the_shape():
    layer = augment.layer(partial(augment.random_resized_crop, height=6, width=6))
    with pytest.raises(ValueError, match='`transform` must keep the shape of images'):
        layer(pixels(2), training=True)


@needs_arrays
def test_a_transform_that_cannot_be_saved_says_so():
    layer = augment.layer(lambda images, seed: images)
    with pytest.raises(ValueError, match='`transform` must be made of functions of fenwicks'):
        layer.get_config()
    for kind, name in (('name', 'system'), ('factory', 'resize'), ('name', 3), ('name', '_cubic')):
        with pytest.raises(ValueError, match='`transform` must be a function of fenwicks'):
            augment.Augment.from_config({'transform': {kind: name, 'settings': {}}})

"""The contract of all augmentations: shape, dtype, seeds, and one result on every framework."""

import inspect
import pickle
import re
from functools import partial

import numpy as np
import pytest
from augment_runners import COMPILED_LATER, EAGER, RUNNERS, pixels

from fenwicks import augment

# Draws differ between frameworks only where these take a single seed for the batch.
NATIVE = ('random_crop', 'random_flip', 'random_cutout')
POLICIES = ('rand_augment', 'trivial_augment')
TRANSFORMS = {
    'random_affine': partial(
        augment.random_affine, rotate=30, zoom=1.5, shear=0.2, shift=0.2, flip=True, probability=0.7
    ),
    'random_brightness': augment.random_brightness,
    'random_color': augment.random_color,
    'random_contrast': augment.random_contrast,
    'random_crop': partial(augment.random_crop, padding=2),
    'random_cutout': partial(augment.random_cutout, size=3),
    'random_dihedral': augment.random_dihedral,
    'random_distort_color': augment.random_distort_color,
    'random_erasing': partial(augment.random_erasing, probability=0.8),
    'random_flip': augment.random_flip,
    'random_flip_vertical': augment.random_flip_vertical,
    'random_jitter': augment.random_jitter,
    'random_lighting': augment.random_lighting,
    'random_resized_crop': partial(augment.random_resized_crop, height=10, width=10),
    'random_rotate': augment.random_rotate,
    'random_rotate_90': augment.random_rotate_90,
    'random_shear': augment.random_shear,
    'random_shift': augment.random_shift,
    'random_zoom': partial(augment.random_zoom, factor=2),
    'apply': augment.apply(augment.random_rotate_90, 0.5),
    'choice': augment.choice([augment.random_rotate_90, augment.random_jitter], [1, 2]),
    'compose': augment.compose([augment.random_rotate_90, augment.random_jitter]),
    'rand_augment': augment.rand_augment(2, 15, padding='reflect'),
    'trivial_augment': augment.trivial_augment(padding='reflect'),
    'on_pixels': augment.on_pixels(augment.random_lighting, 120.0, 60.0),
}


def images_of(count=8, dtype='float32', side=10):
    """Smooth images, in which a place that is off by a rounding error changes little."""
    places = np.arange(side) / side
    ramps = np.random.default_rng(0).uniform(-1, 1, (3, count, 1, 1, 3))
    images = ramps[0] * places[:, None, None] + ramps[1] * places[None, :, None] + ramps[2]
    return (127 + 40 * images).astype(dtype)


@pytest.fixture(params=TRANSFORMS)
def name(request):
    return request.param


@pytest.fixture(params=COMPILED_LATER)
def run(request):
    return RUNNERS[request.param]


def test_every_random_transform_is_here():
    """Whoever adds one adds it to the contract; mixtures, which take labels, have their own."""
    exported = {name for name in augment.__all__ if name.startswith('random_')}
    assert exported - set(TRANSFORMS) == {'random_mixup', 'random_cutmix'}


def test_the_same_seed_gives_the_same_result_everywhere(run, name):
    transform, images, seed = TRANSFORMS[name], images_of(), np.array([5, -6], 'int32')
    if name in NATIVE:
        seed = augment.fold((5, -6), np.arange(len(images), dtype='int32'))
    result, expected = run(transform, images, seed), transform(images, seed)
    assert result.shape == images.shape
    assert result.dtype == np.float32
    close = np.isclose(result, expected, rtol=1e-4, atol=2e-3)
    # Levels of the policies jump where a value is a rounding error above or below a threshold.
    assert close.mean() >= (0.98 if name in POLICIES else 1)


def test_another_seed_gives_another_result(name):
    transform, images = TRANSFORMS[name], pixels(8, 10, 10)
    first, again, second = (transform(images, seed) for seed in ((5, 6), (5, 6), (5, 7)))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any((1, 2, 3)).sum() >= 3


def test_each_image_draws_for_itself(name):
    images = np.repeat(pixels(1, 10, 10), 32, 0)
    result = TRANSFORMS[name](images, (5, 6))
    distinct = {
        'random_flip': 2,
        'random_flip_vertical': 2,
        'random_rotate_90': 4,
        'apply': 3,
        'random_dihedral': 5,
    }
    assert len(np.unique(result, axis=0)) >= distinct.get(name, 12)


def test_images_of_equal_seeds_draw_alike(name):
    images = np.repeat(pixels(1, 10, 10), 10, 0)
    seeds = augment.fold((5, 6), np.array([0, 1, 2, 3, 4] * 2))
    result = TRANSFORMS[name](images, seeds)
    np.testing.assert_array_equal(result[:5], result[5:])
    alone = TRANSFORMS[name](images[3:4], seeds[3:4])
    np.testing.assert_allclose(alone[0], result[3], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('eager', ['numpy', 'tf', pytest.param('jax', marks=pytest.mark.thorough)])
def test_narrow_dtypes_stay(eager, name):
    ml_dtypes = pytest.importorskip('ml_dtypes')
    images = images_of(4).astype(ml_dtypes.bfloat16)
    seed = augment.fold((1, 2), np.arange(4, dtype='int32'))
    result = EAGER[eager](TRANSFORMS[name], images, seed)
    assert result.dtype == images.dtype
    expected = TRANSFORMS[name](images.astype('float32'), seed)
    close = np.isclose(result.astype('float32'), expected, rtol=2**-7, atol=1)
    assert close.mean() >= (0.98 if name in POLICIES else 1)


@pytest.mark.parametrize('eager', EAGER)
def test_float64_is_floats_too(eager, name):
    images = images_of(4).astype('float64')
    seed = augment.fold((1, 2), np.arange(4, dtype='int32'))
    result = EAGER[eager](TRANSFORMS[name], images, seed)
    assert result.dtype == ('float32' if eager == 'jax' else 'float64')
    close = np.isclose(result, TRANSFORMS[name](images, seed), rtol=1e-4, atol=2e-3)
    assert close.mean() >= (0.98 if name in POLICIES else 1)


def test_it_can_be_pickled(name):
    transform, images = TRANSFORMS[name], pixels(4, 10, 10)
    copy = pickle.loads(pickle.dumps(transform))
    np.testing.assert_array_equal(copy(images, (1, 2)), transform(images, (1, 2)))


def test_it_refuses_what_is_not_a_float_batch(name):
    with pytest.raises(ValueError, match='`images` must'):
        TRANSFORMS[name](pixels(4, 10, 10)[0], (1, 2))
    with pytest.raises(ValueError, match='`images` must be a TensorFlow, JAX or NumPy array'):
        TRANSFORMS[name]([[[[1.0]]]], (1, 2))
    with pytest.raises(ValueError, match=r'`images` must be floats.*dtype=uint8'):
        TRANSFORMS[name](pixels(4, 10, 10).astype('uint8'), (1, 2))


def test_groups_take_it(name):
    grouped = augment.in_groups(TRANSFORMS[name], groups=2)
    images = np.repeat(pixels(1, 10, 10), 12, 0)
    result = grouped(images, None, 0, np.arange(12), (3, 4))
    assert len(np.unique(result, axis=0)) <= 2


def test_every_public_function_says_what_its_arguments_are():
    for name in augment.__all__:
        function = getattr(augment, name)
        if not inspect.isfunction(function):
            continue
        names = inspect.signature(function).parameters
        if any(f'{each}: ' not in function.__doc__ for each in names):
            neighbour = re.search(r'; see `(\w+)`\.', function.__doc__)
            assert neighbour, name
            assert 'Args:' in getattr(augment, neighbour[1]).__doc__, name


IMAGES = np.zeros((4, 8, 8, 3), 'float32')


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: augment.draw_integers(IMAGES, (0, 1), count=0), '`count` must be a positive'),
        (lambda: augment.draw_integers(IMAGES, (0, 1), count=2.5), '`count` must be a positive'),
        (lambda: augment.draw(IMAGES, (0, 1), low=float('nan')), '`low` must be'),
        (lambda: augment.normalize(IMAGES, 0, 1, dtype='float'), '`dtype` must be a float type'),
        (
            lambda: augment.normalize(IMAGES, 0, 1, dtype='mixed_float16'),
            '`dtype` must be a float type',
        ),
        (lambda: augment.normalize(IMAGES, 'a', 1), '`mean` and `std` must be numbers'),
        (lambda: augment.imagenet_normalize(IMAGES, mode=['tf']), '`mode` must be'),
        (lambda: augment.random_erasing(IMAGES, (0, 1), value=[0.1, 0.2, 0.3]), '`value` must be'),
        (lambda: augment.affine(IMAGES, np.stack([np.eye(3)] * 4), fill='a'), '`fill` must be'),
        (lambda: augment.random_affine(IMAGES, (0, 1), flip='no'), '`flip` must be'),
        (lambda: augment.random_affine(IMAGES, (0, 1), 0, 1, padding='bad'), '`padding` must be'),
        (lambda: augment.rand_augment(padding='bad'), '`padding` must be one of'),
        (lambda: augment.trivial_augment(padding='bad'), '`padding` must be one of'),
        (lambda: augment.inception_transforms(8, 8, training='no'), '`training` must be'),
        (lambda: augment.fastai_transforms(8, 8, flip_vertical='no'), '`flip_vertical` must be'),
        (lambda: augment.fastai_transforms(8, 8, rotate=-5), '`rotate` must be'),
        (lambda: augment.fastai_transforms(8, 8, zoom=0.5), '`zoom` must be'),
        (
            lambda: augment.fastai_transforms(8, 8, training=False, lighting_probability=2),
            '`lighting_probability` must be',
        ),
        (lambda: augment.resize(IMAGES, 4, 4, antialias='no'), '`antialias` must be'),
        (lambda: augment.without_seed(5), '^`function` must be callable. Received: function=5$'),
        (
            lambda: augment.inception_transforms(8, 8, normalizer=None),
            '`normalizer` must be callable',
        ),
        (lambda: augment.fastai_transforms(8, 8, normalizer=5), '`normalizer` must be callable'),
        (lambda: augment.with_context(None), '`augment` must be callable. Received: augment=None'),
        (lambda: augment.with_labels(5), '`augment` must be callable. Received: augment=5'),
        (lambda: augment.preview(IMAGES, None, 125.0, 60.0), '`augment` must be callable'),
        (lambda: augment.on_pixels(augment.random_flip, 1, 0.0), '`std` must be positive'),
        (lambda: augment.on_pixels(augment.random_flip, 'a', 1), '`mean` and `std` must be num'),
        (lambda: augment.on_pixels(augment.random_flip, [[1]], 1), '`mean` must be a number or'),
        (lambda: augment.central_part(IMAGES, 0), r'`fraction` must be a number in \(0, 1\]'),
        (lambda: augment.choice([augment.random_flip], weights=5), '`weights` must be'),
    ],
)
def test_settings_are_refused_in_a_line_when_they_are_made(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert '\n' not in str(raised.value)


def test_a_chain_with_labels_can_be_called_without_the_context():
    images, labels = augment.compose([augment.random_mixup])(IMAGES, np.eye(4, 3), (0, 1))
    assert (images.shape, labels.shape) == ((4, 8, 8, 3), (4, 3))


@pytest.mark.parametrize(
    'transform',
    [
        augment.alternating_flip,
        augment.in_groups(augment.random_flip),
        augment.compose([augment.alternating_flip]),
        augment.compose([augment.random_mixup, augment.alternating_flip]),
    ],
)
def test_a_chain_with_labels_says_what_of_the_context_it_needs(transform):
    chain = augment.compose([augment.random_mixup, transform])
    with pytest.raises(ValueError, match=r'^`epoch` must be given, since .* needs it$'):
        chain(IMAGES, np.eye(4, 3), (0, 1))
    with pytest.raises(ValueError, match=r'^`run_seed` must be given, since .* needs it$'):
        chain(IMAGES, np.eye(4, 3), (0, 1), 0, np.arange(4))
    chain(IMAGES, np.eye(4, 3), (0, 1), 0, np.arange(4), (0, 2))


def test_a_chain_with_labels_leaves_out_what_has_a_default():
    seen = []

    def note(images, seed, epoch=None):
        seen.append(epoch)
        return images

    augment.compose([augment.random_mixup, note])(IMAGES, np.eye(4, 3), (0, 1))
    assert seen == [None]


@pytest.mark.parametrize('bits', [9, -1])
def test_bits_beyond_a_byte_are_cut(bits):
    levels = np.arange(192, dtype='float32').reshape(1, 8, 8, 3)
    found = augment.posterize(levels, np.array([bits]))
    expected = augment.posterize(levels, np.array([min(8, max(0, bits))]))
    np.testing.assert_array_equal(found, expected)

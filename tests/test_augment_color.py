"""Photometric transforms: closed forms, extremes, the same on every framework and compiler."""

import colorsys

import keras
import numpy as np
import pytest
from augment_runners import COMPILED_LATER, EAGER, RUNNERS, assert_uniform, pixels

from fenwicks import augment


@pytest.fixture(params=COMPILED_LATER)
def run(request):
    return RUNNERS[request.param]


@pytest.fixture(params=EAGER)
def eager(request):
    return EAGER[request.param]


def test_jitter_is_its_formula(run):
    images = pixels(5) / 64 - 2
    shift = np.array([0, 0.5, -0.5, 1, 0], 'float32')
    scale = np.array([1, 1, 0.5, 0, 1.5], 'float32')
    result = run(augment.jitter, images, shift, scale)
    expected = (images + shift[:, None, None, None]) * scale[:, None, None, None]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(result[0], images[0])


def test_random_jitter_draws_shift_and_scale(run):
    a, b = 0.1399, 0.1308  # the record's
    images = np.stack([np.zeros((4000, 1, 1), 'float32'), np.ones((4000, 1, 1), 'float32')], 1)
    result = run(lambda x: augment.random_jitter(x, (3, 4), a, b), images)
    dark, light = result[:, 0, 0, 0], result[:, 1, 0, 0]
    scale = light - dark
    shift = dark / scale
    assert (1 - b) - 1e-6 <= scale.min() < 1 - 0.99 * b
    assert 1 + 0.99 * b < scale.max() <= (1 + b) + 1e-6
    assert -a - 1e-6 <= shift.min() < -0.99 * a
    assert 0.99 * a < shift.max() <= a + 1e-6
    cells = np.floor((shift + a) / (2 * a) * 4.99999) * 5 + np.floor(
        (scale - 1 + b) / (2 * b) * 4.99999
    )
    assert_uniform(cells, 25)


def test_random_jitter_is_the_same_everywhere(run):
    images, seed = pixels(6) / 64 - 2, np.array([5, -6], 'int32')
    result = run(augment.random_jitter, images, seed)
    np.testing.assert_allclose(result, augment.random_jitter(images, seed), rtol=1e-5, atol=1e-6)


def test_no_jitter_changes_nothing(eager):
    images = pixels(3)
    result = eager(lambda x: augment.random_jitter(x, (1, 2), brightness=0, contrast=0), images)
    np.testing.assert_array_equal(result, images)


def test_jitter_in_bfloat16_is_computed_in_float32(eager):
    ml_dtypes = pytest.importorskip('ml_dtypes')
    images = (pixels(3) / 64 - 2).astype(ml_dtypes.bfloat16)
    result = eager(lambda x: augment.random_jitter(x, (1, 2)), images)
    assert result.dtype == images.dtype
    expected = augment.random_jitter(images.astype('float32'), (1, 2))
    np.testing.assert_allclose(result.astype('float32'), expected, rtol=2**-8)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'brightness': -0.1}, '`brightness` must be .* Received: brightness=-0.1'),
        ({'contrast': 1.5}, '`contrast` must be .* Received: contrast=1.5'),
        ({'contrast': float('nan')}, '`contrast` must be .* Received: contrast=nan'),
    ],
)
def test_bad_settings_of_jitter(settings, message):
    with pytest.raises(ValueError, match=message):
        augment.random_jitter(pixels(), (1, 2), **settings)


# Brightness, contrast, saturation, hue.


def test_brightness_and_contrast_are_their_formulas(run):
    images = pixels(3)
    amounts = np.array([0, 1.5, -20], 'float32')
    result = run(augment.brightness, images, amounts)
    np.testing.assert_allclose(result, images + amounts[:, None, None, None], rtol=1e-6)
    factors = np.array([1, 0, 1.5], 'float32')
    mean = images.mean((1, 2), keepdims=True)
    expected = mean + factors[:, None, None, None] * (images - mean)
    result = run(augment.contrast, images, factors)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


def test_hue_is_the_rotation_of_hsv(run):
    images = pixels(7) / 255
    images[0, 0, 0] = 0.25  # grey has no hue
    degrees = np.array([0, 30, 120, -120, 180, 400, -75.5], 'float32')
    result = run(augment.hue, images.astype('float32'), degrees)
    for image, angle, found in zip(images, degrees, result, strict=True):
        for place in np.ndindex(image.shape[:2]):
            h, s, v = colorsys.rgb_to_hsv(*image[place])
            expected = colorsys.hsv_to_rgb((h + angle / 360) % 1, s, v)
            np.testing.assert_allclose(found[place], expected, atol=2e-5)


def test_hue_is_independent_of_the_range():
    images, degrees = pixels(3) / 255, np.full(3, 50.0)
    moved = augment.hue(images * 4 - 2, degrees)
    np.testing.assert_allclose(moved, augment.hue(images, degrees) * 4 - 2, atol=1e-5)


def test_a_third_of_a_turn_turns_red_into_green():
    red = np.array([[[[200.0, 0, 0]]]])
    np.testing.assert_allclose(augment.hue(red, np.array([120.0])), [[[[0, 200, 0]]]], atol=1e-3)


def test_saturation_zero_is_grey():
    images = pixels(2)
    result = augment.saturation(images, np.zeros(2))
    np.testing.assert_allclose(result, augment.grey(images), rtol=1e-6)
    np.testing.assert_allclose(result[..., 0], images @ [0.299, 0.587, 0.114], rtol=1e-5)
    np.testing.assert_allclose(augment.saturation(images, np.ones(2)), images, atol=1e-4)


def test_distort_color_shifts_the_channels():
    images = pixels(2)
    delta, blue, red = np.array([5.0, 0]), np.array([0.0, 10]), np.array([0.0, -4])
    result = augment.distort_color(images, delta, blue, red)
    np.testing.assert_allclose(result[0], images[0] + 5, rtol=1e-6)
    shift = [1.402 * -4, -0.344136 * 10 - 0.714136 * -4, 1.772 * 10]
    np.testing.assert_allclose(result[1], images[1] + shift, rtol=1e-5, atol=1e-3)
    # The shifts are those of the differences Cb and Cr of JPEG; the luma stays.
    luma = [0.299, 0.587, 0.114]
    np.testing.assert_allclose(result[1] @ luma, images[1] @ luma, atol=1e-2)


@pytest.mark.parametrize(
    'transform',
    [augment.random_color, augment.random_lighting, augment.random_distort_color],
)
def test_what_clips_stays_in_range(transform):
    images = pixels(200, 4, 4)
    images[0], images[1] = 0, 255
    result = transform(images, (3, 4))
    assert result.min() >= 0
    assert result.max() <= 255
    assert (result != images).any((1, 2, 3)).mean() > 0.95


def test_random_factors_are_within_their_limits():
    images = np.zeros((4000, 1, 2, 1), 'float32')
    images[:, :, 1] = 2
    result = augment.random_contrast(images, (3, 4), amount=0.2)
    factor = (result[:, 0, 1, 0] - result[:, 0, 0, 0]) / 2
    assert 0.8 - 1e-5 <= factor.min() < 0.801
    assert 1.249 < factor.max() <= 1.25 + 1e-5
    delta = augment.random_brightness(images, (3, 4), amount=0.2)[:, 0, 0, 0]
    assert -25.5 <= delta.min() < -25.4
    assert 25.4 < delta.max() <= 25.5


def test_colours_need_three_channels():
    for transform in (augment.hue, augment.saturation):
        with pytest.raises(ValueError, match='`images` must have 3 channels'):
            transform(pixels(2, channels=1), np.zeros(2))
    for settings in ({'hue': 181}, {'saturation': 2}, {'brightness': -1}):
        with pytest.raises(ValueError, match=f'`{next(iter(settings))}` must be'):
            augment.random_color(pixels(2), (1, 2), **settings)


# Normalizers of networks that were trained on ImageNet.


@pytest.mark.parametrize('mode', ['tf', 'torch', 'caffe'])
def test_imagenet_normalizers_are_kerass(run, mode):
    images = pixels(3)
    result = run(lambda x: augment.imagenet_normalize(x, mode), images)
    expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
    back = run(lambda x: augment.imagenet_denormalize(x, mode), result)
    np.testing.assert_allclose(back, images, atol=1e-4)


def test_bad_arguments_of_imagenet_normalize():
    with pytest.raises(ValueError, match=r'`mode` must be one of tf, torch, caffe.*mode=jax'):
        augment.imagenet_normalize(pixels(), 'jax')
    with pytest.raises(ValueError, match='`images` must have 3 channels'):
        augment.imagenet_normalize(pixels(channels=1))

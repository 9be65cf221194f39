"""Levels beside Pillow's operations, and the policies that draw from them."""

import numpy as np
import pytest
from augment_runners import COMPILED_LATER, RUNNERS, pixels
from PIL import Image, ImageEnhance, ImageOps

from fenwicks import augment
from fenwicks.augment.policies import OPERATIONS


@pytest.fixture(params=COMPILED_LATER)
def run(request):
    return RUNNERS[request.param]


def by_pillow(images, function):
    return np.stack([np.asarray(function(Image.fromarray(x.astype('uint8')))) for x in images])


def dull(count=4):
    """Images that don't use all levels, with a constant channel."""
    images = np.floor(pixels(count, 16, 12) / 3 + 40)
    images[1, :, :, 2] = 77
    return images


@pytest.mark.parametrize('bits', range(9))
def test_posterize(bits):
    images = pixels(2)
    result = augment.posterize(images, np.full(2, bits))
    if bits:
        np.testing.assert_array_equal(
            result, by_pillow(images, lambda x: ImageOps.posterize(x, bits))
        )
    else:
        np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize('threshold', [0, 1, 128, 255, 256])
def test_solarize(threshold):
    images = pixels(2)
    result = augment.solarize(images, np.full(2, threshold))
    expected = by_pillow(images, lambda x: ImageOps.solarize(x, threshold))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize('images', [pixels(3), dull()])
def test_autocontrast(images):
    expected = by_pillow(images, ImageOps.autocontrast)
    result = augment.autocontrast(images)
    assert np.abs(result - expected).max() < 1.01  # Pillow rounds down


@pytest.mark.parametrize('images', [pixels(3), dull(), pixels(2, 40, 40) // 64 * 64])
def test_equalize(images):
    expected = by_pillow(images, ImageOps.equalize)
    np.testing.assert_array_equal(augment.equalize(images), expected)


@pytest.mark.parametrize('factor', [0, 0.5, 1, 1.9])
def test_sharpness(factor):
    images = pixels(2)
    expected = by_pillow(images, lambda x: ImageEnhance.Sharpness(x).enhance(factor))
    result = augment.sharpness(images, np.full(2, factor, 'float32'))
    assert np.abs(result - expected).max() <= 1.5  # Pillow rounds twice


@pytest.mark.parametrize('factor', [0, 0.5, 1, 1.9])
def test_saturation(factor):
    images = pixels(2)
    expected = by_pillow(images, lambda x: ImageEnhance.Color(x).enhance(factor))
    result = augment.saturation(images, np.full(2, factor, 'float32')).clip(0, 255)
    assert np.abs(result - expected).max() <= 1.5


@pytest.mark.parametrize(
    ('function', 'values'),
    [
        (augment.posterize, [0, 1, 4, 8]),
        (augment.solarize, [0.0, 50.0, 128.0, 256.0]),
        (augment.sharpness, [0.0, 0.5, 1.0, 2.0]),
        (augment.autocontrast, None),
        (augment.equalize, None),
    ],
)
def test_they_are_the_same_everywhere(run, function, values):
    arrays = [dull()]
    if values is not None:
        dtype = 'int32' if isinstance(values[0], int) else 'float32'
        arrays.append(np.array(values, dtype))
    result = run(function, *arrays)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, function(*arrays), rtol=1e-5, atol=1e-3)


# Policies.


def test_every_operation_is_drawn_and_identity_changes_nothing():
    images = np.repeat(pixels(1, 16, 16), 600, 0)
    result = augment.trivial_augment()(images, (3, 4))
    operation = augment.draw_integers(images, augment.fold((3, 4), 0), 0, len(OPERATIONS))
    assert set(operation.tolist()) == set(range(len(OPERATIONS)))
    unchanged = (result == images).all((1, 2, 3))
    assert unchanged[operation == OPERATIONS.index('identity')].all()
    for name in ('rotate', 'shear_x', 'brightness', 'contrast', 'saturation', 'sharpness'):
        assert not unchanged[operation == OPERATIONS.index(name)].all(), name
    assert result.min() >= 0
    assert result.max() <= 255


def test_no_strength_changes_little():
    images = pixels(200, 8, 8)
    result = augment.rand_augment(operations=1, magnitude=0)(images, (3, 4))
    operation = augment.draw_integers(images, augment.fold((3, 4), 0), 0, len(OPERATIONS))
    tone = [OPERATIONS.index(name) for name in ('solarize', 'autocontrast', 'equalize')]
    same = ~np.isin(operation, tone)
    np.testing.assert_allclose(result[same], images[same], atol=0.01)


def test_strength_draws_stronger_changes():
    images = pixels(300, 16, 16)
    weak, strong = (
        np.abs(augment.rand_augment(1, magnitude)(images, (3, 4)) - images).mean((1, 2, 3))
        for magnitude in (3, 30)
    )
    operation = augment.draw_integers(images, augment.fold((3, 4), 0), 0, len(OPERATIONS))
    for name in ('brightness', 'contrast', 'saturation', 'posterize', 'solarize'):
        chosen = operation == OPERATIONS.index(name)
        assert (weak[chosen] <= strong[chosen] + 1e-3).all(), name


@pytest.mark.parametrize('shape', [(16, 16), (8, 24)])
def test_ready_made_lists(shape):
    images = pixels(3, 20, 20)
    for transforms in (
        augment.inception_transforms(*shape),
        augment.inception_transforms(*shape, training=False, central_fraction=0.8),
        augment.fastai_transforms(*shape),
        augment.fastai_transforms(*shape, training=False),
    ):
        result = augment.compose(transforms)(images, (1, 2))
        assert result.shape == (3, *shape, 3)
        assert np.abs(result).max() <= 1


def test_evaluation_lists_draw_nothing():
    images = pixels(2, 20, 20)
    chain = augment.compose(augment.fastai_transforms(10, 10, training=False))
    expected = augment.imagenet_normalize(augment.resize(images, 10, 10))
    np.testing.assert_array_equal(chain(images, (1, 2)), expected)
    chain = augment.compose(augment.inception_transforms(10, 10, training=False))
    np.testing.assert_array_equal(chain(images, (1, 2)), expected)


def test_bad_settings():
    for call, message in (
        (lambda: augment.rand_augment(0), '`operations` must be a positive integer'),
        (lambda: augment.rand_augment(2, 31), '`magnitude` must be .* Received: magnitude=31'),
        (lambda: augment.inception_transforms(0, 8), '`height` must be a positive integer'),
        (lambda: augment.fastai_transforms(8, 8, lighting=1), '`lighting` must be'),
    ):
        with pytest.raises(ValueError, match=message):
            call()

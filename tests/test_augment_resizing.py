"""Resizing beside Pillow, JAX, TensorFlow and closed forms, on every framework and compiler."""

import numpy as np
import PIL
import pytest
from augment_runners import COMPILED_LATER, EAGER, RUNNERS, pixels
from PIL import Image

from fenwicks import augment
from fenwicks.augment.resizing import METHODS, resize_matrix

PILLOW = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos3': Image.Resampling.LANCZOS,
    'box': Image.Resampling.BOX,
}
# Up, down, by whole factors, to one pixel, one axis only, unevenly.
SIZES = [(24, 24), (28, 28), (64, 48), (16, 16), (1, 1), (32, 7), (5, 40), (33, 31), (96, 3)]


@pytest.fixture(params=COMPILED_LATER)
def run(request):
    return RUNNERS[request.param]


@pytest.fixture(params=EAGER)
def eager(request):
    return EAGER[request.param]


def by_pillow(images, height, width, method):
    """Each channel of float images by itself, in Pillow's float mode, which doesn't round."""

    def resized(channel):
        return np.asarray(Image.fromarray(channel).resize((width, height), PILLOW[method]))

    return np.stack([np.stack([resized(c) for c in np.moveaxis(x, -1, 0)], -1) for x in images])


def skip_ties(method, height, width):
    """Where a centre falls between two pixels, Pillow's nearest depends on rounding errors."""
    if method == 'nearest' and (height, width) not in ((16, 16), (1, 1), (96, 3)):
        pytest.skip('centres fall between pixels')


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_floats_are_pillows(method, height, width):
    skip_ties(method, height, width)
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype('float32')
    expected = by_pillow(images, height, width, method)
    result = augment.resize(images, height, width, method)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_bytes_are_pillows_within_one(method, height, width):
    skip_ties(method, height, width)
    if height < width and int(PIL.__version__.split('.')[0]) < 13:
        pytest.skip('this Pillow resizes the columns first')
    images = pixels(2, 32, 32).astype('uint8')
    expected = [
        np.asarray(Image.fromarray(x).resize((width, height), PILLOW[method])) for x in images
    ]
    result = augment.resize(images, height, width, method)
    assert result.dtype == np.uint8
    difference = np.abs(result.astype(int) - np.stack(expected))
    assert difference.max() <= 1


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('antialias', [True, False])
def test_it_is_the_same_everywhere(run, method, antialias):
    images = pixels(3, 12, 10)
    result = run(lambda x: augment.resize(x, 7, 23, method, antialias), images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(
        result, augment.resize(images, 7, 23, method, antialias), rtol=1e-5, atol=1e-4
    )


def test_bytes_are_the_same_everywhere(run):
    images = pixels(3, 12, 10).astype('uint8')
    result = run(lambda x: augment.resize(x, 7, 23), images)
    assert result.dtype == np.uint8
    expected = augment.resize(images, 7, 23).astype(int)
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize('size', [1, 5, 16, 24, 33, 100])
def test_nearest_takes_the_pixel_at_the_centre(size):
    places = [min(31, int((2 * i + 1) * 32 // (2 * size))) for i in range(size)]
    images = pixels(2, 32, 32)
    result = augment.resize(images, size, size, 'nearest')
    np.testing.assert_array_equal(result, images[:, places][:, :, places])


@pytest.mark.parametrize('size', [24, 28, 40])
def test_plain_bilinear_interpolates_between_two_pixels(size):
    """At half-pixel centres, clamped to the border: what images that grow are resized with."""
    images = pixels(2, 32, 32)
    at = np.clip((np.arange(size) + 0.5) * 32 / size - 0.5, 0, 31)
    low = np.floor(at).astype(int)
    high, share = np.minimum(low + 1, 31), at - low

    def lines(x, axis):
        weight = share.reshape((-1,) + (1,) * (3 - axis))
        return x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight

    expected = lines(lines(images.astype('float64'), 1), 2)
    result = augment.resize(images, size, size, antialias=False)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(('name', 'method'), [('linear', 'bilinear'), ('lanczos3', 'lanczos3')])
@pytest.mark.parametrize('antialias', [True, False])
def test_it_agrees_with_jax(name, method, antialias):
    jax = pytest.importorskip('jax')
    images = pixels(2, 12, 10)
    for height, width in ((7, 23), (5, 5), (24, 30)):
        expected = jax.image.resize(
            images, (2, height, width, 3), name, antialias=antialias, precision='highest'
        )
        result = augment.resize(images, height, width, method, antialias)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize('antialias', [True, False])
def test_it_agrees_with_tensorflow(antialias):
    tf = pytest.importorskip('tensorflow')
    images = pixels(2, 12, 10)
    for height, width in ((7, 23), (5, 5), (24, 30)):
        expected = tf.image.resize(images, (height, width), 'bilinear', antialias=antialias)
        result = augment.resize(images, height, width, antialias=antialias)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize('method', METHODS)
def test_a_constant_image_stays_constant(method):
    images = np.full((1, 9, 13, 2), 7.25, 'float64')
    for antialias in (True, False):
        for height, width in ((1, 1), (4, 40), (17, 2)):
            result = augment.resize(images, height, width, method, antialias)
            assert result.shape == (1, height, width, 2)
            assert result.dtype == np.float64
            np.testing.assert_allclose(result, 7.25, rtol=1e-12)


def test_the_same_size_returns_the_images():
    images = pixels()
    assert augment.resize(images, 8, 7, 'bicubic') is images


def test_halving_by_a_box_is_a_mean_over_squares(eager):
    images = pixels(2, 8, 6)
    expected = images.reshape(2, 4, 2, 3, 2, 3).mean((2, 4))
    result = eager(lambda x: augment.resize(x, 4, 3, 'box'), images)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_narrow_dtypes_are_computed_in_float32(eager):
    ml_dtypes = pytest.importorskip('ml_dtypes')
    images = pixels(2, 8, 6).astype(ml_dtypes.bfloat16)
    result = eager(lambda x: augment.resize(x, 5, 5), images)
    expected = augment.resize(images.astype('float32'), 5, 5)
    assert result.dtype == images.dtype
    np.testing.assert_allclose(result.astype('float32'), expected, rtol=2**-8)


def test_rows_of_the_matrix_add_up_to_one():
    for method in METHODS[1:]:
        for size, new_size in ((32, 24), (3, 100), (100, 3), (7, 1), (1, 7)):
            for antialias in (True, False):
                matrix = resize_matrix(size, new_size, method, antialias)
                np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 4), '`height` must be a positive integer. Received: height=0'),
        ((4, 2.5), '`width` must be a positive integer. Received: width=2.5'),
        ((4, 4, 'cubic'), '`method` must be one of nearest, .* Received: method=cubic'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        augment.resize(pixels(), *arguments)


def test_bad_images():
    with pytest.raises(ValueError, match=r'`images` must be uint8 or floats.*dtype=int64'):
        augment.resize(pixels().astype('int64'), 4, 4)
    with pytest.raises(ValueError, match='`images` must have the shape'):
        augment.resize(pixels()[0], 4, 4)

"""Augmentations: the same values from every framework and compiler; bad input."""

import numpy as np
import pytest
from augment_runners import EAGER, RUNNERS, pixels

from fenwicks import augment


@pytest.fixture(params=RUNNERS)
def run(request):
    return RUNNERS[request.param]


@pytest.fixture(params=EAGER)
def eager(request):
    return EAGER[request.param]


def test_crop_takes_each_window(run):
    height, width = 5, 4
    offsets = np.array([(t, left) for t in range(4) for left in range(4)], 'int32')
    images = pixels(batch=16)
    result = run(
        lambda x, top, left: augment.crop(x, top, left, height, width), images, *offsets.T.copy()
    )
    expected = [x[t : t + height, n : n + width] for x, (t, n) in zip(images, offsets, strict=True)]
    np.testing.assert_array_equal(result, np.stack(expected))
    assert result.dtype == np.float32


def test_crop_of_the_whole_image_is_the_image(run):
    images, zero = pixels(), np.zeros(5, 'int32')
    result = run(lambda x, top, left: augment.crop(x, top, left, 8, 7), images, zero, zero)
    np.testing.assert_array_equal(result, images)


def test_crop_reads_zeros_outside(eager):
    images = pixels(batch=3)
    top, left = np.array([-2, 0, 6], 'int32'), np.array([0, 9, -9], 'int32')
    result = eager(lambda x, *at: augment.crop(x, *at, 4, 7), images, top, left)
    np.testing.assert_array_equal(result[0, :2], 0)
    np.testing.assert_array_equal(result[0, 2:], images[0, :2])
    np.testing.assert_array_equal(result[1:], 0)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_crop_keeps_the_bytes_values_exactly(run, dtype):
    ml_dtypes = pytest.importorskip('ml_dtypes')
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    images = np.arange(256, dtype='float32').reshape(1, 16, 16, 1).repeat(3, 0).astype(dtype)
    top, left = np.array([0, 2, 4], 'int32'), np.array([4, 1, 0], 'int32')
    result = run(lambda x, *at: augment.crop(x, *at, 12, 12), images, top, left)
    assert result.dtype == dtype
    for i in range(3):
        np.testing.assert_array_equal(
            result[i], images[i, top[i] : top[i] + 12, left[i] : left[i] + 12]
        )


def test_crop_is_exact_in_float32(run):
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 2)).astype('float32')
    top, left = np.array([0, 1, 2], 'int32'), np.array([2, 1, 0], 'int32')
    result = run(lambda x, *at: augment.crop(x, *at, 4, 4), images, top, left)
    for i in range(3):
        np.testing.assert_array_equal(
            result[i], images[i, top[i] : top[i] + 4, left[i] : left[i] + 4]
        )


@pytest.mark.parametrize('padding', [0, 1, 6])
def test_pad_reflect_mirrors_at_the_border(run, padding):
    images = pixels()
    result = run(lambda x: augment.pad_reflect(x, padding), images)

    def mirrored(index, size):
        index = abs(index - padding)
        return min(index, 2 * (size - 1) - index)

    rows = [mirrored(i, 8) for i in range(8 + 2 * padding)]
    columns = [mirrored(i, 7) for i in range(7 + 2 * padding)]
    np.testing.assert_array_equal(result, images[:, rows][:, :, columns])


def test_flip_mirrors_the_masked_images(run):
    images, mask = pixels(), np.array([True, False, False, True, True])
    result = run(augment.flip, images, mask)
    np.testing.assert_array_equal(result[mask], images[mask][:, :, ::-1])
    np.testing.assert_array_equal(result[~mask], images[~mask])


def test_flip_twice_is_the_identity(run):
    images, mask = pixels(), np.array([True, False, False, True, True])
    result = run(lambda x, m: augment.flip(augment.flip(x, m), m), images, mask)
    np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize(('height', 'width'), [(3, 2), (8, 7), (0, 0), (1, 7)])
def test_cutout_zeroes_the_rectangle(run, height, width):
    images = pixels() + 1
    images[0, 0, 0, 0] = np.nan  # A hole must not keep what it covers, as a product with 0 would.
    top = np.linspace(0, 8 - height, 5).astype('int32')
    left = np.linspace(7 - width, 0, 5).astype('int32')
    left[0] = 0
    result = run(lambda x, *at: augment.cutout(x, *at, height, width), images, top, left)
    expected = images.copy()
    for x, t, n in zip(expected, top, left, strict=True):
        x[t : t + height, n : n + width] = 0
    np.testing.assert_array_equal(result, expected)


def test_cutout_counts_only_what_is_inside(eager):
    top, left = np.array([-1, 6, 0], 'int32'), np.array([-2, 5, 99], 'int32')
    result = eager(lambda x, *at: augment.cutout(x, *at, 3, 3), np.ones((3, 8, 7, 1)), top, left)
    np.testing.assert_array_equal((result == 0).sum((1, 2, 3)), [2 * 1, 2 * 2, 0])


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
def test_normalize_standardises_each_channel(run, dtype):
    mean, std = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]
    images = pixels().astype(dtype)
    result = run(lambda x: augment.normalize(x, mean, std), images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (images.astype('float64') - mean) / std, atol=1e-6)


def test_denormalize_undoes_normalize(run):
    mean, std = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]
    images = pixels()
    result = run(lambda x: augment.denormalize(augment.normalize(x, mean, std), mean, std), images)
    np.testing.assert_allclose(result, images, atol=1e-4)


def test_normalize_returns_the_dtype_asked_for(run):
    result = run(lambda x: augment.normalize(x, 100, 50, dtype='float16'), pixels())
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, ((pixels() - 100) / np.float32(50)).astype('float16'))


# Bad input.

IMAGES = np.zeros((3, 8, 6, 3), 'float32')
AT = np.zeros(3, 'int32')


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda x: augment.crop(x, AT, AT, 9, 6), r'`height` must be in \[1, 8\].*height=9'),
        (lambda x: augment.crop(x, AT, AT, 8, 7), r'`width` must be in \[1, 6\].*width=7'),
        (lambda x: augment.crop(x, AT, AT, 0, 6), r'`height` must be in \[1, 8\].*height=0'),
        (lambda x: augment.crop(x, AT, AT, 4.0, 6), '`height` must be an integer.*height=4.0'),
        (lambda x: augment.crop(x, AT[:2], AT, 4, 4), r'`top` must hold one int.*shape=\(2,\)'),
        (lambda x: augment.crop(x, AT, AT + 0.5, 4, 4), '`left` must hold one int.*dtype=float'),
        (lambda x: augment.crop(x, AT, AT[0], 4, 4), r'`left` must hold one int.*shape=\(\)'),
        (lambda x: augment.pad_reflect(x, 6), r'`padding` must be in \[0, 5\].*padding=6'),
        (lambda x: augment.pad_reflect(x, -1), r'`padding` must be in \[0, 5\].*padding=-1'),
        (lambda x: augment.flip(x, AT), '`mask` must hold one bool.*dtype=int32'),
        (lambda x: augment.flip(x, AT[:1] == 0), r'`mask` must hold one bool.*shape=\(1,\)'),
        (lambda x: augment.cutout(x, AT, AT, 9, 1), r'`height` must be in \[0, 8\].*height=9'),
        (lambda x: augment.cutout(x, AT, AT, 1, -1), r'`width` must be in \[0, 6\].*width=-1'),
        (lambda x: augment.random_crop(x, (0, 0), 6), r'`padding` must be in \[0, 5\].*=6'),
        (lambda x: augment.random_crop(x, (0, 0), True), '`padding` must be an integer.*=True'),
        (lambda x: augment.random_cutout(x, (0, 0), 7), r'`size` must be in \[0, 6\].*size=7'),
        (lambda x: augment.random_cutout(x, (0, 0), -1), r'`size` must be in \[0, 6\].*size=-1'),
        (lambda x: augment.random_flip(x, 5), r'`seed` must be two integers.*shape=\(\)'),
        (lambda x: augment.random_flip(x, (1, 2, 3)), '`seed` must be two integers.*3 of them'),
        (lambda x: augment.random_flip(x, (1, 0.5)), '`seed` must be of integers.*float'),
        (lambda x: augment.random_flip(x, None), '`seed` must be of integers.*NoneType'),
        (lambda x: augment.random_flip(x, (1, 2**31)), '`seed` must fit in 32 bits.*2147483648'),
        (lambda x: augment.normalize(x, [1, 2], 1), r'`mean` must be a number.*shape=\(2,\)'),
        (lambda x: augment.normalize(x, 1, [1, 2]), r'`std` must be a number.*shape=\(2,\)'),
        (lambda x: augment.normalize(x, 1, [1, 0, 1]), r'`std` must be positive.*std=\[1. 0. 1.\]'),
        (lambda x: augment.denormalize(x, np.nan, 1), '`mean` must be finite.*mean=nan'),
        (lambda x: augment.normalize(x, 1, 1, 'uint8'), '`dtype` must be a float.*uint8'),
    ],
)
def test_bad_arguments(eager, call, message):
    with pytest.raises(ValueError, match=message) as error:
        eager(call, IMAGES)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'function',
    [
        lambda x: augment.crop(x, AT, AT, 2, 2),
        lambda x: augment.pad_reflect(x, 1),
        lambda x: augment.flip(x, AT == 0),
        lambda x: augment.cutout(x, AT, AT, 2, 2),
        lambda x: augment.random_crop(x, (0, 0)),
        lambda x: augment.random_flip(x, (0, 0)),
        lambda x: augment.random_cutout(x, (0, 0), 2),
    ],
)
def test_images_must_be_float_batches(eager, function):
    with pytest.raises(ValueError, match=r'`images` must be floats.*dtype=uint8'):
        eager(function, IMAGES.astype('uint8'))
    with pytest.raises(ValueError, match=r'`images` must have the shape .*shape=\(8, 6, 3\)'):
        eager(function, IMAGES[0])


def test_images_must_be_arrays():
    with pytest.raises(
        ValueError, match=r'`images` must be a TensorFlow, JAX or NumPy array.*list'
    ):
        augment.random_flip([[1.0]], (0, 0))


def test_sizes_must_be_known_when_traced():
    tf = pytest.importorskip('tensorflow')
    for shape, message in [
        ((None, None, 8, 3), 'known when traced'),
        (None, 'must have the shape'),
    ]:
        function = tf.function(lambda x: augment.random_crop(x, (0, 0)), autograph=False)
        with pytest.raises(ValueError, match=message):
            function.get_concrete_function(tf.TensorSpec(shape, 'float32'))


@pytest.mark.parametrize('n', [0.5, 2**31, None])
def test_fold_counts_in_int32(n):
    with pytest.raises(ValueError, match='`n` must'):
        augment.fold((0, 0), n)


@pytest.mark.parametrize(
    ('seed', 'n'),
    [
        (np.zeros((3, 2), 'int32'), np.arange(4)),
        ((0, 0), np.zeros((2, 2), 'int32')),
        (np.zeros((3, 2), 'int32'), np.zeros((3, 1), 'int32')),
    ],
)
def test_fold_counts_one_for_each_seed(seed, n):
    with pytest.raises(ValueError, match='`n` must be an integer, or one for each seed'):
        augment.fold(seed, n)


def test_compose_takes_callables():
    with pytest.raises(ValueError, match=r'`transforms` must be callables.*None'):
        augment.compose([augment.random_flip, None])

"""Augmentations: the same values from every framework and compiler, and draws that are uniform."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest

from fenwicks import augment

# Upper 0.1 % points of the chi-square distribution. Seeds are fixed, so a pass stays a pass.
CHI_SQUARE = {1: 10.83, 4: 18.47, 8: 26.12, 24: 51.18}


def _numpy(function, *arrays):
    return function(*arrays)


def _tf(function, *arrays):
    tf = pytest.importorskip('tensorflow')
    return function(*map(tf.constant, arrays)).numpy()


def _tf_graph(function, *arrays):
    tf = pytest.importorskip('tensorflow')
    return tf.function(function)(*map(tf.constant, arrays)).numpy()


def _tf_xla(function, *arrays):
    tf = pytest.importorskip('tensorflow')
    return tf.function(function, jit_compile=True)(*map(tf.constant, arrays)).numpy()


def _tf_data(function, *arrays):
    """One batch whose size isn't known when the map is traced."""
    tf = pytest.importorskip('tensorflow')
    # Seeds aren't sliced into examples; no batch of these tests holds two.
    seeds = [array for array in arrays if array.shape == (2,)]
    data = tf.data.Dataset.from_tensor_slices(tuple(a for a in arrays if a.shape != (2,)))
    data = data.batch(len(arrays[0])).map(lambda *batch: function(*batch, *map(tf.constant, seeds)))
    assert data.element_spec.shape[0] is None
    (batch,) = data.as_numpy_iterator()
    return batch


def _jax(function, *arrays):
    jax = pytest.importorskip('jax')
    return np.asarray(function(*map(jax.numpy.asarray, arrays)))


def _jax_jit(function, *arrays):
    jax = pytest.importorskip('jax')
    return np.asarray(jax.jit(function)(*map(jax.numpy.asarray, arrays)))


RUNNERS = {f.__name__[1:]: f for f in (_numpy, _tf, _tf_graph, _tf_xla, _tf_data, _jax, _jax_jit)}
EAGER = {name: RUNNERS[name] for name in ('numpy', 'tf', 'jax')}


@pytest.fixture(params=RUNNERS)
def run(request):
    return RUNNERS[request.param]


@pytest.fixture(params=EAGER)
def eager(request):
    return EAGER[request.param]


def pixels(batch=5, height=8, width=7, channels=3, seed=0):
    """Integers 0...255 as float32, so that every dtype of eight bits of mantissa holds them."""
    values = np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels))
    return values.astype('float32')


def coordinates(batch, height, width):
    """Images whose two channels tell each pixel's row and column."""
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), -1)
    return np.broadcast_to(grid, (batch, height, width, 2)).astype('float32')


def assert_uniform(values, categories: int):
    values = np.asarray(values)
    assert set(np.unique(values)) == set(range(categories))
    counts = np.bincount(values.astype(int), minlength=categories)
    expected = len(values) / categories
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE[categories - 1]


# Pure transforms.


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


# Draws.


def test_random_crop_draws_both_offsets_uniformly(eager):
    images = coordinates(4000, 8, 8)
    result = eager(lambda x: augment.random_crop(x, (3, 4), padding=2), images)
    # With top = left = 2 nothing moves, so pixel (2, 2) came from (top, left).
    top, left = result[:, 2, 2, 0], result[:, 2, 2, 1]
    assert_uniform(top, 5)
    assert_uniform(left, 5)
    assert_uniform(top * 5 + left, 25)


def test_random_crop_is_the_crop_of_the_padded_images(run):
    images = pixels(batch=6, height=9, width=9)
    images[..., :2] = coordinates(6, 9, 9)
    result = run(lambda x, s: augment.random_crop(x, s, padding=3), images, np.array([1, 2]))
    top, left = result[:, 3, 3, :2].T.astype('int32')
    assert len(set(zip(top, left, strict=True))) > 1
    expected = augment.crop(augment.pad_reflect(images, 3), top, left, 9, 9)
    np.testing.assert_array_equal(result, expected)


def test_random_crop_with_no_padding_changes_nothing(eager):
    result = eager(lambda x: augment.random_crop(x, (0, 0), padding=0), pixels())
    np.testing.assert_array_equal(result, pixels())


def test_random_flip_mirrors_half_of_the_images(eager):
    images = coordinates(4000, 1, 3)
    result = eager(lambda x: augment.random_flip(x, (3, 4)), images)
    flipped = result[:, 0, 0, 1] == 2
    np.testing.assert_array_equal(result, augment.flip(images, flipped))
    assert_uniform(flipped, 2)


def test_random_cutout_is_whole_and_uniform(eager):
    result = eager(lambda x: augment.random_cutout(x, (3, 4), size=4), np.ones((4000, 8, 6, 2)))
    hole = result == 0
    np.testing.assert_array_equal(hole.sum((1, 2)), 16)  # Of both channels.
    rows, columns = hole.any((2, 3)), hole.any((1, 3))
    np.testing.assert_array_equal(rows.sum(1), 4)
    np.testing.assert_array_equal(columns.sum(1), 4)
    assert_uniform(rows.argmax(1), 5)
    np.testing.assert_array_equal(np.unique(columns.argmax(1)), [0, 1, 2])


@pytest.mark.parametrize('size', [0, 6])
def test_random_cutout_takes_any_size_that_fits(eager, size):
    result = eager(lambda x: augment.random_cutout(x, (3, 4), size=size), np.ones((3, 6, 6, 1)))
    np.testing.assert_array_equal((result == 0).sum((1, 2, 3)), size * size)


AUGMENT = augment.compose(
    [
        partial(augment.random_crop, padding=2),
        augment.random_flip,
        partial(augment.random_cutout, size=3),
    ]
)


def test_the_same_seed_draws_the_same_and_another_differs(eager):
    images = pixels(batch=8, height=8, width=8)
    first, again, second, swapped = (
        eager(AUGMENT, images, np.array(seed, 'int32')) for seed in [(5, 6), (5, 6), (5, 7), (6, 5)]
    )
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    for other in (second, swapped):
        assert (first != other).any((1, 2, 3)).all()


def test_images_of_a_batch_draw_apart(eager):
    images = np.repeat(pixels(batch=1, height=8, width=8), 16, 0)
    result = eager(lambda x: AUGMENT(x, (5, 6)), images)
    assert len(np.unique(result, axis=0)) > 12  # Of 1,800 outcomes; two may be alike.


@pytest.mark.parametrize('runners', [('tf', 'tf_graph', 'tf_xla', 'tf_data'), ('jax', 'jax_jit')])
def test_compilers_draw_the_same(runners):
    images, seed = pixels(batch=8, height=8, width=8), np.array([5, -6], 'int32')
    first, *others = (RUNNERS[name](AUGMENT, images, seed) for name in runners)
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize('seed', [(5, 6), [5, 6], np.array([5, 6], 'int64'), np.uint32([5, 6])])
def test_a_seed_may_be_a_pair_or_an_array(eager, seed):
    images = pixels(batch=8, height=8, width=8)
    expected = eager(AUGMENT, images, np.array([5, 6], 'int32'))
    np.testing.assert_array_equal(eager(lambda x: AUGMENT(x, seed), images), expected)


def test_compose_folds_the_seed_for_each_transform():
    seen = []

    def record(images, seed):
        seen.append(seed)
        return images + 1

    images = pixels()
    result = augment.compose([record, record])(images, (1, 2))
    np.testing.assert_array_equal(result, images + 2)
    np.testing.assert_array_equal(seen, [augment.fold((1, 2), 0), augment.fold((1, 2), 1)])
    np.testing.assert_array_equal(augment.compose([])(images, (1, 2)), images)


def test_fold_is_the_same_everywhere(run):
    for seed, n in [((1, 2), 0), ((-1, 2**31 - 1), 7), ((-(2**31), 0), 2**31 - 1)]:
        result = run(
            lambda x, s, n=n: augment.fold(s, n)[None] + 0 * x,
            np.zeros((1, 2), 'int32'),
            np.array(seed, 'int32'),
        )
        np.testing.assert_array_equal(result[0], augment.fold(seed, n))


def test_fold_is_its_formula():
    """In Python's unbounded integers: the arrays must wrap around and shift in zeros."""

    def mix(x):
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    for a, b, n in [(1, 2, 3), (-5, 2**31 - 1, 0), (0, 0, 0), (7, 7, 123456789), (-1, -1, -1)]:
        expected = [
            mix((x + mix((y ^ mix((n + salt) % 2**32)) % 2**32)) % 2**32)
            for x, y, salt in [(a, b, 0x3C6EF372), (b, a, 0x1715609D)]
        ]
        np.testing.assert_array_equal(augment.fold((a, b), n).view('uint32'), expected)
        assert expected[0] != expected[1]


def test_fold_never_repeats_and_flips_half_of_the_bits():
    seeds = [(a, b) for a in range(12) for b in range(-6, 6)]
    folds = np.array([augment.fold(seed, n) for seed in seeds for n in range(12)])
    assert len(np.unique(folds, axis=0)) == len(folds)
    assert all(len(np.unique(word)) == len(folds) for word in folds.T)
    bits = np.unpackbits(folds.view('uint8'), axis=1)
    assert abs(bits.mean(0) - 0.5).max() < 0.06
    one_bit = [(1 << i, 0) for i in range(31)] + [(0, 1 << i) for i in range(31)]
    changed = [augment.fold(seed, 3) ^ augment.fold((0, 0), 3) for seed in one_bit]
    changed += [augment.fold((0, 0), 3 ^ (1 << i)) ^ augment.fold((0, 0), 3) for i in range(31)]
    flipped = np.unpackbits(np.array(changed).view('uint8'), axis=1)
    assert 26 < flipped.sum(1).mean() < 38
    assert flipped.sum(1).min() > 12


def test_folded_seeds_draw_uniformly_over_steps():
    image = coordinates(1, 1, 3)
    seeds = (augment.fold((1, 2), n) for n in range(2000))
    assert_uniform([augment.random_flip(image, seed)[0, 0, 0, 1] == 2 for seed in seeds], 2)


def test_traced_seeds_in_a_tensorflow_loop():
    tf = pytest.importorskip('tensorflow')
    images = pixels(batch=4, height=8, width=8)

    @tf.function(jit_compile=True)
    def epoch(images, seed):
        results = tf.zeros([3, *images.shape], images.dtype)

        def step(n, results):
            augmented = AUGMENT(images, augment.fold(seed, n))
            return n + 1, tf.tensor_scatter_nd_update(results, [[n]], augmented[None])

        return tf.while_loop(lambda n, _: n < 3, step, (0, results))[1]

    results = epoch(tf.constant(images), tf.constant([1, 2]))
    for n in range(3):
        expected = AUGMENT(tf.constant(images), augment.fold((1, 2), n))
        np.testing.assert_array_equal(results[n], expected)


def test_traced_seeds_in_a_jax_scan():
    jax = pytest.importorskip('jax')
    images = jax.numpy.asarray(pixels(batch=4, height=8, width=8))

    @jax.jit
    def epoch(images, seed):
        def step(carry, n):
            return carry, AUGMENT(images, augment.fold((seed, 2), n))

        return jax.lax.scan(step, 0, jax.numpy.arange(3))[1]

    results = epoch(images, 1)
    for n in range(3):
        expected = AUGMENT(images, augment.fold((1, 2), n))
        np.testing.assert_array_equal(results[n], expected)


def test_a_counter_seeds_the_batches_of_tf_data():
    tf = pytest.importorskip('tensorflow')
    images = pixels(batch=7, height=8, width=8)
    data = tf.data.Dataset.from_tensor_slices(images).batch(4).enumerate()
    data = data.map(lambda n, batch: AUGMENT(batch, augment.fold((1, 2), n)))
    first, last = data.as_numpy_iterator()
    expected = AUGMENT(tf.constant(images[4:]), augment.fold((1, 2), 1))
    np.testing.assert_array_equal(last, expected)
    assert first.shape == (4, 8, 8, 3)


@pytest.mark.parametrize('missing', ['tensorflow', 'jax'])
def test_a_framework_that_is_not_there_is_not_missed(monkeypatch, missing):
    other = _jax if missing == 'tensorflow' else _tf
    images, seed = pixels(batch=8, height=8, width=8), np.array([5, 6], 'int32')
    expected = [AUGMENT(images, seed), other(AUGMENT, images, seed)]
    monkeypatch.delitem(sys.modules, missing, raising=False)
    np.testing.assert_array_equal(AUGMENT(images, seed), expected[0])
    np.testing.assert_array_equal(other(AUGMENT, images, seed), expected[1])
    assert missing not in sys.modules


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


def test_compose_takes_callables():
    with pytest.raises(ValueError, match=r'`transforms` must be callables.*None'):
        augment.compose([augment.random_flip, None])

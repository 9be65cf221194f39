"""Random transforms: draws that are uniform, seeded, and the same from every compiler."""

import pickle
import sys
from functools import partial

import numpy as np
import pytest
from augment_runners import EAGER, RUNNERS, _jax, _tf, assert_uniform, coordinates, pixels

from fenwicks import augment


@pytest.fixture(params=RUNNERS)
def run(request):
    return RUNNERS[request.param]


@pytest.fixture(params=EAGER)
def eager(request):
    return EAGER[request.param]


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


@pytest.mark.thorough
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


def test_folds_of_many_are_those_of_each():
    seeds, numbers = np.array([(1, 2), (-3, 4), (5, 6)]), np.array([7, -8, 9])
    each = [augment.fold(seed, n) for seed, n in zip(seeds, numbers, strict=True)]
    np.testing.assert_array_equal(augment.fold(seeds, numbers), each)
    np.testing.assert_array_equal(augment.fold(seeds, 7)[0], each[0])
    np.testing.assert_array_equal(augment.fold((1, 2), numbers)[0], each[0])


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


# Groups that share a draw.

RANDOM = (
    partial(augment.random_crop, padding=3),
    augment.random_flip,
    partial(augment.random_cutout, size=3),
)


@pytest.mark.thorough
def test_images_of_one_seed_draw_alike(run):
    images = np.ones((10, 12, 12, 1), 'float32')
    images[:, :, :6] = 2
    seeds = augment.fold((5, 6), np.array([0, 1, 2, 3, 4] * 2))
    result = run(augment.compose(RANDOM), images, seeds)
    np.testing.assert_array_equal(result[:5], result[5:])
    assert len(np.unique(result[:5], axis=0)) >= 4


@pytest.mark.parametrize('transform', RANDOM)
def test_an_image_draws_the_same_in_whatever_batch(eager, transform):
    images = pixels(batch=6, height=12, width=12)
    seeds = augment.fold((1, 2), np.arange(6))
    whole = eager(lambda x: transform(x, seeds), images)
    for n in (0, 3, 5):
        alone = eager(lambda x, n=n: transform(x, seeds[n : n + 1]), images[n : n + 1])
        np.testing.assert_array_equal(alone[0], whole[n])


def test_seeds_of_images_draw_uniformly():
    images = coordinates(4000, 8, 8)
    result = augment.random_crop(images, augment.fold((3, 4), np.arange(4000)), 2)
    top, left = result[:, 2, 2, 0], result[:, 2, 2, 1]
    assert_uniform(top * 5 + left, 25)


def offsets(transform, epoch, indices, run_seed=(5, 6)):
    """Where a transform of crops by up to 4 pixels puts each image, 0 ... 80."""
    images = coordinates(1, 12, 12).repeat(len(indices), 0)
    result = transform(images, None, epoch, indices, run_seed)
    return result[:, 4, 4, 0] * 9 + result[:, 4, 4, 1]


def test_groups_of_an_epoch_share_their_draws():
    crop = augment.in_groups(partial(augment.random_crop, padding=4), groups=7)
    indices = np.arange(3000)
    first, second, other_run = (
        offsets(crop, epoch, indices, (seed, 6)) for epoch, seed in ((0, 5), (1, 5), (0, 6))
    )
    values, counts = np.unique(first, return_counts=True)
    assert 4 <= len(values) <= 7
    assert counts.min() > 300  # of 428, or more where groups draw alike
    # A batch, 512 images in a row, is of all groups, not of two.
    for start in range(0, 2560, 512):
        assert len(np.unique(first[start : start + 512])) == len(values)
    # Groups and draws are others in the next epoch, and in another run.
    for other in (second, other_run):
        both = {(a, b) for a, b in zip(first, other, strict=True)}
        assert len(both) == len(values) * len(np.unique(other))
    np.testing.assert_array_equal(offsets(crop, 0, indices[::-1]), first[::-1])


@pytest.mark.thorough
def test_groups_are_the_same_everywhere(run):
    crop = augment.in_groups(partial(augment.random_crop, padding=4), groups=7)
    images, indices = pixels(batch=20, height=12, width=12), np.arange(90, 110, dtype='int32')
    for epoch in (0, 3):
        result = run(
            lambda x, i, e, s: crop(x, None, e[0], i, s),
            images,
            indices,
            np.full(20, epoch, 'int32'),
            np.array([5, 6], 'int32'),
        )
        np.testing.assert_array_equal(result, crop(images, None, epoch, indices, (5, 6)))


def test_draws_of_many_groups_are_uniform():
    crop = augment.in_groups(partial(augment.random_crop, padding=1), groups=200)
    epochs = [offsets(crop, epoch, np.array([3])).item() for epoch in range(900)]
    assert len(np.unique(epochs)) == 9
    assert_uniform(np.unique(epochs, return_inverse=True)[1], 9)


def test_groups_of_two_transforms_have_nothing_in_common():
    flip = augment.in_groups(augment.random_flip, groups=2)
    seen = []

    def note(images, seed):
        seen.append(mirrored(images))
        return images

    chain = augment.compose([flip, note, flip, note])
    for epoch in range(40):
        images = coordinates(1, 1, 3).repeat(100, 0)
        chain(images, (0, 0), epoch, np.arange(100), (1, 2))
    once, twice = np.concatenate(seen[::2]), np.concatenate(seen[1::2])
    # Both mirror an image, or neither, in half of the cases.
    assert 0.3 < np.mean(once ^ twice) < 0.7
    assert 0.3 < np.mean(twice) < 0.7


def test_groups_need_a_transform_of_a_seed_and_a_number():
    for groups in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match='`groups` must be a positive integer'):
            augment.in_groups(augment.random_flip, groups)
    with pytest.raises(ValueError, match=r'`transform` must take images .* needs epoch, indices'):
        augment.in_groups(augment.alternating_flip)


# Alternating flips, and transforms that need the context of the training.


def mirrored(result):
    return result[:, 0, 0, 1] == 2


def test_alternating_flip_alternates(run):
    images = coordinates(40, 1, 3)
    indices = np.arange(100, 140, dtype='int32')
    first, second, third, next_run = (
        mirrored(
            run(
                lambda x, i, e, s: augment.alternating_flip(x, None, e[0], i, s),
                images,
                indices,
                np.full(40, epoch, 'int32'),
                np.array([seed, 1], 'int32'),
            )
        )
        for epoch, seed in [(0, 5), (1, 5), (6, 5), (0, 6)]
    )
    np.testing.assert_array_equal(first, ~second)
    np.testing.assert_array_equal(first, third)
    assert 10 < first.sum() < 30
    assert 5 < (first ^ next_run).sum() < 35
    coins = augment.alternating_flip(images, None, 0, indices, (5, 1))
    np.testing.assert_array_equal(first, mirrored(coins))  # the same coins everywhere


def flips(run_seed, count=50_000):
    images = coordinates(1, 1, 3).repeat(count, 0)
    return mirrored(augment.alternating_flip(images, None, 0, np.arange(count), run_seed))


def test_its_coins_are_fair_and_independent():
    """Of neighbours, of runs with neighbouring seeds, and of images far apart."""
    coins = [flips((seed, 1)) for seed in range(4)]
    for coin in coins:
        assert_uniform(coin, 2)
        for distance in (1, 2, 256, 1000):
            assert_uniform(coin[distance:] ^ coin[:-distance], 2)
    for other in coins[1:]:
        assert_uniform(coins[0] ^ other, 2)


def test_an_images_coin_does_not_depend_on_its_batch():
    images, indices = coordinates(6, 1, 3), np.array([3, 9, 1, 0, 700, 2])
    whole = augment.alternating_flip(images, (0, 1), 0, indices, (0, 1))
    for n, index in enumerate(indices):
        alone = augment.alternating_flip(images[:1], (7, 7), 0, np.array([index]), (0, 1))
        np.testing.assert_array_equal(alone[0], whole[n])


def test_a_chain_needs_the_context_of_its_parts():
    def note(images, seed, indices):
        seen.append((seed, indices))
        return images

    seen = []
    chain = augment.compose([partial(augment.random_flip), note, augment.alternating_flip])
    assert augment.context_arguments(chain) == augment.context_arguments(augment.alternating_flip)
    assert augment.context_arguments(chain) == ('epoch', 'indices', 'run_seed')
    assert augment.context_arguments(note) == ('indices',)
    images = coordinates(4, 1, 3)
    outer = augment.compose([chain])  # chains of chains, too
    result = outer(images, (1, 2), 3, np.arange(4), (5, 6))
    expected = augment.random_flip(images, augment.fold(augment.fold((1, 2), 0), 0))
    run_seed = augment.fold(augment.fold((5, 6), 0), 2)
    expected = augment.alternating_flip(expected, None, 3, np.arange(4), run_seed)
    np.testing.assert_array_equal(result, expected)
    ((seed, indices),) = seen
    np.testing.assert_array_equal(seed, augment.fold(augment.fold((1, 2), 0), 1))
    np.testing.assert_array_equal(indices, np.arange(4))
    plain = augment.compose([augment.random_flip])
    assert augment.context_arguments(plain) == ()


def test_what_a_partial_binds_is_bound():
    """The training's epoch took the place of the one that was bound."""

    def note(images, seed, epoch):
        seen.append(epoch)
        return images

    def further(images, labels, seed):
        return images, labels

    seen = []
    bound = partial(note, epoch=7)
    bound.name = 'with an attribute, which keeps partials apart'
    images = coordinates(4, 1, 3)
    for transform in (bound, partial(bound)):
        assert augment.context_arguments(transform) == ()
        augment.with_context(transform)(images, (1, 2), 3, np.arange(4), (5, 6))
        augment.apply(transform)(images, (1, 2))
    assert seen == [7] * 4
    flip = partial(augment.alternating_flip, indices=np.arange(4))
    assert augment.context_arguments(flip) == ('epoch', 'run_seed')
    assert not augment.takes_labels(partial(further, labels=None))


def test_a_callable_without_a_signature_needs_no_context():
    assert augment.context_arguments(dict) == ()
    assert augment.with_context(max)(3, 4, 0, None, None) == 4


# Draws for transforms of one's own.


def test_draws_are_uniform_and_the_same_everywhere(run):
    images = np.zeros((4000, 1, 1, 1), 'float32')
    for seed in ([5, 6], augment.fold((5, 6), np.arange(4000))):
        seed = np.array(seed, 'int32')
        expected = augment.draw(images, seed, n=1, low=-2, high=3)
        if len(seed) == 2:
            result = run(lambda x, s: augment.draw(x, s, n=1, low=-2, high=3), images, seed)
            np.testing.assert_allclose(result, expected, atol=1e-6)
            result = run(lambda x, s: augment.draw_integers(x, s, count=9), images, seed)
            np.testing.assert_array_equal(result, augment.draw_integers(images, seed, count=9))
        assert expected.dtype == np.float32
        assert expected.min() >= -2
        assert expected.max() < 3
        assert_uniform(np.floor(expected) + 2, 5)
        assert_uniform(augment.draw_integers(images, seed, count=9), 9)
        assert_uniform(augment.draw_integers(images, seed), 2)


def test_draws_of_other_numbers_and_images_are_independent():
    images = np.zeros((4000, 1, 1, 1), 'float32')
    first, second = (augment.draw_integers(images, (1, 2), n, 5) for n in range(2))
    assert_uniform(first * 5 + second, 25)
    assert_uniform(first[1:] * 5 + first[:-1], 25)


def test_an_empty_range_draws_its_bound():
    images = np.zeros((4, 1, 1, 1), 'float32')
    np.testing.assert_array_equal(augment.draw(images, (1, 2), low=0.5, high=0.5), 0.5)
    np.testing.assert_array_equal(augment.draw_integers(images, (1, 2), count=1), 0)


def test_compositions_can_be_pickled():
    images = pixels(batch=8, height=8, width=8)
    context = ((5, 6), 1, np.arange(8), (7, 8))
    grouped = augment.in_groups(partial(augment.random_crop, padding=2))
    for transform in (
        AUGMENT,
        augment.compose([AUGMENT, augment.alternating_flip]),
        grouped,
        augment.with_context(AUGMENT),
        augment.compose([augment.compose([grouped])]),
    ):
        copy = pickle.loads(pickle.dumps(transform))
        arguments = context if augment.context_arguments(transform) else context[:1]
        np.testing.assert_array_equal(copy(images, *arguments), transform(images, *arguments))

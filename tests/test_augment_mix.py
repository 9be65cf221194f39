"""Mixup and cutmix: images and labels together, their draws, the same on every framework."""

import numpy as np
import pytest
from augment_runners import COMPILED_LATER, RUNNERS, pixels

from fenwicks import augment
from fenwicks.augment.mix import beta_quantiles


@pytest.fixture(params=COMPILED_LATER)
def run(request):
    return RUNNERS[request.param]


def one_hot(count):
    return np.eye(count, dtype='float32')


def test_mixup_is_its_formula():
    images, labels = pixels(4), one_hot(4)
    partner, share = np.array([1, 0, 3, 3]), np.array([1, 0.75, 0, 0.5], 'float32')
    mixed, mixed_labels = augment.mixup(images, labels, partner, share)
    for i in range(4):
        expected = share[i] * images[i] + (1 - share[i]) * images[partner[i]]
        np.testing.assert_allclose(mixed[i], expected, rtol=1e-6)
        expected = share[i] * labels[i] + (1 - share[i]) * labels[partner[i]]
        np.testing.assert_allclose(mixed_labels[i], expected)
    np.testing.assert_array_equal(mixed[0], images[0])
    np.testing.assert_array_equal(mixed[2], images[3])


def test_cutmix_replaces_a_rectangle():
    images, labels = pixels(3, 8, 8), one_hot(3)
    top, left = np.array([1, 0, -2]), np.array([2, 0, 6])
    height, width = np.array([3, 8, 4]), np.array([4, 8, 4])
    partner = np.array([1, 2, 0])
    mixed, mixed_labels = augment.cutmix(images, labels, partner, top, left, height, width)
    expected = images.copy()
    expected[0, 1:4, 2:6] = images[1, 1:4, 2:6]
    expected[1] = images[2]
    expected[2, :2, 6:] = images[0, :2, 6:]  # the border cuts it to 2 x 2
    np.testing.assert_array_equal(mixed, expected)
    shares = [1 - 12 / 64, 0, 1 - 4 / 64]
    for i, share in enumerate(shares):
        assert mixed_labels[i, i] == pytest.approx(share)
        assert mixed_labels[i, partner[i]] == pytest.approx(1 - share)
        assert mixed_labels[i].sum() == pytest.approx(1)


@pytest.mark.parametrize('transform', [augment.random_mixup, augment.random_cutmix])
def test_the_same_seed_gives_the_same_mixture_everywhere(run, transform):
    images, labels, seed = pixels(6), one_hot(6), np.array([5, -6], 'int32')
    expected = transform(images, labels, seed)
    for part in range(2):
        result = run(lambda x, y, s, part=part: transform(x, y, s)[part], images, labels, seed)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected[part], rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize('transform', [augment.random_mixup, augment.random_cutmix])
def test_labels_say_what_is_in_the_image(transform):
    """Images of one value each: the mean of a mixture tells the share of its two parts."""
    count = 64
    images = np.zeros((count, 16, 16, 1), 'float32') + np.arange(count)[:, None, None, None] ** 2
    mixed, labels = transform(images, one_hot(count), (3, 4))
    expected = labels @ (np.arange(count) ** 2)
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), expected, rtol=1e-4)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    assert (np.count_nonzero(labels, axis=1) <= 2).all()
    assert len(np.unique(labels.max(1))) > count / 2  # each image has a share of its own


def test_partners_are_the_other_images():
    images, labels = np.zeros((5, 1, 1, 1), 'float32'), one_hot(5)
    counts = np.zeros((5, 5))
    for step in range(400):
        _, mixed = augment.random_mixup(images, labels, augment.fold((1, 2), step), alpha=1.0)
        counts += mixed > 0
    np.testing.assert_array_equal(np.diag(counts), 400)
    others = counts[~np.eye(5, dtype=bool)]
    assert abs(others - 100).max() < 40


def test_a_batch_of_one_stays():
    images, labels = pixels(1), one_hot(1)
    for transform in (augment.random_mixup, augment.random_cutmix):
        mixed, mixed_labels = transform(images, labels, (1, 2))
        np.testing.assert_allclose(mixed, images, rtol=1e-6)
        np.testing.assert_allclose(mixed_labels, labels)


@pytest.mark.parametrize('alpha', [0.1, 0.2, 0.5, 1.0, 2.0, 10.0])
def test_shares_are_of_the_beta_distribution(alpha):
    images = np.zeros((40_000, 1, 1, 1), 'float32')
    share = augment.draw_beta(images, (3, 4), alpha=alpha)
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    drawn = np.random.default_rng(0).beta(alpha, alpha, 400_000)
    levels = np.linspace(0.02, 0.98, 49)
    np.testing.assert_allclose(
        np.quantile(beta_quantiles(alpha), levels), np.quantile(drawn, levels), atol=0.01
    )


def test_quantiles_by_closed_form():
    np.testing.assert_allclose(beta_quantiles(1.0), np.linspace(0, 1, 4097), atol=1e-6)
    # Beta(1/2, 1/2) is the arcsine distribution.
    expected = np.sin(np.pi / 2 * np.linspace(0, 1, 4097)) ** 2
    np.testing.assert_allclose(beta_quantiles(0.5), expected, atol=1e-5)


def test_cutmix_draws_any_place_and_size():
    images = np.zeros((4000, 16, 16, 1), 'float32')
    images[1::2] = 1
    mixed, labels = augment.random_cutmix(images, np.ones((4000, 1), 'float32'), (3, 4))
    changed = mixed[::2, :, :, 0] != 0
    assert 0.3 < changed.any((1, 2)).mean() < 0.6  # half of the partners are of the other value
    np.testing.assert_allclose(labels, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda x: augment.random_mixup(x, one_hot(5), (1, 2), alpha=0), '`alpha` must be'),
        (lambda x: augment.random_mixup(x, np.arange(5), (1, 2)), '`labels` must be floats'),
        (lambda x: augment.random_cutmix(x, one_hot(5).astype(int), (1, 2)), '`labels` must be'),
        (lambda x: augment.random_cutmix(x, one_hot(4), (1, 2)), '`labels` must be as many as'),
        (lambda x: augment.mixup(x, one_hot(5), np.zeros(5), np.ones(5)), '`partner` must hold'),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(pixels(5))


@pytest.mark.parametrize('alpha', [0.2, 1.0, 1.5, 8.0, 50.0, 2000.0])
def test_quantiles_have_the_variance_of_the_distribution(alpha):
    """Those of a large alpha were up to twice too wide, and then 0 and 1 alone."""
    table = beta_quantiles(alpha)
    low, high = table[:-1], table[1:]
    variance = ((low**2 + low * high + high**2) / 3).mean() - 0.25  # of lines between them
    assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.01)
    np.testing.assert_allclose(table, 1 - table[::-1], atol=1e-12)
    assert (np.diff(table) >= 0).all()


def test_a_partner_that_is_no_place_in_the_batch_is_counted_around():
    """JAX made labels of NaN of it; TensorFlow failed; NumPy took another image."""
    images, labels = np.arange(4, dtype='float32').reshape(4, 1, 1, 1), np.eye(4, dtype='float32')
    share = np.zeros(4, 'float32')
    mixed, _ = augment.mixup(images, labels, np.array([5, -1, 2, 3]), share)
    assert mixed.ravel().tolist() == [1, 3, 2, 3]

"""Statistics of images."""

import numpy as np
import pytest

from fenwicks import augment, data


def test_mean_std_matches_numpy():
    images = np.random.default_rng(0).integers(0, 256, (1203, 5, 6, 3), np.uint8)
    images[..., 1] = 255  # the largest sums there can be, and no spread
    mean, std = data.mean_std(images)
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    expected = images.std(axis=(0, 1, 2))
    assert expected[1] < 1e-6
    np.testing.assert_allclose(std, [expected[0], 1.0, expected[2]], rtol=1e-12)


def test_a_constant_channel_is_normalised_by_one(caplog):
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 4), np.uint8)
    images[..., 3] = 255  # an opaque alpha
    mean, std = data.mean_std(images)
    assert (mean[3], std[3]) == (255.0, 1.0)
    assert 'channels [3] of the images never vary' in caplog.text
    normalized = augment.normalize(images, mean, std)
    np.testing.assert_array_equal(normalized[..., 3], 0)
    caplog.clear()
    data.mean_std(images[..., :3])
    assert caplog.text == ''


def test_mean_std_of_bad_images():
    with pytest.raises(ValueError, match='must be uint8'):
        data.mean_std(np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match='must not be empty'):
        data.mean_std(np.zeros((0, 4, 4, 3), np.uint8))

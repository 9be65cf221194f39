"""Statistics of images."""

import numpy as np
import pytest

from fenwicks import data


def test_mean_std_matches_numpy():
    images = np.random.default_rng(0).integers(0, 256, (1203, 5, 6, 3), np.uint8)
    images[..., 1] = 255  # the largest sums there can be, and no spread
    mean, std = data.mean_std(images)
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)), rtol=1e-9, atol=1e-6)


def test_mean_std_of_bad_images():
    with pytest.raises(ValueError, match='must be uint8'):
        data.mean_std(np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match='must not be empty'):
        data.mean_std(np.zeros((0, 4, 4, 3), np.uint8))

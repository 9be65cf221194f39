"""Photometric transforms: closed forms, extremes, the same on every framework and compiler."""

import numpy as np
import pytest
from augment_runners import EAGER, RUNNERS, assert_uniform, pixels

from fenwicks import augment


@pytest.fixture(params=RUNNERS)
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

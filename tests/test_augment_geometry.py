"""Affine transforms, crops that are resized and the symmetries of the square, by closed forms."""

import numpy as np
import pytest
from augment_runners import RUNNERS, assert_uniform, coordinates, pixels
from PIL import Image

from fenwicks import augment
from fenwicks.augment import boxes


def bilinear(image, x, y, padding='nearest', fill=0.0):
    """One image at places in pixels from its centre, pixel by pixel, in float64."""
    height, width, channels = image.shape
    result = np.zeros((*x.shape, channels))
    for place in np.ndindex(x.shape):
        column, row = x[place] + (width - 1) / 2, y[place] + (height - 1) / 2
        for i in (int(np.floor(row)), int(np.floor(row)) + 1):
            for j in (int(np.floor(column)), int(np.floor(column)) + 1):
                weight = (1 - abs(row - i)) * (1 - abs(column - j))
                result[place] += weight * pixel(image, i, j, padding, fill)
    return result


def pixel(image, i, j, padding, fill):
    if padding == 'reflect':
        places = [np.pad(np.arange(n), 40 * n, mode='reflect') for n in image.shape[:2]]
        return image[places[0][i + 40 * image.shape[0]], places[1][j + 40 * image.shape[1]]]
    inside = 0 <= i < image.shape[0] and 0 <= j < image.shape[1]
    if padding == 'constant' and not inside:
        return fill
    return image[np.clip(i, 0, image.shape[0] - 1), np.clip(j, 0, image.shape[1] - 1)]


@pytest.mark.parametrize('padding', ['reflect', 'nearest', 'constant'])
def test_affine_is_bilinear_interpolation(padding):
    images = pixels(3, 6, 5)
    matrices = np.tile(np.eye(3), (3, 1, 1))
    matrices[:, :2] += np.random.default_rng(0).normal(0, 0.5, (3, 2, 3))
    matrices[2, :2, 2] = 17.3, -23.6  # far outside
    y, x = np.mgrid[:6, :5] - np.array([2.5, 2.0])[:, None, None]
    fill = 3.5 if padding == 'constant' else 0.0
    result = augment.affine(images, matrices, padding, fill)
    for image, matrix, found in zip(images, matrices, result, strict=True):
        (a, b, c), (d, e, f), _ = matrix
        expected = bilinear(image, a * x + b * y + c, d * x + e * y + f, padding, fill)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)


def test_the_identity_is_exact():
    images = pixels(2, 8, 7)
    zero, one = np.zeros(2), np.ones(2)
    for result in (
        augment.rotate(images, zero),
        augment.zoom(images, one),
        augment.shear(images, zero, zero),
        augment.shift(images, zero, zero),
        augment.random_affine(images, (1, 2), rotate=0, zoom=1),
        augment.random_affine(images, (1, 2), shear=1, shift=1, probability=0),
    ):
        np.testing.assert_array_equal(result, images)


def test_quarters_of_a_turn():
    images = pixels(4, 8, 8)
    result = augment.rotate(images, np.array([90.0, 180, -90, 360]))
    expected = [np.rot90(x, k) for x, k in zip(images, (1, 2, 3, 0), strict=True)]
    np.testing.assert_allclose(result, expected, atol=0.01)


def test_shifts_of_whole_pixels():
    images = pixels(3, 8, 8)
    x, y = np.array([2.0, 0, -3]), np.array([0.0, 1, -2])
    result = augment.shift(images, x, y, 'constant')
    np.testing.assert_array_equal(result[0, :, 2:], images[0, :, :-2])
    np.testing.assert_array_equal(result[0, :, :2], 0)
    np.testing.assert_array_equal(result[1, 1:], images[1, :-1])
    np.testing.assert_array_equal(result[2, :-2, :-3], images[2, 2:, 3:])
    reflected = augment.shift(images, x, y)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode='reflect')
    np.testing.assert_array_equal(reflected[2], padded[2, 6:14, 7:15])


def test_zoom_by_two_shows_the_middle_half():
    images = coordinates(1, 9, 9)
    result = augment.zoom(images, np.array([2.0]))
    np.testing.assert_allclose(result[0, :, 0, 0], 2 + np.arange(9) / 2, atol=1e-5)
    np.testing.assert_allclose(result[0, 0, :, 1], 2 + np.arange(9) / 2, atol=1e-5)


def test_shear_moves_pixels_in_proportion():
    images = coordinates(1, 5, 5)
    result = augment.shear(images, np.array([1.0]), np.array([0.0]), 'nearest')
    expected = np.clip(np.arange(5)[None] + np.arange(-2, 3)[:, None], 0, 4)
    np.testing.assert_allclose(result[0, ..., 1], expected, atol=1e-5)


def test_composed_matrices_apply_the_last_first():
    images = pixels(2, 8, 8)
    turn, move = np.array([90.0, 90]), np.array([2.0, -1])
    flip = augment.flip_matrix(np.array([True, False]))
    matrices = augment.compose_matrices(
        flip, augment.rotation_matrix(turn), augment.shift_matrix(move, 0 * move)
    )
    expected = augment.rotate(augment.shift(images, move, 0 * move), turn)
    expected = augment.flip(expected, np.array([True, False]))
    np.testing.assert_allclose(augment.affine(images, matrices), expected, atol=0.05)


def test_random_affine_draws_within_its_limits():
    images = coordinates(3000, 11, 11)
    # Where a place was read from, at the centre and one pixel to its right.
    result = augment.random_affine(images, (3, 4), rotate=30, zoom=1)
    centre, right = result[:, 5, 5, ::-1], result[:, 5, 6, ::-1]
    np.testing.assert_allclose(centre, 5, atol=1e-4)
    dx, dy = (right - centre).T
    angle = np.degrees(np.arctan2(dy, dx))
    assert -30 <= angle.min() < -29.5
    assert 29.5 < angle.max() <= 30
    assert_uniform(np.floor((angle + 30) / 60 * 4.9999), 5)
    result = augment.random_affine(images, (3, 4), rotate=0, zoom=2)
    factor = 1 / (result[:, 5, 6, 1] - result[:, 5, 5, 1])
    assert 1 <= factor.min() < 1.01
    assert 1.99 < factor.max() <= 2.001
    result = augment.random_affine(images, (3, 4), rotate=0, zoom=1, shift=0.2)
    moved = result[:, 5, 5] - 5
    assert np.abs(moved).max() <= 2.2 + 1e-4
    assert (np.abs(moved).max(0) > 2.15).all()
    result = augment.random_affine(images, (3, 4), rotate=0, zoom=1, shift=0.2, probability=0.25)
    assert 0.22 < (np.abs(result[:, 5, 5] - 5).max(-1) > 1e-4).mean() < 0.49


def test_flips_in_the_resampling_are_fair():
    images = coordinates(3000, 5, 5)
    result = augment.random_affine(images, (3, 4), rotate=0, zoom=1, flip=True)
    flipped = result[:, 0, 0, 1] > 2
    assert_uniform(flipped, 2)
    np.testing.assert_allclose(result, augment.flip(images, flipped), atol=1e-5)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda x: augment.random_affine(x, (1, 2), rotate=-1), '`rotate` must be .*rotate=-1'),
        (lambda x: augment.random_affine(x, (1, 2), zoom=0.5), '`zoom` must be .*zoom=0.5'),
        (lambda x: augment.random_affine(x, (1, 2), probability=2), '`probability` must .*=2'),
        (lambda x: augment.random_rotate(x, (1, 2), -5), '`degrees` must be .*degrees=-5'),
        (lambda x: augment.random_zoom(x, (1, 2), 0.5), '`factor` must be .*factor=0.5'),
        (lambda x: augment.random_shear(x, (1, 2), -1), '`amount` must be .*amount=-1'),
        (lambda x: augment.random_shift(x, (1, 2), -1), '`fraction` must be .*fraction=-1'),
        (lambda x: augment.rotate(x, np.zeros(3)), '`degrees` must hold one float per image'),
        (lambda x: augment.rotate(x, np.zeros(2), 'wrap'), '`padding` must be one of .*=wrap'),
        (lambda x: augment.affine(x, np.eye(3)), r'`matrices` must hold one for each image'),
        (lambda x: augment.rotate_90(x[:, 1:], np.zeros(2, 'int32')), '`images` must be square'),
        (lambda x: augment.rotate_90(x, np.zeros(2)), '`turns` must hold one int per image'),
        (lambda x: augment.central_crop(x, 9, 8), r'`height` must be in \[1, 8\].*height=9'),
        (lambda x: augment.random_resized_crop(x, (1, 2), 0, 8), '`height` must be a positive'),
        (lambda x: augment.random_resized_crop(x, (1, 2), 8, 8, area=(0, 2)), '`area` must be'),
        (lambda x: augment.random_resized_crop(x, (1, 2), 8, 8, ratio=(2, 1)), '`ratio` must be'),
        (lambda x: augment.random_resized_crop(x, (1, 2), 8, 8, ratio=(0, 1)), '`ratio` must be'),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(pixels(2, 8, 8))


def test_vertical_flips():
    images, mask = pixels(), np.array([True, False, False, True, True])
    result = augment.flip_vertical(images, mask)
    np.testing.assert_array_equal(result[mask], images[mask][:, ::-1])
    np.testing.assert_array_equal(result[~mask], images[~mask])


def test_rotate_90_is_numpys():
    images, turns = pixels(9, 6, 6), np.arange(-3, 6)
    expected = [np.rot90(x, k) for x, k in zip(images, turns, strict=True)]
    np.testing.assert_array_equal(augment.rotate_90(images, turns), expected)


def test_the_eight_symmetries_are_a_group():
    image = pixels(1, 4, 4)
    views = augment.dihedral(np.repeat(image, 8, 0), np.arange(8))
    assert len(np.unique(views, axis=0)) == 8
    np.testing.assert_array_equal(views[0], image[0])
    for first in range(8):  # any two after one another are one of the eight
        twice = augment.dihedral(views, np.full(8, first))
        assert len(np.unique(np.concatenate([views, twice]), axis=0)) == 8


def test_symmetries_are_drawn_uniformly():
    image = pixels(1, 3, 3)
    for transform, count in (
        (augment.random_dihedral, 8),
        (augment.random_rotate_90, 4),
        (augment.random_flip_vertical, 2),
    ):
        result = transform(np.repeat(image, 4000, 0), (3, 4)).reshape(4000, -1)
        _, kinds = np.unique(result, axis=0, return_inverse=True)
        counts = np.bincount(kinds.ravel())
        assert len(counts) == count
        assert abs(counts - 4000 / count).max() < 4 * (4000 / count) ** 0.5


# Crops that are resized.


def test_crop_and_resize_is_pillows():
    images = np.random.default_rng(0).uniform(size=(5, 20, 16, 3)).astype('float32')
    top, left = np.array([0, 3, 10, 19, 0]), np.array([0, 5, 0, 15, 2])
    height, width = np.array([20, 9, 10, 1, 7]), np.array([16, 11, 5, 1, 14])
    result = augment.crop_and_resize(images, top, left, height, width, 8, 12)
    for i in range(5):
        box = images[i, top[i] : top[i] + height[i], left[i] : left[i] + width[i]]
        for channel in range(3):
            image = Image.fromarray(np.ascontiguousarray(box[..., channel]))
            expected = np.asarray(image.resize((12, 8), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(result[i, ..., channel], expected, atol=1e-5)


def test_random_resized_crop_draws_area_shape_and_place():
    images = coordinates(4000, 100, 80)
    result = augment.random_resized_crop(images, (3, 4), 2, 2, area=(0.1, 0.5), ratio=(0.5, 2))
    # The means of two halves of a box: their distance is half a side (the filter is wider).
    centre = result.mean((1, 2))
    assert (centre >= 0).all()
    assert (centre <= [99, 79]).all()
    box = boxes.random_box(images, (3, 4), 100, 80, (0.1, 0.5), (0.5, 2))
    top, left, height, width = box
    assert ((top >= 0) & (top + height <= 100) & (left >= 0) & (left + width <= 80)).all()
    np.testing.assert_allclose(
        centre, np.stack([top, left], 1) + (np.stack([height, width], 1) - 1) / 2, atol=0.6
    )
    share, ratio = height * width / 8000, height / width
    assert share.min() > 0.095
    assert share.max() < 0.51
    assert ratio.min() > 0.49
    assert ratio.max() < 2.05


def test_the_whole_image_may_be_the_crop():
    images = pixels(3, 9, 9)
    result = augment.random_resized_crop(images, (1, 2), 9, 9, area=(1, 1), ratio=(1, 1))
    np.testing.assert_allclose(result, images, rtol=1e-6)


def test_a_central_crop():
    images = pixels(2, 9, 8).astype('uint8')
    np.testing.assert_array_equal(augment.central_crop(images, 5, 4), images[:, 2:7, 2:6])
    np.testing.assert_array_equal(augment.central_crop(images, 9, 8), images)
    np.testing.assert_array_equal(augment.central_part(images, 0.55), images[:, 2:7, 2:6])
    assert augment.central_part(images, 0.01).shape[1:3] == (1, 1)


# Padding.


@pytest.mark.parametrize('mode', ['reflect', 'symmetric', 'constant'])
@pytest.mark.parametrize('padding', [0, 1, 3])
def test_paddings_are_numpys(mode, padding):
    images = pixels(2, 6, 5)
    expected = np.pad(images, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), mode=mode)
    for run in (RUNNERS['numpy'], RUNNERS['tf'], RUNNERS['jax']):
        result = run(lambda x: augment.pad(x, padding, mode), images)
        np.testing.assert_array_equal(result, expected)


def test_random_crops_of_each_padding():
    images = pixels(6, 8, 8)
    for mode in ('reflect', 'symmetric', 'constant'):
        result = augment.random_crop(images, (1, 2), padding=3, mode=mode)
        padded = augment.pad(images, 3, mode)
        windows = [padded[:, t : t + 8, n : n + 8] for t in range(7) for n in range(7)]
        for i in range(6):
            assert any(np.array_equal(result[i], window[i]) for window in windows)
    assert augment.random_crop(images, (1, 2), padding=20, mode='constant').shape == images.shape


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((9, 'symmetric'), r'`padding` must be in \[0, 8\].*padding=9'),
        ((-1, 'constant'), '`padding` must be an integer.*padding=-1'),
        ((1, 'edge'), '`mode` must be one of reflect, symmetric, constant.*mode=edge'),
    ],
)
def test_bad_padding(arguments, message):
    with pytest.raises(ValueError, match=message):
        augment.pad(pixels(2, 8, 8), *arguments)

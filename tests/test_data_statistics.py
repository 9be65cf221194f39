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


def test_an_interrupt_leaves_the_statistics_of_the_parts_before():
    class Interrupted(np.ndarray):
        def __getitem__(self, index):
            if isinstance(index, slice) and index.start:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    images = np.full((1500, 1, 1, 1), 100, np.uint8)
    statistics = data.ChannelStatistics()
    statistics.update(np.zeros((10, 1, 1, 1), np.uint8))
    with pytest.raises(KeyboardInterrupt):
        statistics.update(images.view(Interrupted))
    statistics.update(images)
    mean, _ = statistics.mean_std()
    np.testing.assert_allclose(mean, [100 * 1500 / 1510])


def test_statistics_in_parts_are_those_of_the_whole(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (257, 5, 6, 3), np.uint8)
    expected = data.mean_std(images)
    np.save(tmp_path / 'images.npy', images)
    for parts in (np.split(images, [1, 100, 200]), [np.load(tmp_path / 'images.npy', 'r')]):
        statistics = data.ChannelStatistics()
        for part in parts:
            statistics.update(part)
        assert statistics.count == 257 * 30
        np.testing.assert_array_equal(statistics.mean_std(), expected)
    exact = images.reshape(-1, 3).astype(object)
    mean = exact.sum(axis=0) / len(exact)
    np.testing.assert_array_equal(expected[0], mean.astype(float))


def test_sums_of_very_many_images_are_exact():
    statistics = data.ChannelStatistics()
    statistics.update(np.full((1, 1, 1, 1), 255, np.uint8))
    for _ in range(60):  # as if 2**60 images had come: no 64 bits hold their squares' sum
        statistics.count *= 2
        statistics._total[0] *= 2
        statistics._squares[0] *= 2
    statistics.update(np.full((1, 1, 1, 1), 254, np.uint8))
    mean, std = statistics.mean_std()
    assert mean[0] == 255
    np.testing.assert_allclose(std, 2.0**-30, rtol=1e-6)


def test_large_images_are_summed_exactly():
    images = np.full((3, 1500, 1500, 3), 255, np.uint8)
    images[0, 0, 0] = 0
    mean, std = data.mean_std(images)
    count = 3 * 1500 * 1500
    np.testing.assert_allclose(mean, 255 * (count - 1) / count, rtol=1e-15)
    np.testing.assert_allclose(std, 255 * np.sqrt(count - 1) / count, rtol=1e-12)


def test_statistics_of_nothing_and_of_other_channels():
    statistics = data.ChannelStatistics()
    with pytest.raises(ValueError, match='Received: none'):
        statistics.mean_std()
    statistics.update(np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r'must have 3 channels.*Received: 1'):
        statistics.update(np.zeros((1, 2, 2, 1), np.uint8))


def test_class_counts():
    assert data.class_counts(np.array([1, 1, 0], np.uint8), ['a', 'b']) == {'a': 1, 'b': 2}
    assert data.class_counts(np.array([], int), ['a', 'b']) == {'a': 0, 'b': 0}
    for labels, names, message in (
        ([2], ['a', 'b'], r'must be in \[0, 2\)'),
        ([0.5], ['a', 'b'], 'must be integers'),
        ([0], ['a', 'a'], '`class_names` must differ'),
    ):
        with pytest.raises(ValueError, match=message):
            data.class_counts(labels, names)

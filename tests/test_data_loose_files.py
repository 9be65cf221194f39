"""Streams of image files by tf.data: whole, shuffled, shared, damaged."""

import logging

import numpy as np
import pytest
from PIL import Image

from fenwicks import augment, data

tf = pytest.importorskip('tensorflow')


@pytest.fixture(name='images')
def _images(tmp_path):
    """22 pictures of two classes, whose pixels all are their place in the list."""
    for number in range(22):
        folder = tmp_path / 'pictures' / 'ab'[number // 11]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4), (number,) * 3).save(folder / f'{number:02}.png')
    return data.ImageList.from_folders(tmp_path / 'pictures')


def stream(images, batch_size=5, **options):
    return data.files_dataset(images, batch_size, (4, 4), **options)


def flat(batches):
    return [number for batch in batches for number in batch]


def numbers_of(dataset):
    found = []
    for pixels, labels in dataset:
        numbers = pixels.numpy()[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(labels, numbers >= 11)
        assert (pixels.dtype, labels.dtype) == (tf.float32, tf.int32)
        found.append(numbers.tolist())
    return found


def test_evaluation_is_whole_and_in_order(images):
    dataset = stream(images)
    assert len(dataset) == 5
    for _ in range(2):
        batches = numbers_of(dataset)
        assert [len(batch) for batch in batches] == [5, 5, 5, 5, 2]
        assert flat(batches) == list(range(22))
    assert flat(numbers_of(stream(images, indices=[7, 3]))) == [7, 3]


def test_training_is_shuffled_anew_by_seed(images):
    def passes(seed):
        dataset = stream(images, shuffle=True, drop_remainder=True, seed=seed)
        assert len(dataset) == 4
        assert dataset.element_spec[0].shape.as_list() == [5, 4, 4, 3]
        return [flat(numbers_of(dataset)) for _ in range(2)]

    first, second = passes(0)
    assert first != second
    assert len(set(first)) == 20
    assert passes(0) == [first, second]
    assert passes(1)[0] != first


def test_processes_share_a_pass(images):
    def of(drop_remainder):
        return [
            flat(
                numbers_of(
                    stream(
                        images,
                        batch_size=2,
                        shuffle=True,
                        drop_remainder=drop_remainder,
                        process_index=process,
                        process_count=3,
                    )
                )
            )
            for process in range(3)
        ]

    assert sorted(flat(of(False))) == list(range(22))
    assert [len(part) for part in of(True)] == [6, 6, 6]


def test_pixels_are_those_of_decode_images_and_are_augmented_by_seed(tmp_path, images):
    settings = {'image_size': (3, 5), 'fit': 'pad', 'channels': 1}
    (decoded,) = (
        data.decode_images(images, **settings, cache_dir=tmp_path, show_progress=False).images,
    )
    streamed = np.concatenate([x for x, _ in data.files_dataset(images, 8, **settings)])
    np.testing.assert_array_equal(streamed, decoded)

    def drawn(seed):
        batches = stream(images, augment=augment.random_jitter, seed=seed)
        return np.concatenate([x for x, _ in batches])

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).any()


def test_damage_is_named_or_counted(images, caplog):
    (images.root / 'a' / '03.png').write_bytes(b'no picture')
    (images.root / 'a' / '05.png').unlink()
    with pytest.raises(tf.errors.OpError, match=r'a/03\.png'):
        numbers_of(stream(images))
    with caplog.at_level(logging.WARNING, 'fenwicks'):
        numbers = flat(numbers_of(stream(images, skip_damaged=True)))
    assert numbers == [number for number in range(22) if number not in (3, 5)]
    assert '2 damaged images are left out' in caplog.text


def test_images_without_labels(images):
    (batch,) = stream(data.ImageList.unlabelled(images.root), batch_size=50)
    assert batch.shape == (22, 4, 4, 3)


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        ({'batch_size': 23, 'drop_remainder': True}, '`batch_size` must be at most the 22 images'),
        ({'batch_size': 0}, '`batch_size` must be a positive integer'),
        ({'indices': [22]}, r'`indices` must be at least one integer in \[0, 22\)'),
        ({'indices': []}, '`indices` must be'),
        ({'seed': -1}, '`seed` must be an integer in'),
        ({'process_index': 2, 'process_count': 2}, '`process_index` must be an integer in'),
    ],
)
def test_bad_arguments_are_one_line(images, options, line):
    with pytest.raises(ValueError, match=line) as raised:
        stream(images, **options)
    assert '\n' not in str(raised.value)

"""Streams of TFRecord shards by tf.data: whole, shuffled, shared, damaged, in `fit`."""

import logging

import keras
import numpy as np
import pytest
from test_data_images import file_of, picture

from fenwicks import augment, data
from fenwicks.data.example import encode_example
from fenwicks.data.tfrecord import RecordError, count_records, write_records

tf = pytest.importorskip('tensorflow')


@pytest.fixture(name='pattern')
def _pattern(tmp_path):
    """Four shards of 22 images whose pixels all are their number, which is their label too."""
    pixels = np.arange(22, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    names = tuple(map(str, range(22)))
    arrays = data.ImageArrays(pixels, np.arange(22), names)
    data.write_shards(arrays, tmp_path, shards=4, show_progress=False)
    return f'{tmp_path}/images-*'


def stream(pattern, batch_size=5, **options):
    return data.shard_dataset(pattern, batch_size, (4, 4), **options)


def labels_of(dataset):
    found = []
    for images, labels in dataset:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        assert images.dtype == tf.float32
        assert labels.dtype == tf.int32
        found.append(labels.numpy().tolist())
    return found


def flat(batches):
    return [label for batch in batches for label in batch]


def test_evaluation_is_whole_and_in_order(pattern, tmp_path):
    dataset = stream(pattern)
    assert len(dataset) == 5
    batches = labels_of(dataset)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 2]
    decoded = data.decode_shards(pattern, (4, 4), cache_dir=tmp_path / 'c', show_progress=False)
    assert flat(batches) == decoded.labels.tolist()
    assert flat(labels_of(dataset)) == flat(batches)


@pytest.mark.parametrize('buffer', [1, 3, 1000])
def test_training_is_shuffled_anew_by_seed(pattern, buffer):
    def passes(seed):
        dataset = stream(pattern, shuffle=True, drop_remainder=True, seed=seed, buffer=buffer)
        assert len(dataset) == 4
        assert dataset.element_spec[0].shape.as_list() == [5, 4, 4, 3]
        return [flat(labels_of(dataset)) for _ in range(3)]

    first, again, other = map(passes, (1, 1, 2))
    assert first == again != other
    assert first[0] != first[1]
    assert all(len(set(labels)) == 20 for labels in first)
    whole = stream(pattern, shuffle=True, buffer=buffer)
    assert sorted(flat(labels_of(whole))) == list(range(22))


@pytest.mark.parametrize('count', [2, 3])
def test_processes_share_the_images(pattern, count):
    def shares(**options):
        return [
            labels_of(stream(pattern, 2, process_index=i, process_count=count, **options))
            for i in range(count)
        ]

    assert sorted(flat(flat(shares()))) == list(range(22))
    parts = shares(shuffle=True, drop_remainder=True)
    assert len({len(part) for part in parts}) == 1
    assert len(set(flat(flat(parts)))) == len(flat(flat(parts)))


def test_normalize_comes_before_augment_which_hears_of_its_context(pattern):
    def record(images, seed, epoch, indices):
        numbers = tf.cast(indices, tf.float32)[:, None, None, None]
        return images * 0 + numbers * 100 + images + tf.cast(epoch, tf.float32) * 10_000

    dataset = stream(pattern, normalize=lambda x: tf.cast(x, tf.float32) / 2, augment=record)
    for epoch in range(2):
        for images, labels in dataset:  # the index is that at `write_shards`
            expected = labels.numpy() * 100 + labels.numpy() / 2 + 10_000 * epoch
            np.testing.assert_allclose(images[:, 0, 0, 0], expected)


def test_the_packages_own_augmentations(pattern):
    chain = augment.compose([augment.random_crop, augment.alternating_flip])
    with pytest.raises(ValueError, match='padding'):
        next(iter(stream(pattern, augment=chain)))
    dataset = data.shard_dataset(pattern, 5, (8, 8), augment=chain, shuffle=True)
    (images, _), *_ = dataset
    assert images.shape == (5, 8, 8, 3)


def test_encoded_images_have_the_pixels_of_decode_shards(tmp_path):
    root = tmp_path / 'p'
    for number in range(9):
        path = root / 'ab'[number % 2] / f'{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(picture(40, 50, seed=number), 'jpeg'))
    data.write_shards(data.ImageList.from_folders(root), tmp_path / 's', 2, show_progress=False)
    pattern = tmp_path / 's' / '*.tfrecord'
    expected = data.decode_shards(
        pattern, (9, 8), 'pad', cache_dir=tmp_path / 'c', show_progress=False
    )
    dataset = data.shard_dataset(pattern, 4, (9, 8), fit='pad')
    images = np.concatenate([x.numpy() for x, _ in dataset])
    np.testing.assert_array_equal(images, expected.images)
    unlabelled = data.shard_dataset(pattern, 4, (9, 8), label_feature=None)
    assert [x.shape[0] for x in unlabelled] == [4, 4, 1]


def damage(pattern, position=40):
    path = next(iter(sorted(data.storage.find_files(pattern))))
    with open(path, 'r+b') as file:
        file.seek(position)
        value = file.read(1)
        file.seek(position)
        file.write(bytes([value[0] ^ 1]))
    return path


def test_damage_is_named_or_counted(pattern, caplog):
    path = damage(pattern)
    with pytest.raises(tf.errors.OpError, match=f'{path}: record 0 at byte 0: the checksum of its'):
        list(stream(pattern))
    with caplog.at_level(logging.WARNING):
        assert len(flat(labels_of(stream(pattern, skip_damaged=True)))) == 21
    assert '1 damaged image is left out' in caplog.text


def test_images_that_cannot_be_decoded(tmp_path):
    bad = [{'image': b'x', 'label': 1}, {'image': file_of(picture()), 'label': -1}]
    good = {'image': file_of(picture()), 'label': 1}
    write_records(tmp_path / 'x', map(encode_example, [good, *bad]))
    with pytest.raises(tf.errors.OpError, match='record 1: must be an image that can be read'):
        list(stream(tmp_path / 'x'))
    assert flat([y.numpy() for _, y in stream(tmp_path / 'x', skip_damaged=True)]) == [1]


def test_stock_fit(pattern):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(22)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile('sgd', loss)
    train = stream(pattern, shuffle=True, drop_remainder=True)
    history = model.fit(train, validation_data=stream(pattern), epochs=3, verbose=0, shuffle=False)
    assert np.isfinite(history.history['val_loss']).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'batch_size': 0}, '`batch_size` must be a positive integer'),
        ({'batch_size': 23, 'drop_remainder': True}, '`batch_size` must be at most the 22 images'),
        ({'seed': -1}, '`seed` must be'),
        ({'buffer': 0}, '`buffer` must be a positive integer'),
        ({'process_index': 1}, r'`process_index` must be an integer in \[0, 1\)'),
        ({'fit': 'x'}, '`fit` must be one of'),
    ],
)
def test_bad_arguments(pattern, options, message):
    with pytest.raises(ValueError, match=message):
        stream(pattern, **options)


def test_no_file_matches(tmp_path):
    with pytest.raises(FileNotFoundError, match='`pattern` must match files'):
        stream(f'{tmp_path}/*')


def test_records_are_counted_without_reading_them(tmp_path):
    write_records(tmp_path / 'a', [b'x' * n for n in range(7)])
    assert count_records(tmp_path / 'a') == 7
    raw = (tmp_path / 'a').read_bytes()
    for damaged in (raw[:-1], raw[:5], b'\x01' + raw[1:]):
        (tmp_path / 'a').write_bytes(damaged)
        with pytest.raises(RecordError, match=r'a: record .* at byte'):
            count_records(tmp_path / 'a')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shards', 'mapped file'])
def test_memory_is_flat_over_epochs(tmp_path, kind):
    psutil = pytest.importorskip('psutil', reason='measures memory')
    draw = np.random.default_rng(0)
    arrays = data.ImageArrays(draw.integers(0, 256, (3000, 32, 32, 3), np.uint8), np.arange(3000))
    data.write_shards(arrays, tmp_path, shards=4, show_progress=False)
    augmentation = augment.compose([augment.random_crop, augment.random_flip])
    options = {'shuffle': True, 'drop_remainder': True, 'augment': augmentation}
    if kind == 'shards':
        pattern = f'{tmp_path}/images-*'
        batches = data.shard_dataset(pattern, 100, (32, 32), buffer=500, **options)
    else:
        decoded = data.decode_shards(f'{tmp_path}/images-*', (32, 32), cache_dir=tmp_path / 'c')
        batches = data.ImageBatches(decoded.images, decoded.labels, 100, **options)

    def epochs(count):
        for _ in range(count):
            assert sum(len(labels) for _, labels in batches) == 3000
        return psutil.Process().memory_info().rss

    before = epochs(5)
    assert epochs(10) < 1.02 * before


def test_features_of_other_names_are_refused_at_once(tmp_path):
    record = encode_example({'img': b'x', 'label': 1})
    write_records(tmp_path / 'x-0', [record])
    with pytest.raises(ValueError, match=r"a feature 'image', .* Received: 'img', 'label'$"):
        stream(tmp_path / 'x-*')

"""TFRecord shards of images: written in parallel, continued, decoded, damaged."""

import dataclasses
import json
import os
import threading
import time

import numpy as np
import pytest
from test_data_decoded import folder_of
from test_data_images import file_of, picture, same

from fenwicks import data
from fenwicks.data import records, shards
from fenwicks.data.example import decode_example, encode_example
from fenwicks.data.tfrecord import RecordReader, write_records


@pytest.fixture(name='images')
def _images(tmp_path):
    return data.ImageList.from_folders(folder_of(tmp_path / 'pictures', 10))


def arrays(count=10):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return data.ImageArrays(pixels, np.arange(count) % 3, ('a', 'b', 'c'))


def decode(tmp_path, name='out/images-*', **options):
    return data.decode_shards(
        tmp_path / name, (8, 8), cache_dir=tmp_path / 'cache', show_progress=False, **options
    )


def test_files_go_through_shards_unchanged(images, tmp_path, capsys):
    paths = data.write_shards(images, tmp_path / 'out', shards=3)
    assert 'writing: 100%' in capsys.readouterr().err
    assert [path.name for path in paths] == [f'images-0000{n}-of-00003.tfrecord' for n in range(3)]
    assert set(os.listdir(tmp_path / 'out')) == {'images.json', *(path.name for path in paths)}
    first = decode_example(next(iter(RecordReader(paths[0]))))
    assert first['image'] == [images.files[0].read_bytes()]
    assert first['path'] == [os.fsencode(images.paths[0])]
    assert first['label'].tolist() == [0]
    found = decode(tmp_path)
    direct = data.decode_images(images, (8, 8), cache_dir=tmp_path / 'cache')
    order = [index for n in range(3) for index in range(n, 10, 3)]
    np.testing.assert_array_equal(found.images, direct.images[order])
    np.testing.assert_array_equal(found.labels, direct.labels[order])
    assert found.class_names == ('cat', 'dog')
    assert len(found.names) == 10


def test_arrays_go_through_shards_unchanged(tmp_path, monkeypatch):
    source = arrays()
    data.write_shards(source, tmp_path / 'out', shards=1)
    found = decode(tmp_path)
    np.testing.assert_array_equal(found.images, source.images)
    np.testing.assert_array_equal(found.labels, source.labels)
    assert found.class_names == source.class_names
    smaller = data.decode_shards(
        tmp_path / 'out' / '*.tfrecord', (4, 6), channels=1, cache_dir=tmp_path / 'cache'
    )
    assert smaller.image_shape == (4, 6, 1)
    monkeypatch.setattr(records, 'resize_image', lambda *_, **__: pytest.fail('decoded again'))
    np.testing.assert_array_equal(decode(tmp_path).images, source.images)


def test_tensorflow_reads_the_shards(tmp_path):
    tf = pytest.importorskip('tensorflow')
    source = arrays(5)
    (path,) = data.write_shards(source, tmp_path / 'out', shards=1)
    parse = {
        'image': tf.io.FixedLenFeature([], tf.string),
        'shape': tf.io.FixedLenFeature([3], tf.int64),
        'label': tf.io.FixedLenFeature([], tf.int64),
    }
    for number, record in enumerate(tf.data.TFRecordDataset(str(path))):
        features = tf.io.parse_single_example(record, parse)
        pixels = tf.reshape(tf.io.decode_raw(features['image'], tf.uint8), features['shape'])
        np.testing.assert_array_equal(pixels, source.images[number])
        assert int(features['label']) == source.labels[number]


def test_a_prefix_with_a_dash(tmp_path):
    data.write_shards(arrays(), tmp_path / 'out', shards=2, prefix='my-own images')
    assert decode(tmp_path, 'out/*.tfrecord').class_names == ('a', 'b', 'c')


def test_unlabelled_images(images, tmp_path):
    unlabelled = data.ImageList.unlabelled(images.root)
    data.write_shards(unlabelled, tmp_path / 'out', shards=2)
    found = decode(tmp_path, label_feature=None)
    assert found.labels is None
    assert len(found) == 10


def test_workers_make_no_difference(images, tmp_path):
    one = data.write_shards(images, tmp_path / 'one', shards=4, workers=1)
    four = data.write_shards(images, tmp_path / 'four', shards=4, workers=4)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in four]


def test_whole_shards_are_kept_after_an_interruption(images, tmp_path, monkeypatch):
    written = []

    def stop(path, records):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_records(path, records)

    monkeypatch.setattr(shards, 'write_records', stop)
    with pytest.raises(KeyboardInterrupt):
        data.write_shards(images, tmp_path / 'out', shards=4, workers=1)
    assert len(list((tmp_path / 'out').glob('*.tfrecord'))) == 2
    first = written.copy()
    written.clear()
    monkeypatch.setattr(
        shards, 'write_records', lambda path, _: written.append(path.name) or path.touch()
    )
    data.write_shards(images, tmp_path / 'out', shards=4)
    assert len(written) == 2
    assert not set(first) & set(written)


@pytest.mark.parametrize('groups', [['p1', 'ü', 'p1', ''], None])
def test_groups_go_through_shards(tmp_path, groups):
    """They were lost, and images of one group came on both sides of a split."""
    listed = None if groups is None else np.array(groups)
    for kind, source in (
        ('arrays', data.ImageArrays(arrays(4).images, np.arange(4), tuple('abcd'), groups=listed)),
        (
            'files',
            dataclasses.replace(
                data.ImageList.from_folders(folder_of(tmp_path / 'pictures', 4)), groups=listed
            ),
        ),
    ):
        data.write_shards(source, tmp_path / kind, shards=1, show_progress=False)
        for _ in range(2):
            found = decode(tmp_path, f'{kind}/images-*')
            assert (found.groups if groups is None else found.groups.tolist()) == groups
            assert found.labels.tolist() == source.labels.tolist()
        if groups is not None:
            other = dataclasses.replace(source, groups=listed[::-1])
            with pytest.raises(ValueError, match='the folder has shards of other images'):
                data.write_shards(other, tmp_path / kind, shards=1)


def test_shards_of_other_images_are_not_mixed(images, tmp_path):
    data.write_shards(images, tmp_path / 'out', shards=2)
    for other in (images.select(range(9)), arrays()):
        with pytest.raises(ValueError, match=r'images.json: the folder has shards of other images'):
            data.write_shards(other, tmp_path / 'out', shards=2)
    with pytest.raises(ValueError, match='has the same images in 2 shards'):
        data.write_shards(images, tmp_path / 'out', shards=3)
    data.write_shards(arrays(), tmp_path / 'out', shards=2, prefix='others')
    (tmp_path / 'out' / 'images.json').write_text('{')
    with pytest.raises(ValueError, match='must be the description of shards'):
        data.write_shards(images, tmp_path / 'out', shards=2)
    (tmp_path / 'out' / 'images.json').unlink()
    with pytest.raises(ValueError, match=r'has shards named images, but no images.json'):
        data.write_shards(images, tmp_path / 'out', shards=2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'shards': 0}, '`shards` must be a positive integer'),
        ({'shards': 11}, '`shards` must be at most the 10 images'),
        ({'prefix': ''}, '`prefix` must be a file name'),
        ({'prefix': 'a/b'}, '`prefix` must be a file name'),
        *(({'prefix': prefix}, '`prefix` must be a file') for prefix in ('i[0]', 'i?', 'i*', 3)),
        ({'workers': 0}, '`workers` must be a positive integer'),
    ],
)
def test_bad_arguments(images, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        data.write_shards(images, tmp_path / 'out', **options)


@pytest.mark.parametrize('folder', ['', 'new', 'cat', 'cat/new'])
def test_shards_among_the_pictures_are_refused(images, tmp_path, folder):
    """They were a class without images: the pictures could not be read again."""
    before = sorted(tmp_path.rglob('*'))
    folder = tmp_path / 'pictures' / folder
    with pytest.raises(
        ValueError, match='`folder` must lie outside of the folder of pictures'
    ) as caught:
        data.write_shards(images, folder)
    assert str(caught.value).endswith(f'Received: folder={folder}, in {tmp_path}/pictures')
    assert sorted(tmp_path.rglob('*')) == before


def test_shards_may_lie_beside_pictures_that_are_no_folders_of_classes(images, tmp_path):
    root = tmp_path / 'pictures'
    rows = ''.join(f'{path},{int(path < "cat/4")}\n' for path in images.paths)
    (root / 'labels.csv').write_text(f'file,kind\n{rows}')
    listed = data.ImageList.from_csv(root / 'labels.csv')
    for images in (listed, data.ImageList.unlabelled(root)):
        folder = root / f'shards{len(images.class_names)}'
        assert data.write_shards(images, folder, shards=1)[0].parent == folder
    assert data.ImageList.from_csv(root / 'labels.csv').paths == listed.paths


@pytest.mark.parametrize('reader', [data.decode_shards, data.streaming.shard_dataset])
def test_a_set_without_some_of_its_shards(images, tmp_path, reader):
    """The others were taken for the whole."""
    paths = data.write_shards(images, tmp_path / 'out', shards=4, show_progress=False)
    paths[2].unlink()
    options = {} if reader is data.decode_shards else {'batch_size': 2}
    for pattern in ('out/*', 'out/images-*.tfrecord', '**', 'out/images-*-of-00004.tfrecord'):
        with pytest.raises(FileNotFoundError, match=r'without .*/images-00002-of-00004.tfrecord$'):
            reader(tmp_path / pattern, image_size=(8, 8), **options)
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=r'/images-00001-of-00004.tfrecord and 1 more$'):
        reader(tmp_path / 'out' / '*', image_size=(8, 8), **options)


def test_a_description_beside_shards_is_no_shard(images, tmp_path):
    """It was read as one, and said to be damaged."""
    paths = data.write_shards(images, tmp_path, shards=2, show_progress=False)
    (tmp_path / 'labels.txt').write_text('cat')
    assert data.storage.find_files(tmp_path / '*') == sorted(map(str, paths))
    assert data.storage.find_files(tmp_path / '*.json') == [str(tmp_path / 'images.json')]


def test_a_pattern_of_some_shards(images, tmp_path):
    data.write_shards(images, tmp_path / 'out', shards=4, show_progress=False)
    (tmp_path / 'out' / 'images-00003-of-00004.tfrecord').unlink()
    found = data.storage.find_files(tmp_path / 'out' / 'images-0000[0-2]-of-*')
    assert len(found) == 3
    assert data.storage.find_files(found[1]) == [found[1]]
    for name in ('a.tfrecord-00000-of-00001', 'b-0-of-1.tfrecord', 'c-1-of-99999999', 'd-of-3'):
        (tmp_path / name).write_bytes(b'')
    assert len(data.storage.find_files(tmp_path / '*')) == 4


# Reading what others wrote, and damage.


def foreign(tmp_path, records, name='out/x'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_records(tmp_path / name, [encode_example(record) for record in records])


def test_other_names_of_features(tmp_path):
    array = picture(16, 16)
    foreign(tmp_path, [{'image/encoded': file_of(array), 'image/class/label': 4}])
    found = decode(
        tmp_path, 'out/*', image_feature='image/encoded', label_feature='image/class/label'
    )
    same(found.images[0], data.images.decode_image(file_of(array), (8, 8)))
    assert found.labels.tolist() == [4]
    assert found.class_names == ('0', '1', '2', '3', '4')
    named = decode(
        tmp_path,
        'out/*',
        image_feature='image/encoded',
        label_feature='image/class/label',
        class_names=np.array(list('abcde')),
    )
    assert named.class_names == tuple('abcde')


def test_the_folder_of_a_tfds_data_set(tmp_path):
    shard = 'out/cats-train.tfrecord-00000-of-00001'
    foreign(tmp_path, [{'image': file_of(picture()), 'label': 1}], shard)
    (tmp_path / 'out' / 'label.labels.txt').write_text('cat\nlöwe\n', encoding='utf-8')
    found = decode(tmp_path, 'out/cats-train.tfrecord-*')
    assert found.class_names == ('cat', 'löwe')


@pytest.mark.parametrize(
    ('record', 'message'),
    [
        (
            {'label': 1},
            "record 1: must have a feature 'image', the bytes of an image. Received: 'la",
        ),
        (
            {'image': file_of(picture()), 'name': 'x'},
            "record 1: must have a feature 'label', the number of its class. "
            "Received: 'image', 'name'; `skip_damaged` leaves",
        ),
        (
            {'image': [3], 'label': 1},
            "record 1: the feature 'image' must be the bytes of an image.",
        ),
        (
            {'image': file_of(picture()), 'label': b'cat'},
            "record 1: the feature 'label' must be an integer, the number of the class. "
            "Received: b'cat'",
        ),
        ({'image': file_of(picture()), 'label': [1.5]}, "'label' must be an integer, .* 1.5"),
        ({'image': b'x', 'label': 1}, 'record 1: must be an image that can be read'),
        ({'image': b'x', 'label': 1, 'shape': [1, 2, 3]}, 'record 1: must be an example'),
        ({'image': b'xx', 'label': 1, 'shape': [1, 1, 2]}, 'record 1: `pixels` must be'),
        ({'image': b'x', 'label': 1, 'shape': [1, 1]}, 'record 1: must be an example'),
    ],
)
def test_damaged_records(tmp_path, record, message):
    good = {'image': file_of(picture()), 'label': 0}
    foreign(tmp_path, [good, record, good])
    with pytest.raises(ValueError, match=message) as caught:
        decode(tmp_path, 'out/*')
    assert '\n' not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    found = decode(tmp_path, 'out/*', skip_damaged=True)
    assert len(found) == 2
    assert len(found.skipped) == 1


@pytest.mark.parametrize(
    ('record', 'message'),
    [
        ({'img': b'x', 'lbl': 1}, "must have a feature 'image', the bytes of an image. Received: "),
        ({}, "must have a feature 'image', the bytes of an image. Received: none"),
        (
            {'image': b'x'},
            "must have a feature 'label', the number of its class. Received: 'image'",
        ),
        (
            {'image': [3], 'label': 1},
            "the feature 'image' must be the bytes of an image. Received: 3",
        ),
        ({'image': b'x', 'label': 'cat'}, "the feature 'label' must be an integer, the number of"),
    ],
)
def test_features_of_other_names_are_no_damage(tmp_path, record, message):
    """It was advised to leave such images out, which are all."""
    foreign(tmp_path, [record, record])
    with pytest.raises(ValueError, match='record 0: ' + message) as caught:
        decode(tmp_path, 'out/*')
    assert 'skip_damaged' not in str(caught.value)


@pytest.mark.parametrize('names', [None, ('a', 'b')])
@pytest.mark.parametrize(
    ('label', 'rule'),
    [
        (-1, r'label must be in \[0, 2\*\*31\)'),
        (2**32 + 1, r'label must be in \[0, 2\*\*31\)'),
        (1e20, r'label must be in \[0, 2\*\*31\)'),
        (2**30, r'labels without names must be in \[0, 1048576\)|`labels` must be in \[0, 2\)'),
    ],
)
def test_labels_that_are_no_class(tmp_path, label, names, rule):
    foreign(tmp_path, [{'image': file_of(picture()), 'label': label}])
    with pytest.raises(ValueError, match=rule):
        decode(tmp_path, 'out/*', class_names=names)


def test_a_bad_checksum_is_named_or_counted(images, tmp_path):
    (path,) = data.write_shards(images, tmp_path / 'out', shards=1)
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match='record 0 at byte 0: the checksum of its data is wrong'):
        decode(tmp_path)
    found = decode(tmp_path, skip_damaged=True)
    assert len(found) == 9
    assert list(found.skipped) == [f'{path}: record 0']
    assert found.names[0] == f'{path}: record 1'


def test_an_end_does_not_wait_for_whole_shards(images, tmp_path, monkeypatch):
    begun, written = threading.Event(), []

    def record(images, index):
        if index % 2:
            written.append(index)
            begun.set()
            time.sleep(0.2)
            return b'record'
        assert begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, '_record', record)
    with pytest.raises(KeyboardInterrupt):
        data.write_shards(images, tmp_path / 'out', shards=2, workers=2)
    assert len(written) < 5
    assert os.listdir(tmp_path / 'out') == ['images.json']


def test_a_path_that_finds_nothing_says_what_would(images, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    data.write_shards(images, tmp_path / 'br[1]', shards=2)
    with pytest.raises(FileNotFoundError, match=r'in which \[\[\] stands for the letter \['):
        decode(tmp_path, 'br[1]/images-*')
    assert len(decode(tmp_path, 'br[[]1]/images-*')) == 10
    with pytest.raises(FileNotFoundError, match=r'not a folder: .*images-\*'):
        decode(tmp_path, 'br[1]')
    found = data.decode_shards('~/br[[]1]/images-*', (8, 8), cache_dir=tmp_path / 'cache')
    assert len(found) == 10


def test_labels_without_names_come_back_as_numbers(tmp_path):
    data.write_shards(data.ImageArrays(arrays().images, np.arange(10) % 3), tmp_path / 'out', 1)
    assert decode(tmp_path).class_names == ('0', '1', '2')


def test_no_file_matches(tmp_path):
    with pytest.raises(FileNotFoundError, match='`pattern` must match files'):
        decode(tmp_path)


def test_shards_at_a_url(tmp_path):
    fsspec = pytest.importorskip('fsspec', reason='opens memory://')
    (path,) = data.write_shards(arrays(), tmp_path / 'out', shards=1)
    with fsspec.open('memory://shards/images-0', 'wb') as file:
        file.write(path.read_bytes())
    found = data.decode_shards(
        'memory://shards/images-*',
        (8, 8),
        cache_dir=tmp_path / 'cache',
        class_names=('a', 'b', 'c'),
    )
    np.testing.assert_array_equal(found.images, arrays().images)


def test_the_description_is_json(images, tmp_path):
    data.write_shards(images, tmp_path / 'out', shards=2)
    described = json.loads((tmp_path / 'out' / 'images.json').read_text())
    assert described['class_names'] == ['cat', 'dog']
    assert (described['images'], described['shards']) == (10, 2)

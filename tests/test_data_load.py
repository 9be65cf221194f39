"""Every form of CIFAR, whole and damaged, and where it is looked for."""

import dataclasses
import hashlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from fenwicks import data
from fenwicks.data import cifar, converted, digests, formats, search, unpickle

TRAIN, TEST = 20, 10


@dataclasses.dataclass
class Made:
    """Ten classes of random images in the forms of CIFAR, with their digests."""

    spec: cifar.Spec
    arrays: tuple  # train_images, train_labels, test_images, test_labels
    files: dict  # the pickled and the binary files: name -> bytes

    def write(self, folder, names):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(self.files[name])
        return folder

    def assert_loaded(self, dataset):
        found = (
            dataset.train_images,
            dataset.train_labels,
            dataset.test_images,
            dataset.test_labels,
        )
        for array, expected in zip(found, self.arrays, strict=True):
            np.testing.assert_array_equal(array, expected)
            assert array.dtype == expected.dtype
        assert dataset.name == self.spec.name


def pickled(images, labels, key=b'labels'):
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    return pickle.dumps({b'data': pixels, key: labels.tolist(), b'filenames': [b'x']}, 3)


def binary(images, labels):
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    return np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1).tobytes()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def make():
    draw = np.random.default_rng(0)
    arrays = []
    for size in (TRAIN, TEST):
        arrays.append(draw.integers(0, 256, (size, 32, 32, 3), np.uint8))
        arrays.append(draw.permutation(np.arange(size) % 10).astype(np.int32))
    files = {}
    halves = np.split(arrays[0], 2), np.split(arrays[1], 2)
    for form, suffix in ((pickled, ''), (binary, '.bin')):
        for number, (images, labels) in enumerate(zip(*halves, strict=True), 1):
            files[f'data_batch_{number}{suffix}'] = form(images, labels)
        files[f'test_batch{suffix}'] = form(*arrays[2:])
    md5 = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
    layouts = []
    for layout, suffix in zip(cifar.CIFAR10.layouts, ('', '.bin'), strict=True):
        names = [f'{name}{suffix}' for name in ('data_batch_1', 'data_batch_2', 'test_batch')]
        archive = next(iter(layout.archives))
        files[archive] = tar_of({f'{layout.folder}/{name}': files[name] for name in names})
        layouts.append(
            dataclasses.replace(
                layout,
                train={name: md5[name] for name in names[:2]},
                test={names[2]: md5[names[2]]},
                archives={archive: hashlib.md5(files[archive]).hexdigest()},
            )
        )
    spec = dataclasses.replace(
        cifar.CIFAR10,
        train_size=TRAIN,
        test_size=TEST,
        layouts=tuple(layouts),
        content={
            'train': digests.content_digest(*arrays[:2]),
            'test': digests.content_digest(*arrays[2:]),
        },
        sources=(),
    )
    return Made(spec, tuple(arrays), files)


PICKLED = ('data_batch_1', 'data_batch_2', 'test_batch')
BINARY = tuple(f'{name}.bin' for name in PICKLED)


@pytest.fixture(name='made')
def _made(monkeypatch, tmp_path):
    """Made data in place of CIFAR-10, and an empty home."""
    made = make()
    monkeypatch.setitem(cifar.SPECS, 'cifar10', made.spec)
    for name in ('FENWICKS_DATA', 'KERAS_HOME', 'TFDS_DATA_DIR'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    return made


def one_line(caught):
    assert '\n' not in str(caught.value)


# Forms.


@pytest.mark.parametrize(
    ('folder', 'names'), [('cifar-10-batches-py', PICKLED), ('cifar-10-batches-bin', BINARY)]
)
def test_folders(made, tmp_path, folder, names):
    made.write(tmp_path / 'data' / folder, names)
    made.assert_loaded(data.load('cifar10', tmp_path / 'data'))
    made.assert_loaded(data.load('auto', str(tmp_path / 'data' / folder)))
    made.write(tmp_path / 'renamed', names)
    made.assert_loaded(data.load('cifar10', tmp_path / 'renamed'))


@pytest.mark.parametrize('name', ['cifar-10-python.tar.gz', 'cifar-10-binary.tar.gz'])
def test_archives(made, tmp_path, name):
    made.write(tmp_path / 'data', [name])
    made.assert_loaded(data.load('cifar10', tmp_path / 'data'))
    made.assert_loaded(data.load('cifar10', tmp_path / 'data' / name))
    assert [path.name for path in (tmp_path / 'data').iterdir()] == [name]


@pytest.mark.parametrize('column', [False, True])
def test_npz(made, tmp_path, column):
    x_train, y_train, x_test, y_test = made.arrays
    labels = (y_train[:, None], y_test[:, None]) if column else (y_train, y_test)
    path = tmp_path / 'cifar10.npz'
    np.savez(path, x_train=x_train, y_train=labels[0], x_test=x_test, y_test=labels[1])
    made.assert_loaded(data.load('cifar10', tmp_path))
    made.assert_loaded(data.load('cifar10', path))
    assert data.load('cifar10', path).train_images.flags.writeable


def encode_png(image):
    """A PNG file of one image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'png')
    return buffer.getvalue()


def tfds_folder(made, folder):
    """The TFDS form, written by TensorFlow, in two shards and another order."""
    tf = pytest.importorskip('tensorflow')
    folder.mkdir(parents=True)
    x_train, y_train, x_test, y_test = made.arrays
    for name, images, labels in (
        ('train.tfrecord-00000-of-00002', x_train[:5], y_train[:5]),
        ('train.tfrecord-00001-of-00002', x_train[5:], y_train[5:]),
        ('test.tfrecord-00000-of-00001', x_test, y_test),
    ):
        with tf.io.TFRecordWriter(str(folder / f'cifar10-{name}')) as writer:
            for image, label in zip(images, labels, strict=True):
                raw = tf.io.encode_png(image).numpy()
                features = {
                    'id': tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'train_1'])),
                    'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[raw])),
                    'label': tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return folder


def test_tfds(made, tmp_path):
    folder = tfds_folder(made, tmp_path / 'data' / 'cifar10' / '3.0.2')
    made.assert_loaded(data.load('cifar10', tmp_path / 'data'))
    made.assert_loaded(data.load('cifar10', folder))
    shard = folder / 'cifar10-train.tfrecord-00001-of-00002'
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(
        ValueError, match=r'00001-of-00002: record 14 at byte .*truncated or damaged'
    ):
        data.load('cifar10', tmp_path / 'data')
    shard.unlink()
    with pytest.raises(ValueError, match=r'train images.*must have the shape.*\(5, 32'):
        data.load('cifar10', tmp_path / 'data')


def test_tfds_with_damaged_examples(made, tmp_path):
    folder = tfds_folder(made, tmp_path / 'cifar10' / '3.0.2')
    tf = pytest.importorskip('tensorflow')
    shard = folder / 'cifar10-test.tfrecord-00000-of-00001'
    good = next(iter(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()))
    small = encode_png(np.zeros((4, 4, 3), np.uint8))
    for record, reason in (
        (b'\x0a\xff', 'without image and label'),
        (b'', 'without image and label'),
        (good.replace(b'IHDR', b'IHDX'), 'must hold 32x32 RGB images as PNG'),
    ):
        with tf.io.TFRecordWriter(str(shard)) as writer:
            writer.write(record)
        with pytest.raises(ValueError, match=reason) as error:
            data.load('cifar10', tmp_path)
        one_line(error)
    with pytest.raises(ValueError, match=r'size \(4, 4\)'):
        converted.from_png([(small, 0)], 1, cifar.CIFAR10, 'here')


def test_parquet(made, tmp_path):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    folder = tmp_path / 'cifar10-parquet'
    folder.mkdir()
    for split, (images, labels) in (('train', made.arrays[:2]), ('test', made.arrays[2:])):
        rows = [{'bytes': encode_png(image), 'path': None} for image in images]
        table = pa.table({'img': rows, 'label': labels.astype(np.int64)})
        parquet.write_table(table, folder / f'{split}-00000-of-00001.parquet')
    made.assert_loaded(data.load('cifar10', tmp_path))
    damaged = folder / 'test-00000-of-00001.parquet'
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r'test-00000-of-00001.parquet: must be a whole Parquet file'
    ) as error:
        data.load('cifar10', tmp_path)
    one_line(error)


def test_png_archive_restores_the_original_order(made, tmp_path):
    files = {'cifar10/labels.txt': b'x', '../outside.png': b'x'}
    by_class = sorted(range(TRAIN), key=lambda i: made.arrays[1][i])
    for split, images, labels, order in (
        ('train', *made.arrays[:2], by_class),
        ('test', *made.arrays[2:], range(TEST)),
    ):
        for i in order:
            name = made.spec.class_names[labels[i]]
            files[f'cifar10/{split}/{name}/{i}_{name}.png'] = encode_png(images[i])
    (tmp_path / 'cifar10.tgz').write_bytes(tar_of(files))
    made.assert_loaded(data.load('cifar10', tmp_path))


def test_cifar100_takes_the_fine_labels(made, tmp_path, monkeypatch):
    x_train, y_train, x_test, y_test = made.arrays
    files = {}
    for split, images, labels in (('train', x_train, y_train), ('test', x_test, y_test)):
        batch = pickle.loads(pickled(images, labels, b'fine_labels'))
        batch[b'coarse_labels'] = [0] * len(labels)
        files[split] = pickle.dumps(batch, 3)
        records = binary(images, labels)
        files[f'{split}.bin'] = b''.join(
            b'\x00' + records[i : i + 3073] for i in range(0, len(records), 3073)
        )
    layouts = [
        dataclasses.replace(
            layout,
            train={name: hashlib.md5(files[name]).hexdigest() for name in layout.train},
            test={name: hashlib.md5(files[name]).hexdigest() for name in layout.test},
        )
        for layout in cifar.CIFAR100.layouts
    ]
    spec = dataclasses.replace(
        cifar.CIFAR100, train_size=TRAIN, test_size=TEST, layouts=tuple(layouts)
    )
    monkeypatch.setitem(cifar.SPECS, 'cifar100', spec)
    made = dataclasses.replace(made, spec=spec, files=files)
    made.write(tmp_path / 'a' / 'cifar-100-python', ['train', 'test'])
    made.write(tmp_path / 'b' / 'cifar-100-binary', ['train.bin', 'test.bin'])
    for folder in ('a', 'b'):
        dataset = data.load('cifar100', tmp_path / folder)
        made.assert_loaded(dataset)
        assert dataset.num_classes == 100


def test_content_without_a_digest_is_checked_by_its_counts(made):
    spec = dataclasses.replace(made.spec, content={})
    images, labels = made.arrays[:2]
    cifar.check_content(spec, 'train', images, labels, 'f')
    with pytest.raises(ValueError, match=r'f: each class of CIFAR-10 must have 2 train images'):
        cifar.check_content(spec, 'train', images, np.zeros_like(labels), 'f')
    with pytest.raises(ValueError, match=r'f: the test images .* \(10, 32, 32, 3\)'):
        cifar.check_content(spec, 'test', images, labels, 'f')
    with pytest.raises(ValueError, match=r'f: `labels` must be in \[0, 10\)'):
        cifar.check_content(spec, 'train', images, labels + 1, 'f')


def test_published_facts_are_whole():
    for spec in (cifar.CIFAR10, cifar.CIFAR100):
        assert len(set(spec.class_names)) == int(spec.name.removeprefix('cifar'))
        assert spec.sources[-1].host == 'www.cs.toronto.edu'  # slow, so last
        for source in spec.sources:
            assert source.md5 or spec.content  # nothing is taken on trust
            assert all(url.startswith('https://') for url in source.files.values())
    assert list(cifar.CIFAR100.class_names) == sorted(cifar.CIFAR100.class_names)


# Damage.


@pytest.mark.parametrize(
    ('folder', 'names'), [('cifar-10-batches-py', PICKLED), ('cifar-10-batches-bin', BINARY)]
)
def test_damaged_folders(made, tmp_path, folder, names):
    root = made.write(tmp_path / folder, names)
    victim, whole = root / names[1], made.files[names[1]]
    expected = hashlib.md5(whole).hexdigest()
    tampered = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
    for damage in (whole[:-100], b'', tampered):
        victim.write_bytes(damage)
        found = hashlib.md5(damage).hexdigest()
        with pytest.raises(ValueError, match=f'{names[1]}: .*{found}, expected {expected}') as info:
            data.load('cifar10', tmp_path)
        one_line(info)
    victim.unlink()
    with pytest.raises(FileNotFoundError, match=f'{names[1]}: .*missing') as info:
        data.load('auto', tmp_path)
    one_line(info)


def test_damaged_archive(made, tmp_path):
    name = 'cifar-10-python.tar.gz'
    (tmp_path / name).write_bytes(made.files[name][:-100])
    with pytest.raises(ValueError, match=f'{name}: .*MD5 is .*, expected '):
        data.load('cifar10', tmp_path)


def test_an_archive_with_a_file_missing(made, tmp_path, monkeypatch):
    name = 'cifar-10-python.tar.gz'
    raw = tar_of({f'cifar-10-batches-py/{key}': made.files[key] for key in PICKLED[1:]})
    (tmp_path / name).write_bytes(raw)
    layout = dataclasses.replace(
        made.spec.layouts[0], archives={name: hashlib.md5(raw).hexdigest()}
    )
    spec = dataclasses.replace(made.spec, layouts=(layout,))
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    with pytest.raises(FileNotFoundError, match=r'data_batch_1: .*missing'):
        data.load('cifar10', tmp_path)


def test_damaged_npz(made, tmp_path):
    x_train, y_train, x_test, y_test = made.arrays
    path = tmp_path / 'cifar10.npz'
    good = {'x_train': x_train, 'y_train': y_train, 'x_test': x_test, 'y_test': y_test}
    swapped = np.roll(y_train, 1)
    for change, message in (
        ({'x_train': 255 - x_train}, 'not the train images and labels.*SHA-256.*expected'),
        ({'y_train': swapped}, 'not the train images and labels'),
        ({'x_test': x_test.astype(np.float32)}, '`images` must be uint8'),
        ({'x_test': x_test[:, :16]}, 'must have the shape'),
        ({'y_test': y_test + 1}, '`labels` must be in'),
        ({'y_test': np.array([{}] * TEST)}, 'must be an .npz file'),
    ):
        np.savez(path, **(good | change))
        with pytest.raises(ValueError, match=f'cifar10.npz: .*{message}') as info:
            data.load('cifar10', tmp_path)
        one_line(info)
    np.savez(path, x_train=x_train)
    with pytest.raises(ValueError, match=r'cifar10.npz: must be an .npz file.*y_train'):
        data.load('cifar10', tmp_path)
    for raw in (b'', b'nonsense', path.read_bytes()[:-50]):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r'cifar10.npz: must be an .npz file'):
            data.load('cifar10', tmp_path)


def test_data_dir_without_data(made, tmp_path):
    for dataset in ('cifar10', 'auto'):
        with pytest.raises(FileNotFoundError, match=r'`data_dir` must hold CIFAR-10, as') as info:
            data.load(dataset, tmp_path)
        one_line(info)
    with pytest.raises(FileNotFoundError, match=r'`data_dir` must be an existing folder'):
        data.load('cifar10', tmp_path / 'nowhere')


# Pickles.


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_cannot_run_code(made, tmp_path, monkeypatch):
    flag = tmp_path / 'flag'
    for name, attack in (
        ('system', Attack(os.system, f'touch {flag}')),
        ('getattr', Attack(getattr, os, 'system')),
        ('eval', Attack(eval, f'open({str(flag)!r}, "w")')),
    ):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            if name == 'getattr':  # a module can't be pickled; the name alone can
                raw = pickle.dumps(getattr, protocol)
            else:
                raw = pickle.dumps({'data': attack, 'labels': [0]}, protocol)
            with pytest.raises(ValueError, match=f'f: refused .*asks for .*{name}'):
                unpickle.loads(raw, 'f')
    # The same, by way of a folder whose digest is right.
    raw = pickle.dumps({b'data': Attack(os.system, f'touch {flag}')}, 3)
    md5 = hashlib.md5(raw).hexdigest()
    layout = dataclasses.replace(made.spec.layouts[0], train={'data_batch_1': md5})
    spec = dataclasses.replace(made.spec, layouts=(layout,))
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    (tmp_path / 'cifar-10-batches-py').mkdir()
    (tmp_path / 'cifar-10-batches-py' / 'data_batch_1').write_bytes(raw)
    with pytest.raises(ValueError, match=r'data_batch_1: refused to unpickle.*system'):
        data.load('cifar10', tmp_path)
    assert not flag.exists()


def test_the_digest_comes_before_the_unpickler(made, tmp_path, monkeypatch):
    folder = made.write(tmp_path / 'cifar-10-batches-py', PICKLED)
    (folder / 'data_batch_1').write_bytes(pickle.dumps({}))
    monkeypatch.setattr(unpickle, 'loads', lambda *_: pytest.fail('it was unpickled'))
    with pytest.raises(ValueError, match=r'data_batch_1: .*MD5'):
        data.load('cifar10', tmp_path)


@pytest.mark.parametrize('protocol', [0, 2, 3, 4])
@pytest.mark.parametrize('dtype', ['u1', '>i4', '<f8', '?'])
def test_arrays_of_numbers_are_unpickled(protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    arrays = {'c': array, 'f': np.asfortranarray(array), 'list': [1, 2.5, None, (True, 'x')]}
    raw = pickle.dumps(arrays, protocol)
    if protocol < 3:  # Python 3 writes bytes as a call there; Python 2, whose files these are, no
        with pytest.raises(ValueError, match=r'_codecs.encode'):
            unpickle.loads(raw)
        return
    loaded = unpickle.loads(raw)
    for key in ('c', 'f'):
        np.testing.assert_array_equal(loaded[key], array)
        assert loaded[key].dtype == array.dtype
    assert loaded['list'] == arrays['list']


@pytest.mark.parametrize(
    'value',
    [
        np.array([{}]),
        np.array(['x']),
        np.zeros(2, 'M8[s]'),
        np.zeros(2, [('a', 'u1')]),
        {1, 2},
        1j,
        pathlib.PurePath('x'),
    ],
    ids=str,
)
def test_other_objects_are_refused(value):
    with pytest.raises(ValueError, match=r'f: refused to unpickle'):
        unpickle.loads(pickle.dumps(value, 4), 'f')


def test_python_2_pickles_raise_no_warning():
    raw = (
        b'\x80\x02}q\x01U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n'
        b'K\x00\x85U\x01b\x87Rq\x04(K\x01K\x02K\x01\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R'
        b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\x08tbs.'
    )
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_array_equal(unpickle.loads(raw)[b'data'], [[7], [8]])


def test_broken_pickles():
    for raw in (b'', b'\x80\x02}', b'nonsense', b'(' * 10, b'\x80\x02]q\x01h\x01a.'):
        with pytest.raises(ValueError, match=r'f: refused to unpickle'):
            unpickle.loads(raw, 'f')


# Places.


def test_search_order(made, tmp_path, monkeypatch):
    tfds_folder(made, tmp_path / 'home' / 'tensorflow_datasets' / 'cifar10' / '3.0.2')
    keras = tmp_path / 'home' / '.keras' / 'datasets'
    places = [
        keras / 'cifar-10-batches-py',
        keras / 'cifar-10-batches-py-target' / 'cifar-10-batches-py',
        tmp_path / 'home' / '.cache' / 'fenwicks' / 'cifar-10-batches-py',
        tmp_path / 'env' / 'cifar-10-batches-py',
        tmp_path / 'argument' / 'cifar-10-batches-py',
    ]
    dataset = data.load('cifar10', download=False)
    assert dataset.source.endswith('tensorflow_datasets/cifar10/3.0.2')
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'env'))
    for place in places:
        made.write(place, PICKLED)
        argument = tmp_path / 'argument' if 'argument' in place.parts else None
        dataset = data.load('cifar10', argument, download=False)
        made.assert_loaded(dataset)
        assert dataset.source == str(place)


def test_keras_home(made, tmp_path, monkeypatch):
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'elsewhere'))
    made.write(tmp_path / 'elsewhere' / 'datasets' / 'cifar-10-batches-py', PICKLED)
    made.assert_loaded(data.load('cifar10', download=False))


def test_a_damaged_cache_is_passed_over_and_reported(made, tmp_path, caplog):
    cache = tmp_path / 'home' / '.cache' / 'fenwicks'
    made.write(cache / 'cifar-10-batches-py', PICKLED[:2])
    with pytest.raises(FileNotFoundError, match=r'test_batch: .*missing'):
        data.load('cifar10', download=False)
    (cache / 'cifar-10-binary.tar.gz').write_bytes(made.files['cifar-10-binary.tar.gz'])
    made.assert_loaded(data.load('cifar10', download=False))
    assert 'skipped' in caplog.text


def test_damage_in_the_named_folder_is_an_error(made, tmp_path, monkeypatch):
    made.write(tmp_path / 'home' / '.cache' / 'fenwicks' / 'cifar-10-batches-py', PICKLED)
    folder = made.write(tmp_path / 'env' / 'cifar-10-batches-py', PICKLED)
    (folder / 'test_batch').write_bytes(b'x')
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'env'))
    with pytest.raises(ValueError, match=r'test_batch: .*MD5'):
        data.load('auto', download=False)


def test_auto_falls_back_and_says_so(made, caplog, monkeypatch):
    assert data.load('auto', download=False).name == 'digits'
    monkeypatch.setenv('FENWICKS_OFFLINE', '1')
    assert data.load('auto').name == 'digits'
    assert 'CIFAR-10 was not found' in caplog.text
    assert 'embedded sample' in caplog.text


def test_a_switch_of_0_is_off(made, monkeypatch):
    downloaded = []
    monkeypatch.setattr(search, '_download', lambda spec, tried: downloaded.append(spec.name))
    monkeypatch.setenv('FENWICKS_OFFLINE', '0')
    assert data.load('auto').name == 'digits'
    assert downloaded == ['cifar10']


def test_cifar10_that_cannot_be_had(made, tmp_path):
    with pytest.raises(FileNotFoundError) as info:
        data.load('cifar10', download=False)
    one_line(info)
    for part in ('.cache/fenwicks', '.keras', 'tensorflow_datasets', 'not allowed'):
        assert part in str(info.value)
    assert f'Put cifar-10-python.tar.gz (or the folder cifar-10-batches-py) into {tmp_path}' in str(
        info.value
    )


def test_a_usual_place_that_may_not_be_read_is_passed_over(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('FENWICKS_OFFLINE', '1')
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('FENWICKS_DATA', raising=False)

    def find(folder, spec):
        raise PermissionError(13, 'Permission denied', str(folder))

    monkeypatch.setattr(formats, 'find', find)
    assert data.load('auto').name == 'digits'
    assert 'Permission denied' in caplog.text
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path))
    with pytest.raises(PermissionError):  # the one that the user named
        data.load('auto')


def test_unknown_dataset():
    with pytest.raises(ValueError, match=r"`dataset` must be one of.*dataset='mnist'"):
        data.load('mnist')


def test_a_folder_for_the_embedded_sample(tmp_path):
    with pytest.raises(ValueError, match=r"`data_dir` must be left out with dataset='digits'"):
        data.load('digits', tmp_path)


# The real thing.


@pytest.fixture(scope='module', name='real')
def _real(tmp_path_factory):
    """A folder with the real CIFAR-10."""
    named = os.environ.get('FENWICKS_DATA')
    if named and formats.find(pathlib.Path(named), cifar.CIFAR10):
        return named
    root = pathlib.Path(__file__).resolve().parents[2]
    script = root / 'shared' / 'data' / 'cifar10' / 'unpack.py'
    if not script.exists():
        pytest.skip('no real CIFAR-10: neither $FENWICKS_DATA nor ../shared/data/cifar10/unpack.py')
    pytest.importorskip('PIL.Image', reason='unpacking the real CIFAR-10 needs Pillow')
    folder = tmp_path_factory.mktemp('cifar10')
    subprocess.run([sys.executable, script, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.thorough
def test_real_cifar10(real):
    start = time.process_time()
    dataset = data.load('cifar10', real)
    assert time.process_time() - start < 5  # about 1 s; the files' digests are most of it
    assert dataset.train_images.shape == (50000, 32, 32, 3)
    assert dataset.test_images.shape == (10000, 32, 32, 3)
    assert dataset.train_labels[:4].tolist() == [6, 9, 9, 4]  # frog, truck, truck, deer
    assert dataset.class_names[6] == 'frog'
    assert (np.bincount(dataset.test_labels) == 1000).all()
    # The digests that TFDS's and the other forms are checked against are those of these arrays.
    splits = {
        'train': (dataset.train_images, dataset.train_labels),
        'test': (dataset.test_images, dataset.test_labels),
    }
    for split, arrays in splits.items():
        cifar.check_content(cifar.CIFAR10, split, *arrays, 'real')
    # And those of the binary files are these pixels' and labels', in the published order.
    md5 = list((cifar.CIFAR10.layouts[1].train | cifar.CIFAR10.layouts[1].test).values())
    for number in range(6):
        part = slice(10000 * number, 10000 * number + 10000) if number < 5 else slice(None)
        raw = binary(*(x[part] for x in splits['train' if number < 5 else 'test']))
        assert hashlib.md5(raw).hexdigest() == md5[number]
    mean, std = data.mean_std(dataset.train_images)
    np.testing.assert_allclose(mean, [125.31, 122.95, 113.87], atol=0.005)
    np.testing.assert_allclose(std, [62.99, 62.09, 66.70], atol=0.005)

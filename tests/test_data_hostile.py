"""Damaged and hostile files: each reader ends in one line that names the file, and allocates no
more than the file may need; the search goes on at the next place."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from test_data_load import PICKLED, binary, encode_png, make, tar_of

from fenwicks import data
from fenwicks.data import cifar, converted, limits, published, unpickle
from fenwicks.data.example import encode_example
from fenwicks.data.tfrecord import write_records

MOST_MEMORY = 60 * 2**20  # bytes that a reader may hold of the small data set made here


@pytest.fixture(name='made')
def _made(monkeypatch, tmp_path):
    made = make()
    monkeypatch.setitem(cifar.SPECS, 'cifar10', made.spec)
    for name in ('FENWICKS_DATA', 'KERAS_HOME', 'TFDS_DATA_DIR'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    return made


@pytest.fixture(name='frugal')
def _frugal():
    """Fails a test that holds much memory at a time, or takes long."""
    tracemalloc.start()
    start = time.process_time()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_MEMORY
    assert time.process_time() - start < 20


def refused(path, dataset='cifar10', match=''):
    """The message of the error that loading ends in."""
    with pytest.raises((ValueError, OSError), match=match) as caught:
        data.load(dataset, path)
    message = str(caught.value)
    assert '\n' not in message
    assert len(message) < 900
    return message


def npz_of(made, compressed=False):
    buffer = io.BytesIO()
    keys = ('x_train', 'y_train', 'x_test', 'y_test')
    save = np.savez_compressed if compressed else np.savez
    save(buffer, **dict(zip(keys, made.arrays, strict=True)))
    return buffer.getvalue()


@pytest.mark.parametrize('compressed', [False, True])
def test_a_flipped_bit_in_an_npz(made, tmp_path, compressed):
    raw = npz_of(made, compressed)
    path = tmp_path / 'cifar10.npz'
    draw = np.random.default_rng(0)
    # Every byte of the archive's own structures, and some of the pixels.
    structure = [*range(200), *range(len(raw) - 500, len(raw))]
    for position in [*structure, *draw.integers(0, len(raw), 300).tolist()]:
        mutated = bytearray(raw)
        mutated[position] ^= 1 << int(draw.integers(8))
        path.write_bytes(mutated)
        try:
            dataset = data.load('cifar10', path)
        except (ValueError, OSError) as error:
            message = str(error)
        else:  # a time, a permission, a comment
            made.assert_loaded(dataset)
            continue
        assert message.startswith(str(path))
        assert '\n' not in message


def test_an_npz_with_a_password_or_an_odd_method(made, tmp_path):
    raw = npz_of(made)
    first = raw.index(b'PK\x01\x02')
    for offset, value in ((8, 1), (10, 97)):  # flags: encrypted; method: WavPack
        mutated = bytearray(raw)
        mutated[first + offset] = value
        (tmp_path / 'cifar10.npz').write_bytes(mutated)
        refused(tmp_path, match=r'cifar10.npz: must be an .npz file of x_train')


def npy_header(shape, dtype='|u1'):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b' ' * (-(len(text) + 11) % 64) + b'\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text


@pytest.mark.usefixtures('frugal')
def test_an_npz_that_unpacks_to_gigabytes(made, tmp_path):
    path = tmp_path / 'cifar10.npz'
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        del squeezer
        with archive.open('x_train.npy', 'w', force_zip64=True) as file:
            file.write(npy_header((2**16, 32, 32, 3)))
            for _ in range(200):  # 200 MB of zeros in 200 kB
                file.write(bytes(2**20))
    assert path.stat().st_size < 10**6
    refused(path, match=r'claims the shape \(65536, 32, 32, 3\)')
    for shape in ((2**40,), (2**62, 2**62), (-1, 32, 32, 3), (10**7, 0)):
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('x_train.npy', npy_header(shape) + b'x')
        refused(path, match=r'x_train (claims|has) the shape')
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('x_train.npy', npy_header((2,), '|O') + b'x')
    refused(path, match='has the dtype object')
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('x_train.npy', npy_header((2,), "('|V' + '9' * 9)"[:4]) + b'x')
    refused(path, match=r'must be an .npz file')


def test_a_huge_file_is_not_read(made, tmp_path):
    start = time.process_time()
    folder = made.write(tmp_path / 'cifar-10-batches-py', PICKLED)
    for path in (
        folder / 'data_batch_1',
        tmp_path / 'cifar-10-python.tar.gz',
        tmp_path / 'cifar10.npz',
        tmp_path / 'cifar10.tgz',
    ):
        with open(path, 'ab') as file:
            file.truncate(6 * 2**30)  # holes: they take no room on the disk
        target = folder if path.parent == folder else path
        refused(target, match=f'{path.name}: must have at most .* bytes. Received: 6442450944')
        path.unlink()
    assert time.process_time() - start < 10


@pytest.mark.usefixtures('frugal')
def test_a_sparse_archive_of_a_few_hundred_bytes(made, tmp_path):
    # PAX format 1.0: the sparse map says that the file is 8 GB of hole.
    path = tmp_path / 'cifar10.tgz'
    name = 'cifar10/train/frog/0_frog.png'
    for size in (8 * 2**30, 40_000):
        member = tarfile.TarInfo(name)
        member.pax_headers = {
            'GNU.sparse.major': '1',
            'GNU.sparse.minor': '0',
            'GNU.sparse.name': name,
            'GNU.sparse.realsize': str(size),
        }
        body = b'0\n'.ljust(512, b'\0')
        member.size = len(body)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode='w:gz', format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(member, io.BytesIO(body))
        path.write_bytes(buffer.getvalue())
        assert path.stat().st_size < 400
        refused(path, match=f'cifar10.tgz: .*claims {size} bytes')


@pytest.mark.thorough
@pytest.mark.usefixtures('frugal')
def test_archives_that_unpack_to_gigabytes(made, tmp_path):
    path = tmp_path / 'cifar10.tgz'
    member = tarfile.TarInfo('cifar10/train/frog/0_frog.png')
    member.size = 300 * 2**20
    unwanted = tarfile.TarInfo('other')
    unwanted.size = 300 * 2**20
    for info, reason in ((member, 'claims 314572800 bytes'), (unwanted, 'unpacks to more than')):
        with gzip.open(path, 'wb') as file:
            file.write(info.tobuf())
            for _ in range(300):
                file.write(bytes(2**20))
        refused(path, match=f'cifar10.tgz: .*{reason}')


def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def bomb_png(side=30_000):
    """A small PNG that claims and holds an enormous image."""
    head = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(2**20)))


def tfds_of(folder, features):
    folder.mkdir(parents=True, exist_ok=True)
    record = features if isinstance(features, bytes) else encode_example(features)
    write_records(folder / 'cifar10-train.tfrecord-00000-of-00001', [record])
    write_records(folder / 'cifar10-test.tfrecord-00000-of-00001', [record])
    return folder


PNG = encode_png(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize(
    ('features', 'reason'),
    [
        ({'image': PNG}, 'without image and label'),
        ({'label': 1}, 'without image and label'),
        ({'image': [], 'label': 1}, 'without image and label'),
        ({'image': PNG, 'label': []}, 'without image and label'),
        ({'image': PNG, 'label': 'frog'}, 'without image and label'),
        ({'image': PNG, 'label': -1}, r'`labels` must be in \[0, 10\).*-1'),
        ({'image': PNG, 'label': 2**40}, r'`labels` must be in \[0, 10\)'),
        ({'image': [3], 'label': 1}, 'is no PNG'),
        ({'image': bomb_png(), 'label': 1}, '32x32 RGB images as PNG'),
        ({'image': bomb_png(8_000), 'label': 1}, '32x32 RGB images as PNG'),
        ({'image': PNG + bytes(2**17), 'label': 1}, 'is no PNG of at most|it claims'),
        ({'image': PNG[:60], 'label': 1}, '32x32 RGB images as PNG'),
        (b'\x0a\xff\xff\xff\xff\x0f', 'without image and label'),
    ],
)
def test_odd_tfds_shards(made, tmp_path, features, reason):
    message = refused(tfds_of(tmp_path / 'cifar10' / '3.0.2', features), match=reason)
    assert str(tmp_path) in message


def test_too_many_images(made, tmp_path):
    folder = tfds_of(tmp_path / 'cifar10' / '3.0.2', {'image': PNG, 'label': 1})
    record = encode_example({'image': PNG, 'label': 1})
    write_records(folder / 'cifar10-train.tfrecord-00000-of-00001', [record] * 30)
    refused(tmp_path, match='must hold 20 images. Received: more')


def test_a_shard_that_is_a_folder(made, tmp_path):
    folder = tfds_of(tmp_path / 'cifar10' / '3.0.2', {'image': PNG, 'label': 1})
    (folder / 'cifar10-test.tfrecord-00000-of-00001').unlink()
    (folder / 'cifar10-test.tfrecord-00000-of-00001').mkdir()
    refused(tmp_path, match=r'cifar10-test.tfrecord-00000-of-00001: .*missing')


def test_parquet_with_nulls_and_odd_columns(made, tmp_path):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    folder = tmp_path / 'cifar10-parquet'
    folder.mkdir()
    image = {'bytes': PNG, 'path': None}
    for table in (
        {'img': [None, image], 'label': [1, 2]},
        {'img': [{'bytes': None, 'path': 'x'}], 'label': [1]},
        {'img': [image], 'label': pa.array([None], pa.int64())},
        {'img': [image], 'label': ['frog']},
        {'img': [image], 'label': [1.5]},
        {'img': [image], 'label': [11]},
        {'img': ['x'], 'label': [1]},
        {'label': [1]},
        {'img': [], 'label': []},
    ):
        for split in ('train', 'test'):
            parquet.write_table(pa.table(table), folder / f'{split}-00000-of-00001.parquet')
        refused(tmp_path, match='cifar10-parquet')


def test_a_pipe_is_not_waited_for(made, tmp_path):
    for name in ('cifar10.npz', 'cifar-10-python.tar.gz', 'cifar10.tgz', 'data_batch_1'):
        os.mkfifo(tmp_path / name)
        refused(tmp_path, match='`data_dir` must hold CIFAR-10')
        refused(tmp_path / name, match='`data_dir` must hold CIFAR-10')


def test_the_search_goes_on_after_damage(made, tmp_path, caplog):
    cache = tmp_path / 'home' / '.cache' / 'fenwicks'
    keras = tmp_path / 'home' / '.keras' / 'datasets'
    for folder in (cache, keras):
        folder.mkdir(parents=True)
    raw = npz_of(made)
    for name in ('cifar10.npz', 'cifar-10.npz'):
        (cache / name).write_bytes(raw.replace(b"'descr'", b"'desc\xff'"))
    (cache / 'cifar-10-python.tar.gz').write_bytes(b'\x1f\x8b\x08')
    (cache / 'cifar10.tgz').write_bytes(b'\x1f\x8b\x08' + bytes(99))
    tfds_of(cache / 'cifar10' / '3.0.2', {'image': 'x', 'label': 1})
    (keras / 'cifar10.npz').write_bytes(raw)
    made.assert_loaded(data.load('cifar10', download=False))
    assert caplog.text.count('skipped: ') == 5


def test_cifar100_of_noise_is_not_called_verified(made, tmp_path, caplog, monkeypatch):
    spec = cifar.dataclasses.replace(cifar.CIFAR100, train_size=200, test_size=100)
    monkeypatch.setitem(cifar.SPECS, 'cifar100', spec)
    draw = np.random.default_rng(0)
    arrays = {}
    for split, count in (('train', 200), ('test', 100)):
        arrays[f'x_{split}'] = draw.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f'y_{split}'] = np.arange(count) % 100
    np.savez(tmp_path / 'cifar100.npz', **arrays)
    assert data.load('cifar100', tmp_path).num_classes == 100
    assert 'cifar100.npz: the content is not verified' in caplog.text
    assert 'digests' in data.load.__doc__
    assert 'not verified' in data.load.__doc__


# Pickles.


def test_nested_shared_lists_end():
    nested = []
    for _ in range(60):  # 2**60 lists, were each visited by every way there is to it
        nested = [nested, nested]
    start = time.process_time()
    unpickle.loads(pickle.dumps(nested))
    assert time.process_time() - start < 5


def test_a_nested_tuple_as_a_key_is_refused():
    raw = b'\x80\x04}('  # {((..), (..)): None} with 40 levels, whose hash takes 2**40 steps
    raw += b')' + b'q\x00h\x00\x86' * 40 + b'Nu.'
    with pytest.raises(ValueError, match='a key is a tuple'):
        unpickle.loads(raw)


def test_values_that_hold_themselves_are_refused():
    loop = []
    loop.append(loop)
    deep = b'\x80\x04' + b']' * 1000 + b'a' * 999 + b'.'
    for raw in (pickle.dumps(loop), deep):
        with pytest.raises(ValueError, match='nested too deeply, or holds itself'):
            unpickle.loads(raw)


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize(
    'raw',
    [
        b'\x80\x04N' + b'r\xff\xff\xff\x7f.' + b'j\xff\xff\xff\x00.',  # a memo of 2**31 entries
        b'\x80\x04\x8e' + struct.pack('<Q', 6 * 2**30) + b'.',  # 6 GB of bytes
        b'\x80\x04\x8d' + struct.pack('<Q', 6 * 2**30) + b'.',
        b'\x80\x04\x95' + struct.pack('<Q', 2**62) + b'.',
        b'\x80\x04\x8b\xff\xff\xff\x7f.',
    ],
)
def test_claimed_lengths_in_pickles(raw):
    try:
        assert unpickle.loads(raw, 'f') is None
    except ValueError as error:
        message = str(error)
        assert message.startswith('f: refused')


@pytest.mark.parametrize('code', ['i4,f8', 'u1,u1', '(2,)u1', 'u1(3)', 'i4:', 'U9', 'O', 'V8'])
def test_structured_dtypes_are_refused(code):
    array = pickle.dumps(np.zeros(2, 'u1'), 4)
    assert array.count(b'\x8c\x02u1') == 1
    raw = array.replace(b'\x8c\x02u1', b'\x8c' + bytes([len(code)]) + code.encode())
    raw = raw[:2] + raw[11:]  # without the frame, whose length is another now
    with pytest.raises(ValueError, match='f: refused to unpickle it: an array of dtype'):
        unpickle.loads(raw, 'f')


# The guards themselves.


def test_limited_reader():
    reader = limits.LimitedReader(io.BytesIO(b'12345'), 4)
    assert reader.read(3) == b'123'
    assert reader.read(1) == b'4'
    with pytest.raises(ValueError, match='more than 4 bytes'):
        reader.read(1)
    assert limits.LimitedReader(io.BytesIO(b'1234'), 4).read() == b'1234'


def test_operating_systems_errors_keep_their_number(tmp_path):
    with pytest.raises(OSError, match='x: Input/output') as caught, limits.damage_named('x', 'be'):
        raise OSError(5, 'Input/output error')
    assert caught.value.errno == 5


def test_binary_records_and_archives_are_bounded(made, tmp_path):
    assert published.most_bytes(cifar.CIFAR10) > 170_498_071  # the published archive
    assert len(PNG) < converted.PNG_BYTES
    raw = tar_of({'x/test_batch.bin': binary(*made.arrays[2:])})
    path = tmp_path / 'a.tar.gz'
    path.write_bytes(raw)
    assert [name for name, _ in published.tar_members(path, bool, 10**6, 10**5)] == [
        'x/test_batch.bin'
    ]

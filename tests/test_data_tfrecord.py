"""TFRecord files and `tf.train.Example`, held against TensorFlow's."""

import pathlib
import struct

import numpy as np
import pytest

from fenwicks.data import example, storage
from fenwicks.data.example import ExampleError, decode_example, encode_example
from fenwicks.data.tfrecord import (
    RecordError,
    RecordReader,
    count_records,
    masked_crc32c,
    write_records,
)

LENGTHS = [0, 1, 7, 8, 1023, 1024, 1025, 4096, 70_000]


def random_bytes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8).tobytes()


def plain_crc32c(data):
    """Bit by bit, as the definition has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize('length', LENGTHS)
def test_checksum_is_the_definitions(length):
    data = random_bytes(length)
    crc = plain_crc32c(data)
    assert masked_crc32c(data) == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def records(count=5):
    return [random_bytes(100 * number, number) for number in range(count)]


def test_round_trip(tmp_path):
    path = tmp_path / 'a b.tfrecord'
    write_records(path, records())
    reader = RecordReader(path)
    assert list(reader) == list(reader) == records()
    assert reader.skipped == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path):
    def stop():
        yield b'one'
        raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        write_records(tmp_path / 'a', stop())
    assert list(tmp_path.iterdir()) == []


def test_tensorflow_reads_and_writes_the_same(tmp_path):
    tf = pytest.importorskip('tensorflow')
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    write_records(ours, records())
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records():
            writer.write(record)
    assert ours.read_bytes() == theirs.read_bytes()
    assert list(tf.data.TFRecordDataset(str(ours)).as_numpy_iterator()) == records()


def damaged(path, position, value=0x5A):
    raw = bytearray(path.read_bytes())
    raw[position] ^= value
    path.write_bytes(raw)


def test_damage_names_file_record_and_position(tmp_path):
    path = tmp_path / 'a.tfrecord'
    start = 3 * 16 + 300  # of record 3, which is 300 bytes long
    for position, reason, kept in (
        (start, 'checksum of its length', [0, 1, 2]),
        (start + 8, 'checksum of its length', [0, 1, 2]),
        (start + 12, 'checksum of its data', [0, 1, 2, 4]),
        (start + 311, 'checksum of its data', [0, 1, 2, 4]),
        (start + 312, 'checksum of its data', [0, 1, 2, 4]),
    ):
        write_records(path, records())
        damaged(path, position)
        with pytest.raises(
            RecordError, match=rf'a.tfrecord: record 3 at byte {start}: the {reason} is wrong'
        ) as caught:
            list(RecordReader(path))
        assert '\n' not in str(caught.value)
        reader = RecordReader(path, skip_damaged=True)
        assert list(reader) == [records()[number] for number in kept]
        assert reader.skipped == 1


def test_truncated_files(tmp_path):
    path = tmp_path / 'a'
    write_records(path, records())
    whole = path.read_bytes()
    for length in (1, 11, 12, 17, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match=r'a: record .* at byte .*truncated or damaged'):
            list(RecordReader(path))
    path.write_bytes(b'')
    assert list(RecordReader(path)) == []


def test_a_claimed_length_is_not_believed(tmp_path):
    head = struct.pack('<Q', 2**40)
    (tmp_path / 'a').write_bytes(head + struct.pack('<I', masked_crc32c(head)) + b'x')
    with pytest.raises(RecordError, match='it claims 1099511627776 bytes, of at most 268435456'):
        list(RecordReader(tmp_path / 'a'))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        list(RecordReader(tmp_path / 'nowhere'))


# URLs.


def test_urls_through_fsspec():
    fsspec = pytest.importorskip('fsspec', reason='opens memory://')
    memory = fsspec.filesystem('memory')
    path = '/'.join(['/fenwicks', 'a.tfrecord'])
    local = pathlib.Path(path).name
    assert local == 'a.tfrecord'
    with memory.open(path, 'wb') as file:
        file.write(struct.pack('<Q', 1))
        file.write(struct.pack('<I', masked_crc32c(struct.pack('<Q', 1))))
        file.write(b'x' + struct.pack('<I', masked_crc32c(b'x')))
    assert storage.find_files('memory://fenwicks/*.tfrecord') == [f'memory://{path}']
    assert list(RecordReader(f'memory://{path}')) == [b'x']
    with pytest.raises(FileNotFoundError):
        list(RecordReader('memory://fenwicks/nowhere'))


def test_urls_through_tensorflow(monkeypatch):
    tf = pytest.importorskip('tensorflow')
    monkeypatch.setattr(storage, '_remote', lambda path: 'tensorflow')
    with tf.io.TFRecordWriter('ram://fenwicks/a.tfrecord') as writer:
        writer.write(b'x')
    assert storage.find_files('ram://fenwicks/*.tfrecord') == ['ram://fenwicks/a.tfrecord']
    assert list(RecordReader('ram://fenwicks/a.tfrecord')) == [b'x']
    with pytest.raises(FileNotFoundError, match='ram://fenwicks/b'):
        list(RecordReader('ram://fenwicks/b'))


def test_urls_that_nothing_opens(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'gs://b/a: reading gs:// needs TensorFlow'):
        list(RecordReader('gs://b/a'))


# Examples.

FEATURES = {
    'bytes': [b'', b'x', bytes(range(256))],
    'floats': np.array([0.0, -1.5, np.inf, 3e38], np.float32),
    'integers': np.array([0, 1, -1, 127, 128, 2**63 - 1, -(2**63)], np.int64),
    'größe ß': np.array([7], np.int64),
    'empty': [],
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype
        else:
            assert list(found[name]) == value


def test_examples_round_trip():
    assert_same(decode_example(encode_example(FEATURES)), FEATURES)
    assert decode_example(b'') == {}


def test_single_values_and_strings():
    found = decode_example(encode_example({'a': 'ü', 'b': b'x', 'c': 2, 'd': 0.5, 'e': True}))
    assert found['a'] == ['ü'.encode()]
    assert found['b'] == [b'x']
    assert (found['c'].tolist(), found['d'].tolist(), found['e'].tolist()) == ([2], [0.5], [1])


@pytest.mark.parametrize('value', [[[1, 2]], [1j], [None], [{}], [2**64], np.uint64([2**63])])
def test_values_that_no_example_holds(value):
    with pytest.raises(ValueError, match=r"`features` must hold .*'x'"):
        encode_example({'x': value})


def test_tensorflow_agrees_on_examples():
    tf = pytest.importorskip('tensorflow')
    theirs = tf.train.Example.FromString(encode_example(FEATURES))
    lists = theirs.features.feature
    assert list(lists['bytes'].bytes_list.value) == FEATURES['bytes']
    assert list(lists['floats'].float_list.value) == FEATURES['floats'].tolist()
    assert list(lists['integers'].int64_list.value) == FEATURES['integers'].tolist()
    assert_same(decode_example(theirs.SerializeToString()), FEATURES)


def of_one_feature(feature):
    entry = example._field(1, b'n') + example._field(2, feature)
    return example._field(1, example._field(1, entry))


def test_unpacked_numbers():
    integers = example._field(3, b'\x08\x05\x08\x96\x01')
    assert decode_example(of_one_feature(integers))['n'].tolist() == [5, 150]
    floats = example._field(2, b'\x0d' + struct.pack('<f', 1.5))
    assert decode_example(of_one_feature(floats))['n'].tolist() == [1.5]


@pytest.mark.parametrize(
    'raw',
    [
        b'\x10\x01',  # a field that Example has not
        b'\x1d1234',
        of_one_feature(example._field(4, b'')),
        of_one_feature(example._field(1, b'') + example._field(2, b'')),
        of_one_feature(example._field(2, example._field(1, b'123'))),
        of_one_feature(example._field(3, example._field(1, b'\x80'))),
        of_one_feature(example._field(3, example._field(1, b'\x80' * 11 + b'\x01'))),
        of_one_feature(b'').replace(b'n', b'\xff'),
        b'\x0b\x0c',  # a group
        b'\x0a\xff',
        b'\x0a' + b'\xff' * 20,
    ],
)
def test_bytes_that_are_no_example(raw):
    with pytest.raises(ExampleError) as caught:
        decode_example(raw)
    assert '\n' not in str(caught.value)


def test_damaged_examples_raise_one_kind_of_error():
    tf = pytest.importorskip('tensorflow')
    raw = encode_example(FEATURES)
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        mutated = bytearray(raw)
        for _ in range(draw.integers(1, 4)):
            mutated[draw.integers(len(raw))] = draw.integers(256)
        mutated = bytes(mutated[: draw.integers(len(raw) + 1)] if draw.random() < 0.3 else mutated)
        try:
            ours = decode_example(mutated)
        except ExampleError:
            refused += 1
            continue
        lists = {}  # what ours takes, theirs takes, and reads alike
        for name, feature in tf.train.Example.FromString(mutated).features.feature.items():
            kind = feature.WhichOneof('kind')
            lists[name] = list(getattr(feature, kind).value) if kind else []
        plain = {n: v if isinstance(v, list) else v.tolist() for n, v in ours.items()}
        assert repr(sorted(plain.items())) == repr(sorted(lists.items()))
    assert 500 < refused < 2500


def test_damaged_records_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write_records('~/a.tfrecord', [b'zero', b'one', b'two', b'three'])
    raw = bytearray((tmp_path / 'a.tfrecord').read_bytes())
    for number in (0, 2):  # 12 bytes of head and 4 behind the data
        raw[sum(16 + length for length in (4, 3, 3)[:number]) + 12] ^= 1
    (tmp_path / 'a.tfrecord').write_bytes(raw)
    reader = RecordReader('~/a.tfrecord', skip_damaged=True)
    assert [(reader.number, record) for record in reader] == [(1, b'one'), (3, b'three')]
    assert (reader.damaged, reader.skipped) == ([0, 2], 2)
    assert count_records('~/a.tfrecord') == 4

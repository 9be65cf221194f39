"""Checkpoints: what is saved comes back bit for bit, or a line says why it can't."""

import keras
import numpy as np
import pytest

from fenwicks.data.dataset import digest_of
from fenwicks.training import checkpoint


def variables():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.standard_normal((3, 2)).astype(np.float32)),
        keras.Variable(np.float32(1e-40)),  # not a normal number: it must not be flushed
        keras.Variable(np.array([np.inf, -0.0, np.nan], np.float32)),
        keras.Variable(2**31 - 1, dtype='int32'),
        keras.Variable(np.array([3, 4], np.uint32), dtype='uint32'),
    ]


def load(path, like=None):
    """State and values of a file, read for variables `like`."""
    like = variables()[:2] if like is None else like
    return checkpoint.load_state(path), checkpoint.load_values(path, like)


STATE = {'history': [{'epoch': 1, 'train_loss': 0.1 + 0.2}], 'fingerprint': None, 'name': 'naïve'}


def test_round_trip(tmp_path):
    path = tmp_path / 'checkpoint.npz'
    originals = variables()
    checkpoint.save(path, originals, STATE)
    state, values = load(path, originals)
    assert state == STATE
    twins = [keras.Variable(np.zeros(v.shape), dtype=v.dtype) for v in originals]
    checkpoint.assign(twins, values)
    for original, twin in zip(originals, twins, strict=True):
        assert twin.dtype == original.dtype
        assert np.asarray(twin).tobytes() == np.asarray(original).tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ['checkpoint.npz']


def test_bfloat16_comes_back(tmp_path):
    original = keras.Variable(np.array([1.0, 3e38, 2.0**-130], np.float32), dtype='bfloat16')
    checkpoint.save(tmp_path / 'c.npz', [original], {})
    twin = keras.Variable(np.zeros(3), dtype='bfloat16')
    checkpoint.assign([twin], load(tmp_path / 'c.npz', [twin])[1])
    assert twin.dtype == 'bfloat16'
    assert np.asarray(twin).tobytes() == np.asarray(original).tobytes()


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_an_end_while_writing_leaves_the_former_checkpoint(tmp_path, monkeypatch, error):
    path = tmp_path / 'checkpoint.npz'
    checkpoint.save(path, variables(), STATE)
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(before[: len(before) // 2])
        raise error

    monkeypatch.setattr(np, 'savez', half)
    with pytest.raises(type(error)):
        checkpoint.save(path, variables(), {'history': []})
    assert path.read_bytes() == before
    assert checkpoint.load_state(path) == STATE
    assert [file.name for file in tmp_path.iterdir()] == ['checkpoint.npz']


def refused(path):
    """The message with which `path` is refused."""
    with pytest.raises(ValueError) as raised:
        load(path)
    message = str(raised.value)
    assert '\n' not in message
    assert message.startswith(
        'the checkpoint must be a whole one that a Trainer wrote: name another'
    )
    assert str(path) in message
    return message


def test_no_truncation_passes(tmp_path):
    path = tmp_path / 'c.npz'
    checkpoint.save(path, variables()[:2], STATE)
    whole = path.read_bytes()
    for length in range(0, len(whole), 31):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_changed_byte_is_noticed_or_harmless(tmp_path):
    path = tmp_path / 'c.npz'
    checkpoint.save(path, variables()[:2], STATE)
    _, expected = load(path)
    whole = path.read_bytes()
    noticed = 0
    for place in range(0, len(whole), 17):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            state, values = load(path)
        except ValueError as error:
            # A shortened directory, or a changed shape, is another model's.
            if 'must fit the model' not in str(error):
                refused(path)
            noticed += 1
        else:  # a date, an attribute of the archive: nothing that is read
            assert state == STATE
            for value, right in zip(values, expected, strict=True):
                np.testing.assert_array_equal(value, right)
    assert noticed > len(whole) / 17 / 2


def test_other_files_are_refused(tmp_path):
    path = tmp_path / 'c.npz'
    for content in (b'', b'no archive', b'PK\x03\x04'):
        path.write_bytes(content)
        refused(path)
    with open(path, 'wb') as file:  # an array, not an archive
        np.save(file, np.zeros(3))
    refused(path)
    with open(path, 'wb') as file:  # an archive of something else
        np.savez(file, weights=np.zeros(3))
    refused(path)
    with open(path, 'wb') as file:  # a pickle, which may run code
        np.savez(file, state=np.array({'a': print}, dtype=object))
    assert 'pickle' in refused(path)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / 'missing.npz')
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
    path = tmp_path / 'c.npz'
    checkpoint.save(path, variables(), STATE)
    for error in (OSError(5, 'Input/output error'), MemoryError('too large')):

        def read(file, error=error):
            raise error

        monkeypatch.setattr(np.lib.format, 'read_magic', read)
        with pytest.raises(type(error), match=str(error.args[-1])) as raised:
            load(path)
        assert '\n' not in str(raised.value)
        assert isinstance(error, MemoryError) or str(path) in str(raised.value)


def test_a_file_with_a_hole_is_damaged(tmp_path):
    """Zeros where a disk lost a block, its length as before: at every place."""
    path = tmp_path / 'c.npz'
    checkpoint.save(path, variables()[:2], STATE)
    whole = path.read_bytes()
    for start in range(0, len(whole), 64):
        path.write_bytes(whole[:start] + bytes(96) + whole[start + 96 :])
        try:
            load(path)
        except ValueError as error:
            if 'must fit the model' not in str(error):
                refused(path)


@pytest.mark.parametrize(
    ('name', 'shape'), [('variable_0', (2**20, 2**20)), ('variable_0', (2**40,)), ('state', ())]
)
def test_claims_of_size_are_not_believed(tmp_path, name, shape):
    """Nothing is allocated for an array that a small file can't hold."""
    import tracemalloc
    import zipfile

    path = tmp_path / 'c.npz'
    checkpoint.save(path, variables()[:2], STATE)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    claims = np.lib.format.header_data_from_array_1_0(np.zeros(()))
    dtype = '<U268435456' if name == 'state' else '<f4'
    with zipfile.ZipFile(path, 'w') as archive:
        for filename, content in members.items():
            with archive.open(filename, 'w') as file:
                if filename == f'{name}.npy':
                    header = {**claims, 'shape': shape, 'descr': dtype}
                    np.lib.format.write_array_header_1_0(file, header)
                else:
                    file.write(content)
    tracemalloc.start()
    refused(path) if name == 'state' else None
    with pytest.raises(ValueError):
        load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """A few kilobytes could hold gigabytes."""
    path = tmp_path / 'c.npz'
    np.savez_compressed(path, state=np.array('{}'), variable_0=np.zeros((3, 2), np.float32))
    assert 'claims' in refused(path)


def test_the_digest_is_of_every_pixel_and_label():
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.zeros(4, np.int32)
    first = digest_of(images, labels)
    assert first == digest_of(images.copy(), labels.copy())
    other, relabelled = images.copy(), labels.copy()
    other[-1, -1, -1, -1] = relabelled[-1] = 1
    for changed in ((other, labels), (images, relabelled), (images.reshape(4, 4, 1, 3), labels)):
        assert digest_of(*changed) != first


@pytest.mark.parametrize(
    'values',
    [
        [np.zeros((3, 2))],
        [np.zeros((3, 2)), np.zeros(2), np.zeros(1)],
        [np.zeros((2, 3)), np.zeros(2)],
        [np.zeros((3, 2)), np.zeros((2, 1))],
    ],
)
def test_another_models_checkpoint_changes_nothing(values):
    own = [keras.Variable(np.ones((3, 2))), keras.Variable(np.ones(2))]
    with pytest.raises(ValueError, match=r'must fit the model and its optimizer: 2 variables'):
        checkpoint.assign(own, values)
    for variable in own:
        np.testing.assert_array_equal(np.asarray(variable), 1)

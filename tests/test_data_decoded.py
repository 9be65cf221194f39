"""Decoding a folder once: the cache file, what makes it stale, damage, disks that are full."""

import builtins
import errno
import os
import pathlib
import re
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest
from test_data_images import file_of, picture, same

from fenwicks import data
from fenwicks.data import decoded, image_cache
from fenwicks.data.threads import in_order


def folder_of(root, count=6, kind='png'):
    """Two classes of pictures whose first pixel is their number."""
    for number in range(count):
        path = root / ('cat', 'dog')[number % 2] / f'{number} ü.{kind}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(np.full((9, 12, 3), number, np.uint8), kind))
    return root


@pytest.fixture(name='images')
def _images(tmp_path):
    return data.ImageList.from_folders(folder_of(tmp_path / 'pictures'))


def decode(images, tmp_path, size=(8, 8), **options):
    return data.decode_images(images, size, cache_dir=tmp_path / 'cache', **options)


def cache_files(tmp_path):
    return sorted(path.name for path in (tmp_path / 'cache').iterdir())


def test_decoded_once_and_opened_again(images, tmp_path, monkeypatch, capsys):
    first = decode(images, tmp_path)
    assert 'decoding: 100%' in capsys.readouterr().err
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    assert first.images[:, 0, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert first.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert first.class_names == ('cat', 'dog')
    assert first.names == images.paths
    assert first.image_shape == (8, 8, 3)
    assert len(cache_files(tmp_path)) == 1
    monkeypatch.setattr(decoded, 'decode_image', lambda *_: pytest.fail('it was decoded again'))
    again = decode(images, tmp_path)
    np.testing.assert_array_equal(again.images, first.images)
    assert repr(again).startswith('ImageArrays(6 images, shape=(8, 8, 3), 2 classes')


def test_changes_are_decoded_anew(images, tmp_path):
    decode(images, tmp_path)
    for options in (
        {'size': (8, 9)},
        {'fit': 'pad'},
        {'filter': 'bicubic'},
        {'channels': 1},
        {'skip_damaged': True},
    ):
        decode(images, tmp_path, **options)
    decode(images.select([0, 1]), tmp_path)
    assert len(cache_files(tmp_path)) == 7
    path = images.files[0]
    status = path.stat()
    path.write_bytes(file_of(np.full((9, 12, 3), 200, np.uint8)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert decode(images, tmp_path).images[0, 0, 0, 0] == 200
    assert len(cache_files(tmp_path)) == 8


def test_files_of_the_same_size_and_time_that_change_places(tmp_path):
    """An archive gives all files one time, and files of one format may have one size."""
    images = data.ImageList.from_folders(folder_of(tmp_path / 'pictures', kind='bmp'))
    for path in images.files:
        os.utime(path, (10**9, 10**9))
    first = decode(images, tmp_path).images[:, 0, 0, 0].tolist()
    one, other = images.files[0], images.files[-1]
    one.rename(tmp_path / 'kept')
    other.rename(one)
    (tmp_path / 'kept').rename(other)
    again = decode(images, tmp_path).images[:, 0, 0, 0].tolist()
    assert again == [first[-1], *first[1:-1], first[0]]


def test_workers_make_no_difference(tmp_path):
    images = data.ImageList.from_folders(folder_of(tmp_path / 'p', 60))
    one = decode(images, tmp_path, workers=1, show_progress=False)
    three = data.decode_images(
        images, (8, 8), cache_dir=tmp_path / 'other', workers=3, show_progress=False
    )
    np.testing.assert_array_equal(one.images, three.images)


def test_the_usual_place(images, tmp_path, monkeypatch):
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'env'))
    data.decode_images(images, (8, 8))
    assert len(list((tmp_path / 'env' / 'images').iterdir())) == 1
    monkeypatch.delenv('FENWICKS_DATA')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    data.decode_images(images, (8, 8))
    assert len(list((tmp_path / 'home' / '.cache' / 'fenwicks' / 'images').iterdir())) == 1


def test_the_pixels_are_those_of_one_image(tmp_path):
    array = picture(90, 120)
    for name in ('a', 'b'):
        (tmp_path / 'p' / name).mkdir(parents=True)
        (tmp_path / 'p' / name / '1.png').write_bytes(file_of(array))
    images = data.ImageList.from_folders(tmp_path / 'p')
    found = decode(images, tmp_path, size=(30, 40), filter='bicubic').images[0]
    same(found, data.images.decode_image(images.files[0], (30, 40), filter='bicubic'))


# Damage.


def test_a_damaged_image_is_an_error_and_leaves_nothing(images, tmp_path):
    images.files[4].write_bytes(images.files[4].read_bytes()[:50])
    with pytest.raises(ValueError, match=r'3 ü.png: must be an image') as caught:
        decode(images, tmp_path)
    assert '\n' not in str(caught.value)
    assert cache_files(tmp_path) == []


def test_damaged_images_can_be_left_out(images, tmp_path, caplog):
    for number in (1, 4):
        images.files[number].write_bytes(b'nonsense')
    for _ in range(2):
        found = decode(images, tmp_path, skip_damaged=True)
        assert found.images[:, 0, 0, 0].tolist() == [0, 4, 1, 5]
        assert found.labels.tolist() == [0, 0, 1, 1]
        assert list(found.skipped) == ['cat/2 ü.png', 'dog/3 ü.png']
        assert 'must be an image that can be read' in found.skipped['cat/2 ü.png']
    assert "2 damaged images are left out: 'cat/2 ü.png', 'dog/3 ü.png'" in caplog.text
    for file in images.files:
        file.write_bytes(b'x')
    with pytest.raises(ValueError, match='at least one image'):
        decode(images, tmp_path, skip_damaged=True)


def test_missing_files(images, tmp_path):
    images.files[0].unlink()
    with pytest.raises(FileNotFoundError, match=r'0 ü\.png'):
        decode(images, tmp_path)


def test_a_damaged_cache_is_made_again(images, tmp_path, caplog):
    expected = np.array(decode(images, tmp_path).images)
    (name,) = cache_files(tmp_path)
    path = tmp_path / 'cache' / name
    whole = path.read_bytes()
    for damage in (
        b'',
        whole[:50],
        whole[:-1],
        whole + b'x',
        b'\0' * len(whole),
        whole[:70] + b'\xff' + whole[71:],
        whole[:9] + b'\x01' + whole[10:],
        whole[:-3] + b'\xff\xff}',
    ):
        path.write_bytes(damage)
        np.testing.assert_array_equal(decode(images, tmp_path).images, expected)
        assert f'{name}: must be a whole file of decoded images' in caplog.text
        caplog.clear()


def test_every_flipped_bit_in_a_cache_is_found(images, tmp_path):
    decode(images, tmp_path)
    (path,) = (tmp_path / 'cache').iterdir()
    whole = path.read_bytes()
    used = [*range(image_cache._HEAD.size + 4), *range(64, len(whole))]
    for position in used[:: max(1, len(used) // 300)]:
        mutated = bytearray(whole)
        mutated[position] ^= 1 << position % 8
        path.write_bytes(mutated)
        with pytest.raises(ValueError, match='must be a whole file of decoded images'):
            image_cache.read_cache(path)


@pytest.mark.thorough
def test_a_full_disk_leaves_nothing(images, tmp_path):
    program = f"""
import resource, signal
from fenwicks import data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
images = data.ImageList.from_folders({str(images.root)!r})
try:
    data.decode_images(images, (8, 8), cache_dir={str(tmp_path / 'cache')!r}, show_progress=False)
except OSError as error:
    print(str(error).count(chr(10)), 'the disk must take' in str(error))
"""
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, '-c', program],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {'KERAS_BACKEND': 'jax'},
        check=False,
    )
    assert done.stdout.split() == ['0', 'True'], done.stderr[-2000:]
    assert cache_files(tmp_path) == []


# Arrays.


def arrays(count=10):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return data.ImageArrays(images, np.arange(count) % 2, ('a', 'b'))


def test_a_data_set_of_two_parts():
    dataset = arrays().dataset([1, 4, 3], [0], 'mine')
    assert dataset.train_images[:, 0, 0, 0].tolist() == [1, 4, 3]
    assert dataset.train_labels.tolist() == [1, 0, 1]
    assert dataset.test_images[:, 0, 0, 0].tolist() == [0]
    assert (dataset.name, dataset.class_names) == ('mine', ('a', 'b'))


def test_parts_may_be_given_as_booleans():
    few = np.arange(10) < 3
    dataset = arrays().dataset(few, ~few)
    assert dataset.train_images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert dataset.test_images[:, 0, 0, 0].tolist() == [3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match=r'must share no image. Received: 1 in both, such as 2'):
        arrays().dataset(few, [2, 5])


@pytest.mark.parametrize(
    'wrong',
    [[], [0, 10], [0, -1], [0.0], [True, False], np.zeros(10, bool), None, 3, [[1], [2, 3]]],
)
def test_parts_that_are_no_indices(wrong):
    """The last image, as -1, was in both parts."""
    for name, parts in (('train', (wrong, [9])), ('test', ([9], wrong))):
        with pytest.raises(
            ValueError, match=rf'`{name}` must be at least one .* in \[0, 10\)'
        ) as e:
            arrays().dataset(*parts)
        assert '\n' not in str(e.value)


def test_data_sets_that_cannot_be():
    with pytest.raises(ValueError, match=r'must share no image. Received: 1 in both, such as 3'):
        arrays().dataset([1, 3], [3, 4])
    with pytest.raises(ValueError, match=r'must be at least the 0.00 GB .*`ImageBatches`'):
        arrays().dataset([1, 3], [4], memory_budget=30)
    with pytest.raises(ValueError, match='must have labels'):
        data.ImageArrays(arrays().images).dataset([1], [2])
    with pytest.raises(ValueError, match=r'`train` must name each image once. Received: 3 2 times'):
        arrays().dataset([1, 3, 3], [4])
    with pytest.raises(ValueError, match=r'`test` must name each image once. Received: 4 3 times'):
        arrays().dataset([1], [4, 4, 4])
    for options, message in (
        ({'names': ('x',)}, '`names` must have the length 10'),
        ({'groups': np.array(['x'])}, '`groups` must have the length 10'),
        ({'labels': np.zeros(3, int)}, 'same length'),
        ({'labels': np.full(10, 2), 'class_names': ('a', 'b')}, r'must be in \[0, 2\)'),
    ):
        with pytest.raises(ValueError, match=message):
            data.ImageArrays(arrays().images, **options)


def test_arguments_of_another_type(images, tmp_path):
    calls = (
        lambda: data.decode_images('folder', (8, 8)),
        lambda: data.write_shards('folder', tmp_path),
        lambda: data.files_dataset('folder', 4, (8, 8)),
        lambda: data.check_images('folder'),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r'^`images` must be an ImageList, .*Received: str$'):
            call()
    with pytest.raises(ValueError, match=r'^`cache_dir` must be .* Received: cache_dir=3$'):
        data.decode_images(images, (8, 8), cache_dir=3)


def test_a_cache_among_the_classes_is_refused(images, tmp_path):
    """The next listing of the classes would have found it."""
    for folder in (images.root / 'cache', images.root / 'cat' / 'cache'):
        with pytest.raises(ValueError, match=r'^`cache_dir` must lie outside of the folder'):
            data.decode_images(images, (8, 8), cache_dir=folder)
        assert not folder.exists()
    data.decode_images(images, (8, 8), cache_dir=images.root / '.cache', show_progress=False)
    assert len(data.ImageList.from_folders(images.root)) == 6


def test_a_file_that_cannot_be_read_is_no_full_disk(images, tmp_path, monkeypatch):
    """It was said that the disk must take the whole of the cache, and the picture wasn't named."""
    real = builtins.open

    def refusing(path, *rest, **more):
        if str(path) == str(images.files[1]):
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(builtins, 'open', refusing)
    for skip in (False, True):
        with pytest.raises(PermissionError, match=re.escape(str(images.files[1]))):
            decode(images, tmp_path, skip_damaged=skip)
    assert cache_files(tmp_path) == []


def test_lists_become_arrays():
    images, labels = [np.zeros((2, 2, 3), np.uint8)] * 3, [0, 1, 0]
    arrays = data.ImageArrays(images, labels, ('a', 'b'))
    assert repr(arrays).startswith('ImageArrays(3 images, shape=(2, 2, 3)')
    dataset = arrays.dataset([0, 1], [2])
    again = data.Dataset('n', images, labels, images[:1], labels[:1], ('a', 'b'), 'here')
    assert len(again.digest()) == len(dataset.digest())
    assert data.ImageBatches(images, labels, 2)[0][1].tolist() == [0, 1]


# Threads.


def test_results_come_in_order_and_few_items_are_read_ahead():
    read = []

    def items():
        for number in range(200):
            read.append(number)
            yield number

    results = in_order(lambda x: x * 2, items(), workers=2)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(read) < 20
    assert list(results) == list(range(10, 400, 2))


def test_the_first_error_ends_it_and_the_threads():
    before = threading.enumerate()

    def fail(number):
        if number >= 3:
            raise ValueError(f'item {number}')
        return number

    with pytest.raises(ValueError, match='item 3'):
        list(in_order(fail, range(1000), workers=4))
    assert set(threading.enumerate()) <= set(before)
    with pytest.raises(ValueError, match='`workers` must be a positive integer'):
        list(in_order(abs, [1], workers=0))

"""Mutated files: every reader ends in a documented error or in data that are right.

    FENWICKS_FUZZ=1000000 FENWICKS_FUZZ_SEED=1 python -m pytest -m slow tests/test_data_fuzz.py

spreads so many mutations over all readers. A mutation may take 5 s of CPU time; the process may
grow by 1 GB.
"""

import dataclasses
import io
import os
import pathlib
import resource
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from test_data_hostile import npz_of
from test_data_images import file_of, picture
from test_data_load import TEST, TRAIN, binary, encode_png, make, pickled, tar_of

from fenwicks.data import converted, example, image_cache, images, published, tfrecord, unpickle
from fenwicks.data.listing import ImageList

COUNT = int(os.environ.get('FENWICKS_FUZZ', 20_000))
SEED = int(os.environ.get('FENWICKS_FUZZ_SEED', 0))
MADE = make()


@dataclasses.dataclass
class Reader:
    """What is fuzzed.

    `read` takes a path; `right` tells whether a result is what the seed holds, where the reader
    verifies that.
    """

    name: str
    seeds: list[bytes]
    read: Callable
    right: Callable = lambda result: True
    file: str = 'file'


def right_arrays(result):
    pairs = zip(result, MADE.arrays, strict=True)
    return all(np.array_equal(found, expected) for found, expected in pairs)


def png_archive():
    files = {}
    for split, (pixels, labels) in (('train', MADE.arrays[:2]), ('test', MADE.arrays[2:])):
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            name = MADE.spec.class_names[label]
            files[f'cifar10/{split}/{name}/{number}_{name}.png'] = encode_png(image)
    return tar_of(files)


def records(pixels, labels):
    return [
        example.encode_example({'image': encode_png(image), 'label': int(label)})
        for image, label in zip(pixels, labels, strict=True)
    ]


def written(function, *arguments):
    """The bytes of a file that a function writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'file'
        function(path, *arguments)
        return path.read_bytes()


def read_tfds(path):
    """The shard is the training one of a folder whose test shard is whole."""
    test = path.with_name('cifar10-test.tfrecord-00000-of-00001')
    if not test.exists():
        tfrecord.write_records(test, records(*MADE.arrays[2:]))
    return converted.read_tfds(path.parent, MADE.spec)


def read_parquet(path):
    test = path.with_name('test-00000-of-00001.parquet')
    if not test.exists():
        test.write_bytes(parquet_of(*MADE.arrays[2:]))
    return converted.read_parquet(path.parent, MADE.spec)


def parquet_of(pixels, labels):
    import pyarrow
    from pyarrow import parquet

    rows = [{'bytes': encode_png(image), 'path': None} for image in pixels]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({'img': rows, 'label': labels.astype(np.int64)}), buffer)
    return buffer.getvalue()


def cache_of():
    rows = MADE.arrays[0]
    return written(image_cache.write_cache, rows, (32, 32, 3), lambda: {'names': ['a', 'ü']})


def right_cache(result):
    return np.array_equal(result[0], MADE.arrays[0]) and result[1] == {'names': ['a', 'ü']}


def read_csv(path):
    (path.parent / '1.png').touch()
    (path.parent / 'ü 2.png').touch()
    return ImageList.from_csv(path)


def right_image(result):
    return result.shape == (8, 9, 3) and result.dtype == np.uint8


def image_seeds(kind):
    array = picture(12, 17)
    seeds = [file_of(array, kind)]
    if kind in ('png', 'tiff'):
        seeds.append(file_of(picture(9, 9, 4), kind))
        seeds.append(file_of(Image.fromarray(np.arange(90, dtype=np.uint16).reshape(9, 10)), kind))
    if kind in ('png', 'gif'):
        seeds.append(file_of(Image.fromarray(array).quantize(9), kind))
    if kind == 'jpeg':
        exif = Image.Exif()
        exif[0x0112] = 6
        seeds.append(file_of(array, kind, exif=exif, progressive=True))
        seeds.append(file_of(Image.fromarray(array).convert('CMYK'), kind))
    if kind == 'webp':
        seeds.append(file_of(array, kind, lossless=True))
    if kind in ('gif', 'webp'):
        frames = [Image.fromarray(picture(9, 9, seed=seed)) for seed in range(3)]
        seeds.append(file_of(frames[0], kind, save_all=True, append_images=frames[1:]))
    return seeds


def readers():
    shard = written(tfrecord.write_records, records(*MADE.arrays[:2]))
    everything = [
        Reader(
            'npz',
            [npz_of(MADE), npz_of(MADE, True)],
            lambda path: converted.read_npz(path, MADE.spec),
            right_arrays,
        ),
        Reader(
            'png archive',
            [png_archive()],
            lambda path: converted.read_png_archive(path, MADE.spec),
            right_arrays,
        ),
        Reader('tfds', [shard], read_tfds, right_arrays, 'cifar10-train.tfrecord-00000-of-00001'),
        Reader(
            'records',
            [written(tfrecord.write_records, [b'one', b'', b'x' * 300])],
            lambda path: list(tfrecord.RecordReader(path)),
            # A file may end after any record: nothing in it says how many there are.
            lambda result: result == [b'one', b'', b'x' * 300][: len(result)],
        ),
        Reader(
            'example',
            [example.encode_example({'a': [1, 2**40], 'b': [b'x', b''], 'c': [0.5]})],
            lambda path: example.decode_example(path.read_bytes()),
        ),
        Reader(
            'pickle',
            [pickled(*MADE.arrays[2:])],
            lambda path: unpickle.loads(path.read_bytes(), path),
        ),
        Reader(
            'published folder',
            [binary(*MADE.arrays[2:])],
            lambda path: published.read_folder(path.parent, MADE.spec, MADE.spec.layouts[1]),
            right_arrays,
            'test_batch.bin',
        ),
        Reader(
            'archive',
            [MADE.files['cifar-10-python.tar.gz']],
            lambda path: list(published.tar_members(path, lambda name: True, 10**7, 10**6)),
        ),
        Reader('csv', [b'path,label\n1.png,a\n"\xc3\xbc 2.png",b\n'], read_csv),
        Reader('image cache', [cache_of()], image_cache.read_cache, right_cache),
    ]
    for kind in ('jpeg', 'png', 'gif', 'webp', 'bmp', 'tiff', 'ppm'):
        everything.append(
            Reader(
                kind,
                image_seeds(kind),
                lambda path: images.decode_image(path, (8, 9)),
                right_image,
            )
        )
    try:
        seed = parquet_of(*MADE.arrays[:2])
    except ImportError:
        pass
    else:
        everything.append(
            Reader('parquet', [seed], read_parquet, right_arrays, 'train-00000-of-00001.parquet')
        )
    return everything


READERS = readers()
EXTREMES = [bytes([value]) * size for size in (1, 2, 4, 8) for value in (0, 0x7F, 0x80, 0xFF)]


def mutated(draw, raw, other):
    """A file with one to four things wrong."""
    raw = bytearray(raw)
    for _ in range(draw.integers(1, 5)):
        place = int(draw.integers(len(raw) + 1))
        kind = draw.integers(7)
        if kind <= 1 and place < len(raw):
            raw[place] ^= 1 << int(draw.integers(8))
        elif kind == 2:
            extreme = EXTREMES[draw.integers(len(EXTREMES))]
            raw[place : place + len(extreme)] = extreme
        elif kind == 3:
            del raw[place : place + int(draw.integers(1, 40))]
        elif kind == 4:
            raw[place:place] = draw.integers(0, 256, draw.integers(1, 20), np.uint8).tobytes()
        elif kind == 5:
            start = int(draw.integers(len(other) + 1))
            raw[place:place] = other[start : start + int(draw.integers(1, 60))]
        elif draw.random() < 0.3:
            del raw[place:]
    return bytes(raw)


def fuzz(reader, count, folder):
    """Reads `count` mutations; returns how many were refused."""
    draw = np.random.default_rng([SEED, len(reader.name), *reader.name.encode()])
    path = folder / reader.file
    if reader.name == 'published folder':
        for name in ('data_batch_1.bin', 'data_batch_2.bin'):
            (folder / name).write_bytes(MADE.files[name])
    refused = 0
    for number in range(count):
        seed = reader.seeds[draw.integers(len(reader.seeds))]
        raw = mutated(draw, seed, reader.seeds[draw.integers(len(reader.seeds))])
        path.write_bytes(raw)
        start = time.process_time()
        try:
            result = reader.read(path)
        except (ValueError, OSError) as error:
            message = str(error)
            refused += 1
        else:
            message = ''
            assert reader.right(result), f'{reader.name} {number}: wrong data in {raw!r:.300}'
        taken = time.process_time() - start
        assert taken < 5, f'{reader.name} {number}: {taken} s for {raw!r:.300}'
        assert '\n' not in message, message
        if message and reader.name != 'example':
            assert str(folder) in message, message
    return refused


@pytest.fixture(name='modest')
def _modest():
    """No more than 1 GB more memory, and none of the parsers' warnings."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 1, f'{grown:.2f} GB'


@pytest.mark.usefixtures('modest')
@pytest.mark.parametrize('reader', READERS, ids=lambda reader: reader.name)
def test_some_mutations(reader, tmp_path):
    assert fuzz(reader, 60, tmp_path) > 5


@pytest.mark.slow
@pytest.mark.usefixtures('modest')
@pytest.mark.parametrize('reader', READERS, ids=lambda reader: reader.name)
def test_many_mutations(reader, tmp_path):
    assert fuzz(reader, max(1, COUNT // len(READERS)), tmp_path) >= 0


def test_seeds_are_read(tmp_path):
    assert (TRAIN, TEST) == (20, 10)
    for reader in READERS:
        folder = tmp_path / reader.name
        folder.mkdir()
        for name in ('data_batch_1.bin', 'data_batch_2.bin'):
            (folder / name).write_bytes(MADE.files[name])
        for seed in reader.seeds:
            (folder / reader.file).write_bytes(seed)
            assert reader.right(reader.read(folder / reader.file)), reader.name

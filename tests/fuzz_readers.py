"""The readers that test_data_fuzz.py feeds with mutated files, and whole files for each."""

import dataclasses
import io
import json
import pathlib
import tempfile
from collections.abc import Callable

import keras
import numpy as np
from PIL import Image
from test_data_hostile import npz_of
from test_data_images import file_of, picture
from test_data_load import binary, encode_png, make, pickled, tar_of

from fenwicks import recipes, runlog
from fenwicks.data import converted, example, image_cache, images, published, tfrecord, unpickle
from fenwicks.data.listing import ImageList
from fenwicks.report import material, runs
from fenwicks.training import checkpoint

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


VALUES = [np.arange(12, dtype=np.float32).reshape(3, 4), np.array(7, np.int32)]
STATE = {'seed': 1, 'history': [{'epoch': 1, 'train_loss': 0.5}], 'settings': {'ü': [None, True]}}


def read_checkpoint(path):
    variables = [keras.Variable(np.zeros_like(v), dtype=str(v.dtype)) for v in VALUES]
    return checkpoint.load_state(path), checkpoint.load_values(path, variables)


def right_checkpoint(result):
    state, values = result
    return state == STATE and all(map(np.array_equal, values, VALUES))


def result_of_a_run():
    """A `result.json`, which is read as such, as a recipe and by the report."""
    result = {
        'recipe': 'page10',
        'dataset': 'cifar10',
        'epochs': 1,
        'seed': 0,
        'train_seconds': 1.0,
        'test_accuracy': 0.5,
        'settings': {'recipe': dataclasses.asdict(recipes.get('page10'))},
        'history': [{'epoch': 1, 'train_loss': 0.5}],
    }
    return json.dumps(result, indent=1).encode()


def whole_run(run):
    return run.accuracy, run.history, run.settings, run.class_names


def material_of_a_run():
    images, labels = MADE.arrays[:2]
    logits = np.eye(10, dtype=np.float32)[np.arange(len(labels)) % 10]
    made = material.Material.of(logits, labels, images, images[:2], images[None, :2])
    with tempfile.TemporaryDirectory() as folder:
        made.save(folder)
        return (pathlib.Path(folder) / 'report.npz').read_bytes()


def readers_of_logs():
    """The readers of what a training writes and of its settings."""
    log = b''.join(
        json.dumps({'seed': seed, 'test_accuracy': 0.9}).encode() + b'\n' for seed in 'ab'
    )
    result = result_of_a_run()
    return [
        Reader(
            'checkpoint',
            [written(checkpoint.save, list(map(keras.Variable, VALUES)), STATE)],
            read_checkpoint,
            right_checkpoint,
        ),
        Reader('json', [result], runlog.read_json, lambda read: isinstance(read, dict)),
        Reader('json lines', [log], runlog.read_lines, lambda read: isinstance(read, list)),
        Reader(
            'recipe',
            [result, json.dumps(dataclasses.asdict(recipes.get('speed94'))).encode()],
            recipes.load,
            lambda recipe: isinstance(recipe, recipes.Recipe),
            'recipe.json',
        ),
        Reader(
            'run',
            [result],
            lambda path: whole_run(runs.read_run(path.parent)),
            file='result.json',
        ),
        Reader(
            'report.npz',
            [material_of_a_run()],
            lambda path: material.load_material(path.parent),
            lambda found: np.array_equal(found.samples, MADE.arrays[0][:2]),
            'report.npz',
        ),
    ]


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
        *readers_of_logs(),
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

"""Times the ways from image files to batches.

    python examples/benchmarks/image_data.py --log=image_data.jsonl --data_dir=DIR
    python examples/benchmarks/image_data.py --parts=folder --files=2000

- `batches`: CIFAR-10 as TFRecord shards, to batches of 512, cropped, flipped and cut out of: first
  streamed from the shards; then decoded once, and from memory by tf.data, and by `ImageBatches`
  without TensorFlow. Images per second, the second pass of two.
- `folder`: JPEGs of about 500x375 pixels, made for it, to 224x224: `decode_images` the first time
  and the second, beside one pass of `keras.utils.image_dataset_from_directory`, which does not
  antialias, and of tf.data with the same antialiasing as ours. Seconds; each file has been read
  once before, so that all read from the disk's cache.
- `memory`: ten passes of streaming; MB of this process after each.

Prints a JSON object for each part; `--log` appends it.
"""

from __future__ import annotations

import startup  # noqa: F401

import functools
import itertools
import json
import pathlib
import tempfile
import time

import keras
import numpy as np
from absl import flags
from PIL import Image

from fenwicks import augment, command, data, hardware, runlog

FLAGS = flags.FLAGS
PARTS = ('batches', 'folder', 'memory')
flags.DEFINE_list('parts', list(PARTS), f'What to measure, of {", ".join(PARTS)}.')
flags.DEFINE_string('data_dir', None, 'Folder that holds CIFAR-10; default: the usual places.')
flags.DEFINE_integer('limit', None, 'Take the first N images of CIFAR-10 only.')
flags.DEFINE_integer('files', 2000, 'Number of JPEGs.', lower_bound=2)
flags.DEFINE_integer('passes', 10, 'Passes of which the memory is looked at.', lower_bound=1)
flags.DEFINE_integer('batch_size', 512, 'Images in a batch.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the results to.')


def settings(images):
    """How batches are normalised and augmented."""
    mean, std = data.mean_std(images[:1000])
    return {
        'normalize': functools.partial(augment.normalize, mean=mean, std=std),
        'augment': augment.compose(
            [
                functools.partial(augment.random_crop, padding=4),
                augment.random_flip,
                functools.partial(augment.random_cutout, size=8),
            ]
        ),
    }


def rate(batches):
    """Images per second of the second pass."""
    for _ in range(2):
        began, count = time.perf_counter(), 0
        for images, _ in batches:
            count += len(images)
        seconds = time.perf_counter() - began
    return count / seconds


def shards(folder):
    """CIFAR-10 as arrays and as shards in `folder`; the shards' pattern."""
    dataset = data.load('auto', FLAGS.data_dir).limit(FLAGS.limit)
    arrays = data.ImageArrays(
        dataset.train_images, dataset.train_labels, tuple(dataset.class_names)
    )
    data.write_shards(arrays, folder / 'shards', shards=8, show_progress=False)
    return arrays, f'{folder}/shards/images-*'


def measure_batches(folder):
    """Images per second of each way from shards to batches."""
    arrays, pattern = shards(folder)
    size, how = arrays.image_shape[:2], settings(arrays.images)
    streamed = data.shard_dataset(pattern, FLAGS.batch_size, size, shuffle=True, **how)
    result = {'images': len(arrays), 'streamed': rate(streamed)}
    began = time.perf_counter()
    decoded = data.decode_shards(pattern, size, cache_dir=folder, show_progress=False)
    result['decoded_seconds'] = time.perf_counter() - began
    result['from memory by tf.data'] = rate(
        data.train_dataset(decoded.images, decoded.labels, FLAGS.batch_size, **how)
    )
    batches = data.ImageBatches(
        decoded.images, decoded.labels, FLAGS.batch_size, shuffle=True, **how
    )
    result['ImageBatches'] = rate(batches)
    return result


def make_jpegs(folder):
    """Photograph-like JPEGs of two classes: smooth shapes with some noise."""
    draw = np.random.default_rng(0)
    for number in range(FLAGS.files):
        path = folder / 'ab'[number % 2] / f'{number:05}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = draw.integers(350, 400), draw.integers(475, 525)
        coarse = draw.integers(0, 256, (12, 16, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        noise = draw.normal(0, 8, (height, width, 1))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def antialiased(folder):
    """Batches of the middle of each image, resized as `decode_images` does."""
    import tensorflow as tf

    def decode(path):
        image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False)
        sides = tf.shape(image)[:2]
        side = tf.reduce_min(sides)
        top, left = tf.unstack((sides - side) // 2)
        image = tf.image.crop_to_bounding_box(image, top, left, side, side)
        return tf.cast(tf.image.resize(image, (224, 224), antialias=True) + 0.5, tf.uint8)

    files = tf.data.Dataset.list_files(f'{folder}/*/*.jpg')
    return files.map(decode, tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)


def measure_folder(folder):
    """Seconds for all JPEGs, each way."""
    make_jpegs(folder / 'jpegs')
    images = data.ImageList.from_folders(folder / 'jpegs')
    for file in images.files:
        file.read_bytes()

    def by_keras():
        return keras.utils.image_dataset_from_directory(
            folder / 'jpegs', image_size=(224, 224), crop_to_aspect_ratio=True, verbose=False
        )

    def decoded():
        listed = data.ImageList.from_folders(folder / 'jpegs')
        return [data.decode_images(listed, (224, 224), cache_dir=folder, show_progress=False)]

    ways = {
        'keras': by_keras,
        'antialiased': lambda: antialiased(folder / 'jpegs'),
        'first': decoded,
        'second': decoded,
    }
    seconds = {}
    for name, way in ways.items():
        began = time.perf_counter()
        for _ in way():
            pass
        seconds[name] = time.perf_counter() - began
    ratio = seconds['keras'] / seconds['first']
    return {'files': len(images), 'seconds': seconds, 'ratio': ratio}


def resident_mb():
    """Memory of this process, in MB."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 2**20


def measure_memory(folder):
    """MB after each pass over the streamed shards."""
    arrays, pattern = shards(folder)
    how = settings(arrays.images)
    batches = data.shard_dataset(
        pattern, FLAGS.batch_size, arrays.image_shape[:2], shuffle=True, **how
    )
    after = []
    for _ in range(FLAGS.passes):
        for _ in itertools.islice(batches, None):
            pass
        after.append(round(resident_mb()))
    return {'images': len(arrays), 'passes': FLAGS.passes, 'resident_mb': after}


def main():
    if unknown := [part for part in FLAGS.parts if part not in PARTS]:
        raise ValueError(f'`parts` must be of {", ".join(PARTS)}. Received: {unknown[0]}')
    provenance = hardware.provenance()
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    measures = {
        'batches': measure_batches,
        'folder': measure_folder,
        'memory': measure_memory,
    }
    for part in FLAGS.parts:
        with tempfile.TemporaryDirectory() as folder:
            result = {
                'benchmark': f'image_data/{part}',
                'batch_size': FLAGS.batch_size,
                **measures[part](pathlib.Path(folder)),
                'hardware': hardware.describe(),
                'backend': keras.backend.backend(),
                **provenance,
            }
        print(json.dumps(result), flush=True)
        if FLAGS.log:
            runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'image_data.py')

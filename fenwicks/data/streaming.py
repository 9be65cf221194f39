"""Streams images from TFRecord shards that fit neither the memory nor the disk, by tf.data."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fenwicks._checks import positive_integer
from fenwicks.data import storage
from fenwicks.data.images import checked_options
from fenwicks.data.listing import StrPath
from fenwicks.data.records import check_first, decode_record
from fenwicks.data.shards import found_files
from fenwicks.data.stream import stream_batches
from fenwicks.data.tfrecord import RecordReader, count_records

if TYPE_CHECKING:
    import tensorflow as tf

_OPEN = 8  # shards that a shuffled pass reads from in turn


def shard_dataset(
    pattern: StrPath,
    batch_size: int,
    image_size: tuple[int, int],
    shuffle: bool = False,
    seed: int = 0,
    drop_remainder: bool = False,
    normalize: Callable | None = None,
    augment: Callable | None = None,
    fit: str = 'crop',
    filter: str = 'bilinear',
    channels: int = 3,
    image_feature: str = 'image',
    label_feature: str | None = 'label',
    skip_damaged: bool = False,
    buffer: int = 10_000,
    process_index: int = 0,
    process_count: int = 1,
    workers: int | None = None,
) -> tf.data.Dataset:
    """Batches of images from TFRecord shards, read and decoded while the training runs.

    Where the decoded images fit the disk, `decode_shards` and `ImageBatches` are faster from the
    second epoch on. Pixels are the same as theirs.

    With `shuffle`, each pass takes the shards in another order, reads eight of them in turn, and
    draws from a buffer of records. All of this depends on `seed` and the number of the pass alone;
    `train_dataset` says what counts as a pass. Without it, the order is that of `decode_shards`.

    With several processes, each has every `process_count`-th image of the same sequence; with
    `drop_remainder` all have equally many batches, unless `skip_damaged` leaves out some.

    Args:
        pattern: the files or URLs, as in `decode_shards`.
        batch_size: images per batch of this process.
        image_size, fit, filter, channels: see `fenwicks.data.images.decode_image`.
        shuffle: whether to shuffle, anew in each pass.
        seed: integer in [0, 2**31).
        drop_remainder: whether to leave out the last batch of a pass if it is not full.
        normalize, augment: as in `train_dataset`; the index of record i of shard s of n is
            `s + i * n`, which is the image's index at `write_shards`.
        image_feature, label_feature: see `decode_shards`.
        skip_damaged: whether to leave out damaged records and images, and log how many there were
            after each pass. By default the first one ends the pass: TensorFlow raises an error
            that contains the file and position.
        buffer: records that are shuffled among each other.
        process_index: number of this process, from 0.
        process_count: number of processes.
        workers: number of threads that decode; by default one for each processor, at most 16.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 and int32, or of images without labels;
        one pass an epoch. Its length is unknown to Keras where records are skipped, or the shards
        are URLs.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: an argument is out of range.
        ImportError: TensorFlow is not installed.
    """
    options = checked_options(image_size, fit, filter, channels)
    buffer = positive_integer('buffer', buffer)
    paths = found_files(pattern)
    if not skip_damaged and not storage.is_url(paths[0]):
        for record in itertools.islice(RecordReader(paths[0], skip_damaged=True), 1):
            check_first(f'{paths[0]}: record 0', record, image_feature, label_feature)

    def order(epoch):
        if shuffle:
            return _Shuffle(paths, skip_damaged, (seed, epoch), buffer)
        return _InOrder(paths, skip_damaged)

    def decode(record):
        return _decoded(record, options, image_feature, label_feature)

    known = not skip_damaged and not any(map(storage.is_url, paths))
    return stream_batches(
        order,
        decode,
        count=sum(map(count_records, paths)) if known else None,
        image_shape=options.image_shape,
        batch_size=batch_size,
        seed=seed,
        drop_remainder=drop_remainder,
        normalize=normalize,
        augment=augment,
        with_labels=label_feature is not None,
        skip_damaged=skip_damaged,
        process_index=process_index,
        process_count=process_count,
        workers=workers,
    )


class _InOrder:
    """Records `(number, name, bytes)` of all shards, one shard after the other."""

    def __init__(self, paths, skip_damaged):
        self.paths, self.skip_damaged, self.skipped = paths, skip_damaged, 0

    def __iter__(self):
        for shard in range(len(self.paths)):
            yield from self.read(shard)

    def read(self, shard):
        """The records of one shard; record i has the number `shard + i * number of shards`."""
        reader = RecordReader(self.paths[shard], self.skip_damaged)
        for record in reader:
            number = (shard + reader.number * len(self.paths)) % 2**31
            yield number, f'{self.paths[shard]}: record {reader.number}', record
        self.skipped += reader.skipped


class _Shuffle(_InOrder):
    """The same records, shuffled: shards in turn, through a buffer."""

    def __init__(self, paths, skip_damaged, seed, buffer):
        super().__init__(paths, skip_damaged)
        self.seed, self.buffer = seed, buffer

    def __iter__(self):
        draw = np.random.default_rng(self.seed)
        kept: list[tuple] = []
        places: list[int] = []
        for record in self.in_turn(draw.permutation(len(self.paths)).tolist()):
            if len(kept) < self.buffer:
                kept.append(record)
                continue
            if not places:  # many at once: a draw of one takes as long as decoding
                places = draw.integers(self.buffer, size=1000).tolist()
            place = places.pop()
            kept[place], record = record, kept[place]
            yield record
        for place in draw.permutation(len(kept)).tolist():
            yield kept[place]

    def in_turn(self, shards):
        """One record of each open shard after the other."""
        waiting = iter(shards)
        readers = collections.deque(map(self.read, itertools.islice(waiting, _OPEN)))
        while readers:
            reader = readers.popleft()
            try:
                yield next(reader)
            except StopIteration:
                readers.extend(map(self.read, itertools.islice(waiting, 1)))
            else:
                readers.append(reader)


def _decoded(numbered, options, image_feature, label_feature):
    """(number, pixels, label, what is wrong)."""
    number, name, record = numbered
    try:
        pixels, label, _ = decode_record(name, record, options, image_feature, label_feature)
    except ValueError as error:
        return number, None, 0, str(error)
    return number, pixels, label or 0, ''

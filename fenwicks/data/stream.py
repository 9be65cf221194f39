"""Batches for tf.data of images that are read and decoded while a training runs."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fenwicks import augment as augmentation
from fenwicks._checks import check_callable, integer, positive_integer
from fenwicks.data.batches import steps_of_process
from fenwicks.data.decoded import HOW_TO_SKIP
from fenwicks.data.pipeline import import_tensorflow
from fenwicks.data.threads import in_order, thread_count

if TYPE_CHECKING:
    import tensorflow as tf

_log = logging.getLogger('fenwicks')
_CHUNK = 16  # images that a thread decodes at a time, at least,
_CHUNK_BYTES = 2**18  # and as many small ones as have so many bytes

# The image's number, its pixels, its label, and what is wrong with it.
Decoded = tuple[int, np.ndarray | None, int, str]


def stream_batches(
    order: Callable[[int], Iterable],
    decode: Callable[[Any], Decoded],
    *,
    count: int | None,
    image_shape: tuple[int, int, int],
    batch_size: int,
    seed: int,
    drop_remainder: bool,
    normalize: Callable | None,
    augment: Callable | None,
    with_labels: bool,
    skip_damaged: bool,
    process_index: int,
    process_count: int,
    workers: int | None,
) -> tf.data.Dataset:
    """A `tf.data.Dataset` whose every pass decodes images in threads, in an order of its own.

    Args:
        order: from the number of a pass to its items, in order, the same in each process. Its
            result may count in an attribute `skipped` what it left out.
        decode: from an item to (number of the image, uint8 pixels, label, what is wrong).
        count: number of items in a pass, or None if nobody knows.
        image_shape: `(height, width, channels)`.
        batch_size: images per batch of this process.
        seed, drop_remainder, normalize, augment, skip_damaged, process_index, process_count,
            workers: see `fenwicks.data.shard_dataset`.
        with_labels: whether batches have labels.

    Raises:
        ValueError: an argument is out of range, or a batch is larger than a process's images.
        ImportError: TensorFlow is not installed.
    """
    batch_size = positive_integer('batch_size', batch_size)
    process_count = positive_integer('process_count', process_count)
    seed = integer('seed', seed, low=0, below=2**31)
    process_index = integer('process_index', process_index, low=0, below=process_count)
    workers = thread_count(workers)
    if normalize is not None:
        check_callable('normalize', normalize)
    tf = import_tensorflow()
    with_context = None if augment is None else augmentation.with_context(augment)
    passes = itertools.count()

    def decode_some(items):
        return [decode(item) for item in items]

    def batches() -> Iterator[tuple]:
        epoch = next(passes)
        items = order(epoch)
        share = _share(iter(items), process_index, process_count, drop_remainder)
        pending: list[tuple[int, np.ndarray, int]] = []
        skipped: list[str] = []
        step = 0
        chunk = max(_CHUNK, _CHUNK_BYTES // math.prod(image_shape))
        for decoded in in_order(decode_some, _chunks(share, chunk), workers):
            for number, pixels, label, damage in decoded:
                if damage and not skip_damaged:
                    raise ValueError(f'{damage}; {HOW_TO_SKIP}')
                if pixels is None:
                    skipped.append(damage)
                    continue
                pending.append((number, pixels, label))
                if len(pending) == batch_size:
                    yield epoch, step, *_stacked(pending)
                    pending, step = [], step + 1
        if pending and not drop_remainder:
            yield epoch, step, *_stacked(pending)
        lost = getattr(items, 'skipped', 0) + len(skipped)
        if lost:
            which = 'image is' if lost == 1 else 'images are'
            such = f', such as {skipped[0]}' if skipped else ''
            _log.warning('%d damaged %s left out%s', lost, which, such)

    def finish(epoch, step, numbers, images, labels):
        images = tf.cast(images if normalize is None else normalize(images), tf.float32)
        if with_context is not None:
            step_seed = augmentation.fold(augmentation.fold((seed, 0), epoch), step)
            step_seed = augmentation.fold(step_seed, process_index)
            images = with_context(images, step_seed, epoch, numbers, (seed, 1))
        return (images, labels) if with_labels else images

    rows = batch_size if drop_remainder else None
    signature = (
        tf.TensorSpec((), tf.int32),
        tf.TensorSpec((), tf.int32),
        tf.TensorSpec((rows,), tf.int32),
        tf.TensorSpec((rows, *image_shape), tf.uint8),
        tf.TensorSpec((rows,), tf.int32),
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.map(finish, tf.data.AUTOTUNE, deterministic=True)
    if count is not None:
        steps = steps_of_process(count, batch_size, drop_remainder, process_index, process_count)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _share(records, index, count, drop_remainder):
    """Every `count`-th record; with `drop_remainder` as many for each process."""
    while group := list(itertools.islice(records, count)):
        if index < len(group) and (len(group) == count or not drop_remainder):
            yield group[index]


def _chunks(records, count):
    """Lists of a few records: a task for a thread."""
    while chunk := list(itertools.islice(records, count)):
        yield chunk


def _stacked(pending):
    numbers, images, labels = zip(*pending, strict=True)
    # Several times as fast as `np.stack`, where images are small.
    pixels = np.concatenate(images).reshape(len(images), *images[0].shape)
    return np.array(numbers, np.int32), pixels, np.array(labels, np.int32)

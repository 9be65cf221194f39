"""Streams image files that don't fit the memory, decoded while the training runs, by tf.data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fenwicks.data.dataset import check_indices
from fenwicks.data.images import checked_options, decode_image
from fenwicks.data.listing import ImageList, check_listed
from fenwicks.data.stream import Decoded, stream_batches

if TYPE_CHECKING:
    import tensorflow as tf


def files_dataset(
    images: ImageList,
    batch_size: int,
    image_size: tuple[int, int],
    indices: Sequence[int] | np.ndarray | None = None,
    shuffle: bool = False,
    seed: int = 0,
    drop_remainder: bool = False,
    normalize: Callable | None = None,
    augment: Callable | None = None,
    fit: str = 'crop',
    filter: str = 'bilinear',
    channels: int = 3,
    skip_damaged: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    workers: int | None = None,
) -> tf.data.Dataset:
    """Batches of image files, read and decoded while the training runs.

    Where the decoded images fit the disk, `decode_images` and `ImageBatches` are faster from the
    second epoch on. Pixels are the same as theirs.

    For training, set `shuffle` and, on TPUs, `drop_remainder`; every pass then has an order of its
    own that depends on `seed` and the number of the pass alone. `train_dataset` says what counts as
    a pass. For evaluation leave both: every image comes once, in order.

    With several processes, each has every `process_count`-th image of the same sequence; with
    `drop_remainder` all have equally many batches, unless `skip_damaged` leaves out some.

    Args:
        images: the files, and their classes if they are known.
        batch_size: images per batch of this process.
        image_size, fit, filter, channels: see `fenwicks.data.images.decode_image`.
        indices: which of the images to use, such as one side of a split: integers, or a boolean
            for each image; by default all.
        shuffle: whether to shuffle, anew in each pass.
        seed: integer in [0, 2**31).
        drop_remainder: whether to leave out the last batch of a pass if it is not full.
        normalize, augment: as in `train_dataset`; an image's index is its place in `images`.
        skip_damaged: whether to leave out damaged images, and log how many there were after each
            pass. By default the first one ends the pass: TensorFlow raises an error that contains
            the file.
        process_index: number of this process, from 0.
        process_count: number of processes.
        workers: number of threads that decode; by default one for each processor, at most 16.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 and int32, or of images without labels;
        one pass an epoch. Its length is unknown to Keras where images are skipped.

    Raises:
        ValueError: an argument is out of range.
        ImportError: TensorFlow is not installed.
    """
    check_listed(images)
    options = checked_options(image_size, fit, filter, channels)
    chosen = np.arange(len(images)) if indices is None else check_indices(indices, len(images))

    def order(epoch: int) -> list[int]:
        if not shuffle:
            return chosen.tolist()
        return np.random.default_rng([seed, epoch]).permutation(chosen).tolist()

    def decode(index: int) -> Decoded:
        label = 0 if images.labels is None else int(images.labels[index])
        try:
            path = images.root / images.paths[index]
            return index, decode_image(path, *options), label, ''
        except (ValueError, OSError) as error:
            return index, None, label, str(error)

    return stream_batches(
        order,
        decode,
        count=None if skip_damaged else len(chosen),
        image_shape=options.image_shape,
        batch_size=batch_size,
        seed=seed,
        drop_remainder=drop_remainder,
        normalize=normalize,
        augment=augment,
        with_labels=images.labels is not None,
        skip_damaged=skip_damaged,
        process_index=process_index,
        process_count=process_count,
        workers=workers,
    )

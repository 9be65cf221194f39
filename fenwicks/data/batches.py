"""Batches of images that lie in an array or in a file mapped into memory, without TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from fenwicks import augment as augmentation
from fenwicks._checks import check_callable, integer, positive_integer
from fenwicks.data.dataset import check_images, check_indices, check_labels


class ImageBatches(keras.utils.PyDataset):
    """Batches for `fit`, `evaluate` and `predict` on every backend, gathered by index.

    Pass `shuffle=False` to `fit`, or Keras shuffles the order of the batches once more, with a
    seed of its own.

    For training, set `shuffle` and, on TPUs, `drop_remainder`; every epoch then has an order of its
    own that depends on `seed` and `epoch` alone. For evaluation leave both: every image comes once,
    in order, and the last batch may be smaller.

    `fit` counts `epoch` up, from 0 with TensorFlow, from 1 with JAX and PyTorch, where Keras looks
    at a batch before it trains. Set it to resume a training, and in loops of your own.

    With several processes each gets its share of the images: with `drop_remainder` all have
    equally many batches; without, no image is left out, and shares may differ by one image.

    Args:
        images: uint8 `(n, height, width, channels)`, such as `ImageArrays.images`.
        labels: integers `(n,)`, or None for `predict`.
        batch_size: images per batch of this process.
        indices: which of the images to use, such as one side of a split: integers, or a boolean
            for each image; by default all.
        shuffle: whether to shuffle, anew in each epoch.
        seed: integer in [0, 2**31).
        drop_remainder: whether to leave out the last batch of an epoch if it is not full.
        normalize: callable from a uint8 batch to a float32 batch, applied before `augment`;
            None casts to float32 and keeps 0 to 255.
        augment: callable `augment(images, seed)` on a float32 NumPy batch, as in `train_dataset`.
        process_index: number of this process, from 0.
        process_count: number of processes.
        workers: threads that prepare batches ahead of the training.

    Returns by index: `(images, labels)`, float32 and int32; images alone without labels.

    Raises:
        ValueError: arrays that `dataset.check_arrays` refuses, an argument is out of range, or
            there are fewer images than one batch with `drop_remainder`.

    Example:

    >>> import numpy as np
    >>> images = np.arange(6, dtype=np.uint8)[:, None, None, None]
    >>> batches = ImageBatches(images, np.arange(6), 4)
    >>> [labels.tolist() for _, labels in batches]
    [[0, 1, 2, 3], [4, 5]]
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        batch_size: int = 32,
        indices: Sequence[int] | np.ndarray | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
        normalize: Callable | None = None,
        augment: Callable | None = None,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 1,
    ):
        super().__init__(workers=positive_integer('workers', workers))
        self.images = images = check_images(images)
        if labels is not None:
            check_labels(labels, len(images))
            labels = np.asarray(labels, np.int32)
        self.labels = labels
        self.batch_size = positive_integer('batch_size', batch_size)
        every = np.arange(len(images))
        self.indices = every if indices is None else check_indices(indices, len(images))
        seed = integer('seed', seed, low=0, below=2**31)
        self.process_count = positive_integer('process_count', process_count)
        self.process_index = integer('process_index', process_index, low=0, below=process_count)
        self.shuffle, self.seed, self.drop_remainder = shuffle, seed, drop_remainder
        if normalize is not None:
            check_callable('normalize', normalize)
        self.normalize, self.augment = normalize, augment
        self._augment = None if augment is None else augmentation.with_context(augment)
        self.epoch = 0
        self._begun = False
        self._lock = threading.Lock()
        self._order: tuple[int, np.ndarray] | None = None
        len(self)  # raises where there is no batch

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process, as a worker of Keras: all but the lock."""
        return {**self.__dict__, '_lock': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of batches in an epoch, of this process."""
        return steps_of_process(
            len(self.indices),
            self.batch_size,
            self.drop_remainder,
            self.process_index,
            self.process_count,
        )

    def __getitem__(self, index: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The batch number `index`, in [0, len(self)), of the current epoch."""
        epoch = self.epoch
        images, labels, chosen = self._stored(index, epoch)
        images = images if self.normalize is None else self.normalize(images)
        images = np.asarray(images, np.float32)
        if self._augment is not None:
            seed = augmentation.fold(augmentation.fold((self.seed, 0), epoch), index)
            seed = augmentation.fold(seed, self.process_index)
            context = epoch, chosen, (self.seed, 1)
            images = np.asarray(self._augment(images, seed, *context), np.float32)
        return images if labels is None else (images, labels)

    def stored_batch(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """The batch number `index` as it is stored, for `training.Trainer.fit`.

        Returns:
            The images, uint8, without `normalize` and `augment`; the labels, int32, or None; and
            the images' places in `images`, int32.
        """
        return self._stored(index, self.epoch)

    def _stored(self, index, epoch):
        if not 0 <= index < len(self):
            raise IndexError(f'`index` must be in [0, {len(self)}). Received: index={index}')
        chosen = self._epoch_order(epoch)[index * self.batch_size :][: self.batch_size]
        labels = None if self.labels is None else self.labels[chosen]
        return np.asarray(self.images[chosen]), labels, chosen.astype(np.int32)

    def _epoch_order(self, epoch):
        """Indices of this process's images in the order of an epoch."""
        with self._lock:
            if self._order is None or self._order[0] != epoch:
                order = self.indices
                if self.shuffle:
                    order = np.random.default_rng([self.seed, epoch]).permutation(order)
                self._order = epoch, order[self.process_index :: self.process_count]
            return self._order[1]

    def on_epoch_begin(self) -> None:
        """Called by Keras before each epoch."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Called by Keras after each epoch: goes on to the next order."""
        if self._begun:  # Keras calls this once before the first epoch, too
            self.epoch += 1
        self._begun = False


def steps_of_process(
    count: int, batch_size: int, drop_remainder: bool, process_index: int, process_count: int
) -> int:
    """The batches that one of several processes takes of `count` images, of which each has a share.

    Raises:
        ValueError: there is none.

    Example:

    >>> [steps_of_process(5, 2, False, process, 2) for process in range(2)]
    [2, 1]
    """
    if drop_remainder:
        share = count // process_count
        steps = share // batch_size
    else:
        share = len(range(process_index, count, process_count))
        steps = -(-share // batch_size)
    if count and not share:
        raise ValueError(
            f'`process_count` must be at most the {count} images. '
            f'Received: process_count={process_count}'
        )
    if not steps:
        raise ValueError(
            f'`batch_size` must be at most the {share} images of a process. '
            f'Received: batch_size={batch_size}'
        )
    return steps

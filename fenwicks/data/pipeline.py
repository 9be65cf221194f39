"""Input functions for Keras's `fit`: from arrays to a tf.data.Dataset."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fenwicks import augment as augmentation
from fenwicks._checks import check_callable, integer, positive_integer
from fenwicks.data.dataset import check_arrays

if TYPE_CHECKING:
    import tensorflow as tf


def import_tensorflow() -> Any:
    """The module `tensorflow`, which leaves the GPU to another backend that trains.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        import tensorflow as tf
    except ImportError:
        raise ImportError(
            'the tf.data input functions need TensorFlow: pip install tensorflow-cpu'
        ) from None
    import keras

    if keras.backend.backend() != 'tensorflow':
        # TensorFlow would take GPU memory that the training backend needs. Once its devices are
        # in use it refuses to hide them; whoever uses them has decided.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], 'GPU')
    return tf


def _check(images, labels, batch_size):
    check_arrays(images, labels)
    positive_integer('batch_size', batch_size)


def train_dataset(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    augment: Callable | None = None,
    normalize: Callable | None = None,
    seed: int = 0,
    drop_remainder: bool = True,
) -> tf.data.Dataset:
    """Batches for training: shuffled anew each epoch, normalised, augmented, prefetched.

    An epoch is a pass over the data set, counted from its creation. Reading one batch counts as a
    pass: Keras does so before training on JAX, on PyTorch and under a strategy. The same `seed`
    gives the same sequence of passes each time. Call `fit` with `shuffle=False`, or Keras warns
    that it does not shuffle a data set.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`.
        batch_size: images per batch, 1 to n.
        augment: callable `augment(images, seed)` on a float32 batch
            `(batch, height, width, channels)`, where `seed` is an int32 tensor `(2,)` that is
            different for each batch; it returns a batch. Parameters named `epoch`, `indices` or
            `run_seed` are passed as well, see `fenwicks.augment`. It runs inside
            `tf.data.Dataset.map`.
        normalize: callable from a uint8 batch to a float32 batch, applied before `augment`;
            None casts to float32 and keeps 0 to 255.
        seed: integer in [0, 2**31).
        drop_remainder: whether to leave out the last batch of an epoch if it is not full.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 and int32, one pass an epoch.

    Raises:
        ValueError: `check_arrays` refuses the arrays, or `batch_size` or `seed` is out of range.
        ImportError: TensorFlow is not installed.
    """
    _check(images, labels, batch_size)
    count, batch_size = len(images), int(batch_size)
    if batch_size > count:
        raise ValueError(
            f'`batch_size` must be at most the {count} images. Received: batch_size={batch_size}'
        )
    seed = integer('seed', seed, low=0, below=2**31)
    tf = import_tensorflow()
    take = _batch_function(tf, images, labels, normalize)
    augment = None if augment is None else augmentation.with_context(augment)
    passes = itertools.count()

    def batches_of(epoch):
        # Shuffling indices and gathering whole batches is many times faster than shuffling images.
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed_of(epoch))
        numbers = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder)
        return numbers.enumerate().map(lambda step, indices: (epoch, step, indices))

    def seed_of(epoch):
        return augmentation.fold((seed, 0), epoch)

    def finish(epoch, step, indices):
        batch, targets = take(indices)
        if augment is not None:
            step_seed = augmentation.fold(seed_of(epoch), tf.cast(step, tf.int32))
            batch = augment(batch, step_seed, epoch, indices, (seed, 1))
        return batch, targets

    # Counted in Python: a variable would belong to the strategy in whose scope it was created.
    epochs = tf.data.Dataset.from_generator(
        lambda: [next(passes)], output_signature=tf.TensorSpec((), tf.int32)
    )
    batches = epochs.flat_map(batches_of).map(finish, tf.data.AUTOTUNE, deterministic=True)
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))  # for `len`
    return batches.prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    normalize: Callable | None = None,
) -> tf.data.Dataset:
    """Batches for evaluation: every image once, in order; the last batch may be smaller.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`.
        batch_size: images per batch, at least 1; more than n gives one batch of n.
        normalize: as in `train_dataset`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 and int32.

    Raises:
        ValueError: `check_arrays` refuses the arrays, or `batch_size` is below 1.
        ImportError: TensorFlow is not installed.
    """
    _check(images, labels, batch_size)
    tf = import_tensorflow()
    take = _batch_function(tf, images, labels, normalize)
    batches = tf.data.Dataset.range(len(images)).batch(int(batch_size))
    return batches.map(take, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _batch_function(tf, images, labels, normalize):
    """The function from indices to a batch: images, normalised, and labels."""
    if normalize is not None:
        check_callable('normalize', normalize)
    with tf.device('CPU'):
        images = tf.constant(images)
        labels = tf.constant(np.asarray(labels, np.int32))

    def take(indices):
        batch = tf.gather(images, indices)
        batch = tf.cast(batch if normalize is None else normalize(batch), tf.float32)
        return batch, tf.gather(labels, indices)

    return take

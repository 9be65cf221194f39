"""Input functions for stock `fit`: arrays to tf.data.Dataset, for Keras on TensorFlow or JAX."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np

from fenwicks import augment as augmentation
from fenwicks._checks import positive_integer
from fenwicks.data.dataset import check_arrays


def _tensorflow():
    """TensorFlow, or an error that says how to get it."""
    try:
        import tensorflow as tf
    except ImportError:
        raise ImportError(
            'the tf.data input functions need TensorFlow: pip install "fenwicks[cpu]"'
        ) from None
    import keras

    if keras.backend.backend() != 'tensorflow':
        # TensorFlow would take the accelerator's memory away from the backend that trains. It
        # refuses where its devices are in use already: then their owner's choice stands.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], 'GPU')
    return tf


def _check(images, labels, batch_size):
    check_arrays(images, labels)
    positive_integer('batch_size', batch_size)


def train_dataset(
    images, labels, batch_size, augment=None, normalize=None, seed=0, drop_remainder=True
):
    """Batches for training: shuffled anew each epoch, normalised, augmented, prefetched.

    An epoch is a pass over the data set; passes are counted from when it is built, and any look at
    the data is one (on JAX, on PyTorch and under a strategy, Keras takes one before it trains). The
    same `seed` gives the same sequence of passes each time. Pass the data set to `fit` with
    `shuffle=False`, or Keras warns that it leaves the shuffling to it.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`.
        batch_size: images a batch, 1 to n.
        augment: callable `augment(images, seed)` on a float32 batch
            `(batch, height, width, channels)`, where `seed` is an int32 tensor `(2,)` that is
            new for each batch; it returns a batch. One that has parameters `epoch`, `indices` or
            `run_seed` gets those as well, see `fenwicks.augment.compose`. It runs inside
            `tf.data.Dataset.map`.
        normalize: callable from a uint8 batch to a float32 batch, before `augment`;
            by default a plain cast, which keeps 0 to 255.
        seed: integer in [0, 2**31).
        drop_remainder: leaves out the last batch of an epoch where it is not full.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 and int32, one pass an epoch.

    Raises:
        ValueError: arrays that `check_arrays` refuses, a batch size or seed out of range.
        ImportError: TensorFlow is not installed.
    """
    _check(images, labels, batch_size)
    count, batch_size = len(images), int(batch_size)
    if batch_size > count:
        raise ValueError(
            f'`batch_size` must be at most the {count} images there are. '
            f'Received: batch_size={batch_size}'
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**31:
        raise ValueError(f'`seed` must be an integer in [0, 2**31). Received: seed={seed!r}')
    tf = _tensorflow()
    take = _batch_function(tf, images, labels, normalize)
    augment = None if augment is None else augmentation.with_facts(augment)
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

    # Counted in Python, where it makes no difference in what strategy's scope this is called.
    epochs = tf.data.Dataset.from_generator(
        lambda: [next(passes)], output_signature=tf.TensorSpec((), tf.int32)
    )
    batches = epochs.flat_map(batches_of).map(finish, tf.data.AUTOTUNE, deterministic=True)
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))  # for `len`
    return batches.prefetch(tf.data.AUTOTUNE)


def eval_dataset(images, labels, batch_size, normalize=None):
    """Batches for evaluation: every image once, in order; the last batch may be smaller.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`.
        batch_size: images a batch, at least 1; more than n gives one batch of n.
        normalize: as in `train_dataset`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 and int32.

    Raises:
        ValueError: arrays that `check_arrays` refuses, a batch size below 1.
        ImportError: TensorFlow is not installed.
    """
    _check(images, labels, batch_size)
    tf = _tensorflow()
    take = _batch_function(tf, images, labels, normalize)
    batches = tf.data.Dataset.range(len(images)).batch(int(batch_size))
    return batches.map(take, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _batch_function(tf, images, labels, normalize):
    """The function from indices to a batch: images, normalised, and labels."""
    with tf.device('CPU'):
        images = tf.constant(images)
        labels = tf.constant(np.asarray(labels, np.int32))

    def take(indices):
        batch = tf.gather(images, indices)
        batch = tf.cast(batch if normalize is None else normalize(batch), tf.float32)
        return batch, tf.gather(labels, indices)

    return take


def mean_std(images):
    """Per-channel mean and standard deviation of a set of images, in units of 0 to 255.

    ```
    mean = sum(x) / count
    std = sqrt(sum(x * x) / count - mean * mean)      # of the whole population
    ```

    The sums are exact integers. CIFAR-10's training set has the mean (125.31, 122.95, 113.87) and
    the standard deviation (62.99, 62.09, 66.70).

    Args:
        images: uint8 `(n, height, width, channels)`.

    Returns:
        `(mean, std)`, each a float64 array `(channels,)`.

    Raises:
        ValueError: images of another shape or dtype, or none.

    >>> mean_std(np.array([0, 10], np.uint8).reshape(1, 1, 2, 1))
    (array([5.]), array([5.]))
    """
    images = np.asarray(images)
    check_arrays(images, np.zeros(len(images) if images.ndim else 0, np.int32))
    channels = images.shape[-1]
    rows = images.reshape(len(images), -1)
    total = np.zeros(rows.shape[1], np.uint64)
    squares = np.zeros_like(total)
    for start in range(0, len(rows), 1000):  # 255 * 255 fits 16 bits, 1000 of them fit 32
        chunk = rows[start : start + 1000]
        total += chunk.sum(axis=0, dtype=np.uint32)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    count = images.size // channels
    total, squares = (x.reshape(-1, channels).sum(axis=0) for x in (total, squares))
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean * mean, 0.0))

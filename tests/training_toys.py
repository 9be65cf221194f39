"""Small data, models and trainers, and how two trainings are compared."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import fenwicks
from fenwicks import augment, optimizers, schedules
from fenwicks.training import Trainer

COUNT, BATCH, SEED = 22, 4, 7  # five steps an epoch, two images left over
STEPS = COUNT // BATCH
RATES = schedules.PiecewiseLinear([(0, 0.02), (4, 0.1), (15, 0.0)])


def toy(count=COUNT, size=8, seed=0):
    """Images of three classes, told apart by the column that is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    images = rng.integers(0, 100, (count, size, size, 3))
    images[np.arange(count), :, labels * 2] += 150
    return images.astype(np.uint8), labels


def conv_model(size=8):
    """Convolution, batch normalization, pooling: a network with running statistics."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            fenwicks.layers.ConvBN(4),
            fenwicks.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, dtype='float32'),
        ]
    )


def dense_model(*before, **options):
    return keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), *before, keras.layers.Dense(3, **options)]
    )


def sgd(rate=RATES):
    return optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-4)


def make(model=None, optimizer=None, **options):
    keras.utils.set_random_seed(0)
    options = {'batch_size': BATCH, 'seed': SEED} | options
    return Trainer(model or conv_model(), optimizer or sgd(), **options)


def values(trainer):
    return [np.array(ops.convert_to_numpy(variable)) for variable in trainer.variables]


def assert_same(one, other):
    """Bit for bit, variables and history; the times are the machine's own."""
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert numbers(one.records) == numbers(other.records)


def numbers(records):
    times = ('seconds', 'images_per_second')
    return [{key: epoch[key] for key in epoch if key not in times} for epoch in records]


def order_of(epoch, seed=SEED, count=COUNT):
    """The shuffle, written down a second time: a stable sort of the generator's numbers."""
    seed = augment.fold((seed, 0), epoch)
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        numbers = tf.random.stateless_uniform([count], seed, None, None, 'int32', alg='philox')
    else:
        import jax

        key = jax.random.wrap_key_data(seed.astype('uint32'), impl='threefry2x32')
        numbers = jax.random.uniform(key, [count])
    return np.argsort(np.asarray(numbers), kind='stable')


class Recorder:
    """An augmentation that changes nothing and notes the batches and seeds that it is given."""

    def __init__(self):
        self.batches, self.seeds = [], []

    def note(self, images, seed):
        self.batches.append(np.array(images))
        self.seeds.append(tuple(np.asarray(seed).tolist()))
        return np.asarray(images)

    def __call__(self, images, seed):
        if keras.backend.backend() == 'tensorflow':
            import tensorflow as tf

            noted = tf.numpy_function(self.note, [images, seed], images.dtype)
            noted.set_shape(images.shape)
            return noted
        from jax import ShapeDtypeStruct
        from jax.experimental import io_callback

        shape = ShapeDtypeStruct(images.shape, images.dtype)
        return io_callback(self.note, shape, images, seed, ordered=True)


def warned(call, message):
    """Raises unless the call gives warnings of one line that begin with this message, and others
    that aren't of this library."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        call()
    texts = [str(each.message) for each in found if each.category is UserWarning]
    assert texts
    for text in texts:
        assert text.startswith(message), text
        assert '\n' not in text


class Stop(Exception):
    pass


def interrupted(trainer, path, epochs, after, **options):
    """Trains, with an end in the epoch that follows `after` whole ones."""
    engine = trainer._engines.at(after)
    run = engine.run

    def broken(epoch, start, stop, *more, **options):
        if epoch == after and stop:
            run(epoch, start, min(stop, 2), *more, **options)
            raise Stop
        return run(epoch, start, stop, *more, **options)

    engine.run = broken
    with pytest.raises(Stop):
        trainer.fit(*toy(), epochs, checkpoint=path, **options)


def with_dropout():
    return dense_model(keras.layers.Dropout(0.5, seed=3))


def adam():
    return keras.optimizers.Adam(0.01)

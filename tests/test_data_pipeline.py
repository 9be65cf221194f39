"""The tf.data input functions."""

import builtins

import keras
import numpy as np
import pytest

from fenwicks import augment, data

tf = pytest.importorskip('tensorflow')


def numbered(n=10):
    """n images whose pixels all are their number, which is their label too."""
    labels = np.arange(n, dtype=np.int32)
    return np.broadcast_to(labels[:, None, None, None], (n, 4, 4, 3)).astype(np.uint8), labels


def epoch(dataset):
    images, labels = zip(*((x.numpy(), y.numpy()) for x, y in dataset), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_training_epochs_are_shuffled_anew_and_reproducible():
    images, labels = numbered()
    dataset = data.train_dataset(images, labels, 5, seed=3)
    assert len(dataset) == 2
    (x, y), (_, second) = epoch(dataset), epoch(dataset)
    np.testing.assert_array_equal(x[:, 0, 0, 0], y)  # images stay with their labels
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    assert sorted(y) == sorted(second) == list(range(10))
    assert y.tolist() != list(range(10))
    assert y.tolist() != second.tolist()
    again = data.train_dataset(images, labels, 5, seed=3)
    np.testing.assert_array_equal(epoch(again)[1], y)
    np.testing.assert_array_equal(epoch(again)[1], second)
    other = data.train_dataset(images, labels, 5, seed=4)
    assert epoch(other)[1].tolist() != y.tolist()


@pytest.mark.parametrize(('drop', 'sizes'), [(True, [4, 4]), (False, [4, 4, 2])])
def test_remainder(drop, sizes):
    dataset = data.train_dataset(*numbered(), 4, drop_remainder=drop)
    assert len(dataset) == len(sizes)
    assert [len(y) for _, y in dataset] == sizes
    assert dataset.element_spec[0].shape.as_list() == [4 if drop else None, 4, 4, 3]


def test_normalize_comes_before_augment_which_gets_new_seeds():
    seen = []

    def record(images, seed):
        assert images.dtype == tf.float32
        assert seed.dtype == tf.int32
        assert seed.shape.as_list() == [2]
        column = tf.fill(tf.shape(images), tf.cast(seed[0], tf.float32))
        return tf.concat([images + 100, column], -1)

    dataset = data.train_dataset(
        *numbered(),
        5,
        augment=record,
        normalize=lambda x: tf.cast(x, tf.float32) / 2,
        seed=1,
    )
    for _ in range(2):
        for images, labels in dataset:
            np.testing.assert_allclose(images[:, 0, 0, 0], labels.numpy() / 2 + 100)
            seen.append(float(images[0, 0, 0, 3]))
    assert len(set(seen)) == 4
    again = data.train_dataset(*numbered(), 5, augment=record, seed=1)
    assert float(next(iter(again))[0][0, 0, 0, 3]) == seen[0]


def test_augmentations_hear_of_epoch_and_images():
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
    dataset = data.train_dataset(images, np.arange(12), 4, augment=augment.alternating_flip)
    first, second, third = (
        dict(zip(y.tolist(), x, strict=True)) for x, y in map(epoch, [dataset] * 3)
    )
    mirrored = [np.array_equal(first[n], images[n, :, ::-1]) for n in range(12)]
    assert 0 < sum(mirrored) < 12
    for n in range(12):
        np.testing.assert_array_equal(second[n], first[n][:, ::-1])
        np.testing.assert_array_equal(third[n], first[n])


@pytest.mark.thorough
def test_groups_of_images_share_draws():
    labels = np.arange(200)
    shifts = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None], (200, 16, 16, 3))

    def corner(images, seed):
        return augment.random_crop(images, seed, padding=4)[:, :1, :1]

    grouped = data.train_dataset(shifts, labels, 50, augment=augment.in_groups(corner, groups=1))
    each = data.train_dataset(shifts, labels, 50, augment=corner)
    epochs = [np.unique(epoch(grouped)[0]) for _ in range(8)]
    assert {len(values) for values in epochs} == {1}  # one draw for all images of an epoch
    assert len(np.unique(epochs)) > 1
    assert len(np.unique(epoch(each)[0])) > 3


def test_what_the_global_seed_is_does_not_matter():
    orders = []
    for global_seed in (1, 2):
        keras.utils.set_random_seed(global_seed)
        orders.append(epoch(data.train_dataset(*numbered(), 5, seed=3))[1].tolist())
    assert orders[0] == orders[1]


@pytest.mark.parametrize('seed', [-1, 2**31, 1.5, None, True])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=rf'`seed` must be an integer in .*Received: seed={seed}'):
        data.train_dataset(*numbered(), 5, seed=seed)


def test_evaluation_is_whole_and_in_order():
    images, labels = numbered()
    dataset = data.eval_dataset(images, labels, 4)
    assert [len(y) for _, y in dataset] == [4, 4, 2]
    x, y = epoch(dataset)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(x, images.astype(np.float32))
    assert x.dtype == np.float32
    halved = data.eval_dataset(images, labels, 99, normalize=lambda x: x / 2)
    np.testing.assert_allclose(epoch(halved)[0], images / 2)


@pytest.mark.parametrize(
    ('batch_size', 'message'),
    [
        (0, r'`batch_size` must be a positive integer.*batch_size=0'),
        (-1, r'`batch_size` must be a positive integer'),
        (2.0, r'`batch_size` must be a positive integer.*2.0'),
        (True, r'`batch_size` must be a positive integer'),
        (11, r'`batch_size` must be at most the 10 images.*batch_size=11'),
    ],
)
def test_bad_batch_sizes(batch_size, message):
    with pytest.raises(ValueError, match=message):
        data.train_dataset(*numbered(), batch_size)
    if batch_size != 11:
        with pytest.raises(ValueError, match=message):
            data.eval_dataset(*numbered(), batch_size)


@pytest.mark.parametrize('function', [data.train_dataset, data.eval_dataset])
def test_bad_arrays(function):
    images, labels = numbered()
    with pytest.raises(ValueError, match='must be uint8'):
        function(images / 255, labels, 5)
    with pytest.raises(ValueError, match='same length'):
        function(images, labels[:-1], 5)


def test_without_tensorflow(monkeypatch):
    real = builtins.__import__

    def fake(name, *arguments, **options):
        if name == 'tensorflow':
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, '__import__', fake)
    for function in (data.train_dataset, data.eval_dataset):
        with pytest.raises(ImportError, match=r'pip install tensorflow-cpu'):
            function(*numbered(), 5)


def test_stock_fit():
    images, labels = numbered()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile('sgd', loss, metrics=['accuracy'])
    train = data.train_dataset(images, labels, 4, normalize=lambda x: tf.cast(x, tf.float32) / 9)
    history = model.fit(train, epochs=2, verbose=0, shuffle=False)
    assert len(history.history['loss']) == 2
    assert np.isfinite(model.evaluate(data.eval_dataset(images, labels, 4), verbose=0)).all()


def epochs_of_a_fit(count):
    """The epoch that an augmentation heard of in each epoch of a `fit`."""

    def write_epoch(images, seed, epoch):
        return tf.ones_like(images) * tf.cast(epoch, tf.float32)

    model = keras.Sequential(
        [
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(
                1, use_bias=False, kernel_initializer=keras.initializers.Constant(1 / 3)
            ),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), loss=lambda labels, outputs: outputs)
    train = data.train_dataset(*numbered(), 4, augment=write_epoch)
    return model.fit(train, epochs=count, verbose=0, shuffle=False).history['loss']


def test_every_epoch_of_a_fit_is_one_pass():
    losses = epochs_of_a_fit(4)
    np.testing.assert_allclose(np.diff(losses), 1)
    assert losses[0] == (0 if keras.backend.backend() == 'tensorflow' else 1)


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_the_scope_of_a_strategy_does_not_matter():
    with tf.distribute.MirroredStrategy(['CPU:0']).scope():
        np.testing.assert_allclose(np.diff(epochs_of_a_fit(3)), 1)


@pytest.mark.thorough
def test_the_packages_own_augmentations():
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    dataset = data.train_dataset(
        images,
        np.arange(8),
        8,
        augment=augment.compose([augment.random_crop, augment.random_flip]),
        normalize=lambda x: augment.normalize(x, *data.mean_std(images)),
    )
    (x, labels), *_ = dataset
    assert x.shape == (8, 8, 8, 3)
    mean, std = data.mean_std(images)
    plain = (images[labels.numpy()] - mean) / std
    assert not np.allclose(x, plain, atol=1e-3)
    assert np.isin(np.round(x, 3), np.round(plain.astype(np.float32), 3)).mean() > 0.95

"""Batches over arrays and mapped files, in `fit` and beside it."""

import itertools
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

from fenwicks import augment, data


def numbered(count=10):
    """Images whose pixels all are their number, which is their label too."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    return images, np.arange(count)


def labels_of(batches):
    found = []
    for images, labels in batches:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        assert images.dtype == np.float32
        assert labels.dtype == np.int32
        found.append(labels.tolist())
    return found


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def test_evaluation_is_whole_and_in_order():
    batches = data.ImageBatches(*numbered(), batch_size=4)
    assert len(batches) == 3
    assert labels_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    batches.epoch += 1
    assert labels_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_training_is_shuffled_anew_by_seed():
    def epochs(seed):
        batches = data.ImageBatches(
            *numbered(), batch_size=4, shuffle=True, seed=seed, drop_remainder=True
        )
        for _ in range(3):
            yield flat(labels_of(batches))
            batches.epoch += 1

    first, again, other = (list(epochs(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({tuple(order) for order in first}) == 3
    for order in first:
        assert len(set(order)) == 8
    whole = data.ImageBatches(*numbered(), batch_size=4, shuffle=True)
    assert [len(part) for part in labels_of(whole)] == [4, 4, 2]
    assert sorted(flat(labels_of(whole))) == list(range(10))


def test_they_go_to_other_processes():
    batches = data.ImageBatches(
        *numbered(), 4, shuffle=True, seed=3, augment=augment.compose([augment.random_flip])
    )
    batches[0]
    twin = pickle.loads(pickle.dumps(batches))
    assert labels_of(twin) == labels_of(batches)
    twin.epoch = batches.epoch = 5
    assert labels_of(twin) == labels_of(batches)


def test_an_epoch_can_be_gone_back_to():
    batches = data.ImageBatches(*numbered(), batch_size=10, shuffle=True)
    orders = []
    for _ in range(3):
        orders.append(labels_of(batches))
        batches.epoch += 1
    batches.epoch = 1
    assert labels_of(batches) == orders[1]


def test_a_part_of_the_images():
    batches = data.ImageBatches(*numbered(), batch_size=2, indices=[7, 1, 4])
    assert labels_of(batches) == [[7, 1], [4]]
    shuffled = data.ImageBatches(*numbered(), batch_size=3, indices=[7, 1, 4], shuffle=True)
    assert sorted(labels_of(shuffled)[0]) == [1, 4, 7]


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_processes_share_the_images(count):
    def shares(**options):
        return [
            labels_of(
                data.ImageBatches(
                    *numbered(), batch_size=2, process_index=i, process_count=count, **options
                )
            )
            for i in range(count)
        ]

    for parts in (shares(), shares(shuffle=True, seed=3)):
        everything = flat(flat(parts))
        assert sorted(everything) == list(range(10))
    parts = shares(shuffle=True, drop_remainder=True)
    assert len({len(part) for part in parts}) == 1
    assert all(len(batch) == 2 for part in parts for batch in part)
    everything = flat(flat(parts))
    assert len(set(everything)) == len(everything)


def test_images_without_labels():
    images, _ = numbered()
    batches = data.ImageBatches(images, batch_size=6)
    assert [batch.shape for batch in batches] == [(6, 4, 4, 3), (4, 4, 4, 3)]


def test_a_mapped_file_is_read_batch_by_batch(tmp_path):
    images, labels = numbered(50)
    np.save(tmp_path / 'images.npy', images)
    mapped = np.load(tmp_path / 'images.npy', 'r')
    batches = data.ImageBatches(mapped, labels, 20, shuffle=True)
    assert batches.images is mapped
    assert not isinstance(batches[0][0], np.memmap)
    assert sorted(flat(labels_of(batches))) == list(range(50))


def test_normalize_comes_before_augment_which_gets_new_seeds():
    seeds = []

    def record(images, seed):
        assert images.dtype == np.float32
        seeds.append(tuple(np.asarray(seed).tolist()))
        return images + 100

    def make(**options):
        return data.ImageBatches(
            *numbered(), batch_size=5, normalize=lambda x: x / 2, augment=record, **options
        )

    batches = make()
    for _ in range(2):
        for images, labels in batches:
            np.testing.assert_allclose(images[:, 0, 0, 0], labels / 2 + 100)
        batches.epoch += 1
    make(process_count=2, process_index=1)[0]
    assert len(set(seeds)) == 5
    make()[0]
    assert seeds[-1] == seeds[0]


def test_the_packages_own_augmentations():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    chain = augment.compose([augment.random_crop, augment.alternating_flip])
    batches = data.ImageBatches(
        images,
        np.arange(12),
        6,
        shuffle=True,
        normalize=lambda x: augment.normalize(x, *data.mean_std(images)),
        augment=chain,
    )
    first, second = batches[0][0], batches[0][0]
    assert first.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(first, second)
    mean, std = data.mean_std(images)
    plain = np.round(((images - mean) / std).astype(np.float32), 3)
    assert np.isin(np.round(first, 3), plain).mean() > 0.95
    alternating = data.ImageBatches(images, np.arange(12), 12, augment=augment.alternating_flip)
    one = alternating[0][0]
    alternating.epoch += 1
    np.testing.assert_array_equal(alternating[0][0], one[:, :, ::-1])


@pytest.mark.parametrize('workers', [1, 3])
def test_stock_fit(workers):
    images, labels = numbered(40)
    seen = []

    def record(batch, seed, epoch, indices):
        seen.append((int(epoch), *indices.tolist()))
        return batch

    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(40)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile('sgd', loss, metrics=['accuracy'])
    train = data.ImageBatches(
        images, labels, 8, shuffle=True, drop_remainder=True, augment=record, workers=workers
    )
    history = model.fit(train, epochs=3, verbose=0, shuffle=False)
    assert len(history.history['loss']) == 3
    start = 0 if keras.backend.backend() == 'tensorflow' else 1
    for epoch in range(start, start + 3):  # every epoch has every image, and an order of its own
        batches = {tuple(numbers) for first, *numbers in seen if first == epoch}
        assert sorted(flat(batches)) == list(range(40))
    assert train.epoch == start + 3
    whole = data.ImageBatches(images, labels, 16)
    loss, accuracy = model.evaluate(whole, verbose=0)
    outputs = model.predict(data.ImageBatches(images, batch_size=16), verbose=0)
    assert outputs.shape == (40, 40)
    assert accuracy == pytest.approx((outputs.argmax(-1) == labels).mean())
    assert np.isfinite(loss)


@pytest.mark.thorough
def test_no_tensorflow_is_needed():
    program = """
import sys
sys.modules['tensorflow'] = None
import numpy as np
from fenwicks import data
batches = data.ImageBatches(np.zeros((3, 2, 2, 3), np.uint8), np.arange(3), 2, shuffle=True)
assert [len(y) for _, y in batches] == [2, 1]
from fenwicks.data import tfrecord
"""
    pytest.importorskip('jax')
    done = subprocess.run(
        [sys.executable, '-c', program],
        env=os.environ | {'KERAS_BACKEND': 'jax'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'batch_size': 0}, '`batch_size` must be a positive integer'),
        ({'batch_size': 11, 'drop_remainder': True}, '`batch_size` must be at most the 10 images'),
        (
            {'batch_size': 6, 'drop_remainder': True, 'process_count': 2},
            '`batch_size` must be at most the 5 images of a process',
        ),
        (
            {'process_index': 10, 'process_count': 11},
            '`process_count` must be at most the 10 images. Received: process_count=11',
        ),
        (
            {'drop_remainder': True, 'process_count': 11},
            '`process_count` must be at most the 10 images. Received: process_count=11',
        ),
        ({'indices': [10]}, r'`indices` must be at least one integer in \[0, 10\)'),
        ({'indices': [-1]}, r'`indices` must be at least one integer in \[0, 10\)'),
        ({'indices': []}, '`indices` must be'),
        ({'indices': [0.5]}, '`indices` must be at least one integer'),
        ({'indices': np.arange(12) < 5}, r'or 10 booleans. Received: indices=array\(\[ True'),
        ({'seed': -1}, '`seed` must be an integer'),
        ({'seed': True}, '`seed` must be an integer'),
        ({'process_index': 1}, r'`process_index` must be an integer in \[0, 1\)'),
        ({'process_count': 0}, '`process_count` must be a positive integer'),
        ({'workers': 0}, '`workers` must be a positive integer'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.ImageBatches(*numbered(), **options)
    assert '\n' not in str(caught.value)


def test_indices_may_be_booleans():
    images, labels = numbered()
    batches = data.ImageBatches(images, labels, indices=np.arange(10) % 2 == 0)
    assert batches.indices.tolist() == [0, 2, 4, 6, 8]


def test_bad_arrays_and_indices():
    images, labels = numbered()
    with pytest.raises(ValueError, match='must be uint8'):
        data.ImageBatches(images / 255, labels)
    with pytest.raises(ValueError, match='same length'):
        data.ImageBatches(images, labels[:3])
    with pytest.raises(IndexError, match=r'`index` must be in \[0, 1\)'):
        data.ImageBatches(images, labels)[1]

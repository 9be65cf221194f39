"""The tutorial of the original Fenwicks, cell by cell, with the successors that UPGRADING.md names.

Each cell is a function that is handed what the cells before it made. The widths, the number of
images and of epochs are small; all else is as there.
"""

from functools import partial

import keras
import numpy as np
import pytest

import fenwicks as fw

pytestmark = pytest.mark.backend('tensorflow', 'jax')

BATCH_SIZE, EPOCHS, WARMUP = 32, 2, 0.5
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 0.000125
WIDTHS = (4, 8, 8, 16)


def cell_data(work_dir):
    """Was `tf.keras.datasets.cifar10.load_data()` and `fw.io.create_clean_dir`."""
    dataset = fw.data.load('digits').limit(320)
    mean, std = fw.data.mean_std(dataset.train_images)  # was fw.vision.compute_mean_std
    # Was fw.data.numpy_tfrecord(X, y, file): shards, and read again as tfrecord_ds did.
    arrays = fw.data.ImageArrays(
        dataset.train_images, dataset.train_labels, tuple(dataset.class_names)
    )
    fw.data.write_shards(arrays, work_dir, shards=2, show_progress=False)
    read = fw.data.decode_shards(
        f'{work_dir}/images-*', (32, 32), cache_dir=work_dir, show_progress=False
    )
    assert sorted(read.labels) == sorted(dataset.train_labels)
    return dataset, read, mean, std


def cell_transforms(mean, std):
    """Was `tfm = [random_pad_crop(x, 4), random_flip(x), cutout(x, 8, 8)]` in a parser."""
    normalize = partial(fw.augment.normalize, mean=mean, std=std)
    augment = fw.augment.compose(
        [
            partial(fw.augment.random_crop, padding=4),
            fw.augment.random_flip,
            partial(fw.augment.random_cutout, size=8),
        ]
    )
    return normalize, augment


def cell_look(dataset, augment, mean, std):
    """Was `fw.plt.anim.show_transform`."""
    views = fw.augment.preview(dataset.train_images[:2], augment, mean, std, epochs=3, seed=(0, 1))
    assert np.asarray(views).dtype == np.uint8
    assert (np.asarray(views)[0] != np.asarray(views)[1]).any()


def cell_network(num_classes):
    """Was `build_nn`, a `fw.Sequential` of blocks with `**PYTORCH_PARAMS`."""
    style = fw.layers.PYTORCH_PARAMS
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            fw.layers.ConvBN(WIDTHS[0], **style),
            fw.layers.ConvResBlk(WIDTHS[1], **style),
            fw.layers.ConvBlk(WIDTHS[2], **style),
            fw.layers.ConvResBlk(WIDTHS[3], **style),
            keras.layers.GlobalMaxPooling2D(),
            fw.layers.Classifier(
                num_classes, kernel_initializer=fw.layers.init_pytorch, weight=0.125
            ),
        ]
    )
    assert fw.models.check_model(model).shape == (1, num_classes)
    return model


def cell_optimizer(steps_per_epoch):
    """Was `fw.train.one_cycle_lr`, `plot_lr_func` and `fw.train.sgd_optimizer`."""
    total, warmup = EPOCHS * steps_per_epoch, int(WARMUP * steps_per_epoch)
    schedule = fw.schedules.OneCycle(peak=LEARNING_RATE, total_steps=total, warmup_steps=warmup)
    rates = [float(schedule(step)) for step in (0, warmup, total)]
    np.testing.assert_allclose(rates, [0, LEARNING_RATE, 0], atol=1e-6)
    return fw.optimizers.SGD(schedule, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)


def cell_training(model, optimizer, normalize, augment, arrays, work_dir):
    """Was `get_clf_model_func`, `get_tpu_estimator` and `est.train`."""
    trainer = fw.training.Trainer(
        model, optimizer, batch_size=BATCH_SIZE, normalize=normalize, augment=augment
    )
    checkpoint = work_dir / 'checkpoint.npz'
    trainer.fit(arrays.images, arrays.labels, epochs=EPOCHS, checkpoint=checkpoint)
    assert checkpoint.exists()
    return trainer


@pytest.mark.thorough
def test_the_tutorial(tmp_path):
    dataset, arrays, mean, std = cell_data(tmp_path)
    normalize, augment = cell_transforms(mean, std)
    cell_look(dataset, augment, mean, std)
    model = cell_network(dataset.num_classes)
    optimizer = cell_optimizer(len(arrays) // BATCH_SIZE)
    trainer = cell_training(model, optimizer, normalize, augment, arrays, tmp_path)
    losses = [record['train_loss'] for record in trainer.records]
    assert losses[-1] < losses[0]
    # Was est.evaluate, which left out the last images.
    score = trainer.evaluate(dataset.test_images, dataset.test_labels)
    logits = trainer.predict(dataset.test_images)
    assert len(logits) == len(dataset.test_labels)
    assert score.accuracy == np.mean(logits.argmax(1) == dataset.test_labels)


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_the_second_tutorial_cross_validates_a_pretrained_network(tmp_path, monkeypatch):
    """Was `crossval_ds` and `fw.keras_models.get_model`, with `get_fastai_transforms`."""
    from folder_pictures import make
    from test_pretrained import tiny

    monkeypatch.setattr(keras.applications, 'MobileNet', tiny)
    images = fw.data.ImageList.from_folders(make(tmp_path / 'pictures', count=4))
    arrays = fw.data.decode_images(images, (20, 20), cache_dir=tmp_path, show_progress=False)
    tested = []

    def resize(images):
        return fw.augment.resize(keras.ops.cast(images, 'float32'), 16, 16)

    for train, validation in fw.data.k_folds(len(arrays), 2, labels=arrays.labels):
        model = fw.models.pretrained(
            'MobileNet', arrays.num_classes, input_shape=(16, 16, 3), weights=None
        )
        augment = fw.augment.compose(
            fw.augment.fastai_transforms(16, 16, normalizer=lambda images: images)
        )
        batches = fw.data.train_dataset(
            arrays.images[train], arrays.labels[train], 8, augment=augment
        )
        held_out = fw.data.eval_dataset(
            arrays.images[validation],
            arrays.labels[validation],
            8,
            normalize=resize,
        )
        groups = fw.optimizers.stage_groups(model)
        model.compile(
            fw.optimizers.SGD(0.01, momentum=0.9, nesterov=True, groups=groups),
            fw.losses.CrossEntropy(),
            metrics=['accuracy'],
        )
        history = model.fit(
            batches, validation_data=held_out, epochs=1, shuffle=False, verbose=0
        ).history
        assert np.isfinite(history['val_loss'][0])
        tested += validation.tolist()
    assert sorted(tested) == list(range(len(arrays)))

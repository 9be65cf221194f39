"""The training that several experiments share: a network, to its accuracy on the test images."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras

from fenwicks import augment, data, losses, training


def fit(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    settings: dict[str, Any],
    seed: int,
    dataset: data.Dataset,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    cutout: int = 0,
) -> dict[str, Any]:
    """Trains a network on random crops and mirror images, and tests it.

    Args:
        model, optimizer: not used before.
        settings: has `epochs` and `batch_size`, where these are not given.
        seed: of shuffle and augmentation.
        dataset: to train and test on.
        epochs, batch_size: in the place of those of the settings.
        cutout: side of the square that is blanked, in pixels; 0 for none.

    Returns:
        `accuracy` on the test images, `test_loss`, `train_loss` of the last epoch, and
        `train_seconds` without compilation. A run that diverged has None for all but the seconds.
    """
    mean, std = data.mean_std(dataset.train_images)
    steps = [partial(augment.random_crop, padding=4), augment.random_flip]
    if cutout:
        steps.append(partial(augment.random_cutout, size=cutout))
    trainer = training.Trainer(
        model,
        optimizer,
        losses.CrossEntropy(),
        batch_size=batch_size or settings['batch_size'],
        normalize=partial(augment.normalize, mean=mean, std=std),
        augment=augment.compose(steps),
        seed=seed,
    )
    score = None
    try:
        epochs = epochs or settings['epochs']
        trainer.fit(dataset.train_images, dataset.train_labels, epochs, verbose=0)
        score = trainer.evaluate(dataset.test_images, dataset.test_labels)
    except training.DivergedError:
        pass
    return {
        'accuracy': score and score.accuracy,
        'test_loss': score and score.loss,
        'train_loss': score and trainer.records[-1]['train_loss'],
        'train_seconds': round(trainer.train_seconds, 2),
    }


def steps_per_epoch(dataset: data.Dataset, batch_size: int) -> int:
    """Steps of an epoch, whose incomplete last batch is dropped."""
    return len(dataset.train_images) // batch_size

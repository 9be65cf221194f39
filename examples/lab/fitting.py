"""The training that several experiments share: a network, to its accuracy on the test images."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np

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
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Trains a network on random crops and mirror images, and tests it.

    Args:
        model, optimizer: not used before.
        settings: has `epochs` and `batch_size`, where these are not given.
        seed: of shuffle and augmentation.
        dataset: to train and test on.
        epochs, batch_size: in the place of those of the settings.
        cutout: side of the square that is blanked, in pixels; 0 for none.
        held_out: further images and labels to test on.

    Returns:
        `accuracy` on the test images, `held_out` that on the others, `test_loss`, `train_loss` of
        the last epoch, `train_seconds` without compilation, and lists with a number for each epoch:
        `train_losses` and `learning_rates`, after its last step. A run that diverged has None for
        the accuracies and losses, and lists of the epochs before.
    """
    batch_size = batch_size or settings['batch_size']
    trainer = make_trainer(model, optimizer, batch_size, seed, dataset, cutout)
    score = kept = None
    try:
        epochs = epochs or settings['epochs']
        trainer.fit(dataset.train_images, dataset.train_labels, epochs, verbose=0)
        score = trainer.evaluate(dataset.test_images, dataset.test_labels)
        kept = held_out and trainer.evaluate(*held_out)
    except training.DivergedError:
        pass
    losses_of_epochs = [record['train_loss'] for record in trainer.records]
    return {
        'accuracy': score and score.accuracy,
        'held_out': kept and kept.accuracy,
        'test_loss': score and score.loss,
        'train_loss': score and losses_of_epochs[-1],
        'train_seconds': round(trainer.train_seconds, 2),
        'train_losses': losses_of_epochs,
        'learning_rates': [record['learning_rate'] for record in trainer.records],
    }


def make_trainer(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    batch_size: int,
    seed: int,
    dataset: data.Dataset,
    cutout: int = 0,
) -> training.Trainer:
    """The Trainer of `fit`, which has taken no step yet."""
    mean, std = data.mean_std(dataset.train_images)
    steps = [partial(augment.random_crop, padding=4), augment.random_flip]
    if cutout:
        steps.append(partial(augment.random_cutout, size=cutout))
    return training.Trainer(
        model,
        optimizer,
        losses.CrossEntropy(),
        batch_size=batch_size,
        normalize=partial(augment.normalize, mean=mean, std=std),
        augment=augment.compose(steps),
        seed=seed,
    )


def steps_per_epoch(dataset: data.Dataset, batch_size: int) -> int:
    """Steps of an epoch, whose incomplete last batch is dropped."""
    return len(dataset.train_images) // batch_size

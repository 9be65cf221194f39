"""From a recipe to a trainer: every step of the walk, in order, on one page."""

from __future__ import annotations

import functools

import keras

from fenwicks import augment, data, losses, models, optimizers, schedules
from fenwicks.recipes import Recipe
from fenwicks.training import Trainer


def assemble(recipe: Recipe, dataset: data.Dataset, *, precision='float32', seed=0) -> Trainer:
    """The trainer of a recipe on a data set.

    Args:
        recipe: the settings.
        dataset: gives the image shape, the number of classes, the statistics for normalising and
            the number of steps in an epoch.
        precision: as `fenwicks.precision.set_precision` returned it.
        seed: of the initial weights, the shuffle and the augmentation.

    Returns:
        A `Trainer` with a fresh model.

    Raises:
        ValueError: recipe and data set don't fit each other.
    """
    steps_per_epoch = recipe.steps_per_epoch(len(dataset.train_images))
    keras.utils.set_random_seed(seed)

    mean, std = data.mean_std(dataset.train_images)
    model = models.resnet9(
        input_shape=dataset.image_shape,
        num_classes=dataset.num_classes,
        widths=recipe.widths,
        logit_scale=recipe.logit_scale,
    )
    optimizer = optimizers.SGD(
        schedules.PiecewiseLinear(recipe.step_knots(steps_per_epoch)),
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    if precision == 'float16':
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return Trainer(
        model,
        optimizer,
        losses.CrossEntropy(label_smoothing=recipe.label_smoothing),
        batch_size=recipe.batch_size,
        normalize=functools.partial(augment.normalize, mean=mean, std=std),
        augment=augment.compose(augmentations(recipe)),
        seed=seed,
    )


def augmentations(recipe: Recipe) -> list:
    """The recipe's random transforms, in the order in which they are applied."""
    transforms = []
    if recipe.crop_padding:
        transforms.append(functools.partial(augment.random_crop, padding=recipe.crop_padding))
    if recipe.flip:
        transforms.append(augment.random_flip)
    if recipe.cutout:
        transforms.append(functools.partial(augment.random_cutout, size=recipe.cutout))
    return transforms


def with_normalization(model, mean, std):
    """A model on raw pixels, 0 to 255: normalisation in float32, then `model`.

    Args:
        model: from normalised images to logits.
        mean, std: per channel, in units of 0 to 255.

    Returns:
        A compiled `keras.Model` to save and to evaluate with plain Keras.
    """
    images = keras.Input(model.input_shape[1:], name='images')
    variance = [float(deviation) ** 2 for deviation in std]
    normalize = keras.layers.Normalization(
        mean=[float(m) for m in mean], variance=variance, dtype='float32'
    )
    raw = keras.Model(images, model(normalize(images)), name=model.name)
    # The optimizer is only there for Keras's sake: one without slots, which it would save unbuilt
    # and miss on loading.
    raw.compile('sgd', losses.CrossEntropy(), metrics=['sparse_categorical_accuracy'])
    return raw

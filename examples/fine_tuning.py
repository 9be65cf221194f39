"""How a pretrained network is trained on other images, by the fields of a recipe.

The recipe says all but the network: batches, epochs, rates, augmentation, averages. The network
takes raw pixels and has its own normaliser, so that the data's mean and standard deviation serve
the augmentation only.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import keras

from fenwicks import assemble, augment, data, losses, models, optimizers, training
from fenwicks.recipes import Recipe
from fenwicks.recipes.fields import OF_PRETRAINED

# A low rate, since the network is good already. Random affine maps instead of cutouts, which would
# be black squares on photographs.
RECIPE = Recipe(
    name='fine_tuning',
    batch_size=32,
    epochs=5,
    warmup_epochs=1,
    peak_learning_rate=0.01,
    weight_decay=1e-4,
    widths=(),
    crop_padding=0,
    cutout=0,
    augmentations=('random_affine(rotate=10, zoom=1.2, shift=0.1)',),
    label_smoothing=0.1,
    tta='flip',
)


def check(recipe: Recipe) -> None:
    """Raises if the recipe sets what a pretrained network has of its own."""
    for field in dataclasses.fields(Recipe):
        name = field.name
        if name not in OF_PRETRAINED and getattr(recipe, name) != getattr(RECIPE, name):
            raise ValueError(
                f'`set` must leave `{name}` alone for a pretrained network. '
                f'Received: {name}={getattr(recipe, name)}'
            )


@dataclasses.dataclass(frozen=True)
class PretrainedNetwork:
    """A pretrained network and how it is trained.

    Args:
        name: as in `models.pretrained`.
        weights: as there.
        stages: of the backbone that are trained; None for all.
        stage_factor: factor on the learning rate from one stage to the next, away from the head.
    """

    name: str
    weights: str | os.PathLike[str] | None = 'imagenet'
    stages: int | None = None
    stage_factor: float = 0.5

    def settings(self) -> dict:
        """What tells runs with this network from others, as JSON has it."""
        weights = self.weights if self.weights is None else pathlib.Path(self.weights).name
        return {'pretrained': {**dataclasses.asdict(self), 'weights': weights}}

    def model(self, image_shape: Sequence[int | None], num_classes: int) -> keras.Model:
        """The network with a new head."""
        return models.pretrained(
            self.name,
            num_classes,
            input_shape=image_shape,
            weights=self.weights,
            trainable_stages=self.stages,
        )

    def build_trainer(
        self,
        recipe: Recipe,
        dataset: data.Dataset,
        *,
        precision: str = 'float32',
        seed: int = 0,
        replicas: training.Replicas | None = None,
    ) -> training.Trainer:
        """The trainer of this network, as `assemble.build_trainer` makes that of a recipe."""
        steps_per_epoch = recipe.steps_per_epoch(len(dataset.train_images))
        keras.utils.set_random_seed(seed)
        replicas = replicas or training.default_replicas()
        with replicas.scope():
            model = self.model(dataset.image_shape, dataset.num_classes)
            rule = optimizers.SGD(
                assemble.schedule(recipe, steps_per_epoch),
                momentum=recipe.momentum,
                nesterov=recipe.nesterov,
                weight_decay=recipe.weight_decay,
                groups=optimizers.stage_groups(model, self.stage_factor),
            )
            if precision == 'float16':
                rule = keras.optimizers.LossScaleOptimizer(rule)
        mean, std = data.mean_std(dataset.train_images)
        transforms = [
            augment.without_seed(functools.partial(augment.normalize, mean=mean, std=std)),
            *assemble.augmentations(recipe, mean, std),
            augment.without_seed(functools.partial(augment.denormalize, mean=mean, std=std)),
        ]
        return training.Trainer(
            model,
            rule,
            losses.CrossEntropy(label_smoothing=recipe.label_smoothing),
            batch_size=recipe.batch_size,
            normalize=functools.partial(augment.normalize, mean=0.0, std=1.0),  # to floats
            augment=augment.compose(transforms),
            averaging=assemble.averaging(recipe, steps_per_epoch),
            seed=seed,
            replicas=replicas,
        )


def with_pixels(model: keras.Model, mean, std, **settings) -> keras.Model:
    """The model to save: it takes pixels already, whatever the data's mean and deviation."""
    return assemble.with_normalization(model, [0.0] * 3, [1.0] * 3, **settings)

"""From a recipe to a trainer: every step of the walk, in order, on one page."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from fenwicks import (
    _keras,
    augment,
    data,
    evaluate,
    layers,
    losses,
    models,
    optimizers,
    schedules,
    training,
)
from fenwicks._checks import integer
from fenwicks.augment.color_draws import ON_PIXELS
from fenwicks.models import pixels
from fenwicks.precision import policy_precision
from fenwicks.recipes import Recipe
from fenwicks.recipes.fields import network_batches


def build_trainer(
    recipe: Recipe,
    dataset: data.Dataset,
    *,
    precision: str | None = None,
    seed: int = 0,
    replicas: training.Replicas | None = None,
    jit_compile: bool | None = None,
) -> training.Trainer:
    """The trainer of a recipe on a data set.

    Args:
        recipe: the settings.
        dataset: gives the image shape, the number of classes, the statistics for normalising and
            whitening, and the number of steps in an epoch.
        precision: that of Keras's dtype policy, as `set_precision` returned it, or None.
        seed: of the initial weights, the shuffle and the augmentation.
        replicas: the devices that share each batch, as the `Trainer` takes them.
        jit_compile: as the `Trainer` takes it.

    Returns:
        A `Trainer` with a fresh model.

    Raises:
        ValueError: recipe and data set don't fit each other, or `precision` isn't the policy's.
    """
    chosen = policy_precision(precision)
    steps_per_epoch = recipe.steps_per_epoch(len(dataset.train_images))
    keras.utils.set_random_seed(integer('seed', seed, low=0, below=2**31))

    mean, std = data.mean_std(dataset.train_images)
    normalize = functools.partial(augment.normalize, mean=mean, std=std)
    replicas = replicas or training.default_replicas()
    with replicas.scope():
        model = network(recipe, dataset.image_shape, dataset.num_classes)
        small = proxy(recipe, dataset.image_shape, dataset.num_classes)
        rule = optimizer(recipe, steps_per_epoch)
        if chosen == 'float16':
            rule = keras.optimizers.LossScaleOptimizer(rule)
    if recipe.whitening:
        images = normalize(dataset.train_images[: recipe.whitening_images])
        for each in (model, small):
            if each is not None:
                each.get_layer('whitening').adapt(images)
    if small is not None:
        model = training.HardExamples(model, small, recipe.hard_share, recipe.proxy_share)
    return training.Trainer(
        model,
        rule,
        losses.CrossEntropy(label_smoothing=recipe.label_smoothing),
        batch_size=recipe.batch_size,
        normalize=normalize,
        augment=augment.compose(augmentations(recipe, mean, std)),
        averaging=averaging(recipe, steps_per_epoch),
        seed=seed,
        replicas=replicas,
        jit_compile=jit_compile,
        image_sizes=recipe.image_size_epochs(),
        freeze=recipe.freeze_epochs(),
    )


def check_shares(
    recipe: Recipe, replicas: training.Replicas, devices: str = 'these devices'
) -> None:
    """Raises unless replicas, on `devices`, can share the recipe's batches equally.

    Raises:
        ValueError: the batch, or a replica's share of it, can't be divided as it would have to be.
    """
    replicas.check_batch(recipe.batch_size, devices)
    for images in network_batches(recipe, replicas.model_batch_size(recipe.batch_size)):
        if recipe.ghost_batch_size and images % recipe.ghost_batch_size:
            raise ValueError(
                f'`ghost_batch_size` must divide the {images} images of a batch that each of the '
                f'replicas on {devices} takes. Received: ghost_batch_size={recipe.ghost_batch_size}'
            )


def augmentations(recipe: Recipe, mean: Any = 0.0, std: Any = 1.0) -> list[Callable]:
    """The recipe's random transforms, in the order in which they are applied.

    Args:
        recipe: the settings.
        mean, std: by which the images are normalised, as `augment.on_pixels` takes them.

    Raises:
        ValueError: `fenwicks.augment` has no transform of a name, or it has no such setting, or
            needs one that isn't there, or changes labels, and the recipe has groups.
    """
    names = [name for name in augment.__all__ if name.startswith(('random_', 'alternating_'))]
    known = {name: getattr(augment, name) for name in names}
    transforms: list[Callable] = []
    for step in recipe.augmentation_steps():
        name, settings = step
        if name not in known:
            raise ValueError(
                f'`augmentations` must be random transforms of fenwicks.augment '
                f'({", ".join(sorted(known))}). Received: {name}'
            )
        context = augment.context_arguments(known[name])
        step.check_settings(known[name], ('images', 'labels', 'seed', *context))
        if recipe.augmentation_groups and augment.takes_labels(known[name]):
            raise ValueError(
                f'`augmentation_groups` must be 0 where labels change, as by {name}. '
                f'Received: augmentation_groups={recipe.augmentation_groups}'
            )
        transform = functools.partial(known[name], **settings) if settings else known[name]
        if name in ON_PIXELS:
            transform = augment.on_pixels(transform, mean, std)
        # A transform that takes more than a seed decides for itself which images share a draw.
        if recipe.augmentation_groups and not context:
            transform = augment.in_groups(transform, recipe.augmentation_groups)
        transforms.append(transform)
    return transforms


def network(recipe: Recipe, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """The recipe's network, its whitening not yet adapted to any images.

    Its input has any height and width where the recipe's images change their size.
    """
    settings = {
        'input_shape': (None, None, image_shape[-1]) if recipe.image_sizes else image_shape,
        'num_classes': num_classes,
        'widths': recipe.widths,
        'logit_scale': 1 / recipe.widths[-1] if recipe.logit_scale is None else recipe.logit_scale,
        'normalization': normalization(recipe),
        'activation': activation(recipe),
    }
    if recipe.network == 'speednet':
        heads = {'pytorch': layers.init_pytorch, 'unit': None}
        kernels = {'pytorch': layers.init_pytorch, 'partial_identity': layers.PartialIdentity}
        bias_initializers = {'pytorch': None, 'zeros': 'zeros'}
        return models.speednet(
            **settings,
            residual=recipe.residual,
            kernel_initializer=kernels[recipe.kernel_initializer],
            head_initializer=heads[recipe.head_initializer],
            whitening_bias_initializer=bias_initializers[recipe.whitening_bias_initializer],
            first_activation=_activation(recipe.first_activation, recipe),
        )
    return models.resnet9(**settings, whitening=recipe.whitening, pool_first=recipe.pool_first)


def proxy(
    recipe: Recipe, image_shape: tuple[int, int, int], num_classes: int
) -> keras.Model | None:
    """The small network that finds the hardest images, or None; see `training.HardExamples`."""
    if not recipe.proxy_widths:
        return None
    smaller = dataclasses.replace(recipe, widths=recipe.proxy_widths, residual=False)
    with keras.name_scope('proxy'):
        return network(smaller, image_shape, num_classes)


def normalization(recipe: Recipe) -> keras.layers.Layer:
    """The template of the network's batch norms."""
    settings: dict[str, Any] = {
        'momentum': recipe.norm_momentum,
        'epsilon': recipe.norm_epsilon,
        'scale': recipe.train_scales,
        'name': 'norm',
    }
    if recipe.ghost_batch_size:
        return layers.GhostBatchNormalization(recipe.ghost_batch_size, **settings)
    return layers.BatchNormalization(**settings)


def activation(recipe: Recipe) -> keras.layers.Layer | str:
    """The template of the network's activations, or the name of Keras's."""
    return _activation('same', recipe)


def _activation(name, recipe):
    name = recipe.activation if name == 'same' else name
    if name == 'celu':
        return layers.CELU(recipe.celu_alpha, name='activation')
    layer = {'gelu': layers.GELU, 'silu': layers.SiLU}.get(name)
    return name if layer is None else layer(name='activation')


def schedule(
    recipe: Recipe, steps_per_epoch: int, peak: float | None = None
) -> schedules.PiecewiseLinear:
    """The learning rate of each step, from 0: of SGD, or with another peak.

    Args:
        recipe: the recipe.
        steps_per_epoch: whole batches in a pass over the training images.
        peak: the highest rate; `None` for the recipe's of SGD.
    """
    peak = recipe.peak_learning_rate if peak is None else peak
    knots, first = recipe.schedule_knots(steps_per_epoch), recipe.first_step
    return schedules.PiecewiseLinear([(step - first, share * peak) for step, share in knots])


def optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """SGD, or Muon for the convolution kernels and SGD for the rest."""
    rate = recipe.peak_learning_rate
    rates = {r'.*/beta': recipe.bias_rate}  # batch norm's: the only biases that learn throughout
    if recipe.train_scales:
        rates[r'.*/gamma'] = recipe.scale_rate
    rates[r'.*classifier/.*kernel'] = recipe.head_rate
    groups = [optimizers.ParameterGroup(match, r, 1 / r) for match, r in rates.items() if r != 1]
    if recipe.whitening_bias_epochs:
        last = max(1, recipe.whitening_bias_epochs * steps_per_epoch)
        if recipe.whitening_bias_schedule == 'linear':
            bias_knots = [(0, rate), (last, 0.0)]
        else:
            bias_knots = _cut(schedule(recipe, steps_per_epoch), max(1, math.floor(last + 0.5)))
        groups.append(
            optimizers.ParameterGroup(
                recipe.whitening_bias, schedule=schedules.PiecewiseLinear(bias_knots)
            )
        )
    sgd = optimizers.SGD(
        schedule(recipe, steps_per_epoch),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        rate_in_velocity=recipe.rate_in_velocity,
        groups=groups,
    )
    if not recipe.muon_learning_rate:
        return sgd
    scaled: bool | schedules.AtSteps = recipe.normalize_weights
    if scaled and (recipe.normalize_every > 1 or recipe.normalize_every_growth):
        scaled = schedules.AtSteps(recipe.normalization_steps(steps_per_epoch))
    return optimizers.Muon(
        schedule(recipe, steps_per_epoch, recipe.muon_learning_rate),
        momentum=recipe.muon_momentum,
        ns_steps=recipe.muon_steps,
        # In mixed precision as all large products, and as published.
        ns_dtype='bfloat16' if policy_precision() == 'bfloat16' else 'float32',
        ns_coefficients=recipe.muon_coefficients,
        normalize_weights=scaled,
        others=sgd,
        others_match=(r'.*classifier/.*kernel',),
    )


def _cut(schedule: schedules.PiecewiseLinear, last: int) -> list[tuple[float, float]]:
    """The knots of a schedule that is cut off: unchanged before the step `last`, then 0."""
    kept = [(step, value) for step, value in schedule.knots if step < last - 1]
    return [*kept, (last - 1, float(schedule(last - 1))), (last, 0.0)]


def averaging(recipe: Recipe, steps_per_epoch: int) -> optimizers.EMA | optimizers.Lookahead | None:
    """The rule by which the weights are averaged, or None."""
    if recipe.averaging == 'ema':
        return optimizers.EMA(recipe.averaging_decay, recipe.averaging_every)
    if recipe.averaging == 'lookahead':
        total = recipe.total_steps(steps_per_epoch)
        strength: float | schedules.PowerRise = recipe.averaging_decay**recipe.averaging_every
        if recipe.averaging_power:
            strength = schedules.PowerRise(strength, total, recipe.averaging_power)
        last = max(1, math.floor(recipe.averaging_last_epochs * steps_per_epoch + 0.5))
        start = total - last if recipe.averaging_last_epochs else 0
        return optimizers.Lookahead(strength, recipe.averaging_every, start)
    return None


def views(recipe: Recipe) -> evaluate.TTA:
    """The views of each test image over which the recipe averages."""
    return evaluate.TTAS[recipe.tta]


def with_normalization(
    model: keras.Model,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    input_shape: tuple[int, int, int] | None = None,
    precision: str | None = 'float32',
    class_names: Sequence[str] = (),
) -> keras.Model:
    """A model on raw pixels, 0 to 255: normalisation in float32, then `model`.

    Args:
        model: from normalised images to logits; of a `training.HardExamples` its network.
        mean, std: in units of 0 to 255: a number, or one for each channel.
        input_shape: `(height, width, channels)`; None for that of `model`, any size if images grew.
        precision: in which the result computes: `'float32'`, in which every format can export it,
            or `None` for that of `model`.
        class_names: kept in the result as `get_layer('class_names').class_names`; empty for none.

    Returns:
        A compiled `keras.Model` to save and to evaluate with plain Keras.

    Raises:
        ValueError: `precision` is something else, `std` isn't positive, images have channels first,
            or there are more names than classes, or fewer.
    """
    if precision not in ('float32', None):
        raise ValueError(
            f"`precision` must be 'float32' or None. Received: precision={precision!r}"
        )
    if isinstance(model, training.HardExamples):
        model = model.network
    _keras.check_channels_last('with_normalization', model)
    policy = keras.config.dtype_policy()
    try:
        if precision == 'float32':
            keras.config.set_dtype_policy('float32')
            model = pixels.in_float32(model)
        raw = pixels.from_pixels(model, mean, std, input_shape, class_names)
    finally:
        keras.config.set_dtype_policy(policy)
    # Keras saves an optimizer that wasn't built unbuilt, and then misses it on loading. In float16
    # `compile` wraps optimizers, also on loading, unless they are wrapped already.
    rule = keras.optimizers.SGD()
    if policy.name == 'mixed_float16':
        rule = keras.optimizers.LossScaleOptimizer(rule)
    rule.build([])
    raw.compile(rule, losses.CrossEntropy(), metrics=['sparse_categorical_accuracy'])
    return raw

"""What the fields of a recipe may hold, each by itself and together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fenwicks._checks import finite_number, flag, integer, positive_integer

CHOICES = {
    'flip': ('none', 'random', 'alternating'),
    'network': ('resnet9', 'speednet'),
    'kernel_initializer': ('pytorch', 'partial_identity'),
    'first_activation': ('same', 'relu', 'celu', 'gelu', 'silu'),
    'activation': ('relu', 'celu', 'gelu', 'silu'),
    'head_initializer': ('pytorch', 'unit'),
    'whitening_bias_schedule': ('linear', 'common'),
    'whitening_bias_initializer': ('zeros', 'pytorch'),
    'averaging': ('none', 'ema', 'lookahead'),
    'tta': ('none', 'flip', 'flip_translate', 'doubtful'),
}
POSITIVE = ('batch_size', 'whitening_images', 'muon_steps', 'normalize_every', 'averaging_every')
RANGES: dict[str, dict[str, float]] = {
    'epochs': {'above': 0, 'below': 2**20},
    'warmup_epochs': {'low': 0},
    'peak_learning_rate': {'low': 0},
    'weight_decay': {'low': 0},
    'whitening_bias_epochs': {'low': 0},
    'celu_alpha': {'above': 0},
    'norm_momentum': {'low': 0, 'below': 1},
    'norm_epsilon': {'low': 0},
    'label_smoothing': {'low': 0, 'below': 1},
    'hard_share': {'above': 0, 'below': 1},
    'proxy_share': {'above': 0, 'high': 1},
    'momentum': {'low': 0, 'below': 1},
    'bias_rate': {'above': 0},
    'scale_rate': {'above': 0},
    'head_rate': {'above': 0},
    'muon_learning_rate': {'low': 0},
    'muon_momentum': {'low': 0, 'below': 1},
    'normalize_every_growth': {'low': 0},
    'start_share': {'low': 0},
    'plateau_epochs': {'low': 0},
    'plateau_share': {'low': 0},
    'averaging_decay': {'low': 0, 'below': 1},
    'averaging_power': {'low': 0},
    'averaging_last_epochs': {'low': 0},
}
# What a recipe says to a pretrained network, which has all else of its own, or has no such part.
OF_PRETRAINED = frozenset({
    *('name', 'batch_size', 'epochs', 'warmup_epochs', 'peak_learning_rate', 'weight_decay'),
    *('crop_padding', 'flip', 'cutout', 'augmentations', 'augmentation_groups', 'label_smoothing'),
    *('momentum', 'nesterov', 'first_step', 'start_share', 'plateau_epochs', 'plateau_share'),
    *('averaging', 'averaging_decay', 'averaging_every', 'averaging_power'),
    *('averaging_last_epochs', 'tta'),
})  # fmt: skip


def check_names(fields: Any, of_recipes: Sequence[dataclasses.Field]) -> None:
    """Raises unless `fields` is a dict of fields of recipes, with all those without a default."""
    if not isinstance(fields, Mapping):
        raise ValueError(
            'a recipe must be made of a dict of its fields. '
            f'Received: a value of type {type(fields).__name__}'
        )
    known = {field.name: field for field in of_recipes}
    if unknown := [name for name in fields if name not in known]:
        raise ValueError(
            f'a recipe must have no fields but {", ".join(known)}. Received: {unknown[0]}'
        )
    needed = [name for name, field in known.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in fields]:
        raise ValueError(
            f'a recipe must have the fields {", ".join(needed)}. Received: none called {missing[0]}'
        )


def checked(name: str, kind: str, value: Any) -> Any:
    """The value of a field, as its plain Python type; raises where it breaks the field's rule."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ValueError(
                f'`{name}` of a recipe must be one of {", ".join(CHOICES[name])}. '
                f'Received: {name}={value!r}'
            )
        return value
    if kind == 'str':
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f'`{name}` must be a text. Received: {name}={value!r}')
        return value
    if kind == 'bool':
        return flag(name, value)
    if kind.startswith('tuple'):
        if not isinstance(value, list | tuple):
            raise ValueError(f'`{name}` must be a tuple. Received: {name}={value!r}')
        if kind == 'tuple[int, ...]':
            return tuple(positive_integer(name, each) for each in value)
        if kind == 'tuple[float, ...]':
            return tuple(finite_number(name, each) for each in value)
        return tuple(value)
    if kind == 'int':
        return positive_integer(name, value) if name in POSITIVE else integer(name, value, low=0)
    if value is None and kind.endswith('None'):
        return value
    number = finite_number(name, value, **RANGES.get(name, {}))
    if kind == 'int | float' and number.is_integer():
        return int(number)
    return value if type(value) is int else number


def network_batches(recipe: Any, images: int) -> list[int]:
    """Of how many of so many images the networks of a recipe normalise batches, in a step.

    A proxy sees those that train it and the others apart, the network those that the proxy chose;
    see `training.HardExamples`.
    """
    if not recipe.proxy_widths:
        return [images]
    shares = recipe.hard_share, recipe.proxy_share
    chosen, own = (max(1, round(share * images)) for share in shares)
    return [chosen, own, images - own]


def check_together(recipe: Any) -> None:
    """Raises where fields of a recipe don't fit each other."""
    if recipe.network == 'speednet' and recipe.whitening != 2:
        raise ValueError(
            '`whitening` of a speednet must be its own, of 2x2 patches. '
            f'Received: whitening={recipe.whitening}'
        )
    of_speednets = {
        'residual': False,
        'whitening_bias_epochs': 0,
        'kernel_initializer': 'pytorch',
        'first_activation': 'same',
        'head_initializer': 'pytorch',
    }
    for name, other in of_speednets.items():
        if getattr(recipe, name) != other and recipe.network != 'speednet':
            raise ValueError(
                f'`{name}` must be {other} unless the network is a speednet. '
                f'Received: {name}={getattr(recipe, name)}, network={recipe.network}'
            )
    for images in network_batches(recipe, recipe.batch_size):
        if recipe.ghost_batch_size and images % recipe.ghost_batch_size:
            raise ValueError(
                f'`ghost_batch_size` must divide the batch of {images}. '
                f'Received: ghost_batch_size={recipe.ghost_batch_size}'
            )
    if len(recipe.muon_coefficients) != 3:
        raise ValueError(
            '`muon_coefficients` must be three. '
            f'Received: muon_coefficients={recipe.muon_coefficients}'
        )
    if recipe.averaging_last_epochs > recipe.epochs:
        raise ValueError(
            f'`averaging_last_epochs` must be at most the {recipe.epochs} epochs. '
            f'Received: averaging_last_epochs={recipe.averaging_last_epochs}'
        )
    if recipe.warmup_epochs + recipe.plateau_epochs > recipe.epochs:
        raise ValueError(
            f'`warmup_epochs` and `plateau_epochs` must fit into {recipe.epochs} epochs. '
            f'Received: warmup_epochs={recipe.warmup_epochs}, '
            f'plateau_epochs={recipe.plateau_epochs}'
        )

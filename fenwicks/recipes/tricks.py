"""The tricks, each a patch on a recipe: a few fields and the values it gives them.

The patches of one recipe set different fields, so their order doesn't matter. A patch also sets
what was tuned together with its trick: with frozen scales go another CELU, another logit scale and
faster biases.

To add a trick, add it to `TRICKS`. If it is a random transform, write a public function of images
and seed in `fenwicks/augment/`, and let the patch of the trick name it:
`{'augmentations': ('random_jitter(brightness=0.14)',)}`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fenwicks.recipes.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Trick:
    """One change to a recipe.

    Attributes:
        patch: the fields of `Recipe` that it sets, with their values.
        summary: what it does, in a line.
        symbol: the part of `fenwicks` that implements it.
        published: its effect as its source reports it.
    """

    patch: Mapping[str, object]
    summary: str
    symbol: str
    published: str


TRICKS = {
    'group_augmentation': Trick(
        {'augmentation_groups': 200},
        'at most 200 random choices of each kind an epoch, each shared by a group of images',
        'augment.in_groups',
        '75 s to 70 s, at 94.1 %',
    ),
    'pool_first': Trick(
        {'pool_first': True},
        'max pooling before batch norm and activation, which then see a quarter of the pixels',
        'layers.ConvBlk(pool_first=True)',
        '70 s to 64 s, for 0.1 points or one more epoch',
    ),
    'label_smoothing': Trick(
        {'label_smoothing': 0.2},
        'a fifth of the target is spread evenly over the classes',
        'losses.CrossEntropy(label_smoothing=...)',
        '94.2 % in 23 epochs instead of 25',
    ),
    'celu': Trick(
        {'activation': 'celu'},
        'a smooth activation instead of ReLU',
        'layers.CELU',
        '94.3 % in 23 epochs, enough for 20',
    ),
    'ghost_batch_norm': Trick(
        {'ghost_batch_size': 32},
        'batch norm over groups of 32 images: noise that regularises',
        'layers.GhostBatchNormalization',
        '94.2 % in 20 epochs, enough for 18',
    ),
    'frozen_scales': Trick(
        {'train_scales': False, 'celu_alpha': 0.3, 'logit_scale': 1 / 16, 'bias_rate': 64.0},
        "batch norm's scales stay 1, biases learn 64 times as fast",
        'optimizers.ParameterGroup',
        '94.2 % in 18 epochs, enough for 17',
    ),
    'whitening': Trick(
        {'whitening': 3},
        'a fixed first convolution decorrelates 3x3 patches',
        'layers.PatchWhitening',
        '94.4 % in 17 epochs, enough for 14 at a higher rate and less cutout',
    ),
    'ema': Trick(
        {'averaging': 'ema', 'plateau_epochs': 2, 'plateau_share': 0.1},
        'evaluation on an average of the weights and of batch norm statistics',
        'optimizers.EMA',
        '94.3 % in 14 epochs, enough for 13',
    ),
    'flip_tta': Trick(
        {'tta': 'flip'},
        'the mean of the logits of an image and its mirror image',
        'evaluate.FLIP',
        '94.6 % in 13 epochs, enough for 10',
    ),
    'alternating_flip': Trick(
        {'flip': 'alternating'},
        'every image is mirrored in every other epoch',
        'augment.alternating_flip',
        '',
    ),
    'growing_images': Trick(
        {'image_sizes': (24, 28, 32)},
        'images of 24x24, then of 28x28, then of 32x32 pixels: fewer operations in early epochs',
        'training.Trainer(image_sizes=...)',
        '1.99 s to 1.82 s on an A100, at equal accuracy',
    ),
    'jitter': Trick(
        {'augmentations': ('random_jitter(brightness=0.1399, contrast=0.1308)',)},
        'brightness and contrast of each image vary a little',
        'augment.random_jitter',
        '',
    ),
    'six_view_tta': Trick(
        {'tta': 'flip_translate'},
        'the mean over an image and two translations by a pixel, each with its mirror image',
        'evaluate.FLIP_TRANSLATE',
        '',
    ),
    'lookahead': Trick(
        {'averaging': 'lookahead', 'averaging_decay': 0.95},
        'the weights are pulled back to their average, more and more towards the end',
        'optimizers.Lookahead',
        '',
    ),
}


def patched(base: Recipe, tricks: Sequence[str], name: str) -> Recipe:
    """`base` with some tricks, under a new name.

    What a trick sets replaces the value in `base`, except that `augmentations` of several tricks
    are put together, in the order of their names.

    Raises:
        ValueError: there is no trick of a name, one changes nothing of `base`, or two set one
            field.
    """
    changes: dict[str, Any] = {}
    set_by: dict[str, str] = {}
    steps: list[str] = []
    for trick in tricks:
        patch: dict[str, Any] = dict(find(trick).patch)
        if all(getattr(base, field) == value for field, value in patch.items()):
            raise ValueError(
                f'the trick {trick!r} must change something. Received: a recipe whose '
                f'{", ".join(patch)} has that value already'
            )
        steps += patch.pop('augmentations', ())
        for field in patch:
            if field in set_by:
                raise ValueError(
                    f'tricks must set different fields. Received: {set_by[field]!r} and '
                    f'{trick!r}, which both set `{field}`'
                )
            set_by[field] = trick
        changes.update(patch)
    if steps:
        changes['augmentations'] = (*base.augmentations, *sorted(steps))
    return dataclasses.replace(base, name=name, **changes)


def find(name: str) -> Trick:
    """The trick of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in TRICKS:
        raise ValueError(f'a trick must be one of {", ".join(TRICKS)}. Received: {name!r}')
    return TRICKS[name]

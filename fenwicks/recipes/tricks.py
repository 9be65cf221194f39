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
        network: the network that it is for; empty for any.
        on_speednet: what it sets on a speednet, where that differs from `patch`.
        batch_size: how many images of a step its rates are for. For another number SGD's are scaled
            in proportion, which is the same rate for each image, and Muon's by the square root.
    """

    patch: Mapping[str, object]
    summary: str
    symbol: str
    published: str
    network: str = ''
    on_speednet: Mapping[str, object] | None = None
    batch_size: int | None = None

    def patch_on(self, base: Recipe) -> dict[str, Any]:
        """What it sets on a recipe, whose batches and choice of images are final."""
        instead = self.on_speednet if base.network == 'speednet' else None
        patch: dict[str, Any] = dict(self.patch if instead is None else instead)
        if self.batch_size:
            share = base.trained_images / self.batch_size
            patch['peak_learning_rate'] *= share
            patch['muon_learning_rate'] *= share**0.5
        return patch


# The record of December 2024. It adds up the losses of a batch, where the mean is taken here.
_MUON: dict[str, object] = {
    'peak_learning_rate': 0.053 * 2000,
    'weight_decay': 2e-6 / 0.053,
    'warmup_epochs': 0,
    'start_share': 0.0,
    'whitening_bias_schedule': 'linear',
    'whitening_bias_initializer': 'pytorch',
    'head_initializer': 'unit',
    'logit_scale': None,
    'bias_rate': 1.0,
    'scale_rate': 1 / 64,
    'head_rate': 0.67 / 0.053,
    'muon_learning_rate': 0.24,
}
# That of July 2026.
_MUON_2026 = {
    **_MUON,
    'peak_learning_rate': 0.0573 * 1536,
    'weight_decay': 1.0418e-6 / 0.0573,
    'momentum': 0.825,
    'head_rate': 0.5415 / 0.0573,
    'muon_learning_rate': 0.2255,
    'muon_momentum': 0.655,
}

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
        '94.2 % in 25 epochs, enough for 23',
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
        on_speednet={'train_scales': False},  # whose biases learn that fast anyway
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
    'doubtful_tta': Trick(
        {'tta': 'doubtful'},
        'six views (shifted, mirrored) of images whose plain prediction is doubtful, one of others',
        'evaluate.DOUBTFUL',
        '',
    ),
    'hard_examples': Trick(
        {'proxy_widths': (32, 64, 64), 'hard_share': 0.5},
        'half of each batch trains the network: what a small one, trained beside it, finds hardest',
        'training.HardExamples',
        '27 s instead of 35 s for 96 % on an A100',
        network='speednet',
    ),
    'lookahead': Trick(
        {'averaging': 'lookahead', 'averaging_decay': 0.95},
        'the weights are pulled back to their average, more and more towards the end',
        'optimizers.Lookahead',
        '',
    ),
    'tail': Trick(
        {
            'plateau_epochs': 0.8,
            'plateau_share': 0.05,
            'averaging': 'lookahead',
            'averaging_decay': 0.7 ** (1 / 4),
            'averaging_every': 4,
            'averaging_power': 0,
            'averaging_last_epochs': 0.625,
        },
        'the rate stays at 5 % at the end, and the weights are pulled back to their average there',
        'optimizers.Lookahead(start=...)',
        '',
    ),
    'gelu': Trick({'activation': 'gelu'}, 'GELU instead of ReLU', 'layers.GELU', ''),
    'silu': Trick(
        {'activation': 'silu'},
        'SiLU instead of ReLU',
        'layers.SiLU',
        '',
        on_speednet={'activation': 'silu', 'first_activation': 'gelu'},
    ),
    'mild_smoothing': Trick(
        {'label_smoothing': 0.09},
        '9 % of the target is spread evenly over the classes',
        'losses.CrossEntropy(label_smoothing=...)',
        '',
    ),
    'muon': Trick(
        _MUON,
        'updates of the kernels are made orthogonal; the other rates are those tuned with it',
        'optimizers.Muon',
        '94.01 % in 2.59 s instead of 3.09 s on an A100',
        network='speednet',
        batch_size=2000,
    ),
    'muon_2026': Trick(
        _MUON_2026,
        'updates of the kernels are made orthogonal, with the rates of a record of 2026',
        'optimizers.Muon',
        '',
        network='speednet',
        batch_size=1536,
    ),
    'newer_coefficients': Trick(
        {'muon_coefficients': (3.4576, -4.7391, 2.0843)},
        "another polynomial for Muon's updates",
        'optimizers.Muon(ns_coefficients=...)',
        '',
        network='speednet',
    ),
    'weight_normalization': Trick(
        {'normalize_weights': True},
        'kernels are scaled to a fixed norm before each step',
        'optimizers.Muon(normalize_weights=True)',
        '',
        network='speednet',
    ),
    'sparse_normalization': Trick(
        {'normalize_every': 2, 'normalize_every_growth': 15},
        'kernels are scaled before every second step, and less often as training goes on',
        'optimizers.Muon(normalize_weights=...)',
        '',
        network='speednet',
    ),
    'partial_identity': Trick(
        {'kernel_initializer': 'partial_identity'},
        'at first the convolutions copy their inputs to some of their outputs',
        'layers.PartialIdentity',
        '',
        network='speednet',
    ),
}


_CHOICE = ('proxy_widths', 'hard_share')  # of the images that train the network


def patched(base: Recipe, tricks: Sequence[str], name: str) -> Recipe:
    """`base` with some tricks, under a new name.

    What a trick sets replaces the value in `base`, except that `augmentations` of several tricks
    are put together, in the order of their names.

    Raises:
        ValueError: there is no trick of a name, one is for another network or changes nothing of
            `base`, or two set one field.
    """
    changes: dict[str, Any] = {}
    set_by: dict[str, str] = {}
    steps: list[str] = []
    found = [(called, find(called)) for called in tricks]
    chosen: dict[str, Any] = {
        field: trick.patch[field] for _, trick in found for field in _CHOICE if field in trick.patch
    }
    sized = dataclasses.replace(base, **chosen)
    for called, trick in found:
        if trick.network not in ('', base.network):
            raise ValueError(
                f'the trick {called!r} is for a {trick.network}. '
                f'Received: a recipe whose network is {base.network}'
            )
        patch = trick.patch_on(sized)
        if all(getattr(base, field) == value for field, value in patch.items()):
            raise ValueError(
                f'the trick {called!r} must change something. Received: a recipe whose '
                f'{", ".join(patch)} has that value already'
            )
        steps += patch.pop('augmentations', ())
        for field in patch:
            if field in set_by:
                raise ValueError(
                    f'tricks must set different fields. Received: {set_by[field]!r} and '
                    f'{called!r}, which both set `{field}`'
                )
            set_by[field] = called
        changes.update(patch)
    if steps:
        changes['augmentations'] = (*base.augmentations, *sorted(steps))
    return dataclasses.replace(base, name=name, **changes)


def find(name: str) -> Trick:
    """The trick of that name.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(name, str) or name not in TRICKS:
        raise ValueError(f'a trick must be one of {", ".join(TRICKS)}. Received: {name!r}')
    return TRICKS[name]

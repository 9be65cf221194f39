"""Recipe: every setting of a training as data, in the order in which the data flows."""

from __future__ import annotations

import dataclasses
import math

from fenwicks._checks import positive_integer

SMALL_BATCH = 64

CHOICES = {
    'flip': ('none', 'random', 'alternating'),
    'network': ('resnet9', 'speednet'),
    'activation': ('relu', 'celu', 'gelu', 'silu'),
    'averaging': ('none', 'ema', 'lookahead'),
    'tta': ('none', 'flip', 'flip_translate'),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of a training run.

    The first group of fields has no default: no two recipes agree on them. The defaults of the
    others are those of a plain ResNet-9 trained by SGD, without any trick.

    Attributes:
        name: what results are filed under.
        batch_size: images in a step.
        epochs: passes over the training images; the remainder of each pass is dropped.
        warmup_epochs: epochs in which the learning rate rises to its peak.
        peak_learning_rate: of SGD, for a loss that is a mean over the batch.
        weight_decay: coupled weight decay of SGD, for the same loss.
        widths: filters of the network's stages.

        crop_padding: pixels of reflected border before the random crop back; 0 for no crop.
        flip: `'none'`, `'random'` (a coin for each image and epoch), or `'alternating'` (a coin
            for each image; the other way in every other epoch).
        cutout: side of the square that is zeroed in each image, in pixels; 0 for none.
        augmentation_groups: groups of images that share the random choices of an epoch; 0 for
            choices of each image's own.

        network: `'resnet9'` or `'speednet'`.
        whitening: side of the patches that a fixed first convolution whitens, in pixels; 0 for
            none. A speednet has its own, of side 2.
        whitening_bias_epochs: epochs in which a bias of that convolution is trained, at a rate
            that falls from the biases' peak to 0; only a speednet has one.
        residual: whether each group of a speednet has a third convolution, and a shortcut around
            the last two; a resnet9 has its own shortcuts.
        pool_first: pool before normalization and activation, not after.
        activation: `'relu'`, `'celu'`, `'gelu'` or `'silu'`.
        celu_alpha: how far below zero CELU reaches.
        ghost_batch_size: images that are normalized together; 0 for the whole batch.
        train_scales: whether batch norm's scales are trained, or stay 1.
        norm_momentum: share of batch norm's running statistics kept at each step.
        norm_epsilon: added to the variance.
        logit_scale: constant factor on the logits; `None` is one over the classifier's inputs.

        label_smoothing: share of the target spread evenly over the classes, in [0, 1).

        momentum: Nesterov momentum of SGD, in [0, 1).
        rate_in_velocity: whether SGD's velocity holds gradients times the rate, as Page's does, or
            gradients alone, as PyTorch's.
        bias_rate: factor on the learning rate of the biases; their weight decay is divided by it.
        head_rate: the same for the classifier's kernel.
        muon_learning_rate: peak rate of Muon for the convolution kernels; 0 leaves them to SGD.
        muon_momentum: Nesterov momentum of Muon.

        first_step: step of the schedule at which the first update reads its rate: 0, or 1 in
            Page's code.
        start_share: learning rate of the first step, as a share of the peak.
        plateau_epochs: epochs at the end with a constant learning rate.
        plateau_share: that rate, and the one at which the training ends, as a share of the peak.

        averaging: of the weights: `'none'`, `'ema'` or `'lookahead'`.
        averaging_decay: share of the average kept at each step (for lookahead: at the last).
        averaging_every: steps from one update of the average to the next.

        tta: test-time augmentation: `'none'`, `'flip'` or `'flip_translate'`.
    """

    name: str
    batch_size: int
    epochs: int
    warmup_epochs: float
    peak_learning_rate: float
    weight_decay: float
    widths: tuple[int, ...]

    crop_padding: int = 4
    flip: str = 'random'
    cutout: int = 8
    augmentation_groups: int = 0

    network: str = 'resnet9'
    whitening: int = 0
    whitening_bias_epochs: float = 0
    residual: bool = False
    pool_first: bool = False
    activation: str = 'relu'
    celu_alpha: float = 0.075
    ghost_batch_size: int = 0
    train_scales: bool = True
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    logit_scale: float | None = 0.125

    label_smoothing: float = 0.0

    momentum: float = 0.9
    rate_in_velocity: bool = False
    bias_rate: float = 1.0
    head_rate: float = 1.0
    muon_learning_rate: float = 0.0
    muon_momentum: float = 0.6

    first_step: int = 0
    start_share: float = 0.0
    plateau_epochs: float = 0
    plateau_share: float = 0.0

    averaging: str = 'none'
    averaging_decay: float = 0.99
    averaging_every: int = 5

    tta: str = 'none'

    def __post_init__(self):
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f'`{field}` of a recipe must be one of {", ".join(choices)}. '
                    f'Received: {field}={getattr(self, field)!r}'
                )
        if self.network == 'speednet' and self.whitening != 2:
            raise ValueError(
                '`whitening` of a speednet must be its own, of 2x2 patches. '
                f'Received: whitening={self.whitening}'
            )
        if self.residual and self.network != 'speednet':
            raise ValueError(
                '`residual` must be False unless the network is a speednet. '
                f'Received: residual={self.residual}, network={self.network}'
            )
        if self.ghost_batch_size and self.batch_size % self.ghost_batch_size:
            raise ValueError(
                f'`ghost_batch_size` must divide the batch of {self.batch_size}. '
                f'Received: ghost_batch_size={self.ghost_batch_size}'
            )

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe in another number of epochs, its schedules stretched to fit."""
        epochs = positive_integer('epochs', epochs)
        stretch = epochs / self.epochs
        return dataclasses.replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * stretch,
            plateau_epochs=self.plateau_epochs * stretch,
            whitening_bias_epochs=self.whitening_bias_epochs * stretch,
        )

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The same recipe with another batch size, learning rates unchanged."""
        return dataclasses.replace(self, batch_size=positive_integer('batch_size', batch_size))

    def with_width(self, factor: float) -> Recipe:
        """The same recipe on a network with `factor` times the filters in each stage."""
        if not 0 < factor < math.inf:
            raise ValueError(f'`width` must be a positive factor. Received: width={factor}')
        widths = tuple(max(1, round(width * factor)) for width in self.widths)
        return dataclasses.replace(self, widths=widths)

    def for_small_data(self) -> Recipe:
        """The same recipe for a thousand images or so: small batches, at rates in proportion.

        With its own batch size an epoch would be two or three steps.
        """
        return dataclasses.replace(
            self,
            batch_size=SMALL_BATCH,
            peak_learning_rate=self.peak_learning_rate * SMALL_BATCH / self.batch_size,
        )

    def steps_per_epoch(self, train_images: int) -> int:
        """Whole batches in a pass over `train_images` images."""
        if self.batch_size > train_images:
            raise ValueError(
                f'`batch_size` must be at most the {train_images} training images. '
                f'Received: batch_size={self.batch_size}'
            )
        return train_images // self.batch_size

    def schedule_knots(self, steps_per_epoch: int) -> list[tuple[int, float]]:
        """The corners `(step, share of the peak rate)` of the schedule, for `PiecewiseLinear`.

        Corners of a very short run that fall on one step are one step apart instead, so that
        even a single epoch of two steps keeps its shape.
        """
        corners = [(0, self.start_share), (self.warmup_epochs, 1.0)]
        if not self.warmup_epochs:
            corners = corners[1:]
        if self.plateau_epochs:
            corners.append((self.epochs - self.plateau_epochs, self.plateau_share))
        corners.append((self.epochs, self.plateau_share))
        knots: list[tuple[int, float]] = []
        for epoch, share in corners:
            step = math.floor(epoch * steps_per_epoch + 0.5)
            knots.append((max(step, knots[-1][0] + 1) if knots else step, share))
        return knots

"""Recipe: every setting of a training as data, in the order in which the data flows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from fenwicks._checks import finite_number, positive_integer
from fenwicks.recipes import schedule
from fenwicks.recipes.fields import RANGES, check_names, check_together, checked, network_batches
from fenwicks.recipes.steps import Step, parse_steps


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of a training run.

    The first group of fields has no default: no two recipes agree on them. The defaults of the
    others are those of a plain ResNet-9 trained by SGD, without any trick.

    Attributes:
        name: what results are filed under.
        batch_size: images in a step.
        epochs: passes over the training images; the remainder of each pass is dropped. In a last
            pass of less than a whole epoch, steps are taken in proportion.
        warmup_epochs: epochs in which the learning rate rises to its peak.
        peak_learning_rate: of SGD, for a loss that is a mean over the batch.
        weight_decay: coupled weight decay of SGD, for the same loss.
        widths: filters of the network's stages.

        crop_padding: pixels of reflected border before the random crop back; 0 for no crop.
        flip: `'none'`, `'random'` (a coin for each image and epoch), or `'alternating'` (a coin
            for each image; the other way in every other epoch).
        cutout: side of the square that is zeroed in each image, in pixels; 0 for none.
        augmentations: further random transforms between flip and cutout, each a call of a function
            of `fenwicks.augment` with its settings, as in `'random_cutout(size=4)'`.
        augmentation_groups: groups of images that share the random choices of an epoch; 0 if each
            image has its own.
        image_sizes: sides, in pixels, to which the augmented images are resized in equal parts of
            the training, one after the other: 24, 28, 32 for a third of the epochs each. Empty:
            they keep their size.

        network: `'resnet9'` or `'speednet'`.
        whitening: side of the patches that a fixed first convolution whitens, in pixels; 0 for
            none. A speednet has its own, of side 2.
        whitening_images: number of training images from which the whitening is computed.
        whitening_bias_epochs: epochs in which a bias of that convolution is trained; only a
            speednet has one.
        whitening_bias_schedule: of its rate in those epochs: `'linear'` falls from SGD's peak to
            0, `'common'` is SGD's own schedule.
        whitening_bias_initializer: `'zeros'`, or `'pytorch'` for uniform numbers in +-1 over the
            square root of the convolution's inputs.
        kernel_initializer: of the convolutions: `'pytorch'` for uniform numbers in +-1 over the
            square root of the inputs; or `'partial_identity'`, which only a speednet takes.
        residual: whether each group of a speednet has a third convolution, and a shortcut around
            the last two; a resnet9 has its own shortcuts.
        pool_first: pool before normalization and activation, not after.
        activation: `'relu'`, `'celu'`, `'gelu'` or `'silu'`.
        first_activation: the one after the whitening of a speednet, `'same'` for no other.
        celu_alpha: how far below zero CELU reaches.
        ghost_batch_size: images that are normalized together; 0 for the whole batch.
        train_scales: whether batch norm's scales are trained, or stay 1.
        norm_momentum: share of batch norm's running statistics kept at each step.
        norm_epsilon: added to the variance.
        head_initializer: of the classifier's kernel: `'pytorch'` for uniform numbers in +-1 over
            the square root of its inputs, or `'unit'` for uniform numbers of standard deviation 1,
            which only a speednet takes.
        logit_scale: constant factor on the logits; `None` is one over the classifier's inputs.

        label_smoothing: share of the target spread evenly over the classes, in [0, 1).

        proxy_widths: filters of the stages of a small network that finds the hardest images of each
            batch, which then train the other one; empty for none, where all do. It has no third
            convolutions, and else the settings of the other.
        hard_share: of each batch, how much is hardest, in (0, 1). Rates are for that many images.
        proxy_share: of each batch, how much trains the small network, in (0, 1].

        momentum: of SGD, the fraction of the velocity kept, in [0, 1).
        nesterov: whether the momentum of SGD is Nesterov's.
        rate_in_velocity: whether SGD's velocity holds gradients times the rate, as Page's does, or
            gradients alone, as PyTorch's.
        bias_rate: factor on the learning rate of the biases; their weight decay is divided by it.
        scale_rate: the same for batch norm's scales.
        head_rate: the same for the classifier's kernel.
        muon_learning_rate: peak rate of Muon for the convolution kernels; 0 leaves them to SGD.
        muon_momentum: Nesterov momentum of Muon, in [0, 1).
        muon_steps: steps of the iteration that makes Muon's updates orthogonal.
        muon_coefficients: the three of its polynomial.
        normalize_weights: whether Muon scales the kernels to a fixed norm before steps.
        normalize_every: steps from one such scaling to the next.
        normalize_every_growth: by how much that number grows until the rate would have fallen to 0.

        first_step: step of the schedule at which the first update reads its rate: 0, or 1 in
            Page's code.
        start_share: learning rate of the first step, as a share of the peak.
        plateau_epochs: epochs at the end with a constant learning rate.
        plateau_share: that rate, and the one at which the training ends, as a share of the peak.

        averaging: of the weights: `'none'`, `'ema'` or `'lookahead'`.
        averaging_decay: share of the average kept at each step (for lookahead: at the last).
        averaging_every: steps from one update of the average to the next.
        averaging_power: with lookahead, the power of the training's progress by which the share of
            the average rises; 0 if it is constant.
        averaging_last_epochs: with lookahead, the epochs at the end in which weights are averaged;
            0 for all.

        tta: test-time augmentation: `'none'`, `'flip'`, `'flip_translate'`, or `'doubtful'`, which
            is the same for images of doubtful predictions only.
    """

    name: str
    batch_size: int
    epochs: int | float
    warmup_epochs: float
    peak_learning_rate: float
    weight_decay: float
    widths: tuple[int, ...]

    crop_padding: int = 4
    flip: str = 'random'
    cutout: int = 8
    augmentations: tuple[str, ...] = ()
    augmentation_groups: int = 0
    image_sizes: tuple[int, ...] = ()

    network: str = 'resnet9'
    whitening: int = 0
    whitening_images: int = 10_000
    whitening_bias_epochs: float = 0
    whitening_bias_schedule: str = 'linear'
    whitening_bias_initializer: str = 'zeros'
    kernel_initializer: str = 'pytorch'
    residual: bool = False
    pool_first: bool = False
    activation: str = 'relu'
    first_activation: str = 'same'
    celu_alpha: float = 0.075
    ghost_batch_size: int = 0
    train_scales: bool = True
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    head_initializer: str = 'pytorch'
    logit_scale: float | None = 0.125

    label_smoothing: float = 0.0

    proxy_widths: tuple[int, ...] = ()
    hard_share: float = 0.5
    proxy_share: float = 0.25

    momentum: float = 0.9
    nesterov: bool = True
    rate_in_velocity: bool = False
    bias_rate: float = 1.0
    scale_rate: float = 1.0
    head_rate: float = 1.0
    muon_learning_rate: float = 0.0
    muon_momentum: float = 0.6
    muon_steps: int = 3
    muon_coefficients: tuple[float, ...] = (3.4445, -4.7750, 2.0315)
    normalize_weights: bool = True
    normalize_every: int = 1
    normalize_every_growth: float = 0

    first_step: int = 0
    start_share: float = 0.0
    plateau_epochs: float = 0
    plateau_share: float = 0.0

    averaging: str = 'none'
    averaging_decay: float = 0.99
    averaging_every: int = 5
    averaging_power: float = 3
    averaging_last_epochs: float = 0

    tta: str = 'none'

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = checked(field.name, str(field.type), getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # the way to set a field of a frozen class
        parse_steps(self.augmentations)
        check_together(self)

    @classmethod
    def from_dict(cls, fields: Mapping) -> Recipe:
        """The recipe of which `dataclasses.asdict` made `fields`, perhaps by way of JSON.

        Fields that an earlier version didn't have get the values that it used.

        Raises:
            ValueError: `fields` is no dict, or a field is unknown, lacks a value, or has one that
                breaks its rule.

        Example:

        >>> import dataclasses
        >>> from fenwicks import recipes
        >>> page10 = recipes.get('page10')
        >>> recipes.Recipe.from_dict(dataclasses.asdict(page10)) == page10
        True
        """
        check_names(fields, dataclasses.fields(cls))
        former: dict[str, Any] = {}
        if fields.get('network') == 'speednet':
            former['kernel_initializer'] = 'partial_identity'
            if fields.get('muon_learning_rate'):
                former['head_initializer'] = 'unit'
                former['whitening_bias_initializer'] = 'pytorch'
                former['scale_rate'] = 1.0 if fields.get('train_scales', True) else 1 / 64
        return cls(**{**former, **fields})

    def with_epochs(self, epochs: float) -> Recipe:
        """The same recipe in another number of epochs, its schedules stretched to fit."""
        epochs = finite_number('epochs', epochs, **RANGES['epochs'])
        stretch = epochs / self.epochs
        # Each part is rounded, and together they must not exceed the whole.
        warmup = min(self.warmup_epochs * stretch, epochs)
        plateau = min(self.plateau_epochs * stretch, epochs - warmup)
        return dataclasses.replace(
            self,
            epochs=epochs,
            warmup_epochs=min(warmup, epochs - plateau),
            plateau_epochs=plateau,
            whitening_bias_epochs=self.whitening_bias_epochs * stretch,
            averaging_last_epochs=min(self.averaging_last_epochs * stretch, epochs),
        )

    def with_batch_size(self, batch_size: int, scale_rate: bool = False) -> Recipe:
        """The same recipe with another batch size.

        Args:
            batch_size: images in a step.
            scale_rate: whether SGD's rates change in proportion, which is the same rate for each
                image where losses are added up over the batch; if not, they stay.
        """
        batch_size = positive_integer('batch_size', batch_size)
        rate = self.peak_learning_rate
        rate = rate * batch_size / self.batch_size if scale_rate else rate
        return dataclasses.replace(self, batch_size=batch_size, peak_learning_rate=rate)

    def with_width(self, factor: float) -> Recipe:
        """The same recipe on a network with `factor` times the filters in each stage."""
        finite_number('factor', factor, above=0, below=2**20)
        widths, proxy_widths = (
            tuple(max(1, round(width * factor)) for width in each)
            for each in (self.widths, self.proxy_widths)
        )
        return dataclasses.replace(self, widths=widths, proxy_widths=proxy_widths)

    def for_small_data(self, train_images: int = 512) -> Recipe:
        """The same recipe with batches of at most an eighth of the images, by default of 64.

        Larger batches become the largest power of two within it, ghost batches the largest that
        divides what a network normalizes of them. SGD's rates stay in proportion to the batches.
        """
        eighth = positive_integer('train_images', train_images) // 8
        most = 1 << (eighth or 1).bit_length() >> 1
        if most >= self.batch_size:
            return self
        plain = dataclasses.replace(self, ghost_batch_size=0).with_batch_size(most, scale_rate=True)
        if not self.ghost_batch_size:
            return plain
        power = 1 << self.ghost_batch_size.bit_length() >> 1
        ghost = math.gcd(power, *network_batches(plain, most))
        return dataclasses.replace(plain, ghost_batch_size=ghost)

    def augmentation_steps(self) -> list[Step]:
        """The random transforms in the order in which they are applied."""
        flips = {'random': 'random_flip', 'alternating': 'alternating_flip'}
        steps = []
        if self.crop_padding:
            steps.append(Step('random_crop', {'padding': self.crop_padding}))
        if self.flip != 'none':
            steps.append(Step(flips[self.flip], {}))
        steps += parse_steps(self.augmentations)
        if self.cutout:
            steps.append(Step('random_cutout', {'size': self.cutout}))
        return steps

    def image_size_epochs(self) -> tuple[tuple[int, int], ...]:
        """The epochs, from 0, from which on images have another size, each with that size.

        Parts of the training begin with the nearest whole epoch.

        Example:

        >>> from fenwicks import recipes
        >>> recipes.get('speed94').image_size_epochs()
        ((0, 24), (3, 28), (6, 32))
        """
        parts = len(self.image_sizes)
        starts: dict[int, int] = {}
        for part, size in enumerate(self.image_sizes):
            epoch = math.floor(self.epochs * part / parts + 0.5)
            if epoch < self.epochs:
                starts[epoch] = size  # in its place where a part before it has no epoch
        sizes = list(starts.items())
        return tuple(pair for n, pair in enumerate(sizes) if n == 0 or pair[1] != sizes[n - 1][1])

    def freeze_epochs(self) -> tuple[tuple[float, str], ...]:
        """From which epoch on variables aren't trained, with the pattern of their paths."""
        epochs = self.whitening_bias_epochs
        if self.network != 'speednet' or not epochs:
            return ()
        return ((epochs, self.whitening_bias),)

    @property
    def trained_images(self) -> int:
        """How many images of a batch train the network: all, or the hardest."""
        return network_batches(self, self.batch_size)[0]

    @property
    def whitening_bias(self) -> str:
        """The pattern of the paths of the whitening's bias, and of the proxy's."""
        return '(proxy/)?whitening/bias' if self.proxy_widths else 'whitening/bias'

    def steps_per_epoch(self, train_images: int) -> int:
        """Whole batches in a pass over `train_images` images."""
        if self.batch_size > train_images:
            raise ValueError(
                f'`batch_size` must be at most the {train_images} training images. '
                f'Received: batch_size={self.batch_size}'
            )
        return train_images // self.batch_size

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return max(1, math.floor(self.epochs * steps_per_epoch + 0.5))

    def normalization_steps(self, steps_per_epoch: int) -> list[int]:
        """The steps, from 0, at which Muon scales the kernels to their norm.

        Example:

        >>> from fenwicks import recipes
        >>> recipes.get('speed94_2026').normalization_steps(32)[:5]
        [1, 3, 5, 7, 9]
        """
        return schedule.normalization_steps(self, steps_per_epoch)

    def schedule_knots(self, steps_per_epoch: int) -> list[tuple[float, float]]:
        """The corners `(step, share of the peak rate)` of the schedule, for `PiecewiseLinear`.

        Corners of a very short run that fall on one step are one step apart instead, so that
        even a single epoch of two steps keeps its shape.
        """
        return schedule.knots(self, steps_per_epoch)

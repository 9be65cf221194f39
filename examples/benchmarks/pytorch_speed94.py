"""The record network for CIFAR-10 and its optimizer in plain PyTorch, for comparison.

This is the recipe `speed94_muon`, written again with PyTorch's own means. `pytorch_trainer.py`
trains it, `time_to_94.py` compares it with fenwicks.

Reference:
    Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, https://arxiv.org/abs/2404.00498
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting; rates are for a loss that is summed over the batch.

    Attributes:
        batch_size, epochs: 8 epochs of 25 batches of 2,000; remainders are dropped.
        widths: filters of the three groups.
        whitening_images, whitening_epsilon: number of images from which the whitening filters are
            computed, and the number added to the eigenvalues.
        whitening_bias_epochs: epochs in which the whitening layer's bias is trained.
        muon_rate, muon_momentum, newton_schulz_steps: settings for the convolution kernels.
        bias_rate, head_rate, momentum: settings of SGD for all other weights.
        decay: weight decay of SGD times its learning rate, per image.
        label_smoothing: share of the target that is spread over the classes.
        padding: largest shift of an image, in pixels.
        image_sizes: pairs of an epoch, from 0, and the size in pixels to which images are resized
            from then on; empty for their own size.
    """

    batch_size: int = 2000
    epochs: int = 8
    widths: tuple[int, int, int] = (64, 256, 256)
    whitening_images: int = 5000
    whitening_epsilon: float = 5e-4
    whitening_bias_epochs: float = 3
    muon_rate: float = 0.24
    muon_momentum: float = 0.6
    newton_schulz_steps: int = 3
    bias_rate: float = 0.053
    head_rate: float = 0.67
    momentum: float = 0.85
    decay: float = 2e-6
    label_smoothing: float = 0.2
    padding: int = 2
    image_sizes: tuple[tuple[int, int], ...] = ()


SPEED94_MUON = Recipe()


def patch_covariance(images, size=2):
    """Covariance `(channels * size**2,) * 2` of the `size` x `size` patches of NCHW images."""
    patches = functional.unfold(images, size).transpose(1, 2).flatten(0, 1).double()
    patches = patches - patches.mean(0)
    return patches.T @ patches / len(patches)


def whitening_filters(images, epsilon, size=2):
    """Filters whose outputs on the patches are uncorrelated, followed by their negatives."""
    values, vectors = torch.linalg.eigh(patch_covariance(images, size))
    filters = (vectors / (values + epsilon).sqrt()).T.flip(0)  # the largest component first
    filters = filters.reshape(-1, images.shape[1], size, size)
    return torch.cat([filters, -filters]).float()


class Conv(nn.Conv2d):
    """A convolution in the precision of the images, to which it casts its kernel."""

    def forward(self, images):
        bias = None if self.bias is None else self.bias.to(images.dtype)
        kernel = self.weight.to(images.dtype)
        return functional.conv2d(images, kernel, bias, padding=self.padding)


class Group(nn.Module):
    """Convolution, 2x2 pooling, batch norm, GELU; convolution, batch norm, GELU."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = Conv(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        self.conv2 = Conv(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        for conv in (self.conv1, self.conv2):  # partly the identity
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
        for norm in (self.norm1, self.norm2):  # scales stay 1
            norm.weight.requires_grad = False

    def forward(self, images):
        images = functional.max_pool2d(self.conv1(images), 2)
        images = functional.gelu(self.norm1(images))
        return functional.gelu(self.norm2(self.conv2(images)))


class Network(nn.Module):
    """From normalised images `(batch, channels, height, width)` to float32 logits.

    Args:
        filters: filters of the whitening layer, `(count, channels, 2, 2)`, which aren't trained.
        widths: number of filters in each of the three groups.
        classes: number of logits.
    """

    def __init__(self, filters, widths=(64, 256, 256), classes=10):
        super().__init__()
        self.whitening = Conv(filters.shape[1], filters.shape[0], 2)
        self.whitening.weight.data = filters.clone()
        self.whitening.weight.requires_grad = False
        sizes = (filters.shape[0], *widths)
        self.groups = nn.Sequential(
            *(Group(inputs, outputs) for inputs, outputs in zip(sizes, widths, strict=False))
        )
        self.head = nn.Parameter(torch.empty(classes, widths[-1]))
        nn.init.uniform_(self.head, -(3**0.5), 3**0.5)  # standard deviation 1

    def forward(self, images):
        images = self.groups(functional.gelu(self.whitening(images)))
        features = functional.max_pool2d(images, images.shape[2:]).flatten(1).float()
        return features @ self.head.T / self.head.shape[1]

    def kernels(self):
        """The parameters that Muon trains."""
        return [p for name, p in self.named_parameters() if 'groups' in name and p.ndim == 4]

    def biases(self):
        """The biases of the batch norms."""
        return [p for name, p in self.named_parameters() if name.endswith(('1.bias', '2.bias'))]


def orthogonalize(matrix, steps):
    """Newton-Schulz iteration: moves the singular values of a matrix towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised, on kernels whose norm is kept at sqrt(filters).

    Args:
        kernels: convolution kernels `(filters, channels, height, width)`.
        lr: learning rate.
        momentum: fraction of the velocity kept, Nesterov's way.
        steps: Newton-Schulz steps.
        dtype: dtype of these steps' matrix products.
    """

    def __init__(self, kernels, lr, momentum, steps, dtype):
        super().__init__(kernels, {'lr': lr, 'momentum': momentum})
        self.steps, self.dtype, self.orthogonalize = steps, dtype, orthogonalize

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for kernel in group['params']:
                if kernel not in self.state:
                    self.state[kernel]['velocity'] = torch.zeros_like(kernel)
                velocity = self.state[kernel]['velocity']
                velocity.mul_(group['momentum']).add_(kernel.grad)
                direction = kernel.grad.add(velocity, alpha=group['momentum'])
                matrix = direction.reshape(len(kernel), -1).to(self.dtype)
                update = self.orthogonalize(matrix, self.steps).to(kernel.dtype)
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
                kernel.add_(update.reshape(kernel.shape), alpha=-group['lr'])

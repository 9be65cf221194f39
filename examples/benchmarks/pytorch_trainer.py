"""Trains the record network in plain PyTorch with the usual means of making it fast.

The data lie on the device; memory is channels_last; weights are float32, the arithmetic has one
precision; SGD is fused; all threads are used. One gather of pixels forms, shifts and mirrors the
images of a batch.
"""

from __future__ import annotations

import os
import time

import numpy as np
import torch
from pytorch_speed94 import SPEED94_MUON, Muon, Network, orthogonalize, whitening_filters
from torch.nn import functional

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


class Trainer:
    """Trains the network on images that lie on the device.

    Args:
        images: uint8 array `(count, height, width, channels)`.
        labels: integer array `(count,)`.
        classes: number of classes.
        recipe: the settings.
        precision: a key of `DTYPES`.
        device: 'cpu' or 'cuda'.
        seed: seed of the weights, the shuffle and the augmentation.
        compiled: whether `torch.compile` compiles network and optimizer.

    Attributes:
        steps_per_epoch, total_steps: length of an epoch and of the recipe.
        step: number of steps taken.
        losses: mean loss of each step, as tensors.
        preprocess_seconds, compile_seconds, train_seconds: time spent so far.
    """

    def __init__(
        self,
        images,
        labels,
        classes=10,
        recipe=SPEED94_MUON,
        *,
        precision='float32',
        device='cpu',
        seed=0,
        compiled=False,
    ):
        if len(images) < recipe.batch_size:
            raise ValueError(
                f'`batch_size` must be at most the {len(images)} training images. '
                f'Received: batch_size={recipe.batch_size}'
            )
        started = time.perf_counter()
        torch.manual_seed(seed)
        torch.backends.cudnn.benchmark = True  # measures which kernels are fastest on a GPU
        self.recipe, self.device, self.dtype = recipe, torch.device(device), DTYPES[precision]
        self.random = torch.Generator(self.device).manual_seed(seed)
        self.steps_per_epoch = len(images) // recipe.batch_size
        self.total_steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        self.step, self.losses, self.compiled = 0, [], compiled
        self._mirrored_first = None
        self.train_seconds = self.compile_seconds = 0.0

        self.images = torch.as_tensor(np.asarray(images), device=self.device)
        self.labels = torch.as_tensor(np.asarray(labels), device=self.device).long()
        self.mean, self.std = _mean_std(self.images)
        self._reflected = [_reflected(side, recipe.padding) for side in self.images.shape[1:3]]
        self._reflected = [places.to(self.device) for places in self._reflected]
        first_images = self._normalised(self.images[: recipe.whitening_images], torch.float32)
        filters = whitening_filters(first_images, recipe.whitening_epsilon)
        self.model = Network(filters, recipe.widths, classes).to(
            self.device, memory_format=torch.channels_last
        )
        self._call = self.model
        self.sgd = torch.optim.SGD(
            [
                self._sgd_group([self.model.whitening.bias], recipe.bias_rate),
                self._sgd_group(self.model.biases(), recipe.bias_rate),
                self._sgd_group([self.model.head], recipe.head_rate),
            ],
            momentum=recipe.momentum,
            nesterov=True,
            fused=True,
        )
        self.muon = Muon(
            self.model.kernels(),
            recipe.muon_rate,
            recipe.muon_momentum,
            recipe.newton_schulz_steps,
            torch.float32 if precision == 'float32' else torch.bfloat16,
        )
        self._rates = [group['lr'] for group in self._groups()]
        self._synchronize()
        self.preprocess_seconds = time.perf_counter() - started
        if compiled:
            self._compile()

    def run(self, stop=None, on_step=None):
        """Trains until `stop` steps have been taken in total; by default to the recipe's end.

        Args:
            stop: number of steps, counted from the start of the training.
            on_step: called after each step with the number of steps taken and the step's mean loss.
                It waits for a GPU after each step, which is slower.

        Returns:
            The elapsed seconds.
        """
        stop = self.total_steps if stop is None else min(stop, self.total_steps)
        self._synchronize()
        started = time.perf_counter()
        self.model.train()
        while self.step < stop:
            epoch, batch = divmod(self.step, self.steps_per_epoch)
            if batch == 0:
                self._begin_epoch(epoch)
            self._set_rates(self.step)
            chosen = self._order[batch * self.recipe.batch_size :][: self.recipe.batch_size]
            self.losses.append(self._train_step(self._augmented(chosen), self.labels[chosen]))
            self.step += 1
            if on_step is not None:
                on_step(self.step, self.losses[-1].item())
        self._synchronize()
        seconds = time.perf_counter() - started
        self.train_seconds += seconds
        return seconds

    def begin_epoch(self, epoch, step=0):
        """Moves to a step of an epoch, both counted from 0, from any other."""
        self._begin_epoch(epoch)
        self.step = epoch * self.steps_per_epoch + step

    @torch.inference_mode()
    def predict(self, images, tta=True):
        """Logits `(count, classes)` of uint8 images as a NumPy array, from six views or one."""
        self.model.eval()
        logits = []
        for batch in torch.as_tensor(np.asarray(images)).split(self.recipe.batch_size):
            batch = self._normalised(batch.to(self.device), self.dtype)
            logits.append(self._six_views(batch) if tta else self.model(batch))
        return torch.cat(logits).cpu().numpy()

    def accuracy(self, images, labels, tta=True):
        """Share of the images whose largest logit is their label's."""
        return float((self.predict(images, tta).argmax(1) == np.asarray(labels)).mean())

    def _six_views(self, images):
        height, width = images.shape[2:]
        padded = functional.pad(images, (1,) * 4, mode='reflect')
        moved = [padded[..., i : i + height, i : i + width] for i in (0, 2)]
        plain, *moved = (
            (self.model(view) + self.model(view.flip(-1))) / 2 for view in (images, *moved)
        )
        return plain / 2 + sum(moved) / (2 * len(moved))

    def _normalised(self, images, dtype):
        """Normalises NHWC uint8 images to NCHW floats with channels_last memory."""
        return ((images - self.mean) / self.std).to(dtype).permute(0, 3, 1, 2)

    def _begin_epoch(self, epoch):
        count = len(self.images)
        if epoch == 0 or self._mirrored_first is None:
            self._mirrored_first = self._draw(2, count).bool()
        # Every image is mirrored every other epoch.
        self._mirrored = self._mirrored_first ^ bool(epoch % 2)
        self._order = torch.randperm(count, generator=self.random, device=self.device)

    def _augmented(self, chosen):
        """The images of a batch, mirrored and shifted, by one gather of pixels."""
        height, width = self.images.shape[1:3]
        count, shifts = len(chosen), 2 * self.recipe.padding + 1
        rows = torch.arange(height, device=self.device) + self._draw(shifts, count)[:, None]
        columns = torch.arange(width, device=self.device).expand(count, width)
        columns = torch.where(self._mirrored[chosen][:, None], columns.flip(1), columns)
        columns = columns + self._draw(shifts, count)[:, None]
        rows, columns = self._reflected[0][rows], self._reflected[1][columns]
        pixels = self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._resized(self._normalised(pixels, self.dtype))

    def _resized(self, images):
        """The images in the size of the present epoch."""
        begun = [
            size
            for epoch, size in self.recipe.image_sizes
            if epoch * self.steps_per_epoch <= self.step
        ]
        if not begun or begun[-1] == images.shape[-1]:
            return images
        size = (begun[-1], begun[-1])
        return functional.interpolate(images, size, mode='bilinear', align_corners=False)

    def _draw(self, high, count):
        return torch.randint(high, (count,), generator=self.random, device=self.device)

    def _train_step(self, images, labels):
        loss = functional.cross_entropy(
            self._call(images),
            labels,
            label_smoothing=self.recipe.label_smoothing,
            reduction='sum',
        )
        loss.backward()
        for optimizer in (self.sgd, self.muon):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach() / len(labels)

    def _sgd_group(self, parameters, rate):
        decay = self.recipe.decay * self.recipe.batch_size / rate
        return {'params': parameters, 'lr': rate, 'weight_decay': decay}

    def _groups(self):
        return [*self.sgd.param_groups, *self.muon.param_groups]

    def _set_rates(self, step):
        """Lowers every rate linearly to 0, that of the whitening layer's bias earlier."""
        bias_epochs = self.recipe.whitening_bias_epochs or self.recipe.epochs
        bias_steps = bias_epochs * self.steps_per_epoch
        # Then the backward pass stops below the first group.
        self.model.whitening.bias.requires_grad = step < bias_steps
        ends = [bias_steps, *[self.total_steps] * (len(self._rates) - 1)]
        for group, rate, end in zip(self._groups(), self._rates, ends, strict=True):
            group['lr'] = rate * max(0.0, 1 - step / end)

    def _compile(self):
        """Compiles by taking steps, with and without a gradient of the whitening layer's bias."""
        started = time.perf_counter()
        self._call = torch.compile(self.model, mode='reduce-overhead')
        self.muon.orthogonalize = torch.compile(orthogonalize)
        state = {key: value.clone() for key, value in self.model.state_dict().items()}
        random = self.random.get_state()
        self._begin_epoch(0)
        chosen = self._order[: self.recipe.batch_size]
        # Several steps each: the first calls of a compiled function still measure kernels.
        for step in [0] * 3 + [self.total_steps] * 3:
            self._set_rates(step)
            self._train_step(self._augmented(chosen), self.labels[chosen])
        self.model.load_state_dict(state)
        self.random.set_state(random)
        for optimizer in (self.sgd, self.muon):
            optimizer.state.clear()
        self._synchronize()
        self.compile_seconds = time.perf_counter() - started

    def _synchronize(self):
        if self.device.type == 'cuda':
            torch.cuda.synchronize()


def _mean_std(images):
    """Mean and standard deviation of each channel of NHWC uint8 images, exactly."""
    values = torch.arange(256.0, dtype=torch.float64, device=images.device)
    means, deviations = [], []
    for channel in images.unbind(-1):
        counts = torch.bincount(channel.flatten().int(), minlength=256).double()
        means.append(counts @ values / channel.numel())
        deviations.append((counts @ (values - means[-1]) ** 2 / channel.numel()).sqrt())
    return torch.stack(means).float(), torch.stack(deviations).float()


def _reflected(side, padding):
    """The index of the pixel at each place of a row that is padded by reflection."""
    places = torch.arange(-padding, side + padding).abs()
    return torch.where(places < side, places, 2 * (side - 1) - places)


def use_all_threads():
    """Uses every logical core, unlike PyTorch's default; OMP_NUM_THREADS takes precedence."""
    if 'OMP_NUM_THREADS' not in os.environ:
        affinity = getattr(os, 'sched_getaffinity', None)
        torch.set_num_threads(len(affinity(0)) if affinity else os.cpu_count())

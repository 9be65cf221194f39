"""Images that grow during a training: small ones first, for a fraction of the arithmetic."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np

from fenwicks import augment as augmentation
from fenwicks._checks import integer, positive_integer
from fenwicks._typing import Tensor
from fenwicks.training.chunks import Chunks
from fenwicks.training.engines.base import Engine, Settings
from fenwicks.training.engines.select import make_engine

# Pairs of the epoch, from 0, from which on images have a size, and that size in pixels.
ImageSizes = tuple[tuple[int, int], ...]


def check_image_sizes(image_sizes: Sequence[tuple[int, int]], model: keras.Model) -> ImageSizes:
    """Checks a Trainer's `image_sizes`.

    Raises:
        ValueError: they aren't pairs, the first isn't for epoch 0, their epochs don't increase, or
            the model doesn't take images of a size.
    """
    rule = '`image_sizes` must be pairs (epoch, size), from epoch 0 on and with increasing epochs'
    try:
        pairs = [(integer('epoch', e), positive_integer('size', size)) for e, size in image_sizes]
    except (TypeError, ValueError):
        raise ValueError(f'{rule}. Received: image_sizes={image_sizes!r}') from None
    epochs = [epoch for epoch, _ in pairs]
    if pairs and (epochs[0] != 0 or epochs != sorted(set(epochs))):
        raise ValueError(f'{rule}. Received: image_sizes={image_sizes!r}')
    for size in {size for _, size in pairs}:
        _check_size(model, size)
    return tuple(pairs)


def _check_size(model, size):
    shape = getattr(model, 'input_shape', None)  # a subclass of Model has none
    if shape is None:
        return
    rule = 'must be sizes that the model takes'
    if any(side not in (None, size) for side in shape[1:3]):
        raise ValueError(
            f'`image_sizes` {rule}: give it an input of (None, None, channels) and a global '
            f'pooling. Received: size {size} for a model of {shape[1]}x{shape[2]} pixels'
        )
    try:
        model(keras.KerasTensor((1, size, size, shape[3]), 'float32'), training=False)
    except (ValueError, TypeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'`image_sizes` {rule}. Received: size {size} ({reason})') from None


class SizedEngines:
    """An engine for each size of image, which all train one model with one optimizer.

    Each engine's program sees the images in its size only, so that no step asks for it.

    Args:
        settings: an engine's `Settings`.
        image_sizes: checked pairs of epoch and size; empty for the images' own size throughout.

    Attributes:
        data_bytes: of the arrays that `load` has placed on the device.
    """

    def __init__(self, settings: Settings, image_sizes: ImageSizes):
        self.image_sizes = image_sizes
        self.settings = settings
        self.rebuild()
        self._compiled: set[int | None] = set()
        self._chunks: Chunks | None = None  # of a stream
        self.data_bytes = 0

    def rebuild(self) -> None:
        """Makes the engines anew, for a model or an optimizer with other variables."""
        sizes: dict[int | None, None] = dict.fromkeys(size for _, size in self.image_sizes)
        sizes = sizes or {None: None}
        self._engines = {size: make_engine(_for_size(self.settings, size)) for size in sizes}

    def size_at(self, epoch: int) -> int | None:
        """The size of the images in an epoch, in pixels; `None` for their own."""
        begun = [size for start, size in self.image_sizes if start <= epoch]
        return begun[-1] if begun else None

    def at(self, epoch: int) -> Engine:
        """The engine of an epoch, from 0."""
        return self._engines[self.size_at(epoch)]

    def load(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Places the data on the device, once for all engines."""
        first, *others = self._engines.values()
        first.load(images, labels)
        for other in others:
            other.use(first.placed())
        self.data_bytes = images.nbytes + labels.nbytes
        self._chunks = None
        self._compiled.clear()

    def stream(self, chunks: Chunks, epoch: int) -> None:
        """Trains on the chunks of a stream from now on, from the beginning of an epoch."""
        self._chunks, self.data_bytes = chunks, 0
        self._compiled.clear()
        self.prepare(epoch, 0)

    def prepare(self, epoch: int, step: int) -> int:
        """Has the data of a step on the device; returns how many steps can follow it there."""
        if self._chunks is None:
            return sys.maxsize
        placed, steps = self._chunks.at(epoch, step)
        if placed is not None:
            for engine in self._engines.values():  # all, so that none keeps an earlier chunk
                engine.use(placed)
        return steps

    def compile(self, epoch: int) -> None:
        """Compiles the program of an epoch, unless that is done."""
        if self.size_at(epoch) not in self._compiled:
            self.prepare(epoch, 0)
            self.at(epoch).compile()
            self._compiled.add(self.size_at(epoch))


def _for_size(settings, size):
    if size is None:
        return settings
    return dataclasses.replace(settings, augment=_then_resize(settings.augment, size))


def _then_resize(augment: Callable[..., Tensor], size: int) -> Callable[..., Tensor]:
    """`augment`, then a plain bilinear resize to `size` x `size` pixels."""
    augment = augmentation.with_context(augment)

    def augment_and_resize(images, seed, epoch, indices, run_seed):
        images = augment(images, seed, epoch, indices, run_seed)
        return augmentation.resize(images, size, size, antialias=False)

    return augment_and_resize

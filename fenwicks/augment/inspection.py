"""Augmented images as pixels, to be looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from fenwicks._checks import positive_integer
from fenwicks.augment.chain import with_context
from fenwicks.augment.normalizers import denormalize, normalize
from fenwicks.augment.seeds import fold


def preview(
    images: ArrayLike,
    augment: Callable,
    mean: ArrayLike,
    std: ArrayLike,
    epochs: int = 5,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Shows what an augmentation makes of images in one epoch after the other, as pixels.

        preview(images)[epoch] = denormalize(augment(normalize(images), fold(seed, epoch)))

    Args:
        images: uint8 (batch, height, width, channels).
        augment: A callable `f(images, seed)` on normalised float batches of NumPy, as `compose`
            makes; if it takes the training's context, it gets `epoch`, and 0, 1, ... for `indices`.
        mean: As given to `normalize`.
        std: As given to `normalize`.
        epochs: How many times to augment, at least 1.
        seed: Two integers.

    Returns:
        uint8 (epochs, batch, height, width, channels).

    Raises:
        ValueError: An argument breaks its rule.

    Example:
        >>> import numpy as np
        >>> from functools import partial
        >>> from fenwicks.augment import random_crop
        >>> images = np.zeros((4, 32, 32, 3), np.uint8)
        >>> preview(images, partial(random_crop, padding=4), 125.0, 60.0, epochs=3).shape
        (3, 4, 32, 32, 3)
    """
    originals = np.asarray(images)
    normalized = normalize(originals, mean, std)
    transform = with_context(augment)
    indices = np.arange(len(originals), dtype=np.int32)
    made = []
    for epoch in range(positive_integer('epochs', epochs)):
        batch = transform(normalized, fold(seed, epoch), epoch, indices, seed)
        pixels = denormalize(np.asarray(batch), mean, std)
        made.append(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))
    return np.stack(made)

"""Random transforms: draw a parameter for each image from a seed, then apply a pure transform.

A seed is two integers, for a whole batch or `(batch, 2)` for each image: images of the same seed
then draw the same.
"""

from __future__ import annotations

from fenwicks.augment.arrays import cast, check_floats, check_range, namespace
from fenwicks.augment.seeds import draw, fold, lot
from fenwicks.augment.transforms import crop, cutout, flip, pad_reflect


def random_crop(images, seed, padding: int = 4):
    """Reflect-pads images, then cuts each back to its size at a random offset of its own.

        top, left ~ uniform over 0 ... 2 * padding, both ends included
        random_crop(images, seed) = crop(pad_reflect(images, padding), top, left, height, width)

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers, as an array or tensor (2,) or a tuple, or (batch, 2); may be traced.
        padding: Pixels on each side, in [0, min(height, width) - 1].

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `padding` is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> random_crop(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1), padding=2).shape
        (2, 8, 8, 3)
    """
    height, width, _ = check_floats(images)
    padded = pad_reflect(images, padding)
    top = draw(images, seed, 0, 2 * padding)
    left = draw(images, seed, 1, 2 * padding)
    return crop(padded, top, left, height, width)


def random_flip(images, seed):
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers, as an array or tensor (2,) or a tuple, or (batch, 2); may be traced.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    check_floats(images)
    return flip(images, draw(images, seed, 0, 1) == 1)


def alternating_flip(images, seed, epoch, indices, run_seed):
    """Mirrors every image in every second epoch; a coin for each chooses which of the two.

        coin[i] ~ 0 or 1, of the image's number i and `run_seed` only
        mirrored in epoch e where (coin[i] + e) % 2 == 1

    Two epochs in a row so hold every image in both ways round, where independent flips would show
    half of the images the same way twice.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Not used; every transform takes it.
        epoch: The epoch's number, an integer that may be traced.
        indices: Integers (batch,): the images' numbers in the data set; may be traced.
        run_seed: Two integers, the same throughout a training, as an array or tensor (2,) or a
            tuple. The `Trainer` and `fenwicks.data.train_dataset` hand over their own, and the two
            above; `compose` makes one of its own for each transform of it.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> images = np.arange(6.0).reshape(1, 1, 6, 1)
        >>> both = [alternating_flip(images, None, e, np.array([7]), (0, 1)) for e in range(2)]
        >>> sorted(view[0, 0, 0, 0].item() for view in both)
        [0.0, 5.0]

    Reference:
        Keller Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024,
        https://arxiv.org/abs/2404.00498
    """
    check_floats(images)
    epoch = cast(namespace(images, indices, epoch), epoch, 'int32')
    return flip(images, ((lot(fold(run_seed, indices), 2) + epoch) & 1) == 1)


def random_cutout(images, seed, size: int = 8):
    """Zeroes a `size` x `size` square of each image, wholly inside it, at a random place.

        top ~ uniform over 0 ... height - size, both ends included
        left ~ uniform over 0 ... width - size, both ends included
        random_cutout(images, seed) = cutout(images, top, left, size, size)

    So exactly `size * size` pixels of every image go, and pixels near the border go less often.

    Args:
        images: Floats (batch, height, width, channels), normalised: zero is to be their mean.
        seed: Two integers, as an array or tensor (2,) or a tuple, or (batch, 2); may be traced.
        size: Side of the square in pixels, in [0, min(height, width)]; 0 changes nothing.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `size` is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> int(random_cutout(np.ones((2, 8, 8, 1)), seed=(0, 1), size=4).sum())
        96
    """
    height, width, _ = check_floats(images)
    check_range('size', size, 0, min(height, width), 'the image size')
    top = draw(images, seed, 0, height - size)
    left = draw(images, seed, 1, width - size)
    return cutout(images, top, left, size, size)

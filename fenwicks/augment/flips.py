"""Mirror images, drawn anew for each image or alternating from epoch to epoch."""

from __future__ import annotations

from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import cast, check_floats, namespace, per_image, reverse, where
from fenwicks.augment.seeds import draw_integers, fold, hashed_integers, native_integers


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirrors the images where `mask` is true, left to right.

        flip(images, mask)[i] = images[i, :, ::-1] if mask[i] else images[i]

    Args:
        images: Floats (batch, height, width, channels).
        mask: Booleans (batch,).

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> images = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 2, 1)
        >>> flip(images, np.array([True, False]))[:, 0, :, 0]
        array([[2., 1.],
               [3., 4.]])
    """
    return _mirrored(images, mask, 2)


def random_flip(images: Tensor, seed: Seed) -> Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    check_floats(images)
    return flip(images, native_integers(images, seed, 0, 1) == 1)


def alternating_flip(
    images: Tensor, seed: Seed, epoch: Tensor, indices: Tensor, run_seed: Seed
) -> Tensor:
    """Mirrors every image in every second epoch; a random bit per image says in which.

        bit[i] ~ 0 or 1, a hash of the image's number i and `run_seed`
        mirrored in epoch e where (bit[i] + e) % 2 == 1

    Any two consecutive epochs show every image both ways, whereas independent flips show half of
    the images the same way twice.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Ignored; it is there because every augmentation takes a seed.
        epoch: The epoch's number, an integer; may be traced.
        indices: Integers (batch,): the images' numbers in the data set; may be traced.
        run_seed: Two integers that stay the same throughout a training. The `Trainer` and
            `fenwicks.data.train_dataset` pass this and the two above; `compose` derives a different
            one for each of its transforms.

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
    return flip(images, ((hashed_integers(fold(run_seed, indices), 2) + epoch) & 1) == 1)


def flip_vertical(images: Tensor, mask: Tensor) -> Tensor:
    """Mirrors the images where `mask` is true, top to bottom.

    Args:
        images: Floats (batch, height, width, channels).
        mask: Booleans (batch,).

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    return _mirrored(images, mask, 1)


def _mirrored(images, mask, axis):
    xp = namespace(images, mask)
    check_floats(images)
    mask = per_image(xp, 'mask', mask, images, kind='bool')
    return where(xp, mask, reverse(xp, images, axis), images)


def random_flip_vertical(images: Tensor, seed: Seed) -> Tensor:
    """Mirrors each image top to bottom with probability 1/2.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    check_floats(images)
    return flip_vertical(images, draw_integers(images, seed) == 1)


def rotate_90(images: Tensor, turns: Tensor) -> Tensor:
    """Rotates each image counterclockwise by `turns` quarters of a turn.

        rotate_90(images, turns)[i] = numpy.rot90(images[i], turns[i])

    Args:
        images: Floats (batch, side, side, channels).
        turns: Integers (batch,), of which only the remainder modulo 4 matters.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The images aren't square, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> images = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
        >>> rotate_90(images, np.array([1]))[0, :, :, 0]
        array([[2., 4.],
               [1., 3.]])
    """
    xp = namespace(images, turns)
    height, width, _ = check_floats(images)
    if height != width:
        raise ValueError(f'`images` must be square. Received: images.shape={images.shape}')
    turns = per_image(xp, 'turns', turns, images)
    transposed = xp.transpose(images, (0, 2, 1, 3))
    # A quarter of a turn is a transposition and a flip from top to bottom, half a turn two flips.
    images = where(xp, turns & 1 == 1, transposed, images)
    turned = (turns & 3 == 1) | (turns & 3 == 2)
    mirrored = (turns & 3 == 2) | (turns & 3 == 3)
    return flip(flip_vertical(images, turned), mirrored)


def random_rotate_90(images: Tensor, seed: Seed) -> Tensor:
    """Rotates each image by 0, 1, 2 or 3 quarters of a turn, with equal probability.

    Args:
        images: Floats (batch, side, side, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The images aren't square, or a shape or dtype doesn't fit.
    """
    check_floats(images)
    return rotate_90(images, draw_integers(images, seed, count=4))


def dihedral(images: Tensor, element: Tensor) -> Tensor:
    """Applies one of the 8 symmetries of the square to each image.

        dihedral(images, e) = rotate_90(flip(images, e >= 4), e % 4)

    Args:
        images: Floats (batch, side, side, channels).
        element: Integers (batch,) in 0 ... 7; 0 is the identity.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The images aren't square, or a shape or dtype doesn't fit.
    """
    check_floats(images)
    element = per_image(namespace(images, element), 'element', element, images)
    return rotate_90(flip(images, element >= 4), element)


def random_dihedral(images: Tensor, seed: Seed) -> Tensor:
    """Applies one of the 8 symmetries of the square to each image, with equal probability.

    Args:
        images: Floats (batch, side, side, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The images aren't square, or a shape or dtype doesn't fit.
    """
    check_floats(images)
    return dihedral(images, draw_integers(images, seed, count=8))

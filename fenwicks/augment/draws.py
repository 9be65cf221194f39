"""Random transforms: draw a parameter for each image from a seed, then apply a pure transform."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from fenwicks.augment.arrays import cast, check_floats, check_range, dtype_name, namespace
from fenwicks.augment.transforms import crop, cutout, flip, pad_reflect


def random_crop(images, seed, padding: int = 4):
    """Reflect-pads images, then cuts each back to its size at a random offset of its own.

        top, left ~ uniform over 0 ... 2 * padding, both ends included
        random_crop(images, seed) = crop(pad_reflect(images, padding), top, left, height, width)

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers, as an array or tensor (2,) or a tuple; may be traced.
        padding: Pixels on each side, in [0, min(height, width) - 1].

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `padding` is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> random_crop(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1), padding=2).shape
        (2, 8, 8, 3)
    """
    height, width, _ = check_floats(images)
    padded = pad_reflect(images, padding)
    top = _draw(images, seed, 0, 2 * padding)
    left = _draw(images, seed, 1, 2 * padding)
    return crop(padded, top, left, height, width)


def random_flip(images, seed):
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers, as an array or tensor (2,) or a tuple; may be traced.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: A shape or dtype doesn't fit.
    """
    check_floats(images)
    return flip(images, _draw(images, seed, 0, 1) == 1)


def random_cutout(images, seed, size: int = 8):
    """Zeroes a `size` x `size` square of each image, wholly inside it, at a random place.

        top ~ uniform over 0 ... height - size, both ends included
        left ~ uniform over 0 ... width - size, both ends included
        random_cutout(images, seed) = cutout(images, top, left, size, size)

    So exactly `size * size` pixels of every image go, and pixels near the border go less often.

    Args:
        images: Floats (batch, height, width, channels), normalised: zero is to be their mean.
        seed: Two integers, as an array or tensor (2,) or a tuple; may be traced.
        size: Side of the square in pixels, in [0, min(height, width)]; 0 changes nothing.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: `size` is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> int(random_cutout(np.ones((2, 8, 8, 1)), seed=(0, 1), size=4).sum())
        96
    """
    height, width, _ = check_floats(images)
    check_range('size', size, 0, min(height, width), 'the image size')
    top = _draw(images, seed, 0, height - size)
    left = _draw(images, seed, 1, width - size)
    return cutout(images, top, left, size, size)


def compose(transforms: Sequence[Callable]) -> Callable:
    """Chains random transforms into one, each drawing from a seed of its own.

        augment(images, seed) = f_1(f_0(images, fold(seed, 0)), fold(seed, 1))    # of two

    Args:
        transforms: Callables `f(images, seed) -> images`, applied in this order; bind their
            settings with `functools.partial(random_crop, padding=4)`.

    Returns:
        A callable `augment(images, seed) -> images`.

    Raises:
        ValueError: One of `transforms` isn't callable.

    Example:
        >>> from functools import partial
        >>> augment = compose([partial(random_crop, padding=2), random_flip])
        >>> augment(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)
    """
    transforms = tuple(transforms)
    for transform in transforms:
        if not callable(transform):
            raise ValueError(f'`transforms` must be callables. Received: {transform!r}')

    def augment(images, seed):
        for n, transform in enumerate(transforms):
            images = transform(images, fold(seed, n))
        return images

    return augment


def fold(seed, n):
    """Makes the `n`-th seed out of a seed: a hash of all three numbers, folds of folds included.

    The result is the same in every framework, compiled or not.

    Args:
        seed: Two int32 numbers, as an array or tensor (2,) or a tuple; may be traced.
        n: An int32 number or scalar tensor; may be traced.

    Returns:
        An int32 array or tensor (2,).

    Raises:
        ValueError: `seed` isn't two integers, or `n` isn't one.

    Example:
        >>> fold((0, 1), 0)
        array([...], dtype=int32)
    """
    pair = isinstance(seed, tuple | list)
    if pair and len(seed) != 2:
        raise ValueError(f'`seed` must be two integers. Received: {len(seed)} of them')
    xp = namespace(n, *seed) if pair else namespace(n, seed)
    words = [_int32(xp, 'seed', word) for word in (seed if pair else [seed])]
    words = xp.stack(words) if pair else words[0]
    if tuple(words.shape) != (2,):
        raise ValueError(f'`seed` must be two integers. Received: seed.shape={words.shape}')
    salt = _int32(xp, 'n', n) + np.array([0x3C6EF372, 0x1715609D], 'int32')
    # Not `words[::-1]`: TensorFlow's graph optimizer stumbles over the slice, aloud.
    swapped = xp.stack([words[1], words[0]])
    return _mix(xp, words + _mix(xp, swapped ^ _mix(xp, salt)))


def _draw(images, seed, n: int, high: int):
    """The `n`-th draw: one integer per image, uniform over 0 ... `high`, both included."""
    seed = fold(seed, n)
    xp = namespace(images, seed)
    if xp is np:
        generator = np.random.Generator(np.random.Philox(key=seed.view('uint32').astype('uint64')))
        return generator.integers(0, high + 1, len(images), 'int32')
    if xp.__name__ == 'tensorflow':
        batch = xp.shape(images)[0] if images.shape[0] is None else images.shape[0]
        # A named algorithm draws the same on every device; the default follows the device.
        return xp.random.stateless_uniform(
            [batch], cast(xp, seed, 'int32'), 0, high + 1, dtype='int32', alg='philox'
        )
    random = sys.modules['jax'].random
    key = random.wrap_key_data(xp.asarray(seed).astype('uint32'), impl='threefry2x32')
    return random.randint(key, images.shape[:1], 0, high + 1, 'int32')


def _int32(xp, name: str, value):
    """`value` as int32; arrays of wider integers wrap around, Python's may not."""
    if 'int' not in dtype_name(value):
        raise ValueError(f'`{name}` must be of integers. Received: {name} of {dtype_name(value)}')
    if isinstance(value, int) and not -(1 << 31) <= value < 1 << 31:
        raise ValueError(f'`{name}` must fit in 32 bits, with sign. Received: {name}={value}')
    return cast(xp, value, 'int32')


def _mix(xp, x):
    """A bijection of int32 in which each bit of the input flips about half of the output's."""
    shift = xp.bitwise.right_shift if xp.__name__ == 'tensorflow' else xp.right_shift
    # The masks make the arithmetic shift a logical one: a sign dragged along would lose a bit.
    x = (x ^ (shift(x, 16) & 0x0000FFFF)) * 0x7FEB352D
    x = (x ^ (shift(x, 15) & 0x0001FFFF)) * (0x846CA68B - (1 << 32))
    return x ^ (shift(x, 16) & 0x0000FFFF)

"""Stateless randomness: seeds made out of seeds, and draws from them, in every framework."""

from __future__ import annotations

import sys

import numpy as np

from fenwicks.augment.arrays import cast, dtype_name, namespace


def fold(seed, n):
    """Makes the `n`-th seed out of a seed: a hash of all three numbers, folds of folds included.

    The result is the same in every framework, compiled or not.

    Args:
        seed: Two int32 numbers, as an array or tensor (2,) or a tuple, or many seeds (count, 2);
            may be traced.
        n: An int32 number or scalar tensor, or many (count,); may be traced.

    Returns:
        An int32 array or tensor (2,), or (count, 2) where either is many.

    Raises:
        ValueError: `seed` isn't two integers, or many times two, or `n` isn't one, or as many.

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
    if len(words.shape) not in (1, 2) or words.shape[-1] != 2:
        raise ValueError(f'`seed` must be two integers. Received: seed.shape={words.shape}')
    n = _int32(xp, 'n', n)
    counts = {*words.shape[:-1], *n.shape}  # of many seeds, and of many numbers
    if len(n.shape) > 1 or len(counts) > 1:
        raise ValueError(
            '`n` must be an integer, or one for each seed. '
            f'Received: seed.shape={words.shape}, n.shape={n.shape}'
        )
    salt = n[..., None] + np.array([0x3C6EF372, 0x1715609D], 'int32')
    # Not `words[::-1]`: TensorFlow's graph optimizer stumbles over the slice, aloud.
    swapped = xp.stack([words[..., 1], words[..., 0]], -1)
    return _mix(xp, words + _mix(xp, swapped ^ _mix(xp, salt)))


def draw(images, seed, n: int, high: int):
    """The `n`-th draw: an integer for each image, uniform over 0 ... `high`, both included.

    Of a seed for each image, (batch, 2), it is a hash: equal seeds draw the same.
    """
    xp = namespace(images, seed)
    seed = fold(seed, n)
    if len(seed.shape) == 2:
        return lot(seed, high + 1)
    batch = xp.shape(images)[0] if images.shape[0] is None else images.shape[0]
    return _uniform(images, seed, batch, high)


def lot(seeds, count: int):
    """An integer in 0 ... `count` - 1 for each of the seeds (..., 2), which must be folds."""
    return (seeds[..., 0] & 0x7FFFFFFF) % count


def _uniform(images, seed, count, high):
    """`count` integers from 0 ... `high`, in the framework of `images` and `seed`."""
    xp = namespace(images, seed)
    if xp is np:
        generator = np.random.Generator(np.random.Philox(key=seed.view('uint32').astype('uint64')))
        return generator.integers(0, high + 1, count, 'int32')
    if xp.__name__ == 'tensorflow':
        # A named algorithm draws the same on every device; the default follows the device.
        return xp.random.stateless_uniform(
            [count], cast(xp, seed, 'int32'), 0, high + 1, dtype='int32', alg='philox'
        )
    random = sys.modules['jax'].random
    key = random.wrap_key_data(xp.asarray(seed).astype('uint32'), impl='threefry2x32')
    return random.randint(key, (count,), 0, high + 1, 'int32')


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

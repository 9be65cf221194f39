"""Stateless random numbers: seeds derived from seeds, and draws from them, in every framework."""

from __future__ import annotations

import numbers
import sys
from typing import Any

import numpy as np

from fenwicks._checks import finite_number, positive_integer
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import arange, batch_size, cast, dtype_name, namespace


def fold(seed: Seed, n: Any) -> Tensor:
    """Derives the `n`-th seed from a seed: a hash of the seed's two integers and `n`.

    The result is the same in every framework, eager or compiled. Seeds derived from derived seeds
    are independent too.

    Args:
        seed: Two int32 numbers, as an array or tensor (2,) or a tuple, or one seed for each image,
            (batch, 2); may be traced.
        n: An int32 number or scalar tensor, or one for each image, (batch,); may be traced.

    Returns:
        An int32 array or tensor (2,), or (batch, 2) if `seed` or `n` has one for each image.

    Raises:
        ValueError: `seed` isn't two integers or (batch, 2), or `n` isn't an integer or (batch,).

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
    counts = {*words.shape[:-1], *n.shape}
    counts.discard(None)  # batches of unknown size
    if len(n.shape) > 1 or len(counts) > 1:
        raise ValueError(
            '`n` must be an integer, or one for each seed. '
            f'Received: seed.shape={words.shape}, n.shape={n.shape}'
        )
    salt = n[..., None] + np.array([0x3C6EF372, 0x1715609D], 'int32')
    # Not `words[::-1]`: TensorFlow's graph optimizer logs a warning about the reversed slice.
    swapped = xp.stack([words[..., 1], words[..., 0]], -1)
    return _mix(xp, words + _mix(xp, swapped ^ _mix(xp, salt)))


def draw(images: Tensor, seed: Seed, n: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draws a number for each image, uniform over [low, high).

        draw(images, seed, n)[i] = low + (high - low) * hash(seed, n, i) / 2**24

    The draws are the same in every framework, eager or compiled, up to the rounding of the last
    operation, by which a draw may become `high` where `low` isn't 0. Use it, and `draw_integers`,
    to write random transforms of your own.

    Args:
        images: The batch, of which only the number of images and the framework are used.
        seed: Two integers for the whole batch, or (batch, 2); may be traced.
        n: Number of the draw: a transform that draws several numbers gives each its own.
        low: Smallest value.
        high: Upper bound; it may equal `low`.

    Returns:
        A float32 array or tensor (batch,).

    Raises:
        ValueError: `low` or `high` isn't a finite number, or `seed` isn't two integers or
            (batch, 2).

    Example:
        >>> import numpy as np
        >>> def random_gain(images, seed, amount=0.1):
        ...     gain = draw(images, seed, low=1 - amount, high=1 + amount)
        ...     return images * gain[:, None, None, None]
        >>> random_gain(np.ones((2, 8, 8, 3), 'float32'), seed=(0, 1)).shape
        (2, 8, 8, 3)
    """
    xp = namespace(images, seed)
    bits = image_seeds(images, seed, n)[..., 0] & 0x00FFFFFF
    unit = cast(xp, bits, 'float32') * np.float32(2**-24)
    low, high = finite_number('low', low), finite_number('high', high)
    return np.float32(low) + np.float32(high - low) * unit


def draw_integers(images: Tensor, seed: Seed, n: int = 0, count: int = 2) -> Tensor:
    """Draws an integer for each image, uniform over 0 ... count - 1.

    The draws are the same in every framework, eager or compiled.

    Args:
        images: The batch, of which only the number of images and the framework are used.
        seed: Two integers for the whole batch, or (batch, 2); may be traced.
        n: Number of the draw: a transform that draws several numbers gives each its own.
        count: Number of values, at least 1.

    Returns:
        An int32 array or tensor (batch,).

    Raises:
        ValueError: `count` isn't a positive integer, or `seed` isn't two integers or (batch, 2).

    Example:
        >>> import numpy as np
        >>> draw_integers(np.ones((5, 8, 8, 3), 'float32'), seed=(0, 1), count=3).shape
        (5,)
    """
    if isinstance(count, numbers.Number):
        count = positive_integer('count', count)
    return hashed_integers(image_seeds(images, seed, n), count)


def image_seeds(images: Tensor, seed: Seed, n: int) -> Tensor:
    """A seed for each image, (batch, 2), derived from the `n`-th seed of `seed`."""
    seeds = fold(seed, n)
    if len(seeds.shape) == 2:
        return seeds
    xp = namespace(images, seed)
    size = batch_size(xp, images)
    return fold(seeds, arange(xp, size))


def hashed_integers(seeds: Tensor, count: int) -> Tensor:
    """An integer in 0 ... count - 1 for each of `seeds`, (..., 2), which `fold` has returned."""
    return (seeds[..., 0] & 0x7FFFFFFF) % count


def native_integers(images: Tensor, seed: Seed, n: int, high: int) -> Tensor:
    """Draws an integer for each image, uniform over 0 ... high, both included.

    The framework's own generator draws them, so they differ between frameworks, except with a seed
    for each image, (batch, 2), where a hash does. `random_crop`, `random_flip` and `random_cutout`
    keep to this, so that earlier trainings can be repeated.
    """
    xp = namespace(images, seed)
    seed = fold(seed, n)
    if len(seed.shape) == 2:
        return hashed_integers(seed, high + 1)
    count = batch_size(xp, images)
    if xp is np:
        generator = np.random.Generator(np.random.Philox(key=seed.view('uint32').astype('uint64')))
        return generator.integers(0, high + 1, count, 'int32')
    if xp.__name__ == 'tensorflow':
        # Philox draws the same on every device; TensorFlow's default depends on the device.
        return xp.random.stateless_uniform(
            [count], cast(xp, seed, 'int32'), 0, high + 1, dtype='int32', alg='philox'
        )
    random = sys.modules['jax'].random
    key = random.wrap_key_data(xp.asarray(seed).astype('uint32'), impl='threefry2x32')
    return random.randint(key, (count,), 0, high + 1, 'int32')


def _int32(xp, name, value):
    """`value` as int32; arrays of wider integers wrap around, Python integers are refused."""
    if 'int' not in dtype_name(value):
        raise ValueError(f'`{name}` must be of integers. Received: {name} of {dtype_name(value)}')
    if isinstance(value, int) and not -(1 << 31) <= value < 1 << 31:
        raise ValueError(f'`{name}` must fit in 32 bits, with sign. Received: {name}={value}')
    return cast(xp, value, 'int32')


def _mix(xp, x):
    """A bijection of int32 in which each bit of the input flips about half of the output's."""
    shift = xp.bitwise.right_shift if xp.__name__ == 'tensorflow' else xp.right_shift
    # The masks turn the arithmetic shift into a logical one, which keeps it a bijection.
    x = (x ^ (shift(x, 16) & 0x0000FFFF)) * 0x7FEB352D
    x = (x ^ (shift(x, 15) & 0x0001FFFF)) * (0x846CA68B - (1 << 32))
    return x ^ (shift(x, 16) & 0x0000FFFF)

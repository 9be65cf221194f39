"""Helpers of all transforms: the framework of an array, and checks of arguments."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fenwicks._typing import Tensor


def namespace(*arrays):
    """The module `tensorflow`, `jax.numpy` or `numpy` that the arrays belong to.

    It imports nothing: a framework whose arrays exist has been imported.
    """
    tf, jax = sys.modules.get('tensorflow'), sys.modules.get('jax')
    if tf is not None and any(tf.is_tensor(array) for array in arrays):
        return tf
    if jax is not None and any(isinstance(array, jax.Array) for array in arrays):
        return jax.numpy
    return np


def cast(xp, array, dtype):
    """`array` in the framework `xp`, as `dtype`."""
    return xp.cast(array, dtype) if xp.__name__ == 'tensorflow' else xp.asarray(array, dtype)


def dtype_name(value: Any) -> str:
    """The name of an array's dtype, such as `'float32'`, or of another value's type."""
    return getattr(getattr(value, 'dtype', None), 'name', type(value).__name__)


def batch_size(xp, images):
    """Number of images: an integer, or a scalar tensor if it is unknown when traced."""
    return xp.shape(images)[0] if images.shape[0] is None else images.shape[0]


def check_rank(images):
    """Raises unless `images` are an array of four axes."""
    if namespace(images) is np and not isinstance(images, np.ndarray):
        raise ValueError(
            f'`images` must be a TensorFlow, JAX or NumPy array. Received: {type(images).__name__}'
        )
    rank = images.shape.rank if hasattr(images.shape, 'rank') else len(images.shape)
    if rank != 4:
        raise ValueError(
            '`images` must have the shape (batch, height, width, channels). '
            f'Received: images.shape={images.shape}'
        )


def check_floats(images: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of `images`; raises unless they are a float batch."""
    check_rank(images)
    if 'float' not in dtype_name(images):
        raise ValueError(
            '`images` must be floats: `normalize` integers, or cast them where pixels in 0...255 '
            f'are wanted. Received: images.dtype={dtype_name(images)}'
        )
    return check_sizes(images)


def check_kept(name: str, images: Tensor, changed: Tensor) -> None:
    """Raises unless what a transform made of `images` has their dtype, and their sizes where both
    are known; `name` is the argument that the transform came as."""
    before, after = images.shape[1:], getattr(changed, 'shape', ())[1:]
    # TensorFlow's shapes may hold unknown sizes, which `==` takes for different.
    agree = getattr(before, 'is_compatible_with', before.__eq__)(after)
    if dtype_name(changed) != dtype_name(images) or not agree:
        raise ValueError(
            f'`{name}` must keep the shape and dtype of images. Received: {dtype_name(images)} '
            f'images of shape {before} before, {dtype_name(changed)} of shape {after} after'
        )


def check_sizes(images: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of a batch; raises if one is unknown when traced."""
    sizes = tuple(images.shape)[1:]
    if None in sizes:
        raise ValueError(
            '`images` must have a height, width and channels known when traced. '
            f'Received: images.shape={images.shape}'
        )
    return sizes


def check_range(name: str, value: int, low: int, high: int, meaning: str) -> None:
    """Raises unless `value` is an integer in [low, high]; `meaning` explains `high`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f'`{name}` must be an integer. Received: {name}={value!r}')
    if not low <= value <= high:
        raise ValueError(
            f'`{name}` must be in [{low}, {high}], {high} being {meaning}. Received: {name}={value}'
        )


def per_image(xp: Any, name: str, values: Tensor, images: Tensor, kind: str = 'int') -> Tensor:
    """`values`, one of `kind` per image, as a vector (batch,) of bool, int32 or float32."""
    values = xp.convert_to_tensor(values) if xp.__name__ == 'tensorflow' else xp.asarray(values)
    sizes = {size for size in (*values.shape, images.shape[0]) if size is not None}
    fits = kind in dtype_name(values) or (kind == 'float' and 'int' in dtype_name(values))
    if len(values.shape) != 1 or len(sizes) > 1 or not fits:
        raise ValueError(
            f'`{name}` must hold one {kind} per image, shape ({images.shape[0]},). '
            f'Received: {name}.shape={tuple(values.shape)}, {name}.dtype={dtype_name(values)}'
        )
    return values if kind == 'bool' else cast(xp, values, f'{kind}32')


def in_float32(xp, images):
    """`images` as float32, or as they are if they are float64: narrow types lose too much."""
    return images if dtype_name(images) == 'float64' else cast(xp, images, 'float32')


def where(xp, mask, chosen, images):
    """`chosen` for the images where `mask` (batch,) is true, `images` for the others."""
    if xp.__name__ == 'tensorflow':
        # Its newer `where` broadcasts the mask, which takes six times as long on processors.
        return xp.compat.v1.where(mask, chosen, images)
    return xp.where(mask[:, None, None, None], chosen, images)


def product(xp, a, b):
    """The matrix product, exact in the dtype of its factors wherever a framework can be told so."""
    if xp is np or xp.__name__ == 'tensorflow':
        return xp.matmul(a, b)
    # By default JAX rounds float32 factors to TF32 or bfloat16 on accelerators.
    return xp.matmul(a, b, precision='highest')


def gather_pixels(xp, pixels, indices):
    """Takes the pixels (batch, count, channels) that `indices` (batch, n) name, for each image."""
    if xp.__name__ == 'tensorflow':
        return xp.gather(pixels, indices, batch_dims=1)
    return xp.take_along_axis(pixels, indices[:, :, None], axis=1)


def take(xp, array, indices):
    """The entries of an array's first axis that `indices` name."""
    return xp.gather(array, indices) if xp.__name__ == 'tensorflow' else xp.take(array, indices, 0)


def clip(xp, array, low, high):
    """`array` with what lies outside of [low, high] moved to its ends."""
    return (xp.clip_by_value if xp.__name__ == 'tensorflow' else xp.clip)(array, low, high)


def arange(xp, count):
    """The integers 0 ... count - 1, as int32."""
    return xp.range(count) if xp.__name__ == 'tensorflow' else xp.arange(count, dtype='int32')


def reverse(xp, array, axis):
    """`array` in the opposite order along an axis."""
    # A slice of stride -1 takes TensorFlow seven times as long.
    return xp.reverse(array, [axis]) if xp.__name__ == 'tensorflow' else xp.flip(array, axis)


def total(xp, array, axis):
    """The sums along an axis."""
    return (xp.reduce_sum if xp.__name__ == 'tensorflow' else xp.sum)(array, axis)

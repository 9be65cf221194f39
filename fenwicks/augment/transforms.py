"""Pure transforms: every parameter is given, per image; nothing is drawn."""

from __future__ import annotations

import numpy as np

from fenwicks.augment.arrays import (
    cast,
    check_floats,
    check_range,
    check_rank,
    namespace,
    per_image,
)


def crop(images, top, left, height: int, width: int):
    """Cuts a `height` x `width` window out of each image, at its own offset.

        crop(images, top, left, h, w)[i] = images[i, top[i] : top[i] + h, left[i] : left[i] + w]

    Rows and columns are selected by multiplying with one-hot matrices, which compiles to two matrix
    products instead of one gather per image. A product with a one-hot matrix is exact for finite
    values, save where TensorFlow itself rounds float32 factors (to TF32 on GPUs, to bfloat16 on
    TPUs); whatever bfloat16 represents stays exact there too.

    Args:
        images: Floats (batch, height, width, channels).
        top: Integers (batch,): first row of each window. What lies outside the image reads as zero.
        left: Integers (batch,): first column of each window.
        height: Height of the windows, in [1, image height].
        width: Width of the windows, in [1, image width].

    Returns:
        Images (batch, height, width, channels) of the same dtype.

    Raises:
        ValueError: The window is empty or larger than the image, or a shape or dtype doesn't fit.

    Example:
        >>> images = np.arange(9.0).reshape(1, 3, 3, 1)
        >>> crop(images, np.array([1]), np.array([0]), 2, 2)[0, :, :, 0]
        array([[3., 4.],
               [6., 7.]])
    """
    xp = namespace(images, top, left)
    full_height, full_width = check_floats(images)
    check_range('height', height, 1, full_height, 'the image height')
    check_range('width', width, 1, full_width, 'the image width')
    rows = per_image(xp, 'top', top, images)[:, None] + np.arange(height, dtype='int32')
    columns = per_image(xp, 'left', left, images)[:, None] + np.arange(width, dtype='int32')
    # NumPy's einsum doesn't know bfloat16; the other two compute in the images' own dtype.
    dtype = 'float32' if xp is np and images.dtype.kind != 'f' else images.dtype
    # JAX would otherwise round float32 to TF32 or bfloat16 on accelerators.
    exact = {} if xp is np or xp.__name__ == 'tensorflow' else {'precision': 'highest'}
    select = cast(xp, rows[:, :, None] == np.arange(full_height, dtype='int32'), dtype)
    cut = xp.einsum('bij,bjwc->biwc', select, cast(xp, images, dtype), **exact)
    select = cast(xp, columns[:, :, None] == np.arange(full_width, dtype='int32'), dtype)
    return cast(xp, xp.einsum('bij,bhjc->bhic', select, cut, **exact), images.dtype)


def pad_reflect(images, padding: int):
    """Grows images by `padding` pixels on each side, mirrored at the border pixels.

        row -k = row k,    row height - 1 + k = row height - 1 - k

    Args:
        images: Floats (batch, height, width, channels).
        padding: Pixels, in [0, min(height, width) - 1].

    Returns:
        Images (batch, height + 2 * padding, width + 2 * padding, channels) of the same dtype.

    Raises:
        ValueError: `padding` is out of range, or the images' shape or dtype doesn't fit.

    Example:
        >>> pad_reflect(np.arange(9.0).reshape(1, 3, 3, 1), 1)[0, 1, :, 0]
        array([1., 0., 1., 2., 1.])
    """
    xp = namespace(images)
    size = min(check_floats(images))
    check_range('padding', padding, 0, size - 1, 'the image size - 1')
    return xp.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]], mode='reflect')


def flip(images, mask):
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
        >>> images = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 2, 1)
        >>> flip(images, np.array([True, False]))[:, 0, :, 0]
        array([[2., 1.],
               [3., 4.]])
    """
    xp = namespace(images, mask)
    check_floats(images)
    mask = per_image(xp, 'mask', mask, images, kind='bool')
    return xp.where(mask[:, None, None, None], images[:, :, ::-1], images)


def cutout(images, top, left, height: int, width: int):
    """Sets a `height` x `width` rectangle of each image to zero, at its own offset.

        cutout(images, top, left, h, w)[i, top[i] : top[i] + h, left[i] : left[i] + w] = 0

    Zero is the mean of images that went through `normalize`. A rectangle lies wholly inside the
    image when `0 <= top <= image height - height` and `0 <= left <= image width - width`, which
    `random_cutout` always draws; of a rectangle placed elsewhere only the part inside counts.

    Args:
        images: Floats (batch, height, width, channels).
        top: Integers (batch,): first row of each rectangle.
        left: Integers (batch,): first column of each rectangle.
        height: Height of the rectangles, in [0, image height].
        width: Width of the rectangles, in [0, image width].

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: The rectangle is larger than the image, or a shape or dtype doesn't fit.

    Example:
        >>> cutout(np.ones((1, 3, 3, 1)), np.array([1]), np.array([0]), 2, 2)[0, :, :, 0]
        array([[1., 1., 1.],
               [0., 0., 1.],
               [0., 0., 1.]])

    Reference:
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552 (whose squares may be cut off by
        the border; these aren't).
    """
    xp = namespace(images, top, left)
    full_height, full_width = check_floats(images)
    check_range('height', height, 0, full_height, 'the image height')
    check_range('width', width, 0, full_width, 'the image width')
    rows = np.arange(full_height, dtype='int32') - per_image(xp, 'top', top, images)[:, None]
    columns = np.arange(full_width, dtype='int32') - per_image(xp, 'left', left, images)[:, None]
    rows = (rows >= 0) & (rows < height)
    columns = (columns >= 0) & (columns < width)
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return xp.where(hole, xp.zeros((), images.dtype), images)


def normalize(images, mean, std, dtype: str = 'float32'):
    """Standardises each channel: `(images - mean) / std`, computed in float32.

    Args:
        images: uint8 or floats (batch, height, width, channels), in 0...255.
        mean: A number, or one per channel, in the images' units (0...255).
        std: A positive number, or one per channel, in the images' units (0...255).
        dtype: Name of the float dtype to return.

    Returns:
        Images of the same shape, of `dtype`.

    Raises:
        ValueError: `std` isn't positive, or a shape doesn't fit.

    Example:
        >>> normalize(np.full((1, 1, 1, 3), 150, 'uint8'), mean=[100, 150, 200], std=50)[0, 0, 0]
        array([ 1.,  0., -1.], dtype=float32)
    """
    xp = namespace(images)
    mean, std = _statistics(images, mean, std)
    return cast(xp, (cast(xp, images, 'float32') - mean) / std, dtype)


def denormalize(images, mean, std, dtype: str = 'float32'):
    """Undoes `normalize`: `images * std + mean`, computed in float32; not rounded, not clipped.

    Args:
        images: Floats (batch, height, width, channels).
        mean: As given to `normalize`.
        std: As given to `normalize`.
        dtype: Name of the float dtype to return.

    Returns:
        Images of the same shape, of `dtype`, in 0...255.

    Raises:
        ValueError: `std` isn't positive, or a shape doesn't fit.
    """
    xp = namespace(images)
    mean, std = _statistics(images, mean, std)
    return cast(xp, cast(xp, images, 'float32') * std + mean, dtype)


def _statistics(images, mean, std):
    """`mean` and `std` as float32, checked against the images' channels."""
    check_rank(images)
    mean, std = np.asarray(mean, 'float32'), np.asarray(std, 'float32')
    for name, value in (('mean', mean), ('std', std)):
        if value.shape not in ((), (1,), (images.shape[-1],)):
            raise ValueError(
                f'`{name}` must be a number or one per channel, shape ({images.shape[-1]},). '
                f'Received: {name}.shape={value.shape}'
            )
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f'`std` must be positive. Received: mean={mean}, std={std}')
    return mean, std

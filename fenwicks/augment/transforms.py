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
    products for the batch instead of one gather per image. That is exact for finite values, save
    where TensorFlow itself rounds the factors of float32 products (to TF32 on GPUs, to bfloat16 on
    TPUs); what bfloat16 represents, such as the integers 0...255, stays exact there too.

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
    full_height, full_width, channels = check_floats(images)
    check_range('height', height, 1, full_height, 'the image height')
    check_range('width', width, 1, full_width, 'the image width')
    top, left = per_image(xp, 'top', top, images), per_image(xp, 'left', left, images)
    # NumPy doesn't multiply bfloat16 matrices; the other two compute in the images' own dtype.
    dtype = 'float32' if xp is np and images.dtype.kind != 'f' else images.dtype
    # Matrix products of three axes, not einsum: TensorFlow's is eight times slower in bfloat16.
    cut = xp.reshape(cast(xp, images, dtype), (-1, full_height, full_width * channels))
    cut = _product(xp, _one_hot(xp, top, height, full_height, dtype), cut)
    cut = xp.transpose(xp.reshape(cut, (-1, height, full_width, channels)), (0, 2, 1, 3))
    cut = xp.reshape(cut, (-1, full_width, height * channels))
    cut = _product(xp, _one_hot(xp, left, width, full_width, dtype), cut)
    cut = xp.transpose(xp.reshape(cut, (-1, width, height, channels)), (0, 2, 1, 3))
    return cast(xp, cut, images.dtype)


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
    height, width, _ = check_floats(images)
    check_range('padding', padding, 0, min(height, width) - 1, 'the image size - 1')
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
    # A slice of stride -1 takes TensorFlow seven times as long.
    mirrored = xp.reverse(images, [2]) if xp.__name__ == 'tensorflow' else xp.flip(images, 2)
    return xp.where(mask[:, None, None, None], mirrored, images)


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
    full_height, full_width, _ = check_floats(images)
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
        ValueError: `std` isn't positive, `dtype` isn't a float's, or a shape doesn't fit.

    Example:
        >>> normalize(np.full((1, 1, 1, 3), 150, 'uint8'), mean=[100, 150, 200], std=50)[0, 0, 0]
        array([ 1.,  0., -1.], dtype=float32)
    """
    xp = namespace(images)
    mean, std = _statistics(images, mean, std, dtype)
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
        ValueError: `std` isn't positive, `dtype` isn't a float's, or a shape doesn't fit.
    """
    xp = namespace(images)
    mean, std = _statistics(images, mean, std, dtype)
    return cast(xp, cast(xp, images, 'float32') * std + mean, dtype)


def _statistics(images, mean, std, dtype):
    """`mean` and `std` as float32, checked against the images' channels."""
    check_rank(images)
    if 'float' not in str(dtype):
        raise ValueError(f'`dtype` must be a float type. Received: dtype={dtype}')
    mean, std = np.asarray(mean, 'float32'), np.asarray(std, 'float32')
    for name, value in (('mean', mean), ('std', std)):
        if value.shape not in ((), (1,), (images.shape[-1],)):
            raise ValueError(
                f'`{name}` must be a number or one per channel, shape ({images.shape[-1]},). '
                f'Received: {name}.shape={value.shape}'
            )
    if not np.isfinite(mean).all():
        raise ValueError(f'`mean` must be finite. Received: mean={mean}')
    if not (np.isfinite(std) & (std > 0)).all():
        raise ValueError(f'`std` must be positive and finite. Received: std={std}')
    return mean, std


def _one_hot(xp, offsets, size: int, full_size: int, dtype):
    """Matrices (batch, size, full_size) that pick `size` entries from each image's offset on."""
    indices = offsets[:, None] + np.arange(size, dtype='int32')
    return cast(xp, indices[:, :, None] == np.arange(full_size, dtype='int32'), dtype)


def _product(xp, a, b):
    if xp is np or xp.__name__ == 'tensorflow':
        return xp.matmul(a, b)
    # JAX would round float32 factors to TF32 or bfloat16 on accelerators.
    return xp.matmul(a, b, precision='highest')

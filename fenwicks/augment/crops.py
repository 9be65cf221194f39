"""Crops: cut a window out of each image."""

from __future__ import annotations

import numpy as np

from fenwicks._checks import finite_number, integer, positive_integer
from fenwicks._typing import Seed, Tensor
from fenwicks.augment.arrays import (
    cast,
    check_floats,
    check_range,
    check_rank,
    check_sizes,
    in_float32,
    namespace,
    per_image,
    product,
    total,
)
from fenwicks.augment.boxes import check_span, random_box
from fenwicks.augment.seeds import native_integers


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cuts a `height` x `width` window out of each image, at its own offset.

        crop(images, top, left, h, w)[i] = images[i, top[i] : top[i] + h, left[i] : left[i] + w]

    Rows and columns are selected by multiplying with one-hot matrices, which compiles to two matrix
    products for the batch instead of one gather per image. The result is exact for finite values,
    except where TensorFlow rounds the factors of float32 products (to TF32 on GPUs, to bfloat16 on
    TPUs); values that bfloat16 can represent, such as the integers 0...255, stay exact there too.

    Args:
        images: Floats (batch, height, width, channels).
        top: Integers (batch,): first row of each window. Pixels outside the image read as zero.
        left: Integers (batch,): first column of each window.
        height: Height of the windows, in [1, image height].
        width: Width of the windows, in [1, image width].

    Returns:
        Images (batch, height, width, channels) of the same dtype.

    Raises:
        ValueError: The window is empty or larger than the image, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> images = np.arange(9.0).reshape(1, 3, 3, 1)
        >>> crop(images, np.array([1]), np.array([0]), 2, 2)[0, :, :, 0]
        array([[3., 4.],
               [6., 7.]])
    """
    xp = namespace(images, top, left)
    full_height, full_width, _ = check_floats(images)
    check_range('height', height, 1, full_height, 'the image height')
    check_range('width', width, 1, full_width, 'the image width')
    top, left = per_image(xp, 'top', top, images), per_image(xp, 'left', left, images)
    return _picked(xp, images, _following(top, height), _following(left, width))


def _following(first, count):
    """Integers (batch, count): for each image `first` and those after it."""
    return first[:, None] + np.arange(count, dtype='int32')


def _picked(xp, images, rows, columns):
    """The pixels of each image in `rows` (batch, h) and `columns` (batch, w), zero outside."""
    full_height, full_width, _ = check_floats(images)
    # NumPy doesn't multiply bfloat16 matrices; the other two compute in the images' own dtype.
    dtype = 'float32' if xp is np and images.dtype.kind != 'f' else images.dtype
    rows = _one_hot(xp, rows, full_height, dtype)
    columns = _one_hot(xp, columns, full_width, dtype)
    return cast(xp, _combined(xp, cast(xp, images, dtype), rows, columns), images.dtype)


def _combined(xp, images, rows, columns):
    """Linear combinations of rows and of columns of each image.

    Args:
        xp: The framework.
        images: (batch, height, width, channels).
        rows: Matrices (batch, new height, height), of the images' dtype.
        columns: Matrices (batch, new width, width), of the images' dtype.
    """
    (height, full_height), (width, full_width) = rows.shape[1:], columns.shape[1:]
    channels = images.shape[3]
    # Matrix products of three axes, not einsum: TensorFlow's is eight times slower in bfloat16.
    images = product(xp, rows, xp.reshape(images, (-1, full_height, full_width * channels)))
    images = xp.transpose(xp.reshape(images, (-1, height, full_width, channels)), (0, 2, 1, 3))
    images = product(xp, columns, xp.reshape(images, (-1, full_width, height * channels)))
    return xp.transpose(xp.reshape(images, (-1, width, height, channels)), (0, 2, 1, 3))


def pad_reflect(images: Tensor, padding: int) -> Tensor:
    """Pads images by `padding` pixels on each side with the reflection of their inside.

        row -k = row k,    row height - 1 + k = row height - 1 - k

    Args:
        images: Floats (batch, height, width, channels).
        padding: Pixels, in [0, min(height, width) - 1].

    Returns:
        Images (batch, height + 2 * padding, width + 2 * padding, channels) of the same dtype.

    Raises:
        ValueError: `padding` is out of range, or the images' shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> pad_reflect(np.arange(9.0).reshape(1, 3, 3, 1), 1)[0, 1, :, 0]
        array([1., 0., 1., 2., 1.])
    """
    return pad(images, padding)


def pad(images: Tensor, padding: int, mode: str = 'reflect') -> Tensor:
    """Pads images by `padding` pixels on each side.

        reflect:    row -k = row k           (the border pixel isn't repeated)
        symmetric:  row -k = row k - 1       (the border pixel is repeated)
        constant:   row -k = 0

    Args:
        images: Floats (batch, height, width, channels).
        padding: Pixels, at least 0; at most min(height, width) if symmetric, one less if reflected.
        mode: `'reflect'`, `'symmetric'` or `'constant'`.

    Returns:
        Images (batch, height + 2 * padding, width + 2 * padding, channels) of the same dtype.

    Raises:
        ValueError: `padding` is out of range, `mode` is unknown, or the images' shape or dtype
            doesn't fit.

    Example:
        >>> import numpy as np
        >>> pad(np.arange(1, 4.0).reshape(1, 1, 3, 1), 1, 'constant')[0, 1, :, 0]
        array([0., 1., 2., 3., 0.])
    """
    xp = namespace(images)
    height, width, _ = check_floats(images)
    _check_padding(padding, mode, height, width)
    sides = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    return xp.pad(images, sides, mode=mode)


def _check_padding(padding, mode, height, width):
    """Raises unless images of a size can be padded so far in that way."""
    if mode == 'reflect':
        check_range('padding', padding, 0, min(height, width) - 1, 'the image size - 1')
    elif mode == 'symmetric':
        check_range('padding', padding, 0, min(height, width), 'the image size')
    elif mode == 'constant':
        integer('padding', padding, low=0)
    else:
        raise ValueError(
            f'`mode` must be one of reflect, symmetric, constant. Received: mode={mode}'
        )


def random_crop(images: Tensor, seed: Seed, padding: int = 4, mode: str = 'reflect') -> Tensor:
    """Pads images, by reflection unless told otherwise, then crops each back at a random offset.

        top, left ~ uniform over 0 ... 2 * padding, both ends included
        random_crop(images, seed) = crop(pad(images, padding, mode), top, left, height, width)

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.
        padding: Pixels on each side, in [0, min(height, width) - 1] with reflection.
        mode: How to pad: `'reflect'`, `'symmetric'` or `'constant'` (zeros), see `pad`.

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
    _check_padding(padding, mode, height, width)
    xp = namespace(images, seed)
    first = (native_integers(images, seed, n, 2 * padding) - padding for n in range(2))
    # The border is picked out of the image: no padded images are made.
    rows, columns = (
        _bounced(xp, _following(place, size), mode)
        for place, size in zip(first, (height, width), strict=True)
    )
    return _picked(xp, images, rows, columns)


def _bounced(xp, places, mode):
    """Places (batch, size) on an axis of that size, with those outside where `mode` has them."""
    if mode == 'constant':
        return places
    last, before = places.shape[1] - 1, int(mode == 'symmetric')
    places = xp.maximum(places, -places - before)
    return xp.minimum(places, 2 * last + before - places)


def _one_hot(xp, places, full_size, dtype):
    """Matrices (batch, size, full_size) that pick the entries at `places` (batch, size)."""
    return cast(xp, places[:, :, None] == np.arange(full_size, dtype='int32'), dtype)


def central_crop(images: Tensor, height: int, width: int) -> Tensor:
    """Cuts the `height` x `width` window in the middle out of each image.

    Args:
        images: Images (batch, height, width, channels) of any dtype.
        height: Height of the window, in [1, image height].
        width: Width of the window, in [1, image width].

    Returns:
        Images (batch, height, width, channels) of the same dtype.

    Raises:
        ValueError: The window is empty or larger than the image, or a shape doesn't fit.
    """
    check_rank(images)
    full_height, full_width, _ = check_sizes(images)
    check_range('height', height, 1, full_height, 'the image height')
    check_range('width', width, 1, full_width, 'the image width')
    top, left = (full_height - height) // 2, (full_width - width) // 2
    return images[:, top : top + height, left : left + width]


def central_part(images: Tensor, fraction: float) -> Tensor:
    """Cuts the middle out of each image, a part of its height and as large a part of its width.

    Args:
        images: Images (batch, height, width, channels) of any dtype.
        fraction: Part of each side that stays, in (0, 1]; it is rounded to whole pixels, at least
            one.

    Returns:
        Images of the same dtype.

    Raises:
        ValueError: `fraction` is out of range, or a shape doesn't fit.
    """
    fraction = finite_number('fraction', fraction, above=0, high=1)
    check_rank(images)
    height, width = (max(1, round(fraction * side)) for side in check_sizes(images)[:2])
    return central_crop(images, height, width)


def crop_and_resize(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    box_height: Tensor,
    box_width: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Cuts a box of its own place and size out of each image, and resizes all to one size.

        crop_and_resize(images, ...)[i] = resize(images[i, top[i] : top[i] + box_height[i],
                                                 left[i] : left[i] + box_width[i]], height, width)

    It resizes bilinearly and antialiased, as `resize` does, by two products with matrices of each
    image's own; TensorFlow rounds their factors on accelerators, see `crop`.

    Args:
        images: Floats (batch, height, width, channels).
        top: Integers (batch,): first row of each box.
        left: Integers (batch,): first column of each box.
        box_height: Integers (batch,): rows of each box, which lies inside the image.
        box_width: Integers (batch,): columns of each box, which lies inside the image.
        height: New height, at least 1.
        width: New width, at least 1.

    Returns:
        Images (batch, height, width, channels) of the same dtype.

    Raises:
        ValueError: A size isn't a positive integer, or a shape or dtype doesn't fit.
    """
    xp = namespace(images, top, left, box_height, box_width)
    full_height, full_width, _ = check_floats(images)
    height, width = positive_integer('height', height), positive_integer('width', width)
    vectors = {'top': top, 'left': left, 'box_height': box_height, 'box_width': box_width}
    top, left, box_height, box_width = (
        cast(xp, per_image(xp, name, value, images), 'float32') for name, value in vectors.items()
    )
    values = in_float32(xp, images)
    rows = _box_matrices(xp, top, box_height, height, full_height, values.dtype)
    columns = _box_matrices(xp, left, box_width, width, full_width, values.dtype)
    return cast(xp, _combined(xp, values, rows, columns), images.dtype)


def random_resized_crop(
    images: Tensor,
    seed: Seed,
    height: int,
    width: int,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Cuts a box of random size, shape and place out of each image, and resizes all to one size.

        share ~ uniform over `area`,  log(r) ~ uniform over the logarithms of `ratio`
        box height = sqrt(share * height * width / r),  box width = sqrt(share * height * width * r)

    Both are rounded and cut to the image's sides; the box lies inside the image. This is the crop
    with which Inception is trained on ImageNet.

    Args:
        images: Floats (batch, height, width, channels).
        seed: Two integers for the batch, or (batch, 2); may be traced.
        height: New height, at least 1.
        width: New width, at least 1.
        area: Smallest and largest share of the image's area, in [0, 1].
        ratio: Smallest and largest width as a multiple of the height, above 0.

    Returns:
        Images (batch, height, width, channels) of the same dtype.

    Raises:
        ValueError: A setting is out of range, or a shape or dtype doesn't fit.

    Example:
        >>> import numpy as np
        >>> random_resized_crop(np.ones((2, 16, 12, 3), 'float32'), (0, 1), 8, 8).shape
        (2, 8, 8, 3)
    """
    full_height, full_width, _ = check_floats(images)
    low, high = check_span('ratio', ratio, above=0)
    box = random_box(images, seed, full_height, full_width, area, (1 / high, 1 / low))
    return crop_and_resize(images, *box, height, width)


def _box_matrices(xp, first, length, size, full_size, dtype):
    """Matrices (batch, size, full_size) that resize each image's own stretch of an axis."""
    first, length = first[:, None, None], length[:, None, None]
    scale = length / size
    places = np.arange(size, dtype='float32')[None, :, None] + np.float32(0.5)
    pixels = np.arange(full_size, dtype='float32')[None, None] + np.float32(0.5)
    distance = xp.abs(pixels - first - places * scale) / xp.maximum(scale, 1.0)
    inside = (pixels > first) & (pixels < first + length)
    weights = xp.maximum(1 - distance, 0.0) * cast(xp, inside, 'float32')
    return cast(xp, weights / total(xp, weights, 2)[:, :, None], dtype)

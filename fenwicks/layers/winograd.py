"""3x3 convolution in a quarter of the multiplications, for float32 on a CPU.

Winograd's minimal filtering F(4x4, 3x3) computes a 4x4 tile of the output from a 6x6 tile of the
input with 36 multiplications for each pair of channels, where the sliding window takes 144:

    output = A (U . V) A',    U = G kernel G',    V = B' tile B

(`.` is elementwise, summed over the input channels). Tile position by tile position that is 36
matrix products of (tiles, channels) by (channels, filters), the shape that processors like best.
With flattened tiles each of the three transforms is one matrix product as well, by the Kronecker
square of its matrix: (16, 36), (36, 9) and (36, 36). It pays from about 128 channels on; below,
moving the tiles about costs more than the multiplications saved. Rounding errors are about 1e-5
of the output's size, a hundred times less than those of TF32 on a GPU.

Reference:
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
    https://arxiv.org/abs/1509.09308
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

TILE = 4  # pixels of output on a side
WINDOW = 6  # pixels of input on a side: the tile and the kernel's reach around it

# Windows are 2.25 times the size of their images; this bounds what they add to a step's memory.
_PART_BYTES = 60e6

_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
_A = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    np.float32,
)
_INPUT, _KERNEL, _OUTPUT = (np.kron(matrix, matrix) for matrix in (_B, _G, _A))


def pays(images, kernel) -> bool:
    """Whether `convolve` takes these, and is the faster way."""
    height, width, channels = images.shape[1:]
    return (
        images.dtype == tf.float32
        and kernel.shape[:2] == (3, 3)
        and min(channels, kernel.shape[-1]) >= 128
        and None not in (height, width)
        and height % TILE == 0
        and width % TILE == 0
    )


def convolve(images, kernel):
    """Convolution with stride 1 and `same` padding; not differentiable by itself.

    Args:
        images: float32 `(batch, height, width, channels)`, sides multiples of 4.
        kernel: float32 `(3, 3, channels, filters)`.

    Returns:
        float32 `(batch, height, width, filters)`.
    """
    points = tf.reshape(kernel, (9, -1))
    points = tf.reshape(tf.matmul(_KERNEL, points), (WINDOW**2, *kernel.shape[2:]))
    parts = []
    for part in _parts(images, kernel.shape):
        # Each part waits for the one before, whose memory it uses again.
        with tf.control_dependencies(parts[-1:]):
            tiles = tf.matmul(_input_tiles(images[part]), points)  # (36, tiles, filters)
            tiles = tf.matmul(_OUTPUT, tf.reshape(tiles, (WINDOW**2, -1)))
            parts.append(_images(tiles, images.shape[1:3], kernel.shape[-1]))
    return tf.concat(parts, axis=0)


def kernel_gradient(images, upstream, kernel_shape):
    """Gradient of `convolve` with respect to the kernel.

    Args:
        images: float32 `(batch, height, width, channels)`.
        upstream: float32 `(batch, height, width, filters)`, the gradient of the output.
        kernel_shape: `(3, 3, channels, filters)`.

    Returns:
        float32 `(3, 3, channels, filters)`.
    """
    parts = []
    for part in _parts(images, kernel_shape):
        with tf.control_dependencies(parts[-1:]):
            tiles = tf.matmul(_OUTPUT, _tiles(upstream[part]), transpose_a=True)
            tiles = tf.reshape(tiles, (WINDOW**2, -1, kernel_shape[-1]))
            parts.append(tf.matmul(_input_tiles(images[part]), tiles, transpose_a=True))
    points = tf.reshape(tf.add_n(parts), (WINDOW**2, -1))  # (36, channels * filters)
    return tf.reshape(tf.matmul(_KERNEL, points, transpose_a=True), kernel_shape)


def _parts(images, kernel_shape):
    """Slices of the batch, so that the windows of one part keep to `_PART_BYTES`."""
    batch, height, width, _ = images.shape
    if batch is None:
        return [slice(None)]
    tiles = batch * (height // TILE) * (width // TILE)
    count = math.ceil(4 * WINDOW**2 * tiles * max(kernel_shape[2:]) / _PART_BYTES)
    size = math.ceil(batch / count)
    return [slice(start, start + size) for start in range(0, batch, size)]


def _images(tiles, sides, filters):
    """Images from tiles `(16, batch * down * across * filters)`."""
    down, across = sides[0] // TILE, sides[1] // TILE
    tiles = tf.reshape(tiles, (TILE, TILE, -1, down, across, filters))
    tiles = tf.transpose(tiles, (2, 3, 0, 4, 1, 5))  # batch, down, row, across, column, filters
    return tf.reshape(tiles, (-1, *sides, filters))


def _tiles(images):
    """Tiles `(16, batch * down * across * filters)` from images: the inverse of `_images`."""
    down, across = images.shape[1] // TILE, images.shape[2] // TILE
    tiles = tf.reshape(images, (-1, down, TILE, across, TILE, images.shape[3]))
    return tf.reshape(tf.transpose(tiles, (2, 4, 0, 1, 3, 5)), (TILE**2, -1))


def _input_tiles(images):
    """(36, tiles, channels): the overlapping 6x6 windows, transformed."""
    channels = images.shape[-1]
    padded = tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = tf.gather(tf.reshape(padded, (-1, channels)), _pixels(images))
    flat = tf.matmul(_INPUT, tf.reshape(windows, (WINDOW**2, -1)))
    return tf.reshape(flat, (WINDOW**2, -1, channels))


def _pixels(images):
    """(36, tiles) int32: where in the padded, flattened images each window's pixels lie."""
    height, width = images.shape[1] + 2, images.shape[2] + 2
    within = np.add.outer(np.arange(WINDOW) * width, np.arange(WINDOW)).reshape(-1, 1)
    rows, columns = np.arange(0, height - 2, TILE) * width, np.arange(0, width - 2, TILE)
    corners = np.add.outer(rows, columns).reshape(-1)
    starts = tf.range(tf.shape(images)[0]) * (height * width)
    tiles = tf.reshape(starts[:, tf.newaxis] + corners.astype(np.int32), (1, -1))
    return within.astype(np.int32) + tiles

"""3x3 convolution with a quarter of the multiplications, by Winograd's algorithm, on a CPU.

Winograd's minimal filtering F(4x4, 3x3) computes a 4x4 tile of the output from a 6x6 window of the
input with 36 multiplications for each pair of channels, where the sliding window takes 144:

    output = A' (U . V) A,    U = G kernel G',    V = B window B'

(`.` is an elementwise product, summed over the input channels). These are 36 matrix products of
(tiles, channels) by (channels, filters), one for each position of the window. They are large, so
processors compute them at full speed. The transforms around them are bound by memory. XLA compiles
them, one axis of the window at a time, and the batch is processed in parts that fit into the
processor's cache.

The matrices are those of the Toom-Cook algorithm for the points 0, 5/8, -5/8, 3/2, -3/2 and
infinity. The points determine the rounding errors: with the usual 0, 1, -1, 2, -2 they are 2.6
times as large. In float32 the errors are about 1e-6 of the output's size. In bfloat16 they are
1.3 %, and those of the sliding window 0.2 %. An error of 1.3 % of a gradient is small beside the
noise of sampling the batch. Outputs are more sensitive: in bfloat16 `fenwicks.kernels.convolution`
computes them by the sliding window.

References:
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
    https://arxiv.org/abs/1509.09308
    Barabasz et al., Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
    Neural Networks, https://arxiv.org/abs/1803.10986
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from fenwicks.kernels.xla import compiled, rounded

TILE = 4  # pixels of output on a side
WINDOW = 6  # pixels of input on a side: the tile and the kernel's reach around it
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)  # and infinity

# Of the windows of one part of the batch; windows take 2.25 times the memory of their images.
_PART_BYTES = 16e6


def matrices(points: Sequence[float] = POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `A` (6, 4), `B` (6, 6) and `G` (6, 3) of the formula above.

    The Toom-Cook algorithm multiplies two polynomials: it evaluates both at the points (`A` and
    `G`) and interpolates the product (`B`). The formula is the transpose of that algorithm.

    Args:
        points: five distinct numbers; infinity is the sixth point.
    """
    others = [[other for other in points if other != point] for point in points]
    weights = [np.polyval(np.poly(rest), p) for p, rest in zip(points, others, strict=True)]
    a = np.vander(points, TILE, increasing=True)
    g = np.vander(points, 3, increasing=True) / np.array(weights)[:, np.newaxis]
    b = np.zeros((WINDOW, WINDOW))
    for row, rest in zip(b, [*others, points], strict=True):
        row[: len(rest) + 1] = np.poly(rest)[::-1]
    infinity = [np.eye(1, size, size - 1) for size in (TILE, 3)]
    return np.vstack([a, infinity[0]]), b, np.vstack([g, infinity[1]])


_A, _B, _G = (matrix.astype(np.float32) for matrix in matrices())


class Costs(NamedTuple):
    """How long a processor takes, as operations of Winograd's matrix products.

    Attributes:
        cut: to transform one channel of one pixel of the input.
        join: the same of the output.
        sliding: for an operation of the sliding window.
        kernel_gradient: the same, for the gradient with respect to the kernel.
    """

    cut: float
    join: float
    sliding: float
    kernel_gradient: float


# Fitted on two cores each: with AVX-512, which does for other kernels than oneDNN's too, and with
# oneDNN on Zen 3, where it is within 20 % of most of 54 measured ratios.
USUAL = Costs(720, 460, 0.9, 0.9)
ONEDNN_ON_AVX2 = Costs(200, 150, 0.59, 1.06)


def supports(images: tf.Tensor, kernel: tf.Tensor) -> bool:
    """Returns whether `convolve` takes these arguments."""
    known = kernel.shape[:2] == (3, 3) and images.shape.is_fully_defined()
    return known and images.shape[0] != 0 and images.dtype in (tf.float32, tf.bfloat16)


def pays(
    costs: Costs, channels: int, filters: int, sides: tuple[int, int], of_kernel: bool = False
) -> bool:
    """Returns whether the algorithm is faster than the sliding window.

    Args:
        costs: of the processor.
        channels: of the images.
        filters: of the kernel.
        sides: rows and columns of the output.
        of_kernel: whether `kernel_gradient` is meant instead of `convolve`.
    """
    height, width = sides
    tiles = math.ceil(height / TILE) * math.ceil(width / TILE)
    # Of each tile, and each pair of a channel and a filter.
    operations = 2 * WINDOW**2 + 16 * (costs.cut / filters + costs.join / channels)
    sliding = costs.kernel_gradient if of_kernel else costs.sliding
    return tiles * operations < sliding * 18 * height * width


def convolve(
    images: tf.Tensor, kernel: tf.Tensor, sides: tuple[int, int] | None = None
) -> tf.Tensor:
    """Convolves images with a 3x3 kernel, stride 1 and `same` padding.

    It has no gradient: `fenwicks.kernels.convolution.conv2d` defines one.

    Args:
        images: `(batch, height, width, channels)`, float32 or bfloat16.
        kernel: `(3, 3, channels, filters)` of the same type.
        sides: rows and columns of the output, from the first on: at most one more or one fewer than
            the images have. None for those of the images.

    Returns:
        `(batch, *sides, filters)` of the same type.
    """
    sides = sides or tuple(images.shape[1:3])
    # The kernel is transformed once the images have been computed. Otherwise TensorFlow would do it
    # at the start of the step, and the result would take memory from then on.
    with tf.control_dependencies([images]):
        points = _flat(_cut_kernel(kernel))
    parts: list[tf.Tensor] = []
    for part in _parts(images, sides, max(kernel.shape[2:])):
        # Each part waits for the previous one, whose memory it reuses.
        with tf.control_dependencies(parts[-1:]):
            windows = _windows(images[part], sides)
            products = tf.matmul(_flat(windows), points)
            products = tf.reshape(products, (*tf.unstack(tf.shape(windows))[:-1], -1))
            products = tf.ensure_shape(products, (*windows.shape[:-1], kernel.shape[-1]))
            parts.append(_images(products, sides))
    return tf.concat(parts, axis=0)


def kernel_gradient(
    images: tf.Tensor, upstream: tf.Tensor, kernel_shape: tf.TensorShape
) -> tf.Tensor:
    """Returns the gradient of `convolve` with respect to the kernel.

    Args:
        images: `(batch, height, width, channels)`, float32 or bfloat16.
        upstream: `(batch, *sides, filters)` of the same type, the gradient of the output.
        kernel_shape: `(3, 3, channels, filters)`.

    Returns:
        `(3, 3, channels, filters)` of the same type.
    """
    channels, filters = kernel_shape[2:]
    sides = tuple(upstream.shape[1:3])
    # The sum doesn't start from zeros: TensorFlow would store them as a constant of that size.
    total, previous = None, upstream  # windows are cut once the upstream gradient has been computed
    # A part's products take as much memory as the transformed kernel: its windows should take more.
    for part in _parts(images, sides, max(channels, filters), at_least=4 * channels * filters):
        with tf.control_dependencies([previous]):
            windows = _flat(_windows(images[part], sides))
            tiles = _flat(_tiles(upstream[part]))
            products = tf.matmul(windows, tiles, transpose_a=True)
            total = tf.cast(products, tf.float32) if total is None else _add(total, products)
            previous = total
    return _join_kernel(total, dtype=images.dtype.name)


def _parts(images, sides, channels, at_least=0):
    """Slices of the batch, whose windows take `_PART_BYTES` or have `at_least` values."""
    batch, (height, width) = images.shape[0], sides
    if batch is None:
        return [slice(None)]
    tiles = batch * math.ceil(height / TILE) * math.ceil(width / TILE)
    values = max(_PART_BYTES / images.dtype.size / WINDOW**2, at_least)
    each = math.ceil(batch / math.ceil(tiles * channels / values))
    return [slice(start, start + each) for start in range(0, batch, each)]


def _flat(points):
    """(36, tiles, channels) of (6, 6, ..., channels)"""
    return tf.reshape(points, (WINDOW**2, -1, points.shape[-1]))


def _padded(images, sides, reach):
    """Pads images with zeros: `reach` pixels around whole tiles of an output of these sides."""
    ends = [
        side + -side % TILE + reach - have
        for side, have in zip(sides, images.shape[1:3], strict=True)
    ]
    return tf.pad(images, ((0, 0), *((reach, end) for end in ends), (0, 0)))


def _windows(images, sides):
    """The overlapping 6x6 windows, transformed: (6, 6, batch, down, across, channels)"""
    rows = _cut_rows(_padded(images, sides, 1), matrix='B')
    return _cut_columns(rows, matrix='B', dtype=images.dtype.name)


def _tiles(images):
    """The 4x4 tiles, transformed by `A`: (6, 6, batch, down, across, channels)"""
    rows = _cut_rows(_padded(images, images.shape[1:3], 0), matrix='A')
    return _cut_columns(rows, matrix='A', dtype=images.dtype.name)


def _images(products, sides):
    """Images of the given sides from (6, 6, batch, down, across, filters)."""
    images = _join_columns(_join_rows(products), dtype=products.dtype.name)
    return images[:, : sides[0], : sides[1]]


def _combinations(tensors, matrix, axis):
    """Weighted sums of `tensors` in float32, one per row of the matrix, along a new axis."""
    shape = [1] * (tensors[0].shape.rank + 1)
    shape[axis] = len(matrix)
    weighted = [
        tf.expand_dims(tf.cast(tensor, tf.float32), axis) * weights.reshape(shape)
        for tensor, weights in zip(tensors, matrix.T, strict=True)
    ]
    return sum(weighted[1:], weighted[0])


def _starts(length, reach):
    """For each of `reach` successive pixels, the slice that holds it for every tile of an axis."""
    end = length - reach + 1
    return [slice(first, first + end, TILE) for first in range(reach)]


@compiled
def _cut_kernel(kernel):
    """(6, 6, channels, filters)"""
    rows = _combinations(tf.unstack(kernel), _G, axis=0)
    return rounded(_combinations(tf.unstack(rows, axis=1), _G, axis=1), kernel.dtype)


@compiled
def _join_kernel(points, *, dtype):
    """(3, 3, channels, filters) from (36, channels, filters)"""
    points = tf.reshape(points, (WINDOW, WINDOW, *points.shape[1:]))
    rows = _combinations(tf.unstack(points), _G.T, axis=0)
    return rounded(_combinations(tf.unstack(rows, axis=1), _G.T, axis=1), dtype)


@compiled
def _add(total, products):
    return total + tf.cast(products, tf.float32)


@compiled
def _cut_rows(images, *, matrix):
    """float32 (6, batch, down, width, channels)"""
    weights = {'A': _A, 'B': _B}[matrix]
    rows = [images[:, place] for place in _starts(images.shape[1], weights.shape[1])]
    return _combinations(rows, weights, axis=0)


@compiled
def _cut_columns(rows, *, matrix, dtype):
    """(6, 6, batch, down, across, channels)"""
    weights = {'A': _A, 'B': _B}[matrix]
    columns = [rows[:, :, :, place] for place in _starts(rows.shape[3], weights.shape[1])]
    return rounded(_combinations(columns, weights, axis=1), dtype)


@compiled
def _join_rows(products):
    """float32 (4, 6, batch, down, across, filters)"""
    return _combinations(tf.unstack(products), _A.T, axis=0)


@compiled
def _join_columns(rows, *, dtype):
    """(batch, height, width, filters)"""
    columns = [tf.transpose(column, (1, 2, 0, 3, 4)) for column in tf.unstack(rows, axis=1)]
    joined = rounded(_combinations(columns, _A.T, axis=4), dtype)
    down, across, filters = joined.shape[1], joined.shape[3], joined.shape[5]
    return tf.reshape(joined, (-1, TILE * down, TILE * across, filters))

"""The padding of a convolution that computes the first rows and columns of its output only."""

from __future__ import annotations

from collections.abc import Sequence


def around(
    image_sides: Sequence[int], kernel_sides: Sequence[int], sides: Sequence[int]
) -> list[tuple[int, int]]:
    """For each axis the zeros before and after the image, of which windows make `sides` outputs.

    The first output is that of `same` padding with an odd-sized kernel and stride 1.

    >>> around((15, 15), (3, 3), (14, 14))
    [(1, 0), (1, 0)]
    """
    return [
        (size // 2, wanted + size - 1 - size // 2 - side)
        for side, size, wanted in zip(image_sides, kernel_sides, sides, strict=True)
    ]

"""Checks of the arguments that the networks have in common."""

from __future__ import annotations

from collections.abc import Sequence

from fenwicks._checks import positive_integer


def image_shape(
    input_shape: Sequence[int | None], smallest: int
) -> tuple[int | None, int | None, int]:
    """Returns `input_shape` as a tuple if it is (height, width, channels) of images so large."""
    try:
        height, width, channels = input_shape
        sides = [side for side in (height, width) if side is not None]
        if all(positive_integer('input_shape', side) >= smallest for side in sides):
            return height, width, positive_integer('input_shape', channels)
    except (TypeError, ValueError):
        pass  # the message below says more
    raise ValueError(
        f'`input_shape` must be (height, width, channels) with sides of at least {smallest}. '
        f'Received: input_shape={input_shape}'
    )


def channel_counts(widths: Sequence[int], count: int) -> tuple[int, ...]:
    """Returns `widths` as a tuple of `int` if it holds `count` positive integers."""
    try:
        if len(widths) == count:
            return tuple(positive_integer('widths', width) for width in widths)
    except (TypeError, ValueError):
        pass  # the message below says more
    raise ValueError(f'`widths` must be {count} integers of at least 1. Received: widths={widths}')

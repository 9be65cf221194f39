"""Checks of the arguments that the networks have in common."""

from __future__ import annotations

from collections.abc import Sequence

from fenwicks._checks import positive_integer


def image_shape(
    input_shape: Sequence[int | None], smallest: int
) -> tuple[int | None, int | None, int]:
    """Returns `input_shape` as a tuple if it is (height, width, channels) of images so large."""
    sides = [side for side in input_shape[:2] if side is not None]
    channels = input_shape[-1] if len(input_shape) == 3 else None
    if channels is None or any(side < smallest for side in sides):
        raise ValueError(
            f'`input_shape` must be (height, width, channels) with sides of at least {smallest}. '
            f'Received: input_shape={input_shape}'
        )
    return input_shape[0], input_shape[1], channels


def channel_counts(widths: Sequence[int], count: int) -> tuple[int, ...]:
    """Returns `widths` as a tuple of `int` if it holds `count` positive integers."""
    try:
        if len(widths) == count:
            return tuple(positive_integer('widths', width) for width in widths)
    except (TypeError, ValueError):
        pass  # the message below says more
    raise ValueError(f'`widths` must be {count} integers of at least 1. Received: widths={widths}')

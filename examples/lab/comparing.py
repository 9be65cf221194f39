"""Comparisons of runs: how many times the errors, and dots beside one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import estimates
import panels


def times_the_errors(one: Sequence[Mapping], other: Sequence[Mapping]) -> tuple[float, float]:
    """How many times the errors of the other runs some runs make on the test images.

    Returns:
        The ratio, and the factor by which it may err.
    """
    # Of a run without an error there is no logarithm: as if it made a twentieth of a percent.
    errors = ([max(100 - p, 0.05) for p in estimates.percents(runs)] for runs in (one, other))
    return estimates.ratio(*errors)


def times(ratio: float, factor: float) -> str:
    """A ratio in words, with the bounds that its error sets, if that is known.

    >>> times(1.05, 1.02)
    '1.050 times (1.029 to 1.071)'
    """
    bounds = f' ({ratio / factor:.3f} to {ratio * factor:.3f})' if math.isfinite(factor) else ''
    return f'{ratio:.3f} times{bounds}'


def dots(axes: Any, place: float, values: Sequence[float], number: int) -> None:
    """Values at a place of a panel's x axis, and beside them their mean with its error.

    Args:
        axes: the panel.
        place: on its x axis.
        values: may be empty.
        number: of the series, as for `panels.style`.
    """
    marks = {**panels.style(number), 'linestyle': ''}
    axes.plot([place - 0.12] * len(values), values, markerfacecolor='none', **marks)
    if values:
        mean, error = estimates.mean_and_error(values)
        error = error if math.isfinite(error) else 0.0
        axes.errorbar(place + 0.12, mean, error, capsize=5, **marks)

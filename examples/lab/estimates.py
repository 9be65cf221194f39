"""Means and differences with their errors, as the rules of the experiments use them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from fenwicks import runlog

GUESS = 0.1  # accuracy of a run that diverged: one of ten classes


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and two standard errors of it: infinite for a single value."""
    return statistics.fmean(values), runlog.two_errors(values)


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The mean of one minus that of the other, and two standard errors of it."""
    (mean, error), (base, base_error) = mean_and_error(one), mean_and_error(other)
    return mean - base, math.hypot(error, base_error)


def ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The quotient of geometric means of positive numbers, and the factor by which it may err."""
    logs, base = ([math.log(value) for value in values] for values in (one, other))
    between, error = difference(logs, base)
    return math.exp(between), math.exp(error)


def text(mean: float, error: float, digits: int = 2) -> str:
    """A number with its error, if that is known.

    >>> text(1.234, 0.5, digits=1)
    '1.2 ± 0.5'
    """
    known = f' ± {error:.{digits}f}' if math.isfinite(error) else ''
    return f'{mean:.{digits}f}{known}'


def percents(runs: Sequence[Mapping]) -> list[float]:
    """The test accuracies of runs in percent; one that diverged counts as a guess."""
    return [100 * (GUESS if run['accuracy'] is None else run['accuracy']) for run in runs]


def mean_percent(runs: Sequence[Mapping]) -> str:
    """The mean test accuracy of runs, with its error."""
    return text(*mean_and_error(percents(runs)))


def diverged(runs: Sequence[Mapping]) -> str:
    """How many of the runs diverged, to be appended to a sentence; empty if none did."""
    count = sum(run['accuracy'] is None for run in runs)
    return f' ({count} diverged, counted as {100 * GUESS:.0f} %)' if count else ''

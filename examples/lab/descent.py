"""Coordinate descent over hyper-parameters by doubling and halving, from the scores that are known.

A point is a dict of `COORDINATES`. Factors of two are exact in floating point, so that points are
found again by `==`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COORDINATES = ('rate', 'loss_of_momentum', 'decay', 'batch_size')  # the second is 1 - momentum

Point = dict[str, float]
Key = tuple[float, ...]
Bounds = Mapping[str, Sequence[float]]


def point(rate: float, loss_of_momentum: float, decay: float, batch_size: float) -> Point:
    values = (rate, loss_of_momentum, decay, batch_size)
    return dict(zip(COORDINATES, values, strict=True))


def key(values: Mapping[str, float]) -> Key:
    """What tells a point from others, of a dict that may hold more than its coordinates."""
    return tuple(values[coordinate] for coordinate in COORDINATES)


def search(
    start: Point, bounds: Bounds, scores: Mapping[Key, float | None], sweeps: int
) -> tuple[Point, bool]:
    """The best point and True; or the next point that has no score yet, and False.

    Each coordinate in turn is doubled as long as the score grows, or else halved. The search ends
    after a sweep over all of them that changed nothing, or after `sweeps`.

    Args:
        start: the first point.
        bounds: the smallest and the largest value of each coordinate.
        scores: those known so far, by the keys of their points; None for a run that diverged, which
            is worse than all others.
        sweeps: how often each coordinate is tried at most.

    Example:

    >>> wide = dict.fromkeys(COORDINATES, (0, 9999))
    >>> first = point(rate=0.1, loss_of_momentum=0.5, decay=0.01, batch_size=64)
    >>> search(first, wide, {key(first): 0.5}, sweeps=2)[0]['rate']
    0.2
    """
    best = start
    if key(best) not in scores:
        return best, False
    for _ in range(sweeps):
        before = best
        for coordinate in COORDINATES:
            for factor in (2.0, 0.5):
                first = best
                while (tried := moved(best, bounds, coordinate, factor)) is not None:
                    if key(tried) not in scores:
                        return tried, False
                    if not is_better(scores[key(tried)], scores[key(best)]):
                        break
                    best = tried
                if best is not first:  # the other direction leads back
                    break
        if best is before:
            break
    return best, True


def is_better(score: float | None, other: float | None) -> bool:
    return score is not None and (other is None or score > other)


def moved(start: Point, bounds: Bounds, coordinate: str, factor: float) -> Point | None:
    """A point with a coordinate times a factor; None outside the bounds."""
    low, high = bounds[coordinate]
    value = start[coordinate] * factor
    return {**start, coordinate: value} if low <= value <= high else None


def neighbours(start: Point, bounds: Bounds) -> list[Point]:
    """The points within the bounds that a halving or doubling of one coordinate leads to."""
    found = [moved(start, bounds, each, factor) for each in COORDINATES for factor in (0.5, 2.0)]
    return [each for each in found if each is not None]


def are_neighbours(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two points differ in one coordinate, by a factor of 2."""
    factors = [a / b for a, b in zip(key(one), key(other), strict=True) if a != b]
    return len(factors) == 1 and factors[0] in (0.5, 2.0)

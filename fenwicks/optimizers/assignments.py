"""Which variable is in which parameter group, recorded by its place so that it survives saving.

A pattern is matched once, when an optimizer is built. On loading a model Keras gives the variables
of nested models other paths, which the pattern may match differently; the order stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from fenwicks import _keras
from fenwicks.optimizers.patterns import WORDS

# Of each variable its path, its shape, and what was chosen for it: a group's number, for instance.
Assignments: TypeAlias = tuple[tuple[str, tuple[int, ...], Any], ...]


def assign(
    variables: Sequence[keras.Variable],
    choose: Callable[[list[str]], Sequence],
    patterns: Sequence[str],
    recorded: Assignments | None,
) -> Assignments:
    """Chooses for each variable as recorded, or else by its path.

    Args:
        variables: what the optimizer updates.
        choose: from the variables' paths to a choice for each.
        patterns: those by which `choose` does it.
        recorded: what an earlier call returned, from the saved configuration; or None.
    """
    paths = [getattr(variable, 'path', variable.name) for variable in variables]
    shapes = [tuple(variable.shape) for variable in variables]
    choices: Sequence | None = None
    if recorded is not None:
        choices = _recall(recorded, paths, shapes)
        if choices is None:
            warnings.warn(
                f'the parameter groups were saved for {len(recorded)} variables, and the optimizer '
                f'is built for {len(paths)} others: each is put into the group that its path '
                'matches.',
                stacklevel=3,
            )
    elif _keras.is_loading() and not set(patterns) <= set(WORDS):
        warnings.warn(
            'the parameter groups were not saved with this model, since its optimizer was not '
            'built or an earlier version saved it: each variable is put into the group that its '
            'path matches now. Variables of nested models have lost the first part of their paths.',
            stacklevel=3,
        )
    if choices is None:
        choices = choose(paths)
    return tuple(zip(paths, shapes, choices, strict=True))


def to_config(assignments: Assignments) -> list:
    """The assignments as lists, for JSON."""
    return [[path, list(shape), choice] for path, shape, choice in assignments]


def from_config(config: Any, allowed: Sequence) -> Assignments:
    """The assignments from what `to_config` returned.

    Raises:
        ValueError: they are not such lists, or a choice isn't among those allowed.
    """
    try:
        found = tuple((path, tuple(map(int, shape)), choice) for path, shape, choice in config)
        valid = all(isinstance(path, str) and choice in allowed for path, _, choice in found)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            '`assignments` in the configuration of an optimizer must hold a path, a shape and one '
            f'of {list(allowed)} for each variable. Received: {str(config)[:100]}'
        )
    return found


def _recall(recorded: Assignments, paths: list[str], shapes: list[tuple[int, ...]]) -> list | None:
    """The recorded choices: by place, or by path where only some of the variables are left."""

    def name(path: str) -> str:
        return path.rsplit('/', 1)[-1]

    here = [(name(path), shape) for path, shape in zip(paths, shapes, strict=True)]
    if here == [(name(path), shape) for path, shape, _ in recorded]:
        return [choice for _, _, choice in recorded]
    by_path = {(path, shape): choice for path, shape, choice in recorded}
    wanted = list(zip(paths, shapes, strict=True))
    unique = len(by_path) == len(recorded) and len(set(wanted)) == len(wanted)
    return [by_path[key] for key in wanted] if unique and set(wanted) <= set(by_path) else None

"""Which variable is in which parameter group, recorded by its place so that it survives saving.

A pattern is matched once, when an optimizer is built. On loading a model Keras gives the variables
of nested models other paths, which the pattern may match differently, or not at all; the order
stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from fenwicks import _keras_saving
from fenwicks.optimizers.patterns import WORDS

# Of each variable its path, its shape, and what was chosen for it: a group's number, for instance.
Assignments: TypeAlias = tuple[tuple[str, tuple[int, ...], Any], ...]


def assign(
    variables: Sequence[keras.Variable],
    choose: Callable[[list[str], bool], Sequence],
    patterns: Sequence[str],
    recorded: Assignments | None,
    frozen: Sequence[int] = (),
) -> Assignments:
    """Chooses for each variable as recorded, or else by its path.

    Args:
        variables: what the optimizer updates.
        choose: from the variables' paths to a choice for each; and whether it raises where the
            patterns don't fit the paths. On loading it may not: the paths are not those for which
            the patterns were written.
        patterns: those by which `choose` does it.
        recorded: what an earlier call returned, from the saved configuration; or None.
        frozen: the places in `recorded` of variables that were frozen when it was saved, which a
            loaded model therefore leaves out.
    """
    paths = [getattr(variable, 'path', variable.name) for variable in variables]
    shapes = [tuple(variable.shape) for variable in variables]
    choices: Sequence | None = None
    if recorded is not None:
        choices = _recall(recorded, frozen, paths, shapes)
        if choices is None:
            warnings.warn(
                f'the parameter groups were saved for {len(recorded)} variables, and the optimizer '
                f'is built for {len(paths)} others: each is put into the group that its path '
                'matches.',
                stacklevel=3,
            )
    elif _keras_saving.is_loading() and not set(patterns) <= set(WORDS):
        warnings.warn(
            'the parameter groups were not saved with this model, since its optimizer was not '
            'built (train the model or build its optimizer before saving) or an earlier version '
            'saved it: each variable is put into the group that its path matches now. Variables of '
            'nested models have lost the first part of their paths.',
            stacklevel=3,
        )
    if choices is None:
        choices = choose(paths, not _keras_saving.is_loading())
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


def frozen_from_config(config: Any, count: int) -> tuple[int, ...]:
    """The places of frozen variables among `count`, from the configuration.

    Raises:
        ValueError: they are not such places.
    """
    valid = isinstance(config, (list, tuple)) and all(
        isinstance(place, int) and 0 <= place < count for place in config
    )
    if not valid:
        raise ValueError(
            '`frozen_assignments` in the configuration of an optimizer must hold places among '
            f'{count} variables. Received: {str(config)[:100]}'
        )
    return tuple(config)


def _recall(
    recorded: Assignments,
    frozen: Sequence[int],
    paths: list[str],
    shapes: list[tuple[int, ...]],
) -> list | None:
    """The recorded choices: by path where these paths were recorded, or else by place."""
    loading = _keras_saving.is_loading()
    left = tuple(each for place, each in enumerate(recorded) if place not in frozen)
    if loading and len(left) == len(paths):
        recorded = left
    here = list(zip(paths, shapes, strict=True))
    by_path = {(path, shape): choice for path, shape, choice in recorded}
    unique = len(by_path) == len(recorded) and len(set(here)) == len(here)
    if unique and set(here) <= set(by_path):
        return [by_path[each] for each in here]
    # Loading, it is the model that was saved, and Keras has renamed some layers of layers too.
    agree = _same_name if loading else _same_but_for_prefix
    if len(here) == len(recorded) and all(
        shape == saved_shape and agree(path, saved)
        for (path, shape), (saved, saved_shape, _) in zip(here, recorded, strict=True)
    ):
        return [choice for _, _, choice in recorded]
    return None


def _same_name(path: str, recorded: str) -> bool:
    return path.rsplit('/', 1)[-1] == recorded.rsplit('/', 1)[-1]


def _same_but_for_prefix(path: str, recorded: str) -> bool:
    """Whether a path is the recorded one, or what Keras leaves of it on copying a nested model."""
    return f'/{recorded}'.endswith(f'/{path}')

"""Parameter groups: the learning rate and weight decay of chosen variables."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras.optimizers.schedules import LearningRateSchedule

from fenwicks._checks import finite_number, sequence
from fenwicks._typing import Config, Step, Tensor
from fenwicks.optimizers.patterns import check_match, matches, nearest


@dataclass(frozen=True)
class ParameterGroup:
    """Variables chosen by their paths, with their own learning rate and weight decay.

    ```
    rate of a variable in the group  = group.learning_rate * optimizer's learning rate
                          or, if set,  group.learning_rate * group.schedule(step)
    decay of a variable in the group = group.weight_decay * optimizer's weight decay
    ```

    Variables in no group have the optimizer's rate and decay. `learning_rate` and `weight_decay`
    are factors on those, schedules included; `schedule` replaces the optimizer's rate.

    Groups are matched when the optimizer is built, and saved with the model variable by variable:
    a loaded model keeps them, though Keras gives the variables of nested models other paths. If the
    optimizer was never built they are matched on loading, with a warning.

    Args:
        match: which variables. One of the words `'bias'` (variables called `bias`, and batch
            norm's `beta`), `'scale'` (batch norm's `gamma`) and `'kernel'` (`kernel`,
            `depthwise_kernel`, ...); or a regular expression that must match the whole of
            `variable.path`, such as `r'.*classifier/.*kernel'`. Back-references, conditions and
            possessive parts are not supported.
        learning_rate: float >= 0, a factor; or a `LearningRateSchedule` from the step to a factor.
            0 freezes the variables.
        weight_decay: float >= 0, a factor. 0 exempts the variables from decay.
        schedule: `LearningRateSchedule` from the step to the learning rate, instead of the
            optimizer's; or None.

    Raises:
        ValueError: `match` is not a regular expression, a factor is negative or not finite, or
            `schedule` is not a schedule.

    Example:

    >>> from fenwicks.models import resnet9
    >>> network = resnet9((32, 32, 3), 10, widths=(4, 8, 8, 8))
    >>> paths = [variable.path for variable in network.trainable_variables]
    >>> biases = ParameterGroup('bias', learning_rate=64.0, weight_decay=1 / 64)
    >>> [path for path in paths if biases.matches(path)][:2]
    ['prep/norm/beta', 'stage_1/conv_bn_1/norm/beta']
    >>> head = ParameterGroup(r'.*classifier/.*kernel', learning_rate=0.5)
    >>> [path for path in paths if head.matches(path)]
    ['classifier/dense/kernel']

    A bias with a schedule of its own, which ends after 75 steps:

    >>> from fenwicks.schedules import PiecewiseLinear
    >>> whitening = ParameterGroup(
    ...     r'whitening/bias', schedule=PiecewiseLinear([(0, 0.05), (75, 0.0)])
    ... )
    """

    match: str
    learning_rate: float | LearningRateSchedule = 1.0
    weight_decay: float = 1.0
    schedule: LearningRateSchedule | None = None

    def __post_init__(self) -> None:
        check_match('match', self.match)
        scheduled = isinstance(self.learning_rate, LearningRateSchedule)
        if not (scheduled or isinstance(self.learning_rate, numbers.Real)):
            raise ValueError(
                '`learning_rate` of a ParameterGroup must be a finite factor >= 0 or a '
                f'LearningRateSchedule. Received: learning_rate={self.learning_rate!r}'
            )
        for name in ('weight_decay',) if scheduled else ('learning_rate', 'weight_decay'):
            # Frozen, so assigned past the dataclass: a plain float for a NumPy number.
            object.__setattr__(self, name, finite_number(name, getattr(self, name), low=0))
        if not (self.schedule is None or isinstance(self.schedule, LearningRateSchedule)):
            raise ValueError(
                '`schedule` of a ParameterGroup must be a LearningRateSchedule or None. '
                f'Received: schedule={self.schedule!r}'
            )

    def matches(self, path: str) -> bool:
        """Whether the variable with this path belongs to the group."""
        return matches(self.match, path)

    def rate(self, learning_rate: Tensor, step: Step) -> Tensor:
        """Returns the learning rate of the group's variables.

        Args:
            learning_rate: the optimizer's rate at this step.
            step: number of updates made, a number or a tensor.
        """
        rate = learning_rate if self.schedule is None else self.schedule(step)
        if isinstance(self.learning_rate, LearningRateSchedule):
            return self.learning_rate(step) * rate
        return rate if self.learning_rate == 1 else self.learning_rate * rate

    def get_config(self) -> Config:
        """Returns the constructor's arguments as plain values, schedules serialised."""
        return {
            name: keras.saving.serialize_keras_object(value)
            if isinstance(value, LearningRateSchedule)
            else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict | None = None) -> ParameterGroup:
        """Returns a group from the dictionary that `get_config` returned."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
                if isinstance(value, dict)
                else value
                for name, value in config.items()
            }
        )


def checked_groups(groups: Sequence[ParameterGroup]) -> tuple[ParameterGroup, ...]:
    """Returns the groups as a tuple, or raises a ValueError where one is something else."""
    groups = sequence('groups', groups, 'ParameterGroups')
    for group in groups:
        if not isinstance(group, ParameterGroup):
            raise ValueError(f'`groups` must hold ParameterGroups. Received: {group!r}')
    return groups


# The optimizer's own settings, for variables in no group.
UNCHANGED = ParameterGroup('.*')


def group_of_each(
    groups: Sequence[ParameterGroup], paths: Sequence[str], strict: bool = True
) -> tuple[int | None, ...]:
    """Returns the number of the group of every variable, None for variables in no group.

    Args:
        groups: the parameter groups; they may not overlap.
        paths: `variable.path` of every variable that the optimizer updates.
        strict: whether to raise. If not, the first group that matches a variable has it.

    Raises:
        ValueError: two groups match one variable, or a group matches none.

    Example:

    >>> from fenwicks.optimizers import ParameterGroup
    >>> group_of_each([ParameterGroup('bias', 64.0)], ['dense/kernel', 'dense/bias'])
    (None, 0)
    """
    chosen: list[int | None] = []
    for path in paths:
        matching = [i for i, group in enumerate(groups) if group.matches(path)]
        if strict and len(matching) > 1:
            raise ValueError(
                '`groups` must not overlap: each variable belongs to at most one group. '
                f'Received: variable {path!r} matches {[groups[i].match for i in matching]}'
            )
        chosen.append(matching[0] if matching else None)
    for i, group in enumerate(groups):
        if strict and i not in chosen:
            raise ValueError(
                'Each of `groups` must match at least one trainable variable. Received: '
                f'match={group.match!r}, {matches_none(group.match, paths)}'
            )
    return tuple(chosen)


def matches_none(match: str, paths: Sequence[str]) -> str:
    """The end of a message: that a pattern matches none of the paths, and which are nearest."""
    return (
        f'which matches none of {len(paths)} variables; the nearest of their paths: '
        f'{", ".join(map(repr, nearest(match, paths)))}'
    )

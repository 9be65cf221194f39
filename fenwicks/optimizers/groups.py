"""Parameter groups: learning rate and weight decay of chosen variables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from fenwicks._typing import Config, Step, Tensor

# Keras calls batch norm's offset `beta` and its scale `gamma`; a reader thinks bias and scale.
WORDS = {
    'bias': r'(.*/)?(bias|beta)',
    'scale': r'(.*/)?gamma',
    'kernel': r'(.*/)?(\w+_)?kernel',
}


def matches(match: str, path: str) -> bool:
    """Whether the word or regular expression `match` means the variable with this path."""
    return re.fullmatch(WORDS.get(match, match), path) is not None


def check_match(name: str, match: Any) -> None:
    """Raises a ValueError unless `match` is a word or a regular expression."""
    if not isinstance(match, str) or not match:
        raise ValueError(
            f'`{name}` must be a non-empty string: a word of '
            f'{sorted(WORDS)} or a regular expression. Received: {name}={match!r}'
        )
    try:
        re.compile(match)
    except re.error as error:
        raise ValueError(
            f'`{name}` must be a valid regular expression ({error}). Received: {name}={match!r}'
        ) from None


@dataclass(frozen=True)
class ParameterGroup:
    """Variables chosen by name, with their own learning rate and weight decay.

    ```
    rate of a variable in the group  = group.learning_rate * optimizer's learning rate
                          or, if set,  group.learning_rate * group.schedule(step)
    decay of a variable in the group = group.weight_decay * optimizer's weight decay
    ```

    Variables in no group keep the optimizer's own rate and decay. `learning_rate` and
    `weight_decay` are factors: a schedule of the optimizer goes on for every group, multiplied.
    `schedule` is a rate in its own right, and the optimizer's doesn't matter to that group.

    Args:
        match: which variables. One of the words `'bias'` (every additive term: variables called
            `bias`, and batch norm's `beta`), `'scale'` (batch norm's `gamma`) and `'kernel'`
            (`kernel`, `depthwise_kernel`, ...); or else a regular expression that must match
            the whole of `variable.path`, for instance `r'.*head/kernel'`.
        learning_rate: float >= 0, a factor; or a `LearningRateSchedule` from the step to one. 0
            freezes the variable.
        weight_decay: float >= 0, a factor. 0 exempts the variable from decay.
        schedule: `LearningRateSchedule` from the step to the learning rate, in place of the
            optimizer's; or None.

    Raises:
        ValueError: if `match` is not a regular expression, a factor is negative or not finite, or
            `schedule` is not a schedule.

    Example:

    >>> biases = ParameterGroup('bias', learning_rate=64.0, weight_decay=1 / 64)
    >>> biases.matches('resnet9/conv_bn/batch_normalization/beta')
    True
    >>> biases.matches('resnet9/conv_bn/conv2d/kernel')
    False

    A bias that is trained for 75 steps, on a line of its own, and stays as it is then:

    >>> from fenwicks.schedules import PiecewiseLinear
    >>> whitening = ParameterGroup(
    ...     r'.*whitening.*/bias', schedule=PiecewiseLinear([(0, 0.05), (75, 0.0)])
    ... )
    """

    match: str
    learning_rate: float | LearningRateSchedule = 1.0
    weight_decay: float = 1.0
    schedule: LearningRateSchedule | None = None

    def __post_init__(self):
        check_match('match', self.match)
        for name in ('learning_rate', 'weight_decay'):
            factor = getattr(self, name)
            if name == 'learning_rate' and isinstance(factor, LearningRateSchedule):
                continue
            if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
                raise ValueError(
                    f'`{name}` of a ParameterGroup must be a finite factor >= 0'
                    f'{" or a schedule" if name == "learning_rate" else ""}. '
                    f'Received: {name}={factor!r}'
                )
        if not (self.schedule is None or isinstance(self.schedule, LearningRateSchedule)):
            raise ValueError(
                '`schedule` of a ParameterGroup must be a LearningRateSchedule or None. '
                f'Received: schedule={self.schedule!r}'
            )

    def matches(self, path: str) -> bool:
        """Whether the variable with this path belongs to the group."""
        return matches(self.match, path)

    def rate(self, learning_rate: Tensor, step: Step) -> Tensor:
        """The learning rate of the group's variables.

        Args:
            learning_rate: the optimizer's rate at this step.
            step: number of updates made, a number or a tensor.
        """
        rate = learning_rate if self.schedule is None else self.schedule(step)
        if isinstance(self.learning_rate, LearningRateSchedule):
            return self.learning_rate(step) * rate
        return rate if self.learning_rate == 1 else self.learning_rate * rate

    def get_config(self) -> Config:
        """The constructor's arguments as plain values, schedules serialised."""
        return {
            name: keras.saving.serialize_keras_object(value)
            if isinstance(value, LearningRateSchedule)
            else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict | None = None) -> ParameterGroup:
        """A group from the dictionary that `get_config` returned."""
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
    groups = tuple(groups)
    for group in groups:
        if not isinstance(group, ParameterGroup):
            raise ValueError(f'`groups` must hold ParameterGroups. Received: {group!r}')
    return groups


# The optimizer's own settings, for variables in no group.
UNCHANGED = ParameterGroup('.*')


def group_of_each(
    groups: Sequence[ParameterGroup], paths: Sequence[str]
) -> tuple[ParameterGroup, ...]:
    """The group of every variable; one that changes nothing for those in none.

    Args:
        groups: the parameter groups; they may not overlap.
        paths: `variable.path` of every variable the optimizer updates.

    Returns:
        One group for each path, in order.

    Raises:
        ValueError: if two groups match one variable, or a group matches none.

    Example:

    >>> groups = group_of_each([ParameterGroup('bias', 64.0)], ['dense/kernel', 'dense/bias'])
    >>> [group.learning_rate for group in groups]
    [1.0, 64.0]
    """
    chosen = []
    unused = list(groups)
    for path in paths:
        matching = [group for group in groups if group.matches(path)]
        if len(matching) > 1:
            raise ValueError(
                '`groups` must not overlap: each variable belongs to at most one group. '
                f'Received: variable {path!r} matches {[group.match for group in matching]}'
            )
        unused = [group for group in unused if group not in matching]
        chosen.append(matching[0] if matching else UNCHANGED)
    if unused:
        raise ValueError(
            'Each of `groups` must match at least one trainable variable. Received: '
            f'match={unused[0].match!r}, which matches none of {len(paths)} variables, '
            f'{", ".join(map(repr, paths[:3]))}{", ..." if len(paths) > 3 else ""}'
        )
    return tuple(chosen)

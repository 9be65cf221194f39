"""Parameter groups: multiply the learning rate and the weight decay of chosen variables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Keras calls batch norm's offset `beta` and its scale `gamma`; a reader thinks bias and scale.
WORDS = {
    'bias': r'(.*/)?(bias|beta)',
    'scale': r'(.*/)?gamma',
    'kernel': r'(.*/)?(\w+_)?kernel',
}


@dataclass(frozen=True)
class ParameterGroup:
    """Variables chosen by name, with a factor on their learning rate and on their weight decay.

    ```
    rate of a variable in the group  = optimizer's learning rate * group.learning_rate
    decay of a variable in the group = optimizer's weight decay * group.weight_decay
    ```

    Variables in no group keep the optimizer's own rate and decay. A schedule of the optimizer goes
    on for every group, multiplied.

    Args:
        match: which variables. One of the words `'bias'` (every additive term: variables called
            `bias`, and batch norm's `beta`), `'scale'` (batch norm's `gamma`) and `'kernel'`
            (`kernel`, `depthwise_kernel`, ...); or else a regular expression that must match
            the whole of `variable.path`, for instance `r'head/.*'`.
        learning_rate: float >= 0, a factor. 0 freezes the variable.
        weight_decay: float >= 0, a factor. 0 exempts the variable from decay.

    Raises:
        ValueError: if `match` is not a regular expression, or a factor is negative or not finite.

    Example:

    >>> biases = ParameterGroup('bias', learning_rate=64.0, weight_decay=1 / 64)
    >>> biases.matches('resnet9/conv_bn/batch_normalization/beta')
    True
    >>> biases.matches('resnet9/conv_bn/conv2d/kernel')
    False
    """

    match: str
    learning_rate: float = 1.0
    weight_decay: float = 1.0

    def __post_init__(self):
        if not isinstance(self.match, str) or not self.match:
            raise ValueError(
                '`match` must be a non-empty string: a word of '
                f'{sorted(WORDS)} or a regular expression. Received: match={self.match!r}'
            )
        try:
            re.compile(self.match)
        except re.error as error:
            raise ValueError(
                f'`match` must be a valid regular expression ({error}). '
                f'Received: match={self.match!r}'
            ) from None
        for name in ('learning_rate', 'weight_decay'):
            factor = getattr(self, name)
            if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
                raise ValueError(
                    f'`{name}` of a ParameterGroup must be a finite factor >= 0. '
                    f'Received: {name}={factor!r}'
                )

    def matches(self, path: str) -> bool:
        """Whether the variable with this path belongs to the group."""
        return re.fullmatch(WORDS.get(self.match, self.match), path) is not None


def group_factors(
    groups: Sequence[ParameterGroup], paths: Sequence[str]
) -> tuple[tuple[float, float], ...]:
    """The (learning rate, weight decay) factors of every variable; (1, 1) for those in no group.

    Args:
        groups: the parameter groups; they may not overlap.
        paths: `variable.path` of every variable the optimizer updates.

    Returns:
        One pair of floats for each path, in order.

    Raises:
        ValueError: if two groups match one variable, or a group matches none.

    Example:

    >>> group_factors([ParameterGroup('bias', 64.0, 1 / 64)], ['dense/kernel', 'dense/bias'])
    ((1.0, 1.0), (64.0, 0.015625))
    """
    factors = []
    unused = list(groups)
    for path in paths:
        matching = [group for group in groups if group.matches(path)]
        if len(matching) > 1:
            raise ValueError(
                '`groups` must not overlap: each variable belongs to at most one group. '
                f'Received: variable {path!r} matches {[group.match for group in matching]}'
            )
        unused = [group for group in unused if group not in matching]
        factors.append(
            (float(matching[0].learning_rate), float(matching[0].weight_decay))
            if matching
            else (1.0, 1.0)
        )
    if unused:
        raise ValueError(
            'Each of `groups` must match at least one trainable variable. Received: '
            f'match={unused[0].match!r}, which matches none of {len(paths)} variables, '
            f'{", ".join(map(repr, paths[:3]))}{", ..." if len(paths) > 3 else ""}'
        )
    return tuple(factors)

"""Checks of numbers that come as arguments. No framework is imported here.

A message names the argument, the rule, and what came:

    `momentum` must be a number in [0, 1). Received: momentum=1.5
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def some_of(values: Sequence[object], count: int = 3) -> str:
    """The first of several values for a message, and how many more there are.

    >>> some_of(['a', 'b', 'c'], 2)
    "'a', 'b' and 1 more"
    """
    rest = f' and {len(values) - count} more' if len(values) > count else ''
    return ', '.join(map(repr, values[:count])) + rest


def sequence(name: str, value: Any, of: str) -> tuple[Any, ...]:
    """Returns `value` as a tuple if it holds several things, and isn't a text of several letters.

    Args:
        name: the argument's name, for the message.
        value: the argument, anything that can be iterated over.
        of: what it must hold, in the plural, for the message.

    Raises:
        ValueError: `value` is a single thing or a text.

    Example:

    >>> sequence('steps', [1, 3], 'integers')
    (1, 3)
    >>> sequence('steps', 3, 'integers')
    Traceback (most recent call last):
    ...
    ValueError: `steps` must be a sequence of integers. Received: steps=3
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ValueError(f'`{name}` must be a sequence of {of}. Received: {name}={value!r}')
    return tuple(value)


def positive_integer(name: str, value: Any) -> int:
    """Returns `value` as an `int` if it is an integer of at least 1, of whatever integer type.

    Args:
        name: the argument's name, for the message.
        value: the argument. Floats are refused, `2.0` too, and so are bools.

    Returns:
        A plain `int`.

    Raises:
        ValueError: `value` is anything else.

    Example:

    >>> positive_integer('epochs', 24)
    24
    """
    if not _is_integer(value) or value < 1:
        raise ValueError(f'`{name}` must be a positive integer. Received: {name}={value!r}')
    return int(value)


def integer(name: str, value: Any, *, low: int | None = None, below: int | None = None) -> int:
    """Returns `value` as an `int` if it is an integer within its range, of whatever integer type.

    Args:
        name: the argument's name, for the message.
        value: the argument. Floats are refused, `2.0` too, and so are bools.
        low: the least integer allowed; `None` for no limit.
        below: the least integer too large; `None` for no limit.

    Returns:
        A plain `int`.

    Raises:
        ValueError: `value` is anything else.

    Example:

    >>> integer('seed', 7, low=0, below=2**31)
    7
    """
    if not _is_integer(value) or not _in_range(value, low=low, below=below):
        rule = _range(low=low, below=below)
        raise ValueError(f'`{name}` must be an integer{rule}. Received: {name}={value!r}')
    return int(value)


def finite_number(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Returns `value` as a `float` if it is a finite real number within its range.

    Args:
        name: the argument's name, for the message.
        value: the argument: an `int`, a `float`, or a NumPy scalar of an integer or floating type.
            Bools, strings, arrays, NaN and the infinities are refused.
        low: the least number allowed; `None` for no limit.
        high: the greatest number allowed; `None` for no limit.
        above: a limit below the range, itself not allowed; instead of `low`.
        below: a limit beyond the range, itself not allowed; instead of `high`.

    Returns:
        A plain `float`.

    Raises:
        ValueError: `value` is anything else.

    Example:

    >>> finite_number('weight_decay', 0.0005, low=0)
    0.0005
    >>> finite_number('momentum', 1.5, low=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: `momentum` must be a number in [0, 1). Received: momentum=1.5
    """
    limits = {'low': low, 'high': high, 'above': above, 'below': below}
    if not _is_finite(value) or not _in_range(value, **limits):
        bounded = (low is not None or above is not None) and (high, below) != (None, None)
        kind = 'a number' if bounded else 'a finite number'
        raise ValueError(f'`{name}` must be {kind}{_range(**limits)}. Received: {name}={value!r}')
    return float(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _in_range(value, low=None, high=None, above=None, below=None):
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _range(low=None, high=None, above=None, below=None):
    """The range in words: ` in [0, 1)`, ` >= 0`, ` above 0`; empty where there is no limit."""
    low, high, above, below = map(_as_written, (low, high, above, below))
    start = None if (low, above) == (None, None) else f'[{low}' if above is None else f'({above}'
    end = None if (high, below) == (None, None) else f'{high}]' if below is None else f'{below})'
    if start and end:
        return f' in {start}, {end}'
    words = {'>=': low, '<=': high, 'above': above, 'below': below}
    return ''.join(f' {word} {limit}' for word, limit in words.items() if limit is not None)


def _as_written(limit):
    """A large power of two as `2**31`, all else as it is."""
    is_power = isinstance(limit, int) and limit >= 2**16 and limit.bit_count() == 1
    return f'2**{limit.bit_length() - 1}' if is_power else limit


def channels_last(name: str, data_format: str) -> None:
    """Raises unless images are arranged as `(batch, height, width, channels)`.

    Args:
        name: the class or function that takes images, for the message.
        data_format: what `keras.config.image_data_format()` returns.

    Raises:
        ValueError: `data_format` isn't `'channels_last'`.

    Example:

    >>> channels_last('ConvBN', 'channels_last')
    """
    if data_format != 'channels_last':
        raise ValueError(
            f"`image_data_format` must be 'channels_last' for {name}: call "
            "keras.config.set_image_data_format('channels_last'). "
            f'Received: {data_format}'
        )


def flag(name: str, value: Any) -> bool:
    """Returns `value` as a `bool` if it is True or False, of NumPy too.

    Args:
        name: the argument's name, for the message.
        value: the argument. A text such as `'no'` would count as True, and is refused.

    Returns:
        A plain `bool`.

    Raises:
        ValueError: `value` is anything else.

    Example:

    >>> flag('nesterov', True)
    True
    """
    # NumPy's by its name: it isn't imported here.
    if not isinstance(value, bool) and type(value).__name__ not in ('bool_', 'bool'):
        raise ValueError(f'`{name}` must be True or False. Received: {name}={value!r}')
    return bool(value)


def axis_of_channels(axis: int, rank: int, *, may_be_batch: bool = False) -> None:
    """Raises unless `axis` is an axis of inputs of a rank, and isn't that of the batch.

    Args:
        axis: the argument, an integer.
        rank: the number of axes of the inputs.
        may_be_batch: whether the axis of the batch will do.

    Raises:
        ValueError: there is no such axis, or it is the batch's.

    Example:

    >>> axis_of_channels(-1, 4)
    """
    if not -rank <= axis < rank:
        raise ValueError(
            f'`axis` must be in [-{rank}, {rank}) for inputs of rank {rank}. Received: axis={axis}'
        )
    if not may_be_batch and axis % rank == 0:
        raise ValueError(f'`axis` must not be the batch axis. Received: axis={axis}')


def check_callable(name: str, function: Callable) -> None:
    """Raises unless `function`, the argument called `name`, is callable."""
    if not callable(function):
        raise ValueError(f'`{name}` must be callable. Received: {name}={function!r}')


def instance(name: str, value: Any, kind: type, of: str) -> None:
    """Raises unless `value` is an object of a class.

    Args:
        name: the argument's name, for the message.
        value: the argument.
        kind: the class.
        of: what it is, for the message.

    Raises:
        ValueError: it is something else.

    Example:

    >>> instance('model', 3, str, 'a Keras model')
    Traceback (most recent call last):
    ...
    ValueError: `model` must be a Keras model. Received: model=3
    """
    if not isinstance(value, kind):
        raise ValueError(f'`{name}` must be {of}. Received: {name}={value!r}')


def no_class(name: str, value: Any) -> None:
    """Raises where a class stands for an object of it."""
    if isinstance(value, type):
        raise ValueError(
            f'`{name}` must be an object, not a class: {value.__name__}(...). '
            f'Received: {name}={value.__name__}'
        )


DEVICES = ('cpu', 'gpu', 'tpu')


def device_kind(device: str) -> str:
    """Returns `device` if it is a kind of device.

    Raises:
        ValueError: it is anything else.
    """
    if device not in DEVICES:
        raise ValueError(f'`device` must be one of {", ".join(DEVICES)}. Received: device={device}')
    return device


def missing_device(device: str) -> ValueError:
    """What to raise where the backend finds no device of a kind."""
    return ValueError(
        f'`device` must be one that this process sees. Received: device={device}, and there is none'
    )

"""Checks of arguments that several modules make. No framework is imported here."""

from __future__ import annotations

import numbers


def positive_integer(name: str, value) -> int:
    """`value` as an `int`, if it is a whole number of at least 1; any integer type will do.

    Args:
        name: the argument's name, for the message.
        value: what came.

    Returns:
        A plain `int`.

    Raises:
        ValueError: it is something else, a bool or a float included.

    Example:

    >>> from fenwicks._checks import positive_integer
    >>> positive_integer('epochs', 24)
    24
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f'`{name}` must be a positive integer. Received: {name}={value!r}')
    return int(value)

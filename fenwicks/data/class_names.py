"""Names of classes, and what they must not be."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Sequence

_log = logging.getLogger('fenwicks')


def check_names(where: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Raises unless each name of a class is a line of text; warns where only the case differs.

    Models and JSON hold nothing else than Unicode, which names of folders need not be. It writes
    some letters in two ways, and the same name from macOS and from Linux would be two classes.

    Args:
        where: what holds them, for the message.
        names: the names.

    Raises:
        ValueError: one is no Unicode, or has a line break or another control character in it, or
            two look the same.
    """
    for name in names:
        if any(unicodedata.category(letter) in ('Cc', 'Cs') for letter in name):
            raise ValueError(
                f'{where}: each name of a class must be one line of UTF-8: rename it. '
                f'Received: {name!a}'
            )
    looks: dict[str, str] = {}
    in_one_case: dict[str, str] = {}
    alike = []
    for name in dict.fromkeys(names):
        look = _look(name)
        same = looks.setdefault(look, name)
        if same != name:
            raise ValueError(
                f'{where}: names of classes must look different: give both the same letters. '
                f'Received: {same!a} and {name!a}'
            )
        other = in_one_case.setdefault(look.casefold(), name)
        if other != name:
            alike.append(f'{other!r} and {name!r}')
    if alike:
        _log.warning(
            '%s: classes whose names differ in upper and lower case alone: %s%s; rename one if '
            'they are the same class',
            where,
            alike[0],
            f', and {len(alike) - 1} more' if alike[1:] else '',
        )


def places(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """The place of each name among others; names that look the same are the same.

    Args:
        names: of classes.
        known: the others, as of a model's classes.

    Returns:
        An index for each name, or None for one that isn't there.

    >>> places(['Blu\u0308te', 'Blatt'], ['Ast', 'Bl\u00fcte'])
    [1, None]
    """
    found = {_look(name): place for place, name in enumerate(known)}
    return [found.get(_look(name)) for name in names]


def _look(name):
    """The name without differences that nobody sees."""
    return ' '.join(unicodedata.normalize('NFC', name).split())

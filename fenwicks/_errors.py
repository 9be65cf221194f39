"""Errors of others, as one line of an error of this library."""

from __future__ import annotations

import re

_CODES = re.compile(r'\x1b\[[0-?]*[ -/]*[@-~]')  # ANSI codes of terminals: colours, bold letters


def one_line(error: BaseException | str, most: int = 300) -> str:
    """What an error says, on one line, without codes of terminals.

    Args:
        error: any exception, or its message.
        most: characters after which it is cut.

    Returns:
        The message, or the name of the error's type where it has none.

    Example:

    >>> one_line(ValueError('\x1b[1ma\x1b[0m\\n  b')), one_line(EOFError())
    ('a b', 'EOFError')
    """
    text = ' '.join(_CODES.sub('', str(error)).split())[:most]
    return text or type(error).__name__

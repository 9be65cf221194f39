"""The progress bar of downloads, decoding and conversions."""

from __future__ import annotations

import sys

import tqdm


def progress_bar(
    description: str,
    total: int | None,
    initial: int = 0,
    unit: str = ' images',
    shown: bool = True,
) -> tqdm.tqdm:
    """A bar on standard error; every ten seconds a line where that is no terminal.

    Args:
        description: what goes on, in a word or two.
        total: units when all is done; None if nobody knows.
        initial: units that an earlier run has done.
        unit: name of a unit; 'B' counts bytes in powers of 1,000.
        shown: whether to show anything.

    Returns:
        A `tqdm.tqdm`: call its `update(count)` and, at the end, its `close()`.

    >>> progress_bar('decoding', 2).close()
    """
    terminal = sys.stderr.isatty()
    return tqdm.tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=unit == 'B',
        file=sys.stderr,
        disable=not shown,
        dynamic_ncols=terminal,
        mininterval=0.1 if terminal else 10.0,
        maxinterval=10.0 if terminal else 60.0,
    )

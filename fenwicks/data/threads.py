"""Calls in threads whose results come in order."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from PIL import Image

from fenwicks._checks import positive_integer

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def thread_count(workers: int | None) -> int:
    """The number of threads that `workers` asks for: None is one for each processor, at most 16.

    Raises:
        ValueError: it isn't a positive integer.
    """
    return positive_integer('workers', min(os.cpu_count() or 1, 16) if workers is None else workers)


def in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[_Result]:
    """Calls a function on items in threads; yields the results in the items' order.

    Args:
        function: called in several threads at a time.
        items: read no more than a few ahead of the results.
        workers: number of threads, as `thread_count` takes it.
        stop: is set when no more results are wanted, so that a long call can end early.

    Raises:
        Whatever the function raises, at the first item for which it does.

    >>> list(in_order(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    workers = thread_count(workers)
    Image.init()  # not in the threads, where two might load Pillow's plugins at the same time
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        if stop is not None:
            stop.set()
        pool.shutdown(cancel_futures=True)

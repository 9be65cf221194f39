"""Ctrl-C during a training, wherever it falls."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupts:
    """Notes interrupts, for those whose exception is lost.

    Python prints and drops an exception that is raised in a callback of the garbage collector or
    of JAX's runtime. So the `KeyboardInterrupt` of a Ctrl-C that falls into one never arrives.

    Attributes:
        noted: whether there was an interrupt.
    """

    def __init__(self):
        self.noted = False

    def check(self):
        """Raises the `KeyboardInterrupt` of an interrupt that was noted."""
        if self.noted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """A block at the end of which SIGINT and SIGTERM are handled: for what must not be cut in two.

    In threads other than the main one nothing changes: there no handler runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }
    try:
        for number in handlers:
            signal.signal(number, lambda *arguments: received.append(arguments))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in received[:1]:
            handlers[number](number, frame)


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """A context in which SIGINT is noted, and handled as before.

    In threads other than the main one, and where the program ignores SIGINT, nothing changes.
    """
    interrupts = Interrupts()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield interrupts
        return

    def note(number, frame):
        interrupts.noted = True
        return handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, handler)

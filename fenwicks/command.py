"""What every command of the project shares: its flags, its errors, and how it is interrupted.

A command ends with one line on standard error when an argument or a file is at fault, and when
somebody interrupts it:

    cifar10.py: `epochs` must be a positive integer. Received: epochs=0
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import Formatter
from typing import Any, NoReturn

from absl import app, flags, logging

from fenwicks._backend import switched_on
from fenwicks._errors import one_line

# Faults of what the user gave, or of the machine. DivergedError is an ArithmeticError.
ERRORS = (ValueError, OSError, ImportError, ArithmeticError, RuntimeError, MemoryError)
SECONDS_TO_END = 10  # that an interrupted command has before it is ended
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_how_to_go_on = ''
_is_kept = False
_received: int = signal.SIGINT  # the last signal that interrupted


def run(main: Callable[..., object], name: str, arguments: Sequence[str] = ()) -> None:
    """Parses the command's flags, runs `main`, and ends the process.

    SIGTERM interrupts like Ctrl-C. Either ends the process within `SECONDS_TO_END`, even where
    KeyboardInterrupt gets lost, as in a callback of a framework, or Python waits for a compiler; a
    second one ends it at once. The exit status is then 128 and the signal's number, as in a shell.

    Args:
        main: does the work, when the flags are parsed; called with the arguments that are no flags.
        name: of the command, for its errors.
        arguments: names of those that it may have, in their order.
    """
    # Warnings look alike in all commands: absl would put its own time and place before them.
    logging.get_absl_handler().setFormatter(Formatter('%(message)s'))
    signals = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    for number in signals:
        signal.signal(number, _interrupt)
    _watch(name)
    try:
        app.run(
            lambda rest: call(lambda: main(*rest[1:]), name),
            flags_parser=lambda argv: parse_flags(argv, name, arguments),
        )
    except KeyboardInterrupt:  # outside `call`
        _end_interrupted(name)
    finally:
        for number in signals:  # nothing is left to interrupt
            signal.signal(number, lambda number, _: _end(name, number))


def call(main: Callable[[], object], name: str) -> None:
    """Calls `main`; an expected error and an interrupt end the process with one line.

    Expected are those of `ERRORS`, and that the memory has no room.

    With FENWICKS_TRACEBACK=1 in the environment the error has its traceback.
    """
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)  # JAX logs its own start
    if isinstance(sys.stdout, io.TextIOWrapper):  # as for names of files that are no UTF-8
        sys.stdout.reconfigure(errors='backslashreplace')
    say_how_to_go_on('')
    try:
        main()
    except Exception as error:
        expected = isinstance(error, ERRORS) or _is_out_of_memory(error)
        if not expected or switched_on('FENWICKS_TRACEBACK'):
            raise
        if isinstance(error, ConnectionError):  # JAX would wait at its exit for those that ended
            print(_line(name, error), file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(1)
        fail(name, error)
    except KeyboardInterrupt:
        _end_interrupted(name)


def parse_flags(argv: Sequence[str], name: str, arguments: Sequence[str] = ()) -> list[str]:
    """Parses the flags; a wrong flag, and an argument too many, ends the process with one line."""
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        dashed = f'-{error.flagname}'
        hint = f': write ./{dashed} where a folder is meant' if dashed in argv and arguments else ''
        fail(name, f'{error}{hint}')
    except flags.Error as error:
        fail(name, error)
    except SystemExit:  # absl ends --help with status 1
        sys.exit(0)
    if len(rest) > 1 + len(arguments):
        others = f' and {" ".join(arguments)}' if arguments else ''
        extra = rest[1 + len(arguments)]
        fail(name, f'there are no arguments besides flags{others}. Received: {extra}')
    for flag in map(flags.FLAGS.__getitem__, flags.FLAGS):
        needed = flag.default is None or flag.name in ('out', 'log')
        if flag.present and flag.value == '' and needed:  # as of --out=$UNSET
            fail(name, f"`{flag.name}` must not be empty. Received: {flag.name}=''")
    return rest


class ArgumentParser(argparse.ArgumentParser):
    """For a command whose arguments aren't all flags: a wrong one ends the process with one line.

    Args:
        name: of the command, for its errors.
        **settings: those of `argparse.ArgumentParser`.
    """

    def __init__(self, name: str, **settings: Any):
        super().__init__(**settings)
        self.name = name

    def error(self, message: str) -> NoReturn:
        _, dash, rest = message.partition('unrecognized arguments: -')
        if dash and not rest.startswith('-'):
            message += f': write ./-{rest.split()[0]} where a file is meant'
        fail(self.name, message)


def fail(name: str, error: object) -> NoReturn:
    """Ends the process with status 1 and one line on standard error."""
    sys.exit(_line(name, error))


def _is_out_of_memory(error):
    """Whether TensorFlow or JAX says so; the types of their errors exist only where they are."""
    return type(error).__name__ == 'ResourceExhaustedError' or 'RESOURCE_EXHAUSTED' in str(error)


def _line(name, error):
    if _is_out_of_memory(error):
        reason = one_line(error, 200)
        error = (
            'the memory must have room for the network and a batch: make the width or the batch '
            f'size smaller. Received: {reason}'
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        what = f'the whole of {error.filename}' if error.filename else 'what is printed and written'
        error = OSError(f'the disk must have room for {what}. Received: {error.strerror}')
    if isinstance(error, OSError) and _is_kept and 'the disk must' in str(error):
        error = f'{error}; {_how_to_go_on}'
    return f'{name}: {" ".join(str(error).split())}'


@contextlib.contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Errors that name a function's arguments name the command's flags instead.

    Example:

    >>> with renamed({'factor': 'width'}):
    ...     raise ValueError('`factor` must be a finite number. Received: factor=nan')
    Traceback (most recent call last):
    ...
    ValueError: `width` must be a finite number. Received: width=nan
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = str(error)
        for argument, flag in names.items():
            text = re.sub(rf'`{argument}`', f'`{flag}`', text)
            text = re.sub(rf'(Received:.*?)\b{argument}=', rf'\g<1>{flag}=', text, count=1)
        raise (ValueError if isinstance(error, ValueError) else OSError)(text) from error


def counted(count: float, noun: str) -> str:
    """How many there are of something, for a message.

    >>> counted(1, 'epoch'), counted(2.5, 'epoch')
    ('1 epoch', '2.5 epochs')
    """
    return f'{count} {noun}{"" if count == 1 else "s"}'


def say_how_to_go_on(text: str, kept: bool = False) -> None:
    """Sets what an interrupt's line says after `interrupted`.

    Args:
        text: what the user can do.
        kept: whether that goes on from what is on the disk: then the line of a full disk says it,
            too.
    """
    global _how_to_go_on, _is_kept
    _how_to_go_on, _is_kept = text, kept


def _interrupt(number, frame):
    global _received
    _received = number
    raise KeyboardInterrupt


def _end_interrupted(name):
    print(f'{name}: {_interrupted()}', file=sys.stderr)
    sys.exit(128 + _received)


def _interrupted() -> str:
    return f'interrupted: {_how_to_go_on or "start it again"}'


def _watch(name):
    """Ends the process some seconds after a signal, in case the main thread doesn't.

    Python raises KeyboardInterrupt in the main thread, and only between two of its own operations.
    The C code of the signal handler writes the signal's number to a pipe at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch():
        signals = 0
        while True:
            (number,) = os.read(reader, 1)
            if number not in _SIGNALS:
                continue
            signals += 1
            if signals > 1:  # somebody is impatient
                _end(name, number)
            timer = threading.Timer(SECONDS_TO_END, _end, [name, number])
            timer.daemon = True
            timer.start()

    threading.Thread(target=watch, daemon=True).start()


def _end(name, number):
    """Ends the process at once. Files appear whole or not at all, so nothing is damaged."""
    os.write(2, f'\n{name}: {_interrupted()}\n'.encode())
    os._exit(128 + number)

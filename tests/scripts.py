"""Runs the example scripts in the tests' own process, and finds ports for others."""

import contextlib
import importlib.util
import inspect
import pathlib
import socket
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from fenwicks import command

ROOT = pathlib.Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def loaded(path):
    """The script as a module; the flags that it defines are gone afterwards, for other scripts."""
    known = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # where Python looks first when it runs a script
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)


def call(script, *arguments):
    """The script's work, flags and all."""
    name = pathlib.Path(script.__file__).name
    takes = [parameter.upper() for parameter in inspect.signature(script.main).parameters]
    with flagsaver.flagsaver():
        rest = command.parse_flags([name, *map(str, arguments)], name, takes)
        command.call(lambda: script.main(*rest[1:]), name)


def refused(script, *arguments):
    """The one line with which the script refuses its arguments."""
    with pytest.raises(SystemExit) as raised:
        call(script, *arguments)
    line = raised.value.code  # a string: printed on standard error, exit status 1
    name = pathlib.Path(script.__file__).name
    assert line.startswith(f'{name}: ')
    assert '\n' not in line
    return line.removeprefix(f'{name}: ')


def free_ports(count):
    """Numbers of ports at which nobody listens."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(('localhost', 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


_HOLDER = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location('files', sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
with getattr(files, sys.argv[2])(sys.argv[3]):
    print('held', flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(lock, path):
    """A process that holds `lock`, a context manager of fenwicks/_files.py, on a path."""
    files = ROOT / 'fenwicks' / '_files.py'
    command = [sys.executable, '-c', _HOLDER, str(files), lock, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        yield process

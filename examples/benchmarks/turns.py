"""Runs the sides of a comparison in processes of their own that work in turn.

A script starts itself once for each side, with `--side=NAME`. The parent calls functions of a side;
calls and results are lines of JSON over the side's standard input and output.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

# So that PyTorch's side spends no time or memory on Keras's other backends.
_ENVIRONMENT = {'pytorch': {'KERAS_BACKEND': 'torch'}}


class Side:
    """The process of one side of a comparison.

    Args:
        name: 'fenwicks' or 'pytorch'.
        script: path of the script, which calls `serve` if `--side` is given.
        arguments: its other arguments.

    Raises:
        RuntimeError: the side failed to start; the message says why.
    """

    def __init__(self, name, script, arguments=()):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, script, f'--side={name}', *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ENVIRONMENT.get(name, {})},
        )
        self._answer()

    def ask(self, name, **arguments):
        """Calls the side's function `name` and returns its result.

        Raises:
            RuntimeError: the function failed; the message says why.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended: the answer says why
            self._process.stdin.write(json.dumps([name, arguments]) + '\n')
            self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {'error': 'it ended early'}
        if 'error' in answer:
            self.close()
            raise RuntimeError(f'the {self.name} side failed: {answer["error"]}')
        return answer['value']

    def close(self):
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # of a question that it didn't live to read
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def serve(make):
    """Runs the calls that the parent sends, until it closes the connection.

    Args:
        make: function without arguments that returns a dict of functions by name. They take keyword
            arguments and return values that JSON can represent. An exception is sent to the parent
            as one line.
    """
    # Other output, which goes to standard output, must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(function, **arguments):
        try:
            line = {'value': function(**arguments)}
        except Exception as error:
            line = {'error': ' '.join(f'{type(error).__name__}: {error}'.split())}
        print(json.dumps(line), file=answers, flush=True)
        return 'value' in line

    functions = {}
    if not answer(lambda: functions.update(make())):
        return
    for question in sys.stdin:
        name, arguments = json.loads(question)
        answer(functions[name], **arguments)

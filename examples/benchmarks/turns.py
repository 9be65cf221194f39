"""Two programs that take turns: processes that work when they are told to and wait otherwise.

A script starts itself once for each side of a comparison, with `--side=NAME`. Parent and side
exchange lines of JSON over the side's standard input and output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

# PyTorch's side needs nothing of Keras's other backends, in time or in memory.
_ENVIRONMENT = {'pytorch': {'KERAS_BACKEND': 'torch'}}


class Side:
    """A process that is one side of a comparison.

    Args:
        name: 'fenwicks' or 'pytorch'.
        script: path of the script that calls `serve` when it gets `--side`.
        arguments: its other arguments.

    Raises:
        RuntimeError: it didn't start; with its reason.
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
        """What the side's function `name` returns.

        Raises:
            RuntimeError: the side failed; with its reason.
        """
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
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def serve(make):
    """Answers the parent's questions until it closes the line.

    Args:
        make: function without arguments; returns a dict of functions by name, which take keyword
            arguments and return what JSON can hold. Errors on the way are the answer, in a line.
    """
    # Whatever else writes to standard output must not come between the answers.
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

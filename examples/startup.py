"""What a script imports first: it then uses this clone, and ends with one line.

- The scripts use the fenwicks beside them, whatever copy is installed.
- What TensorFlow prints on its own start is held back: it would hide an error of one line.
- Ctrl-C and SIGTERM during the imports end the script with one line. Later `fenwicks.command` sees
  to that.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time

STARTED = time.perf_counter()  # before the framework is imported, which the user waits for

_EXAMPLES = pathlib.Path(__file__).resolve().parent
_SCRIPT = pathlib.Path(sys.argv[0])
_terminal = os.dup(2)  # the user's standard error, also while fenwicks holds that back


def _end(number, _):
    os.write(_terminal, f'{_SCRIPT.name}: interrupted before it began: start it again\n'.encode())
    os._exit(128 + number)  # as in a shell


if _EXAMPLES in _SCRIPT.resolve().parents:  # a script runs, and not a test that imports it
    for _number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_number) is not signal.SIG_IGN:  # a job in the background ignores some
            signal.signal(_number, _end)
    os.environ.setdefault('FENWICKS_QUIET', '1')
sys.path.insert(1, str(_EXAMPLES.parent))
sys.path.append(str(_EXAMPLES))  # what scripts in folders of it share with it

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # for what TensorFlow prints later on
try:
    import fenwicks  # noqa: F401
except ImportError as error:
    if 'KERAS_BACKEND' not in str(error):
        raise
    sys.exit(f'{_SCRIPT.name}: {error}')

"""Prepares a script, which imports this first: it uses this clone and ends with one line.

- The scripts use the fenwicks beside them, whatever copy is installed.
- Where the processor has AVX-512, TensorFlow 2.21 prints four lines on standard error while it is
  imported, before it looks at TF_CPP_MIN_LOG_LEVEL. They would hide an error of one line, and are
  held back.
- Ctrl-C and SIGTERM during the imports end the script with one line. Later `fenwicks.command` sees
  to that.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import tempfile

_EXAMPLES = pathlib.Path(__file__).resolve().parent
_SCRIPT = pathlib.Path(sys.argv[0])
_terminal = 2  # the descriptor of what the user sees as standard error


def _end(*_):
    os.write(_terminal, f'{_SCRIPT.name}: interrupted before it began: start it again\n'.encode())
    os._exit(1)


@contextlib.contextmanager
def standard_error():
    """Holds back what is written to standard error, by C++ too; shows it if there is an error."""
    global _terminal
    with tempfile.TemporaryFile() as held:
        shown = _terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            _terminal = 2
            os.close(shown)


if _EXAMPLES in _SCRIPT.resolve().parents:  # a script runs, and not a test that imports it
    for _number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_number) is not signal.SIG_IGN:  # a job in the background ignores some
            signal.signal(_number, _end)
sys.path.insert(1, str(_EXAMPLES.parent))

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # for what TensorFlow prints later on
try:
    with standard_error():
        import fenwicks  # noqa: F401
except (ImportError, ValueError) as error:
    backend = os.environ.get('KERAS_BACKEND', 'tensorflow')
    if getattr(error, 'name', '') != backend and 'import backend' not in str(error):
        raise
    sys.exit(
        f'{_SCRIPT.name}: `KERAS_BACKEND` must name a backend that is installed '
        f"(pip install '.[cpu]' or '.[jax]'). Received: KERAS_BACKEND={backend}"
    )

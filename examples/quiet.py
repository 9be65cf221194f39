"""Imports fenwicks, and with it Keras, without TensorFlow's notes on its own start.

Where the processor has AVX-512, TensorFlow 2.21 prints four lines of them on standard error while
it is imported, before it looks at TF_CPP_MIN_LOG_LEVEL. They would drown an error of one line.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile


@contextlib.contextmanager
def standard_error():
    """Holds back what is written to standard error, by C++ too; shows it if there is an error."""
    with tempfile.TemporaryFile() as held:
        shown = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # for what it has to say later on
try:
    with standard_error():
        import fenwicks  # noqa: F401
except (ImportError, ValueError) as error:
    backend = os.environ.get('KERAS_BACKEND', 'tensorflow')
    if getattr(error, 'name', '') != backend and 'import backend' not in str(error):
        raise
    sys.exit(
        f'{pathlib.Path(sys.argv[0]).name}: `KERAS_BACKEND` must name a backend that is installed '
        f"(pip install '.[cpu]' or '.[jax]'). Received: KERAS_BACKEND={backend}"
    )

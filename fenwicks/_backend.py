"""What must be in the environment before Keras and TensorFlow are imported; neither is, here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Iterator


def switched_on(variable: str) -> bool:
    """Whether the user set a variable of the environment, to something other than 0."""
    return os.environ.get(variable, '') not in ('', '0')


def prepare() -> None:
    """Sets three variables where the user left them open.

    With `FENWICKS_KEEP_ENVIRONMENT=1` the environment stays as it is.
    """
    if switched_on('FENWICKS_KEEP_ENVIRONMENT'):
        return
    # TensorFlow's CPU device returns every large activation to the operating system and asks for it
    # again at the next step; zeroing those pages took half of a ResNet-9 step. Its own caching
    # allocator keeps them. TensorFlow reads this once, when it first touches the device.
    os.environ.setdefault('TF_CPU_ALLOCATOR_USE_BFC', 'true')
    # On x86 processors without AVX-512 TensorFlow leaves oneDNN's kernels unused, with which a step
    # of `speed94` takes 0.82 of the time. It asks when it is imported: set later, the variable
    # would only tell `kernels.device.uses_onednn` what isn't so.
    if platform.machine() in ('x86_64', 'AMD64') and 'tensorflow' not in sys.modules:
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    _choose_backend()


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """A block in which TensorFlow prints nothing on its own start, where that is wanted.

    It is in the commands `python -m fenwicks...`, and with `FENWICKS_QUIET=1`. With oneDNN,
    TensorFlow 2.21 prints four lines before it looks at `TF_CPP_MIN_LOG_LEVEL`; they would hide an
    error of one line. So what is written to standard error, by C++ too, is held back,
    and shown if there is an error.
    """
    if not _command() and not switched_on('FENWICKS_QUIET'):
        yield
        return
    if not switched_on('FENWICKS_KEEP_ENVIRONMENT'):
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # for what TensorFlow prints later on
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


@contextlib.contextmanager
def named_backend() -> Iterator[None]:
    """A block that imports Keras, in which a backend that is missing is an error of one line.

    The commands `python -m fenwicks...` end with it.

    Raises:
        ImportError: the backend that the user chose can't be imported.
    """
    try:
        yield
    except (ImportError, ValueError) as error:
        chosen = os.environ.get('KERAS_BACKEND')
        backend = chosen or _configured()
        if getattr(error, 'name', '') != backend and 'import backend' not in str(error):
            raise
        message = (
            "`KERAS_BACKEND` must name a backend that is installed (pip install '.[cpu]' or "
            f"'.[jax]'). Received: {'KERAS_BACKEND=' if chosen else ''}{backend}"
            f'{"" if chosen else f", as {_configuration()} has it"}'
        )
        if _command():
            sys.exit(f'{_command()}: {message}')
        raise ImportError(message) from error


def _command():
    """The name of the command that runs, such as `fenwicks.report`; '' for anything else."""
    names = [each for each in sys.orig_argv if each.split('.')[0] == 'fenwicks']
    return names[0] if names and sys.argv[:1] == ['-m'] else ''


def _choose_backend():
    """Selects JAX where TensorFlow is missing, as on Colab's TPUs, and for `fenwicks.tpu`.

    `python -m fenwicks.tpu` compiles programs of JAX, whatever backend the user trains on. Apart
    from that command, a backend that the user chose, by `KERAS_BACKEND` or in Keras's configuration
    file, is kept.
    """
    if 'keras' in sys.modules or not _is_installed('jax'):
        return
    compiles_for_tpus = sys.argv[:1] == ['-m'] and 'fenwicks.tpu' in sys.orig_argv
    if compiles_for_tpus or _lacks_default_backend():
        os.environ['KERAS_BACKEND'] = 'jax'


def _lacks_default_backend():
    """Whether the user chose no backend and Keras's default, TensorFlow, is not installed."""
    chosen = os.environ.get('KERAS_BACKEND')
    return not chosen and _configured() == 'tensorflow' and not _is_installed('tensorflow')


def _configured():
    """The backend in Keras's configuration file; without one, Keras's default."""
    try:
        return json.loads(_configuration().read_text())['backend']
    except (OSError, ValueError, KeyError):
        return 'tensorflow'


def _configuration():
    folder = os.environ.get('KERAS_HOME') or pathlib.Path.home() / '.keras'
    return pathlib.Path(folder) / 'keras.json'


def _is_installed(package):
    return importlib.util.find_spec(package) is not None

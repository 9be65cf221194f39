"""Which backend Keras is to take where that is JAX; Keras itself is not imported here."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys


def choose():
    """Has Keras run on JAX where it wouldn't by itself, but must.

    That is where it would look for TensorFlow in vain, as on Colab's TPUs, and for `python -m
    fenwicks.tpu`, which compiles programs of JAX, whatever else the user trains on. For all but
    that command a backend that the user named, in `KERAS_BACKEND` or in Keras's configuration file,
    stays.
    """
    if 'keras' in sys.modules or not _is_installed('jax'):
        return
    compiles_for_tpus = sys.argv[:1] == ['-m'] and 'fenwicks.tpu' in sys.orig_argv
    if compiles_for_tpus or _is_in_vain():
        os.environ['KERAS_BACKEND'] = 'jax'


def _is_in_vain():
    """Whether nobody named a backend, and Keras's own choice isn't installed."""
    named = os.environ.get('KERAS_BACKEND')
    return not named and _configured() == 'tensorflow' and not _is_installed('tensorflow')


def _configured():
    """The backend in Keras's configuration file, or Keras's own choice."""
    folder = os.environ.get('KERAS_HOME') or pathlib.Path.home() / '.keras'
    try:
        return json.loads((pathlib.Path(folder) / 'keras.json').read_text())['backend']
    except (OSError, ValueError, KeyError):
        return 'tensorflow'


def _is_installed(package):
    return importlib.util.find_spec(package) is not None

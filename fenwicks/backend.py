"""Keras's backend, where nobody has chosen one; Keras itself is not imported here."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys


def choose():
    """Has Keras run on JAX where it would look for TensorFlow in vain, as on Colab's TPUs.

    A backend that the user named, in `KERAS_BACKEND` or in Keras's configuration file, stays.
    """
    if 'keras' in sys.modules or os.environ.get('KERAS_BACKEND') or _configured() != 'tensorflow':
        return
    if _is_installed('jax') and not _is_installed('tensorflow'):
        os.environ['KERAS_BACKEND'] = 'jax'


def _configured():
    """The backend in Keras's configuration file, or Keras's own choice."""
    folder = os.environ.get('KERAS_HOME') or pathlib.Path.home() / '.keras'
    try:
        return json.loads((pathlib.Path(folder) / 'keras.json').read_text())['backend']
    except (OSError, ValueError, KeyError):
        return 'tensorflow'


def _is_installed(package):
    return importlib.util.find_spec(package) is not None

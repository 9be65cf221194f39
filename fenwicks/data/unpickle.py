"""Reads the pickles of the CIFAR files without running anything that they ask for."""

from __future__ import annotations

import io
import pickle

import numpy as np

# A stand-in for each of the three names that a pickled array needs. NumPy's own are not used:
# what they accept is wide, and `numpy.core` is a deprecated module path in NumPy 2.
_MODULES = ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray')


class _DType:
    """Stands in for numpy.dtype: a plain number type, or an error."""

    def __init__(self, code, align=False, copy=False):
        code = code.decode('ascii') if isinstance(code, bytes) else code
        if not isinstance(code, str) or code[:1] not in ('u', 'i', 'f', 'b'):
            raise pickle.UnpicklingError(f'an array of dtype {code!r} is not an array of numbers')
        self.code, self.order = code, '='

    def __setstate__(self, state):
        order = state[1].decode('ascii') if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ('<', '>') else '='


class _Array:
    """Stands in for numpy.ndarray and its reconstructor; holds the array in `value`."""

    value = None

    def __init__(self, *ignored):
        pass

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError('an array of anything but numbers')
        flat = np.frombuffer(raw, np.dtype(dtype.code).newbyteorder(dtype.order))
        self.value = flat.reshape(shape, order='F' if fortran else 'C')


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if module in _MODULES and name in ('_reconstruct', 'ndarray'):
            return _Array
        if module == 'numpy' and name == 'dtype':
            return _DType
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def _plain(value):
    """The same structure with real arrays in place of the stand-ins."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    raise pickle.UnpicklingError(f'it holds a {type(value).__name__}')


def loads(raw, where='pickle'):
    """Unpickles arrays of numbers, lists, tuples, dicts, strings, bytes and numbers, only these.

    Args:
        raw: bytes of a pickle; strings written by Python 2 come back as bytes.
        where: name of the file, for the error.

    Returns:
        The object.

    Raises:
        ValueError: the pickle is broken, or asks for anything else; nothing of it was run.

    >>> loads(pickle.dumps({'a': [1, 2.5, b'x']}))
    {'a': [1, 2.5, b'x']}
    >>> loads(b'cos\\nsystem\\n(S"echo hello"\\ntR.', 'evil')
    Traceback (most recent call last):
    ValueError: evil: refused to unpickle it: it asks for os.system
    """
    try:
        return _plain(_Unpickler(io.BytesIO(raw), encoding='bytes').load())
    except Exception as error:  # a broken pickle may raise almost anything
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f'{where}: refused to unpickle it: {reason}') from None

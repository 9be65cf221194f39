"""Reads the pickles of the CIFAR files without running anything that they ask for.

`pickletools` splits a pickle into instructions; only those that build plain values are carried
out, here. `pickle.Unpickler` with a restricted `find_class` would not do: a memo index of 2**31
makes it allocate 32 GB, and a nested tuple as a key takes it forever to hash.
"""

from __future__ import annotations

import os
import pickletools
import re
from typing import Any

import numpy as np

from fenwicks._errors import one_line

# Modules in which pickles of NumPy arrays look for `_reconstruct`, `ndarray` and `dtype`.
_MODULES = ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray')
_DTYPE = re.compile(r'[ui][1248]|f[248]|b1?|\?')

_MARK = object()
_VALUES = {
    'BININT', 'BININT1', 'BININT2', 'INT', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT',
    'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8',
    'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8',
}  # fmt: skip
_BYTES_OF_PYTHON_2 = {'STRING', 'BINSTRING', 'SHORT_BINSTRING'}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class _Refused(Exception):
    """What the pickle holds is refused."""


class _Global:
    """Stands in for a function or class of NumPy; `array` tells `ndarray` from `dtype`."""

    def __init__(self, module, name):
        if module not in _MODULES or name not in ('_reconstruct', 'ndarray', 'dtype'):
            raise _Refused(f'it asks for {module}.{name}')
        self.array = name != 'dtype'


class _DType:
    """A number type: its code, and its byte order from `set_state`."""

    def __init__(self, arguments):
        code = _text(arguments[0] if arguments else None)
        if not _DTYPE.fullmatch(code):
            raise _Refused(f'an array of dtype {code!r} is not an array of numbers')
        self.value = np.dtype(code)

    def set_state(self, state):
        order = _text(state[1])
        self.value = self.value.newbyteorder(order if order in ('<', '>') else '=')


class _Array:
    """An array: `value` is set by `set_state`."""

    value = None

    def __init__(self, arguments):
        pass

    def set_state(self, state):
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
            raise _Refused('an array of anything but numbers')
        self.value = np.frombuffer(raw, dtype.value).reshape(shape, order='F' if fortran else 'C')


def _text(value):
    return value.decode('ascii') if isinstance(value, bytes) else str(value)


class _Machine:
    """Carries out the instructions of a pickle that build plain values."""

    def __init__(self):
        self.stack, self.memo = [], {}

    def run(self, raw):
        """The value that the pickle leaves on the stack."""
        for opcode, argument, _ in pickletools.genops(raw):
            name = opcode.name
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _BYTES_OF_PYTHON_2:
                self.stack.append(str(argument).encode('latin-1'))
            elif name in ('BINPUT', 'LONG_BINPUT', 'PUT'):
                self.memo[argument] = self.stack[-1]
            elif name == 'MEMOIZE':
                self.memo[len(self.memo)] = self.stack[-1]
            elif name in ('BINGET', 'LONG_BINGET', 'GET'):
                self.stack.append(self.memo[argument])
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in ('PROTO', 'FRAME'):
                pass
            elif name == 'STOP':
                return self.stack.pop()
            else:
                self.build(name, argument)
        raise _Refused('it has no end')

    def build(self, name, argument):
        """An instruction that makes a container or an array of what is on the stack."""
        stack = self.stack
        if name == 'MARK':
            stack.append(_MARK)
        elif name in _TUPLES:
            self.push_tuple([stack.pop() for _ in range(_TUPLES[name])][::-1])
        elif name == 'TUPLE':
            self.push_tuple(self.to_mark())
        elif name in ('EMPTY_LIST', 'LIST'):
            stack.append(self.to_mark() if name == 'LIST' else [])
        elif name in ('APPEND', 'APPENDS'):
            items = [stack.pop()] if name == 'APPEND' else self.to_mark()
            self.last(list).extend(items)
        elif name in ('EMPTY_DICT', 'DICT'):
            items = self.to_mark() if name == 'DICT' else []
            stack.append({})
            self.set_items(items)
        elif name in ('SETITEM', 'SETITEMS'):
            items = [stack.pop(), stack.pop()][::-1] if name == 'SETITEM' else self.to_mark()
            self.set_items(items)
        elif name in ('GLOBAL', 'STACK_GLOBAL'):
            if name == 'GLOBAL':
                module, _, attribute = argument.partition(' ')
            else:
                attribute, module = stack.pop(), stack.pop()
            stack.append(_Global(module, attribute))
        elif name == 'REDUCE':
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, _Global) or not isinstance(arguments, tuple):
                raise _Refused('it calls what is no function')
            stack.append(_Array(arguments) if function.array else _DType(arguments))
        elif name == 'BUILD':
            state = stack.pop()
            self.last((_Array, _DType)).set_state(state)
        else:
            raise _Refused(f'it uses the instruction {name}')

    def push_tuple(self, items):
        self.stack.append(tuple(items))

    def to_mark(self):
        """Takes everything above the last mark from the stack."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise _Refused('a mark is missing')

    def last(self, kinds):
        if not isinstance(self.stack[-1], kinds):
            raise _Refused('it puts values into something else than a container')
        return self.stack[-1]

    def set_items(self, items):
        mapping = self.last(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if key is not None and not isinstance(key, bytes | str | int | float):
                raise _Refused(f'a key is a {type(key).__name__}')
            mapping[key] = value


def _plain(value, done, depth=0):
    """The same structure with real arrays; `done` maps ids of containers to what they became."""
    if isinstance(value, _Array):
        return value.value
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    if not isinstance(value, dict | list | tuple):
        raise _Refused(f'it holds a {type(value).__name__.strip("_")}')
    if id(value) not in done:
        if depth > 100:
            raise _Refused('it is nested too deeply, or holds itself')
        if isinstance(value, dict):
            done[id(value)] = {k: _plain(item, done, depth + 1) for k, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done, depth + 1) for item in value)
    return done[id(value)]


def loads(raw: bytes, where: str | os.PathLike[str] = 'pickle') -> Any:
    """Unpickles arrays of numbers, lists, tuples, dicts, strings, bytes and numbers, only these.

    Args:
        raw: bytes of a pickle; strings written by Python 2 come back as bytes.
        where: name of the file, for the error.

    Returns:
        The object.

    Raises:
        ValueError: the pickle is broken, or asks for anything else; nothing of it was run.

    >>> import pickle
    >>> loads(pickle.dumps({'a': [1, 2.5, b'x']}))
    {'a': [1, 2.5, b'x']}
    >>> loads(b'cos\\nsystem\\n(S"echo hello"\\ntR.', 'evil')
    Traceback (most recent call last):
    ValueError: evil: refused to unpickle it: it asks for os.system
    """
    try:
        return _plain(_Machine().run(raw), {})
    except Exception as error:  # a broken pickle may raise almost anything
        raise ValueError(f'{where}: refused to unpickle it: {one_line(error)}') from None

"""The protocol buffer `tf.train.Example`, without TensorFlow: named lists of bytes or numbers.

```
message Example   { Features features = 1; }
message Features  { map<string, Feature> feature = 1; }
message Feature   { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2;
                                 Int64List int64_list = 3; } }
message BytesList { repeated bytes value = 1; }        # FloatList: repeated float, packed
                                                       # Int64List: repeated int64, packed
```

Reference:
    https://protobuf.dev/programming-guides/encoding/ and
    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/feature.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

Feature = list[bytes] | np.ndarray

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SHORT = 32  # bytes up to which a loop over a packed list is faster than NumPy's calls
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3


class ExampleError(ValueError):
    """Bytes that are no `tf.train.Example`."""


def decode_example(data: bytes) -> dict[str, Feature]:
    """Decodes a serialized `tf.train.Example`.

    Args:
        data: bytes.

    Returns:
        Maps each feature's name to a list of bytes, a float32 array or an int64 array. A feature
        without a value is an empty list.

    Raises:
        ExampleError: the bytes are damaged, or hold a field that an Example does not have.

    >>> decode_example(encode_example({'label': [3]}))
    {'label': array([3])}
    """
    features: dict[str, Feature] = {}
    for message in _messages(data, 1, 'an Example'):
        for entry in _messages(message, 1, 'Features'):
            name, feature = _entry(entry)
            features[name] = feature
    return features


def _messages(data, number, what):
    """Yields the parts of a message that has one field only, of variable length."""
    for found, wire, value in _fields(data):
        if found != number or wire != _LENGTH:
            raise ExampleError(f'{what} has no field {found} of the wire type {wire}')
        yield value


def _entry(data):
    """(name, feature) of one entry of the map."""
    name: str = ''
    feature: Feature = []
    for number, wire, value in _fields(data):
        if (number, wire) == (1, _LENGTH):
            try:
                name = value.decode()
            except UnicodeDecodeError:
                raise ExampleError('the name of a feature is not UTF-8') from None
        elif (number, wire) == (2, _LENGTH):
            feature = _feature(value)
        else:
            raise ExampleError(f'a named feature has no field {number} of the wire type {wire}')
    return name, feature


def _feature(data):
    """The list in a Feature."""
    found = None
    for number, wire, value in _fields(data):
        if wire != _LENGTH or number not in (_BYTES, _FLOATS, _INTEGERS) or found is not None:
            raise ExampleError('a feature must be one list of bytes, floats or integers')
        if number == _BYTES:
            found = list(_messages(value, 1, 'a list of bytes'))
        elif number == _FLOATS:
            found = _float_list(value)
        else:
            found = _int64_list(value)
    return [] if found is None else found


def _float_list(data):
    parts = []
    for number, wire, value in _fields(data):
        if number != 1 or wire not in (_FIXED32, _LENGTH) or len(value) % 4:
            raise ExampleError('a list of floats is damaged')
        parts.append(value)
    return np.frombuffer(b''.join(parts), '<f4').astype(np.float32)


def _int64_list(data):
    parts = []
    for number, wire, value in _fields(data):
        if number != 1 or wire not in (_VARINT, _LENGTH):
            raise ExampleError('a list of integers is damaged')
        parts.append(np.array([value], np.uint64) if wire == _VARINT else _varints(value))
    if len(parts) == 1:
        return parts[0].view(np.int64)
    return np.concatenate([np.zeros(0, np.uint64), *parts]).view(np.int64)


def _varints(data):
    """All varints of a packed list, as uint64."""
    if len(data) <= _SHORT:
        values, position = [], 0
        while position < len(data):
            value, position = _varint(data, position)
            values.append(value)
        return np.array(values, np.uint64)
    raw = np.frombuffer(data, np.uint8)
    if not len(raw):
        return np.zeros(0, np.uint64)
    if raw[-1] >= 128:
        raise ExampleError('a list of integers ends within an integer')
    ends = np.flatnonzero(raw < 128)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 9:
        raise ExampleError('an integer is longer than ten bytes')
    place = np.arange(len(raw)) - np.repeat(starts, ends - starts + 1)
    parts = (raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts)


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yields (field number, wire type, value) of a message."""
    position, end = 0, len(data)
    while position < end:
        tag = data[position]
        if tag < 128:  # a byte, as almost always: a call would take longer than all else here
            position += 1
        else:
            tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ExampleError(f'the field number {number} is out of range')
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == _LENGTH:
            if position < end and data[position] < 128:
                length = data[position]
                position += 1
            else:
                length, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ExampleError(f'the wire type {wire} is unknown')
        if length > end - position:
            raise ExampleError('it ends within a field')
        yield number, wire, data[position : position + length]
        position += length


def _varint(data, position):
    """(value, next position) of one varint."""
    value = shift = 0
    while True:
        if position >= len(data):
            raise ExampleError('it ends within a number')
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise ExampleError('an integer is longer than ten bytes')


def encode_example(features: Mapping[str, Iterable]) -> bytes:
    """Serializes a `tf.train.Example`; features are in the order of their names.

    Args:
        features: maps each name to a list of bytes or strings, a list or array of integers that
            fit int64, or a list or array of floats; a single value stands for a list of one.

    Returns:
        Bytes that TensorFlow's `tf.train.Example.FromString` takes too.

    Raises:
        ValueError: a value is none of these.

    >>> encode_example({'label': 3}).hex()
    '0a100a0e0a056c6162656c12051a030a0103'
    """
    entries = []
    for name in sorted(features):
        body = _field(1, name.encode()) + _field(2, _encode_feature(name, features[name]))
        entries.append(_field(1, body))
    return _field(1, b''.join(entries))


def _encode_feature(name, values):
    if isinstance(values, bytes | str):
        values = [values]
    if not isinstance(values, np.ndarray):
        values = list(values) if isinstance(values, Iterable) else [values]
        if values and all(isinstance(value, bytes | str) for value in values):
            encoded = (value.encode() if isinstance(value, str) else value for value in values)
            return _field(_BYTES, b''.join(_field(1, value) for value in encoded))
        if not values:
            return b''
    array = np.asarray(values)
    if array.ndim == 1 and (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        if array.size and array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f'`features` must hold integers of int64. Received: {name!r}')
        numbers = array.astype(np.int64).view(np.uint64).tolist()
        return _field(_INTEGERS, _field(1, b''.join(map(_encode_varint, numbers))))
    if array.ndim == 1 and np.issubdtype(array.dtype, np.floating):
        return _field(_FLOATS, _field(1, array.astype('<f4').tobytes()))
    raise ValueError(
        '`features` must hold bytes, strings, or flat lists of integers or floats. '
        f'Received: {name!r} of dtype={array.dtype}, shape={array.shape}'
    )


def _field(number, value):
    """A length-delimited field."""
    return bytes([number << 3 | _LENGTH]) + _encode_varint(len(value)) + value


def _encode_varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])

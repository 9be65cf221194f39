"""Reads TFRecord files and the tf.train.Example messages in them, without TensorFlow."""

from __future__ import annotations

import struct


def read_records(path):
    """Yields the records of a TFRecord file, as bytes.

    The checksums are skipped: callers check what they decode.

    Raises:
        ValueError: the file is truncated.
    """
    with open(path, 'rb') as file:
        while head := file.read(12):
            length = struct.unpack('<Q', head[:8])[0] if len(head) == 12 else 0
            if length > 1 << 31:
                raise ValueError(f'{path}: a damaged record of {length} bytes')
            body = file.read(length + 4)
            if len(head) < 12 or len(body) < length + 4:
                raise ValueError(f'{path}: the file is truncated')
            yield body[:length]


def _varint(raw, position):
    """(value, next position) of a base-128 integer."""
    value = shift = 0
    while True:
        byte = raw[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _fields(raw):
    """Yields (field number, value) of a protobuf message; value is bytes or an integer."""
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        if key & 7 == 0:
            value, position = _varint(raw, position)
        elif key & 7 == 2:
            length, position = _varint(raw, position)
            value, position = raw[position : position + length], position + length
        else:
            raise ValueError(f'wire type {key & 7}')
        yield key >> 3, value


def parse_example(record, where='record'):
    """The features of one serialized tf.train.Example.

    Args:
        record: bytes.
        where: name of the file, for the error.

    Returns:
        A dict: feature name -> list of bytes or of integers. Float features are left out.

    Raises:
        ValueError: the bytes are no such message.
    """
    features = {}
    try:
        for _, message in _fields(record):
            for _, entry in _fields(message):
                pair = dict(_fields(entry))
                for kind, values in _fields(pair.get(2, b'')):
                    if kind == 1:
                        features[pair[1].decode()] = [value for _, value in _fields(values)]
                    elif kind == 3:
                        features[pair[1].decode()] = list(_integers(values))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{where}: not a tf.train.Example ({error})') from None
    return features


def _integers(raw):
    """The values of an Int64List, packed or not."""
    for _, value in _fields(raw):
        if isinstance(value, int):
            yield value
            continue
        position = 0
        while position < len(value):
            item, position = _varint(value, position)
            yield item

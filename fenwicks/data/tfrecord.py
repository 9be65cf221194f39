"""The TFRecord format, without TensorFlow: a sequence of byte strings with checksums.

```
record = length: uint64 | masked_crc32c(length): uint32 | data | masked_crc32c(data): uint32
masked_crc32c(x) = rotate_right(crc32c(x), 15) + 0xa282ead8      # little-endian, modulo 2**32
```

Reference:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterable, Iterator

import numpy as np

from fenwicks._files import written_whole
from fenwicks.data import storage

try:
    import google_crc32c
except ImportError:  # then NumPy computes it, at a tenth of the speed or less
    google_crc32c = None

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_SHORT = 32  # bytes up to which a loop over bytes is faster than NumPy's calls
_BLOCK = 1024  # bytes whose contributions to a checksum are looked up at once
_HEAD = struct.Struct('<QI')
_FOOT = struct.Struct('<I')


class RecordError(ValueError):
    """A TFRecord file is damaged; the message names the file and the position."""


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) checksum, by `google_crc32c` if that is installed, else by NumPy.

    Args:
        data: bytes.

    Returns:
        An integer in [0, 2**32).

    >>> hex(crc32c(b'123456789'))
    '0xe3069283'
    """
    if google_crc32c is not None:
        return google_crc32c.value(bytes(data))
    return crc32c_numpy(data)


def crc32c_numpy(data: bytes) -> int:
    """`crc32c` by NumPy alone.

    A CRC is linear: a byte contributes the XOR of a table's entry that depends on the byte and on
    how many bytes follow it. Blocks of 1,024 bytes are looked up at once, then combined.

    Args:
        data: bytes.

    Returns:
        An integer in [0, 2**32).

    >>> hex(crc32c_numpy(b'123456789'))
    '0xe3069283'
    """
    if len(data) <= _SHORT:
        table, crc = _byte_table(), 0xFFFFFFFF
        for byte in bytes(data):
            crc = table[(crc ^ byte) & 255] ^ crc >> 8
        return crc ^ 0xFFFFFFFF
    flat, rows, shift = _tables()
    # To begin with the register 0 and the first four bytes inverted is to begin with 0xFFFFFFFF;
    # and then zeros in front, which make all blocks whole, change nothing.
    front = -len(data) % _BLOCK
    array = np.zeros(front + len(data), np.uint8)
    array[front:] = np.frombuffer(data, np.uint8)
    array[front : front + 4] ^= 255
    blocks = array.reshape(-1, _BLOCK)
    crc = 0
    for start in range(0, len(blocks), 64):  # 64 blocks at once: 256 kB of table entries
        picked = flat.take(rows + blocks[start : start + 64])
        for block in np.bitwise_xor.reduce(picked, axis=1).tolist():
            crc = (
                shift[0][crc & 255]
                ^ shift[1][crc >> 8 & 255]
                ^ shift[2][crc >> 16 & 255]
                ^ shift[3][crc >> 24]
                ^ block
            )
    return crc ^ 0xFFFFFFFF


@functools.cache
def _byte_table():
    """What the last byte contributes, as a list."""
    flat, _, _ = _tables()
    return flat[-256:].tolist()


@functools.cache
def _tables():
    """What bytes contribute, 256 entries for each place in a block; where each place's entries
    begin; and a block's shift of a CRC."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1).astype(np.uint32)
    contributions = np.empty((_BLOCK, 256), np.uint32)
    row = table
    for position in range(_BLOCK - 1, -1, -1):
        contributions[position] = row
        row = row >> 8 ^ table[row & 255]
    # A CRC's own four bytes, followed by a block of zeros, contribute like the first four bytes.
    shift = [contributions[position].tolist() for position in range(4)]
    return contributions.ravel(), np.arange(_BLOCK) * 256, shift


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated, plus a constant.

    Args:
        data: bytes.

    Returns:
        An integer in [0, 2**32).

    >>> hex(masked_crc32c(b'123456789'))
    '0xc78ab0e5'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordReader:
    """Iterates over the records of one TFRecord file and checks their checksums.

    Args:
        path: a file on this machine, or a URL such as `gs://bucket/file`.
        skip_damaged: whether to leave out damaged records and count them in `skipped`. By default
            the first one raises. Behind a damaged length nothing can be found any more: the rest
            of the file counts as one record.
        longest: bytes that a record may have; a longer one counts as damaged.

    Raises:
        RecordError: while iterating, at a damaged record, unless `skip_damaged`; names the file
            and the position.
        OSError: the file can't be read.

    Example:

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + '/a.tfrecord'
    >>> write_records(path, [b'one', b'two'])
    >>> list(RecordReader(path))
    [b'one', b'two']
    """

    def __init__(
        self, path: str | os.PathLike[str], skip_damaged: bool = False, longest: int = 2**28
    ):
        self.path, self.skip_damaged, self.longest = path, skip_damaged, longest
        self.skipped = 0

    def __iter__(self) -> Iterator[bytes]:
        self.skipped = 0
        with storage.open_binary(self.path) as file:
            position = number = 0
            while head := file.read(_HEAD.size):
                length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
                if len(head) < _HEAD.size or _HEAD.unpack(head)[1] != masked_crc32c(head[:8]):
                    self._damaged(number, position, 'the checksum of its length is wrong')
                    return
                if length > self.longest:
                    claim = f'it claims {length} bytes, of at most {self.longest}'
                    self._damaged(number, position, claim)
                    return
                data, foot = file.read(length), file.read(_FOOT.size)
                if len(data) < length or len(foot) < _FOOT.size:
                    self._damaged(number, position, 'the file ends within it')
                    return
                if _FOOT.unpack(foot)[0] != masked_crc32c(data):
                    self._damaged(number, position, 'the checksum of its data is wrong')
                else:
                    yield data
                position += _HEAD.size + length + _FOOT.size
                number += 1

    def _damaged(self, number, position, fault):
        if not self.skip_damaged:
            raise RecordError(
                f'{self.path}: record {number} at byte {position}: {fault}; '
                'the file is truncated or damaged'
            )
        self.skipped += 1


def count_records(path: str | os.PathLike[str]) -> int:
    """Number of records in a TFRecord file on this machine; their data are not read.

    Args:
        path: the file.

    Returns:
        The number.

    Raises:
        RecordError: the checksum of a length is wrong, or the file ends within a record.
        OSError: the file can't be read.
    """
    count = position = 0
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        while position < size:
            file.seek(position)
            head = file.read(_HEAD.size)
            whole = len(head) == _HEAD.size and _HEAD.unpack(head)[1] == masked_crc32c(head[:8])
            end = position + _HEAD.size + _HEAD.unpack(head)[0] + _FOOT.size if whole else size + 1
            if end > size:
                raise RecordError(
                    f'{path}: record {count} at byte {position}: the file is truncated or damaged'
                )
            position, count = end, count + 1
    return count


def write_records(path: str | os.PathLike[str], records: Iterable[bytes]) -> None:
    """Writes a TFRecord file, whole or not at all.

    Args:
        path: the file to write, on this machine.
        records: byte strings.

    Raises:
        OSError: the disk doesn't take it.
    """
    with written_whole(path) as part, open(part, 'wb') as file:
        for data in records:
            length = len(data).to_bytes(8, 'little')
            file.write(length + _FOOT.pack(masked_crc32c(length)))
            file.write(data)
            file.write(_FOOT.pack(masked_crc32c(data)))

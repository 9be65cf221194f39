"""The TFRecord format, without TensorFlow: a sequence of byte strings with checksums.

```
record = length: uint64 | masked_crc32c(length): uint32 | data | masked_crc32c(data): uint32
masked_crc32c(x) = rotate_right(crc32c(x), 15) + 0xa282ead8      # little-endian, modulo 2**32
```

Reference:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

from fenwicks._files import written_whole
from fenwicks.data import storage

_HEAD = struct.Struct('<QI')
_FOOT = struct.Struct('<I')


class RecordError(ValueError):
    """A TFRecord file is damaged; the message names the file and the position."""


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated, plus a constant.

    Args:
        data: bytes.

    Returns:
        An integer in [0, 2**32).

    >>> hex(masked_crc32c(b'123456789'))
    '0xc78ab0e5'
    """
    # Here, so that nothing else of the package needs the compiled module.
    import google_crc32c

    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordReader:
    """Iterates over the records of one TFRecord file and checks their checksums.

    Args:
        path: a file on this machine, or a URL such as `gs://bucket/file`.
        skip_damaged: whether to leave out damaged records and note them in `damaged`. By default
            the first one raises. Behind a damaged length nothing can be found any more: the rest
            of the file counts as one record.
        longest: bytes that a record may have; a longer one counts as damaged.

    Attributes:
        number: of the record that was read last, from 0; damaged ones count.
        damaged: the numbers of the records that were left out.

    Raises:
        RecordError: while iterating, at a damaged record, unless `skip_damaged`; names the file
            and the position.
        OSError: the file can't be read.

    Example:

    >>> from fenwicks.data.tfrecord import write_records
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
        self.number, self.damaged = 0, list[int]()

    @property
    def skipped(self) -> int:
        """How many records were left out."""
        return len(self.damaged)

    def __iter__(self) -> Iterator[bytes]:
        self.damaged = []
        with storage.open_binary(self.path) as file:
            position = self.number = 0
            while head := file.read(_HEAD.size):
                length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
                if len(head) < _HEAD.size or _HEAD.unpack(head)[1] != masked_crc32c(head[:8]):
                    self._damaged(position, 'the checksum of its length is wrong')
                    return
                if length > self.longest:
                    self._damaged(position, f'it claims {length} bytes, of at most {self.longest}')
                    return
                data, foot = file.read(length), file.read(_FOOT.size)
                if len(data) < length or len(foot) < _FOOT.size:
                    self._damaged(position, 'the file ends within it')
                    return
                if _FOOT.unpack(foot)[0] != masked_crc32c(data):
                    self._damaged(position, 'the checksum of its data is wrong')
                else:
                    yield data
                position += _HEAD.size + length + _FOOT.size
                self.number += 1

    def _damaged(self, position, fault):
        if not self.skip_damaged:
            raise RecordError(
                f'{self.path}: record {self.number} at byte {position}: {fault}; '
                'the file is truncated or damaged; `skip_damaged` leaves such records out'
            )
        self.damaged.append(self.number)


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
    with open(os.path.expanduser(path), 'rb') as file:
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
    with written_whole(os.path.expanduser(path)) as part, open(part, 'wb') as file:
        for data in records:
            length = len(data).to_bytes(8, 'little')
            file.write(length + _FOOT.pack(masked_crc32c(length)))
            file.write(data)
            file.write(_FOOT.pack(masked_crc32c(data)))

"""The file in which decoded images lie: pixels that are mapped into memory, and their names.

```
header: magic 8 | count u64 | height u32 | width u32 | channels u32 | description bytes u64
        | CRC-32 of the pixels u32 | of the description u32 | of the header so far u32 | zeros to 64
pixels: uint8 (count, height, width, channels)
description: JSON
```
"""

from __future__ import annotations

import json
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fenwicks._files import written_whole
from fenwicks.data.limits import check_size, damage_named

_HEAD = struct.Struct('<8sQIIIQII')
_MAGIC = b'FWIMAGE1'
_START = 64  # where the pixels begin
_PIECE = 2**24  # bytes that are verified at a time


def write_cache(
    path: pathlib.Path,
    rows: Iterable[np.ndarray],
    image_shape: tuple[int, int, int],
    describe: Callable[[], dict[str, Any]],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Writes decoded images to a file, whole or not at all, and opens it.

    Args:
        path: the file.
        rows: yields images, each uint8 of `image_shape`.
        image_shape: `(height, width, channels)`.
        describe: called after the last image; gives what to store beside them, as JSON has it.

    Returns:
        What `read_cache` returns.

    Raises:
        OSError: the disk doesn't take it.
    """
    count = crc = 0
    # Written, not mapped: a full disk makes a write raise, but a page of a map kill the process.
    # Nor is the disk waited for: `read_cache` finds out what a power failure has lost.
    with written_whole(path, flush=False) as part, open(part, 'wb') as file:
        file.write(bytes(_START))
        for row in rows:
            raw = np.ascontiguousarray(row, np.uint8).data
            file.write(raw)
            crc = zlib.crc32(raw, crc)
            count += 1
        description = describe()
        text = json.dumps(description).encode('ascii')
        file.write(text)
        sizes = (count, *image_shape, len(text))
        head = _HEAD.pack(_MAGIC, *sizes, crc, zlib.crc32(text))
        file.seek(0)
        file.write(head + struct.pack('<I', zlib.crc32(head)))
    return _mapped(path, (count, *image_shape)), description


def _mapped(path, shape):
    """The images of a file, which cannot be written to."""
    if not np.prod(shape):
        return np.zeros(shape, np.uint8)
    return np.memmap(path, np.uint8, 'r', _START, shape)


def read_cache(path: pathlib.Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Opens a file of decoded images and verifies all of it, at the speed of the disk.

    Args:
        path: the file.

    Returns:
        uint8 images `(count, height, width, channels)`, mapped into memory, which cannot be
        written to; and what was stored beside them.

    Raises:
        ValueError: the file is damaged or of another kind.
        OSError: it can't be read.
    """
    check_size(path, 2**62)
    with open(path, 'rb') as file, damage_named(path, 'be a whole file of decoded images'):
        head = file.read(_START)
        magic, count, height, width, channels, length, crc, text_crc = _HEAD.unpack_from(head)
        if magic != _MAGIC or struct.unpack_from('<I', head, _HEAD.size)[0] != zlib.crc32(
            head[: _HEAD.size]
        ):
            raise ValueError('its header is damaged')
        pixels = count * height * width * channels
        size = os.fstat(file.fileno()).st_size
        if size != _START + pixels + length:
            raise ValueError(f'{_START + pixels + length} bytes are expected, {size} are there')
        left, found = pixels, 0
        while left:
            piece = file.read(min(left, _PIECE))
            left -= len(piece)
            found = zlib.crc32(piece, found)
        description = file.read()
        if found != crc or zlib.crc32(description) != text_crc:
            raise ValueError('a checksum is wrong')
        return _mapped(path, (count, height, width, channels)), json.loads(description)

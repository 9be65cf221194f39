"""Decodes many small PNG files of one size at once, with nothing but NumPy and zlib.

TFDS, Hugging Face and fast.ai keep CIFAR as PNG. Decoding all images together, one row at a time,
takes seconds for 60,000 of them and needs neither TensorFlow nor Pillow.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np


def _scanlines(raw, where):
    """(height, width, the unpacked filter-and-pixel bytes) of one 8-bit RGB PNG."""
    if raw[:8] != b'\x89PNG\r\n\x1a\n':
        raise ValueError(f'{where}: not a PNG image')
    position, header, data = 8, None, []
    while position + 8 <= len(raw):
        length, kind = struct.unpack('>I4s', raw[position : position + 8])
        body = raw[position + 8 : position + 8 + length]
        if kind == b'IHDR':
            header = struct.unpack('>IIBBBBB', body)
        elif kind == b'IDAT':
            data.append(body)
        position += length + 12
    if header is None or header[2:] != (8, 2, 0, 0, 0):
        raise ValueError(f'{where}: not a plain 8-bit RGB image. Received: IHDR={header}')
    width, height = header[:2]
    size = height * (1 + 3 * width)
    lines = zlib.decompressobj().decompress(b''.join(data), size + 1)
    if len(lines) != size:
        raise ValueError(f'{where}: the image is truncated')
    return height, width, lines


def _paeth(left, up, corner):
    """PNG's predictor: whichever of the three is nearest to left + up - corner."""
    left, up, corner = (x.astype(np.int16) for x in (left, up, corner))
    to_left, to_up = np.abs(up - corner), np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest).astype(np.uint8)


def decode(files, where='PNG'):
    """Decodes PNG files of one size.

    Args:
        files: non-empty sequence of bytes, each one 8-bit RGB PNG, not interlaced.
        where: name of their container, for errors.

    Returns:
        uint8 array `(n, height, width, 3)`.

    Raises:
        ValueError: not such a PNG, a truncated one, or images of different sizes.
    """
    try:
        lines = [_scanlines(raw, where) for raw in files]
    except (zlib.error, struct.error) as error:
        raise ValueError(f'{where}: a damaged PNG image ({error})') from None
    sizes = {line[:2] for line in lines}
    if len(sizes) != 1:
        raise ValueError(f'{where}: images must have one size. Received: sizes={sorted(sizes)}')
    height, width = sizes.pop()
    raw = np.frombuffer(b''.join(line[2] for line in lines), np.uint8)
    raw = raw.reshape(len(lines), height, 1 + 3 * width)
    out = np.empty((len(lines), height, width, 3), np.uint8)
    above = np.zeros((len(lines), width, 3), np.uint8)
    for y in range(height):
        filters, row = raw[:, y, 0], raw[:, y, 1:].reshape(-1, width, 3).copy()
        if filters.max() > 4:
            raise ValueError(f'{where}: a damaged PNG image (filter {filters.max()})')
        # uint8 arithmetic wraps around at 256, as PNG's does.
        row[filters == 1] = np.cumsum(row[filters == 1], axis=1, dtype=np.uint8)
        row[filters == 2] += above[filters == 2]
        for kind in (3, 4):
            which = np.flatnonzero(filters == kind)
            pixels, up = row[which], above[which]
            left = corner = np.zeros((len(which), 3), np.uint8)
            for x in range(width if len(which) else 0):
                if kind == 3:
                    pixels[:, x] += ((left.astype(np.uint16) + up[:, x]) // 2).astype(np.uint8)
                else:
                    pixels[:, x] += _paeth(left, up[:, x], corner)
                left, corner = pixels[:, x], up[:, x]
            row[which] = pixels
        out[:, y] = above = row
    return out

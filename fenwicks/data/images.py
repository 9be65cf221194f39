"""Decodes one image file of any usual kind to uint8 pixels of one size."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from fenwicks.data.limits import check_size, damage_named

# Among the formats that Pillow knows, EPS would start another program.
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
EXTENSIONS = frozenset(
    {'.bmp', '.dib', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.mpo'}
    | {'.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp'}
)
MAX_PIXELS = 2**26  # 8,192 x 8,192; decoding takes up to 13 bytes for each
MAX_BYTES = 2**29  # of a file
FITS = ('crop', 'pad', 'stretch')
FILTERS = {
    'nearest': Image.Resampling.NEAREST,
    'box': Image.Resampling.BOX,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}
_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}
ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = frozenset(_TURNS[number] for number in range(5, 9))  # what swaps height and width
_METADATA = ('exif', 'xmp', 'XML:com.adobe.xmp', 'Raw profile type exif')  # for `getexif`
RULE = 'be an image that can be read'
_log = logging.getLogger('fenwicks')


class Options(NamedTuple):
    """The options of `decode_image`, in its order."""

    image_size: tuple[int, int]
    fit: str
    filter: str
    channels: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the result."""
        return *self.image_size, self.channels


def checked_options(image_size: tuple[int, int], fit: str, filter: str, channels: int) -> Options:
    """The options of `decode_image`, with Python's own integers, which JSON takes.

    Args:
        image_size: `(height, width)`, at least 1 each.
        fit: one of `FITS`.
        filter: one of `FILTERS`.
        channels: 1, 3 or 4.

    Raises:
        ValueError: one is not.
    """
    whole = isinstance(image_size, tuple | list) and len(image_size) == 2
    if not whole or not all(isinstance(x, int | np.integer) and 1 <= x < 2**15 for x in image_size):
        raise ValueError(
            '`image_size` must be (height, width), each in [1, 32768). '
            f'Received: image_size={image_size!r}'
        )
    if not isinstance(fit, str) or fit not in FITS:
        raise ValueError(f'`fit` must be one of {", ".join(FITS)}. Received: fit={fit!r}')
    if not isinstance(filter, str) or filter not in FILTERS:
        raise ValueError(
            f'`filter` must be one of {", ".join(FILTERS)}. Received: filter={filter!r}'
        )
    if not isinstance(channels, int | np.integer) or channels not in _MODES:
        raise ValueError(f'`channels` must be 1, 3 or 4. Received: channels={channels!r}')
    return Options((int(image_size[0]), int(image_size[1])), fit, filter, int(channels))


def decode_image(
    source: str | os.PathLike[str] | bytes,
    image_size: tuple[int, int],
    fit: str = 'crop',
    filter: str = 'bilinear',
    channels: int = 3,
    name: str | None = None,
) -> np.ndarray:
    """Decodes an image and brings it to one size.

    - The orientation in EXIF or XMP is applied.
    - 16-bit grey is divided by 257, grey and palettes become RGB, CMYK is converted. A warning says
      where 16-bit grey uses 12 bits or fewer, which leaves it nearly black.
    - Without an alpha channel asked for, transparent pixels are blended with white.
    - Of an animation the first frame is taken.
    - Shrinking is antialiased: the filter covers all pixels that fall into one.
    - JPEG files are decoded at 1 to 7 eighths of their size where that leaves at least the size
      asked for, which is faster: the decoder leaves out what is finer.

    Args:
        source: a path, or the bytes of a file.
        image_size: `(height, width)` of the result.
        fit: 'crop' keeps the aspect and cuts off at the centre what is too much; 'pad' keeps it and
            fills up with black; 'stretch' doesn't keep it.
        filter: 'nearest', 'box', 'bilinear', 'bicubic' or 'lanczos'.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        name: what to call the image in errors; by default its path.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        ValueError: an option is invalid, or the image is damaged, is to be decoded to more than
            `MAX_PIXELS` pixels, or is of another format than `FORMATS`.
        OSError: the file can't be read.

    >>> buffer = io.BytesIO()
    >>> Image.new('L', (40, 20), 7).save(buffer, 'png')
    >>> decode_image(buffer.getvalue(), (8, 8))[0, 0]
    array([7, 7, 7], dtype=uint8)
    """
    (height, width), *_ = checked_options(image_size, fit, filter, channels)
    where = name or ('image' if isinstance(source, bytes) else os.fspath(source))
    with open_image(source, name) as image, damage_named(where, RULE):
        decoded = _decoded_jpeg(image, channels, max(height, width)) or image
        _check_pixels(decoded.size, 'its frame')
        upright = _upright(_converted(decoded, _MODES[channels]))
        pixels = np.asarray(_fitted(upright, (width, height), fit, FILTERS[filter]))
        return pixels.reshape(height, width, channels)


def resize_image(
    pixels: np.ndarray,
    image_size: tuple[int, int],
    fit: str = 'crop',
    filter: str = 'bilinear',
    channels: int = 3,
    name: str = 'image',
) -> np.ndarray:
    """Brings pixels to one size and number of channels, as `decode_image` does with a file.

    Args:
        pixels: uint8 `(height, width, channels)`, 1, 3 or 4 of them.
        image_size, fit, filter, channels, name: see `decode_image`.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        ValueError: an option or the array is invalid.

    >>> resize_image(np.full((2, 2, 1), 7, np.uint8), (1, 1))
    array([[[7, 7, 7]]], dtype=uint8)
    """
    (height, width), *_ = checked_options(image_size, fit, filter, channels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in _MODES:
        raise ValueError(
            f'{name}: `pixels` must be uint8 (height, width, channels), with 1, 3 or 4 channels. '
            f'Received: dtype={pixels.dtype}, shape={pixels.shape}'
        )
    _check_pixels(pixels.shape[1::-1], name)
    if pixels.shape == (height, width, channels):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    fitted = _fitted(_converted(image, _MODES[channels]), (width, height), fit, FILTERS[filter])
    return np.asarray(fitted).reshape(height, width, channels)


@contextlib.contextmanager
def open_image(
    source: str | os.PathLike[str] | bytes, name: str | None = None
) -> Iterator[Image.Image]:
    """Opens an image without decoding it, for use with `with`.

    Args:
        source: a path, or the bytes of a file.
        name: what to call the image in errors; by default its path.

    Raises:
        ValueError: it is no image of `FORMATS`, or states more pixels than Pillow opens.
        OSError: the file can't be read.
    """
    name = name or ('image' if isinstance(source, bytes) else os.fspath(source))
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    else:
        path = pathlib.Path(source).expanduser()
        check_size(path, MAX_BYTES)
        file = open(path, 'rb')  # noqa: SIM115
    with file:
        _check_webp(file.read(30), name)
        file.seek(0)
        with damage_named(name, RULE):
            try:
                image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:  # its text shows the address of an object
                raise ValueError(f'none of {", ".join(FORMATS)}') from None
            except Image.DecompressionBombError:  # its text has another limit
                raise ValueError(f'more than {MAX_PIXELS} pixels') from None
        with image:
            yield image


def _decoded_jpeg(image, channels, side):
    """The pixels of a plain JPEG file, at a scale that leaves `side` pixels; None of another file.

    libjpeg-turbo decodes a file at once faster than Pillow, which feeds it piece by piece, and at
    more scales. Files that it finds fault with are left to Pillow, which has the last word.
    """
    if image.format != 'JPEG' or image.mode not in ('L', 'RGB'):
        return None
    file = image.fp
    file.seek(0)
    content = file.read()
    space = 'GRAY' if channels == 1 or image.mode == 'L' else 'RGB'
    scale = {'min_height': side, 'min_width': side}
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content, **scale)
        if height * width > MAX_PIXELS:
            return None
        pixels = simplejpeg.decode_jpeg(content, space, **scale)
    except ValueError:
        return None
    return _with_metadata(Image.fromarray(pixels[..., 0] if space == 'GRAY' else pixels), image)


def reduced(image: Image.Image) -> Image.Image:
    """An open image, checked as `decode_image` checks it, and only as small as its checks demand.

    A JPEG file of more than `MAX_PIXELS` pixels is decoded at an eighth of its size, as it would be
    for a small size asked for; any other image stays whole.

    Raises:
        ValueError: `decode_image` would refuse it.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        image = _decoded_jpeg(image, 3, 1) or image
        _check_pixels(image.size, 'its frame')
    elif image.mode == 'F' or image.mode.startswith('I'):
        _converted(image, 'L')
    return image


def _check_webp(head, name):
    """Raises if a WebP file states too many pixels: opening it allocates them."""
    if len(head) < 30 or head[:4] != b'RIFF' or head[8:12] != b'WEBP':
        return
    if head[12:16] == b'VP8X':
        width, height = (1 + int.from_bytes(head[i : i + 3], 'little') for i in (24, 27))
    elif head[12:16] == b'VP8L':
        bits = int.from_bytes(head[21:25], 'little')
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(head[i : i + 2], 'little') & 0x3FFF for i in (26, 28))
    _check_pixels((width, height), name)


def _check_pixels(size, name):
    width, height = size
    if not 1 <= width * height <= MAX_PIXELS:
        raise ValueError(
            f'{name}: must have 1 to {MAX_PIXELS} pixels. Received: {width} x {height}'
        )


def _converted(image, mode):
    """The image in 'L', 'RGB' or 'RGBA', whatever its own mode."""
    if image.mode == 'F':
        raise ValueError('floats have no known range')
    if image.mode.startswith('I'):  # 16 bits; mode I has 32, of which PNG and TIFF use 16
        array = np.asarray(image).astype(np.int64)
        if array.min() < 0 or array.max() > 65535:
            raise ValueError(f'integers from {array.min()} to {array.max()} are not 16-bit grey')
        if 0 < array.max() < 4096:
            _warn_of_few_bits(int(array.max()).bit_length())
        grey = Image.fromarray(((array + 128) // 257).astype(np.uint8))
        return _with_metadata(grey.convert(mode), image)
    if image.mode not in ('RGBA', 'LA', 'PA', 'La', 'RGBa') and 'transparency' not in image.info:
        return image if image.mode == mode else image.convert(mode)
    colours = image.convert('RGBA')
    if mode == 'RGBA':
        return colours
    blended = Image.new(mode, image.size, 'white')
    blended.paste(colours.convert(mode), mask=colours.getchannel('A'))
    return _with_metadata(blended, image)


@functools.cache  # told once, not of each picture
def _warn_of_few_bits(bits):
    _log.warning(
        'pictures in 16-bit grey whose values end at %d or less become nearly black, since white '
        'is 65535: multiply the values in the files by %d where %d stands for white',
        2**bits - 1,
        2 ** (16 - bits),
        2**bits - 1,
    )


def _with_metadata(made, image):
    made.info.update((key, image.info[key]) for key in _METADATA if key in image.info)
    return made


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How an image is to be turned by the orientation in its metadata, which may be damaged."""
    try:
        return _TURNS.get(int(image.getexif().get(ORIENTATION, 1)))
    except Exception:
        return None


def _upright(image):
    image.load()  # Pillow itself turns TIFF files
    turn = turn_of(image)
    return image if turn is None else image.transpose(turn)


def _fitted(image, size, fit, resampling):
    """The image at a size `(width, height)`, in one resampling."""
    (width, height), (old_width, old_height) = size, image.size
    if fit == 'stretch':
        return image.resize(size, resampling)
    if fit == 'crop':
        scale = min(old_width / width, old_height / height)
        wide, high = width * scale, height * scale
        left, top = max((old_width - wide) / 2, 0.0), max((old_height - high) / 2, 0.0)
        box = left, top, min(left + wide, old_width), min(top + high, old_height)
        return image.resize(size, resampling, box=box)
    scale = max(old_width / width, old_height / height)
    inner = max(1, round(old_width / scale)), max(1, round(old_height / scale))
    whole = Image.new(image.mode, size)
    corner = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole.paste(image.resize(inner, resampling), corner)
    return whole

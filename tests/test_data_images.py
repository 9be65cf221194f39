"""Decoding one image: modes, orientation, fits, damage, and sizes that are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from fenwicks.data import images
from fenwicks.data.images import decode_image


def picture(height=40, width=60, channels=3, seed=0):
    """A smooth random picture, so that JPEG and resampling lose little."""
    draw = np.random.default_rng(seed).integers(0, 256, (4, 5, channels), np.uint8)
    small = [Image.fromarray(draw[..., c]) for c in range(channels)]
    planes = [np.asarray(x.resize((width, height), Image.Resampling.BICUBIC)) for x in small]
    return np.stack(planes, -1)


def file_of(array, kind='png', **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array.squeeze())
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def same(found, expected, most=0):
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=most)


def test_the_same_size_is_left_alone(tmp_path):
    array = picture()
    same(decode_image(file_of(array), (40, 60)), array)
    path = tmp_path / 'a b ü.png'
    path.write_bytes(file_of(array))
    same(decode_image(path, (40, 60)), array)
    same(decode_image(str(path), [40, 60]), array)


@pytest.mark.parametrize('filter', list(images.FILTERS))
def test_stretching_is_pillows(filter):
    array = picture()
    expected = Image.fromarray(array).resize((17, 13), images.FILTERS[filter])
    same(decode_image(file_of(array), (13, 17), 'stretch', filter), np.asarray(expected))


def test_crop_keeps_the_centre():
    array = picture(40, 60)
    same(decode_image(file_of(array), (40, 40)), array[:, 10:50])
    same(decode_image(file_of(array.swapaxes(0, 1)), (40, 40)), array.swapaxes(0, 1)[10:50])
    half = Image.fromarray(array[:, 10:50]).resize((20, 20), Image.Resampling.BILINEAR)
    found = decode_image(file_of(array), (20, 20))  # at the edge the filter sees what is cut off
    same(found[:, 1:-1], np.asarray(half)[:, 1:-1], 1)
    assert decode_image(file_of(array), (7, 300)).shape == (7, 300, 3)
    assert decode_image(file_of(picture(1, 500)), (9, 9)).shape == (9, 9, 3)


def test_pad_keeps_everything():
    array = picture(40, 60)
    padded = decode_image(file_of(array), (60, 60), 'pad')
    same(padded[10:50], array)
    assert not padded[:10].any()
    assert not padded[50:].any()


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decode_image(file_of(stripes), (8, 8))
    assert np.ptp(small.astype(int)) <= 12
    assert abs(small.mean() - 127.5) < 3


# Modes.


def test_grey_and_palette():
    grey = picture(channels=1)
    same(decode_image(file_of(grey), (40, 60)), np.repeat(grey, 3, -1))
    same(decode_image(file_of(grey), (40, 60), channels=1), grey)
    palette = Image.fromarray(picture()).quantize(16)
    same(decode_image(file_of(palette), (40, 60)), np.asarray(palette.convert('RGB')))
    ones = Image.fromarray(picture(channels=1)[..., 0]).convert('1')
    same(decode_image(file_of(ones), (40, 60), channels=1)[..., 0], np.asarray(ones) * 255)


@pytest.mark.parametrize('kind', ['png', 'tiff'])
def test_16_bit_grey(kind):
    deep = np.arange(0, 65536, 28, np.uint16)[:2340].reshape(39, 60)
    decoded = decode_image(file_of(Image.fromarray(deep), kind), (39, 60), channels=1)[..., 0]
    same(decoded, np.rint(deep / 257))
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_16_bit_grey_of_few_bits_is_told(caplog):
    """It became nearly black silently. What is white isn't known: one picture may be dark."""
    images._warn_of_few_bits.cache_clear()
    for high in (0, 4096):
        decode_image(file_of(Image.fromarray(np.full((4, 4), high, np.uint16))), (4, 4))
    assert not caplog.messages
    for high in (4095, 3000):
        decoded = decode_image(file_of(Image.fromarray(np.full((4, 4), high, np.uint16))), (4, 4))
        assert (decoded == round(high / 257)).all()
    (told,) = caplog.messages
    assert 'end at 4095 or less become nearly black' in told
    assert told.endswith('multiply the values in the files by 16 where 4095 stands for white')


def test_values_without_a_range_are_refused():
    for array in (np.ones((4, 4), np.float32), np.full((4, 4), 2**20, np.int32)):
        with pytest.raises(ValueError, match='must be an image that can be read'):
            decode_image(file_of(Image.fromarray(array), 'tiff'), (4, 4))


def test_transparency_is_blended_with_white():
    rgba = picture(channels=4)
    rgba[:10, ..., 3], rgba[10:20, ..., 3], rgba[20:, ..., 3] = 0, 255, 128
    decoded = decode_image(file_of(rgba), (40, 60))
    assert (decoded[:10] == 255).all()
    same(decoded[10:20], rgba[10:20, ..., :3])
    share = 128 / 255
    same(decoded[20:], rgba[20:, ..., :3] * share + 255 * (1 - share), 1)
    same(decode_image(file_of(rgba), (40, 60), channels=4), rgba)
    indexed = Image.fromarray(picture()).quantize(8)
    decoded = decode_image(file_of(indexed, transparency=3), (40, 60))
    assert (decoded[np.asarray(indexed) == 3] == 255).all()
    opaque = decode_image(file_of(picture()), (40, 60), channels=4)
    assert (opaque[..., 3] == 255).all()


def test_cmyk():
    image = Image.fromarray(picture()).convert('CMYK')
    same(decode_image(file_of(image, 'tiff'), (40, 60)), np.asarray(image.convert('RGB')))
    same(decode_image(file_of(image, 'jpeg', quality=98), (40, 60)), picture(), 8)


@pytest.mark.parametrize('kind', ['gif', 'webp', 'png', 'tiff'])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')]
    options = {'lossless': True} if kind == 'webp' else {}
    raw = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(raw, (8, 8))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'tiff'])
@pytest.mark.parametrize('orientation', [1, 2, 3, 6, 8])
def test_exif_orientation(kind, orientation):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    upright = image.copy()
    upright.info['exif'] = exif.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(upright))
    options = {'lossless': True} if kind == 'webp' else {'quality': 98} if kind == 'jpeg' else {}
    raw = file_of(image, kind, exif=exif, **options)
    same(decode_image(raw, expected.shape[:2]), expected, 12)


def test_exif_of_a_transparent_image_and_damaged_exif():
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    rgba = picture(channels=4)
    turned = decode_image(file_of(rgba, exif=exif), (60, 40))
    same(turned, np.rot90(decode_image(file_of(rgba), (40, 60)), -1))
    raw = file_of(picture(), exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    same(decode_image(raw, (40, 60)), picture())


def test_another_tag_that_is_damaged_does_not_matter():
    """Pillow writes all tags back when it turns an image, which such a tag kept it from."""
    turn = struct.pack('<HHIHH', 0x112, 3, 1, 6, 0)
    unit = struct.pack('<HHI', 0x128, 2, 4) + b'abc\0'  # a text in the place of a number
    exif = b'Exif\0\0II*\0\x08\0\0\0' + struct.pack('<H', 2) + turn + unit + bytes(4)
    same(decode_image(file_of(picture(), exif=exif), (60, 40)), np.rot90(picture(), -1))


@pytest.mark.parametrize(('kind', 'mode'), [('jpeg', 'RGB'), ('jpeg', 'CMYK'), ('png', 'RGB')])
def test_an_orientation_in_xmp(kind, mode):
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {'xmp': packet, 'quality': 98} if kind == 'jpeg' else {'pnginfo': PngInfo()}
    if kind == 'png':
        options['pnginfo'].add_itxt('XML:com.adobe.xmp', packet.decode())
    raw = file_of(Image.fromarray(picture()).convert(mode), kind, **options)
    same(decode_image(raw, (60, 40)), np.rot90(picture(), -1), 12)


def test_a_path_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'a.png').write_bytes(file_of(picture()))
    same(decode_image('~/a.png', (40, 60)), picture())


@pytest.mark.parametrize('options', [{'fit': ['crop']}, {'filter': ['box']}, {'channels': [3]}])
def test_options_that_are_lists(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'^`{name}` must be .* Received: {name}='):
        decode_image(file_of(picture()), (8, 8), **options)


@pytest.mark.parametrize(('scale', 'most'), [(1, 1), (1.3, 1), (1.6, 1), (2.5, 7), (6, 3), (20, 3)])
def test_jpegs_decoded_at_a_scale_are_close_to_the_whole(scale, most):
    array = picture(round(40 * scale), round(60 * scale))
    raw = file_of(array, 'jpeg', quality=95)
    expected = Image.open(io.BytesIO(raw)).resize((60, 40), Image.Resampling.BILINEAR)
    found = decode_image(raw, (40, 60))
    same(found, np.asarray(expected), most)
    assert np.abs(found - np.asarray(expected, int)).mean() < 2
    grey = decode_image(raw, (40, 60), channels=1)
    same(grey[..., 0], np.asarray(expected.convert('L')), most)


def test_jpegs_that_only_pillow_decodes(monkeypatch):
    raw = file_of(picture(), 'jpeg')
    monkeypatch.setattr(images.simplejpeg, 'decode_jpeg', lambda *_, **__: bytes(-1))
    same(decode_image(raw, (40, 60)), np.asarray(Image.open(io.BytesIO(raw))))
    raw = file_of(Image.fromarray(picture()).convert('CMYK'), 'jpeg')
    same(decode_image(raw, (40, 60)), np.asarray(Image.open(io.BytesIO(raw)).convert('RGB')))


# Damage.


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'gif', 'webp', 'bmp', 'tiff'])
def test_truncated_images(kind, tmp_path):
    raw = file_of(picture(), kind)
    path = tmp_path / f'bad.{kind}'
    for length in (0, 1, 20, len(raw) // 2, len(raw) - 40):
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match=rf'bad.{kind}: must be an image') as caught:
            decode_image(path, (8, 8))
        assert '\n' not in str(caught.value)


def test_what_is_no_image(tmp_path):
    for raw in (b'', b'nonsense' * 99, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'):
        with pytest.raises(ValueError, match='x: must be an image that can be read'):
            decode_image(raw, (8, 8), name='x')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        decode_image(tmp_path / 'nowhere', (8, 8))
    with pytest.raises(ValueError, match='must be a regular file'):
        decode_image(tmp_path, (8, 8))


def png_that_claims(width, height):
    def chunk(kind, body):
        tail = struct.pack('>I', zlib.crc32(kind + body))
        return struct.pack('>I', len(body)) + kind + body + tail

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'x'))


def webp_that_claims(width, height):
    sides = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    body = b'WEBPVP8X' + struct.pack('<I', 10) + b'\x02\0\0\0' + sides + b'ANIM' + bytes(99)
    return b'RIFF' + struct.pack('<I', len(body)) + body


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_images_of_enormous_size_are_refused():
    for raw in (
        png_that_claims(40_000, 40_000),
        png_that_claims(9_000, 9_000),
        png_that_claims(12_000, 10_000),
        webp_that_claims(16_383, 16_383),
    ):
        with pytest.raises(ValueError, match=rf'big: must .*{images.MAX_PIXELS}') as caught:
            decode_image(raw, (8, 8), name='big')
        assert '\n' not in str(caught.value)


def test_a_large_photograph_is_decoded_smaller():
    large = Image.new('RGB', (9_000, 8_000), (10, 200, 30))
    same(decode_image(file_of(large, 'jpeg'), (8, 8))[0, 0], np.array([10, 200, 30]), 3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'image_size': (0, 8)}, r'`image_size` must be .*\(0, 8\)'),
        ({'image_size': 8}, r'`image_size` must be .*image_size=8'),
        ({'image_size': (8.0, 8)}, '`image_size` must be'),
        ({'fit': 'squash'}, "`fit` must be one of .*'squash'"),
        ({'filter': 'x'}, "`filter` must be one of .*'x'"),
        ({'channels': 2}, '`channels` must be 1, 3 or 4'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        decode_image(file_of(picture()), **({'image_size': (8, 8)} | options))

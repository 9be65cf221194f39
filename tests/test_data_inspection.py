"""The report about a folder of images: what they are, damage, duplicates across a split."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from test_data_images import file_of, picture

from fenwicks import data


@pytest.fixture(name='images')
def _images(tmp_path):
    array = picture()
    exif = Image.Exif()
    exif[data.images.ORIENTATION] = 6
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')]
    files = {
        'a/0.png': file_of(array),
        'a/1.jpg': file_of(array, 'jpeg', exif=exif),
        'a/2.png': file_of(array, compress_level=1),  # other bytes, the same pixels
        'a/3.png': file_of(picture(9, 9, seed=1)),
        'b/4.png': file_of(array),
        'b/5.gif': file_of(frames[0], 'gif', save_all=True, append_images=frames[1:]),
        'b/6.jpg': file_of(array, 'jpeg')[:300],
        'b/7.png': b'nonsense',
        'b/8.png': file_of(picture(9, 9, 1, seed=1)),
        'b/9.png': file_of(picture(9, 9, 1, seed=1)),
    }
    for name, raw in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    return data.ImageList.from_folders(tmp_path)


def test_the_report(images, capsys):
    report = data.check_images(images)
    assert 'checking: 100%' in capsys.readouterr().err
    assert report.formats == {'PNG': 6, 'JPEG': 1, 'GIF': 1}
    assert report.modes['L'] == 2
    assert report.sizes == {(40, 60): 4, (9, 9): 3, (8, 8): 1}
    assert report.animated == (5,)
    assert report.rotated == (1,)
    assert list(report.damaged) == [6, 7]
    assert '7.png: must be an image that can be read' in report.damaged[7]
    assert report.duplicates == ((0, 2, 4), (8, 9))
    assert report.contradictions == ((0, 2, 4),)
    text = str(report)
    for part in (
        '10 images in',
        'PNG 6',
        '8 to 40 high, 8 to 60 wide',
        'damaged: 2',
        'a/0.png, a/2.png, b/4.png',
        'same pixels as another: 3, of these with another label: 1',
    ):
        assert part in text


def test_the_report_of_names_that_are_no_text(tmp_path):
    for name in (b'\xff1.png', b'\xff2.png'):
        pathlib.Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(
            file_of(picture())
        )
    report = data.check_images(data.ImageList.unlabelled(tmp_path), show_progress=False)
    assert '\\xff1.png, \\xff2.png' in str(report)


def test_tiff_files_are_turned_and_reported_as_stored(tmp_path):
    exif = Image.Exif()
    exif[data.images.ORIENTATION] = 6
    (tmp_path / 'a.tiff').write_bytes(file_of(picture(), 'tiff', exif=exif))
    report = data.check_images(data.ImageList.unlabelled(tmp_path), show_progress=False)
    assert (report.rotated, report.sizes) == ((0,), {(40, 60): 1})


def test_damaged_is_what_cannot_be_decoded(tmp_path, monkeypatch):
    """Large JPEG files were called damaged, floats and integers beyond 16 bits were not."""
    monkeypatch.setattr(data.images, 'MAX_PIXELS', 1000)
    grey = np.full((9, 9), 70_000)
    files = {
        'large.jpg': file_of(picture(), 'jpeg'),
        'large.png': file_of(picture()),
        'half.jpg': file_of(picture(), 'jpeg')[:300],
        'floats.tiff': file_of(grey.astype(np.float32), 'tiff'),
        'integers.tiff': file_of(grey.astype(np.int32), 'tiff'),
        'grey.tiff': file_of((grey // 2).astype(np.uint16), 'tiff'),
        'small.jpg': file_of(picture(9, 9), 'jpeg'),
    }
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    images = data.ImageList.unlabelled(tmp_path)
    report = data.check_images(images, show_progress=False)
    decoded = data.decode_images(
        images, (4, 4), skip_damaged=True, cache_dir=tmp_path / 'cache', show_progress=False
    )
    assert {images.paths[index] for index in report.damaged} == set(decoded.skipped)
    assert set(decoded.names) == {'large.jpg', 'grey.tiff', 'small.jpg'}


def test_duplicates_across_a_split(images):
    report = data.check_images(images, workers=1, show_progress=False)
    assert report.shared([0, 1, 2, 8], [3, 4, 9]) == [(0, 4), (8, 9)]
    assert report.shared([0, 2, 4], [8, 9]) == []
    assert report.shared(np.array([9]), np.array([8])) == [(9, 8)]


def test_images_that_are_all_damaged(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / f'{name}.png').write_bytes(b'x')
    report = data.check_images(data.ImageList.unlabelled(tmp_path), show_progress=False)
    assert len(report.damaged) == 2
    assert report.contradictions == ()
    assert 'sizes: none' in str(report)


def test_missing_files_are_an_error(images):
    images.files[0].unlink()
    with pytest.raises(FileNotFoundError, match=r'0\.png'):
        data.check_images(images, show_progress=False)

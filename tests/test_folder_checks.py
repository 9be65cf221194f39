"""examples/folder.py: what it refuses before the work, and what it warns of."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, call, loaded, refused

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SMALL = ('--device=cpu', '--precision=float32', '--noreport', '--width=0.03', '--epochs=1')
SHAPES = ('circle', 'square', 'triangle')


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'folder.py') as module:
        yield module


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'data'))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shapes(tmp_path):
    """A folder of ten pictures of each of three classes, `circle/circle_0.png` and so on."""
    random = np.random.default_rng(0)
    for name in SHAPES:
        (tmp_path / 'shapes' / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            path = tmp_path / 'shapes' / name / f'{name}_{number}.png'
            Image.fromarray(pixels).save(path)
    return pathlib.Path('shapes')


@pytest.mark.parametrize(
    'out', ['shapes', 'shapes/new', 'shapes/circle/new', 'link/new', 'far/new']
)
@pytest.mark.parametrize('more', [(), ('--runs=2',), ('--folds=2',), ('--pattern=([a-z]+)_',)])
def test_results_among_the_pictures_are_refused(script, shapes, out, more):
    """The run's folder was a class without images: the pictures could not be used again."""
    pathlib.Path('link').symlink_to(shapes)
    shutil.move(shapes / 'circle', 'far')
    (shapes / 'circle').symlink_to(pathlib.Path('far').resolve())
    before = sorted(pathlib.Path().rglob('*'))
    line = refused(script, shapes, *SMALL, *more, f'--out={out}')
    assert line.startswith('`out` must lie outside of the folder of pictures, or they could not be')
    assert line.endswith(f'Received: out={out}, in shapes')
    assert sorted(pathlib.Path().rglob('*')) == before


def test_other_folders_among_the_pictures_are_refused(script, shapes, monkeypatch):
    line = refused(script, shapes, *SMALL, '--cache_dir=shapes/cache', '--out=new')
    assert line.startswith('`cache_dir` must lie outside of the folder of pictures')
    monkeypatch.chdir(shapes)
    line = refused(script, '.', *SMALL)  # the default is a new folder below out/
    assert line.endswith('Received: out=out, in .')
    monkeypatch.setenv('FENWICKS_DATA', 'data')
    line = refused(script, '.', *SMALL, '--out=../new')
    assert line.startswith('`cache_dir` must lie outside of the folder of pictures')
    assert 'set FENWICKS_DATA' in line
    assert sorted(path.name for path in pathlib.Path().iterdir()) == list(SHAPES)


def test_a_group_is_no_label(script, shapes):
    """`group` as the only group was taken for the class."""
    line = refused(script, shapes, r'--pattern=(?P<group>[a-z]+)_\d+\.png$', '--out=new')
    assert line.startswith('`pattern` must have one group, or one named `label`, for the class')
    assert '`group` is for images that stay together' in line


def test_classes_on_one_side_of_the_split_are_told(script, shapes, caplog):
    call(script, shapes, *SMALL, r'--pattern=(?P<group>(?P<label>[a-z]+))_\d', '--out=new')
    (told,) = (each.message for each in caplog.records if 'no images' in each.message)
    assert 'to train on of square; to test on of circle, triangle' in told.replace('no images ', '')


def test_classes_without_test_images_are_told(script, shapes, caplog):
    for name in SHAPES:
        for part in ('train', 'val'):
            (pathlib.Path('divided') / part / name).mkdir(parents=True)
        for number in range(10):
            part = 'val' if number < 2 else 'train'
            shutil.copy(shapes / name / f'{name}_{number}.png', f'divided/{part}/{name}')
    shutil.rmtree('divided/val/square')
    call(script, 'divided', *SMALL, '--out=new')
    told = [each.message for each in caplog.records if 'no images' in each.message]
    assert told == ['divided: no images to test on of square']

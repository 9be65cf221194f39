"""examples/folder.py: what it refuses before the work, and what it warns of."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, call, loaded, refused

from fenwicks.data import example, tfrecord

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
    hidden = ('--cache_dir=shapes/.cache', '--image_size=4')
    assert refused(script, shapes, *SMALL, *hidden).startswith('`image_size` must be at least 8')
    monkeypatch.chdir(shapes)
    line = refused(script, '.', *SMALL)  # the default is a new folder below out/
    assert line.endswith('Received: out=out, in .')
    monkeypatch.setenv('FENWICKS_DATA', 'data')
    line = refused(script, '.', *SMALL, '--out=../new')
    assert line.startswith('`cache_dir` must lie outside of the folder of pictures')
    assert 'set FENWICKS_DATA' in line
    assert sorted(path.name for path in pathlib.Path().iterdir()) == list(SHAPES)


def test_copies_of_one_picture_are_refused(script, shapes):
    one = (shapes / SHAPES[0] / f'{SHAPES[0]}_0.png').read_bytes()
    for path in shapes.glob('*/*.png'):
        path.write_bytes(one)
    line = refused(script, 'shapes', '--out=out', *SMALL)
    assert line.startswith('DIR must hold images that differ')


def test_a_group_is_no_label(script, shapes):
    """`group` as the only group was taken for the class."""
    line = refused(script, shapes, r'--pattern=(?P<group>[a-z]+)_\d+\.png$', '--out=new')
    assert line.startswith('`pattern` must have one group, or one named `label`, for the class')
    assert '`group` is for images that stay together' in line


@pytest.mark.thorough
def test_classes_on_one_side_of_the_split_are_told(script, shapes, caplog):
    call(script, shapes, *SMALL, r'--pattern=(?P<group>(?P<label>[a-z]+))_\d', '--out=new')
    (told,) = (each.message for each in caplog.records if 'no images' in each.message)
    assert 'to train on of square; to test on of circle, triangle' in told.replace('no images ', '')


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_flags_that_a_finished_run_cannot_follow_are_told(script, shapes, capsys):
    pytest.importorskip('safetensors')
    flags = (shapes, *SMALL, '--out=new')
    call(script, *flags)
    new = ('--export=safetensors', '--history_csv', '--validate', '--verbosity=-1')
    capsys.readouterr()
    call(script, *flags, '--resume', *new)
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        'new holds a finished run; these flags ask for what it lacks: model.safetensors '
        '(python -m fenwicks.export new --formats=safetensors writes it), '
        'history.csv (result.json has the metrics of each epoch), '
        'the test accuracy after each epoch (that needs another training)'
    )
    card = (pathlib.Path('new') / 'README.md').read_text()
    assert ' --epochs=1 ' in card
    assert '| epochs | 1 |' in card


def test_a_second_training_in_folds_names_what_was_passed(script, shapes):
    for fold in '12':
        (pathlib.Path('f1') / fold).mkdir(parents=True)
        (pathlib.Path('f1') / fold / 'result.json').write_text('{}')
    line = refused(script, shapes, *SMALL, '--folds=3', '--out=f1')
    assert line.endswith('Received: out=f1, which holds f1/1')


@pytest.mark.thorough
def test_a_full_disk_at_the_end_keeps_the_checkpoint_and_says_so(script, shapes, monkeypatch):
    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    flags = (shapes, *SMALL, '--out=new')
    with monkeypatch.context() as patch:
        patch.setattr('keras.Model.save', full)
        line = refused(script, *flags)
    assert line == (
        'the disk must take the whole of new/model.keras. Received: No space left on device; '
        'the checkpoint is kept, the same flags with --resume --out=new go on from it'
    )
    assert (pathlib.Path('new') / 'checkpoint.npz').exists()
    call(script, *flags, '--resume')


def test_a_folder_whose_name_begins_with_a_dash(script):
    line = refused(script, '-dash')
    assert line == "Unknown command line flag 'dash': write ./-dash where a folder is meant"


@pytest.mark.thorough
def test_warnings_have_no_prefix(shapes):
    """absl wrote the time, the process and the line of the code before them."""
    (shapes / 'loose.png').write_bytes(b'')
    command = [sys.executable, ROOT / 'examples' / 'folder.py', shapes, '--image_size=0']
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert told.splitlines()[0].startswith('shapes: 1 image outside of the classes is left out')


def test_a_cache_that_cannot_be_written_names_the_flag(script, shapes, monkeypatch):
    pathlib.Path('file').touch()
    monkeypatch.setenv('FENWICKS_DATA', 'file')
    line = refused(script, shapes, *SMALL)
    assert line.startswith('`--cache_dir` must be a folder that can be written to. Received: file/')
    assert line.endswith('(Not a directory): pass `--cache_dir`, or set FENWICKS_DATA')


def test_images_beyond_the_memory_name_the_flag(script, shapes, monkeypatch):
    monkeypatch.setattr(script, 'MEMORY', 2e4)
    line = refused(script, shapes, *SMALL, '--image_size=16')
    assert line == (
        '`image_size` must be small enough for the images to take at most 2e-05 GB of memory. '
        'Received: image_size=16, for 30 images'
    )
    assert not pathlib.Path('data').exists()  # nothing was decoded for nothing


@pytest.mark.parametrize(
    ('flag', 'rule'),
    [
        ('folds=1', 'at least 2'),
        ('folds=0', 'at least 2'),
        ('test_fraction=20.0', 'a number in (0, 1)'),
        ('test_fraction=0.0', 'a number in (0, 1)'),
        ('split_seed=-1', 'at least 0'),
    ],
)
def test_numbers_that_divide_no_images_are_refused_before_decoding(script, shapes, flag, rule):
    line = refused(script, shapes, *SMALL, f'--{flag}')
    assert line == f'`{flag.partition("=")[0]}` must be {rule}. Received: {flag}'
    assert not pathlib.Path('data').exists()


@pytest.fixture
def evaluated(caplog):
    """A function from a run and a folder to what evaluating the run on the folder warns of."""
    with loaded(ROOT / 'examples' / 'evaluate.py') as evaluate:

        def warnings(run, folder):
            caplog.clear()
            evaluate.main([run, str(folder)])
            return [each.message for each in caplog.records if each.name == 'fenwicks']

        yield warnings


@pytest.mark.thorough
def test_evaluating_on_the_training_images_is_told(script, shapes, evaluated, capsys):
    call(script, shapes, *SMALL, '--out=new')
    told = (
        'training images of the run, in {}, are among these: the accuracy on new pictures is lower'
    )
    shutil.copytree(shapes, 'others')
    assert evaluated('new', 'others') == []
    assert evaluated('new', shapes) == [told.format(shapes.resolve())]
    assert 'on 30 images' in capsys.readouterr().out
    pathlib.Path('link').symlink_to(shapes)
    assert evaluated('new', 'link') == [told.format(shapes.resolve())]
    pathlib.Path('some').mkdir()
    (pathlib.Path('some') / 'circle').symlink_to(pathlib.Path('shapes/circle').resolve())
    shutil.copytree('others/square', 'some/square')
    assert evaluated('new', 'some') == [told.format(shapes.resolve() / 'circle')]


@pytest.mark.thorough
def test_evaluating_on_images_of_a_csv_file_is_told(script, shapes, evaluated):
    """Folders around the listed ones count for nothing, wherever these lie."""
    pathlib.Path('far').mkdir()
    shutil.move(shapes / 'circle', 'far/circle')
    shutil.copytree(shapes / 'square', 'new/square')
    paths = [
        path.resolve()
        for folder in ('far', 'shapes')
        for path in sorted(pathlib.Path(folder).rglob('*.png'))
    ]
    rows = ''.join(f'{path},{path.parent.name}\n' for path in paths)
    pathlib.Path('labels.csv').write_text(f'file,kind\n{rows}')
    call(script, *SMALL, '--csv=labels.csv', '--out=run')
    assert evaluated('run', 'new') == []
    (told,) = evaluated('run', 'far')
    assert f'in {pathlib.Path("far/circle").resolve()}, are among these' in told


@pytest.mark.thorough
def test_the_test_images_of_a_divided_folder_are_new(script, shapes, evaluated):
    for part in ('train', 'val'):
        shutil.copytree(shapes, f'divided/{part}')
    for path in pathlib.Path('divided/val').glob('*/*_[2-9].png'):
        path.unlink()
    call(script, 'divided', *SMALL, '--out=new')
    assert evaluated('new', 'divided/val') == []
    (told,) = evaluated('new', 'divided/train')
    assert told.startswith('training images of the run, in')


def test_tfrecords_of_other_features_say_which_they_have(script, shapes):
    """`skip_damaged` was advised, which left out all of them."""
    record = example.encode_example({'img': [b'x'], 'label': [1]})
    tfrecord.write_records(pathlib.Path('keys.tfrecord'), [record, record])
    line = refused(script, '--tfrecord=keys.tfrecord', *SMALL)
    assert line == (
        "keys.tfrecord: record 0: must have a feature 'image', the bytes of an image. "
        "Received: 'img', 'label'"
    )
    line = refused(script, '--tfrecord=keys.tfrecord', *SMALL, '--skip_damaged')
    assert line.startswith(
        'keys.tfrecord: must hold at least one image. Received: none (keys.tfrec'
    )
    pathlib.Path('text.tfrecord').write_text('no record at all')
    line = refused(script, '--tfrecord=text.tfrecord', *SMALL)
    assert '`--skip_damaged` leaves such records out' in line
    tfrecord.write_records(pathlib.Path('odd.tfrecord'), [b'no example'])
    line = refused(script, '--tfrecord=odd.tfrecord', *SMALL)
    assert line.startswith("odd.tfrecord: record 0: must be an example with 'image'")

"""examples/folder.py: from a folder of pictures to a model, and what it says to bad input."""

import dataclasses
import json
import pathlib
import shutil
import weakref

import keras
import numpy as np
import pytest
from folder_pictures import COLOURS, make
from PIL import Image
from scripts import ROOT, call, loaded, refused
from test_pretrained import tiny

from fenwicks import assemble, data
from fenwicks.data import decoded
from fenwicks.training import checkpoint

pytestmark = pytest.mark.backend('tensorflow', 'jax')

FAST = ('--device=cpu', '--precision=float32', '--noreport')
SMALL = (*FAST, '--width=0.03', '--epochs=1')


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'folder.py') as module:
        yield module


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return make(tmp_path_factory.mktemp('own pictures') / 'phötos')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'data'))


def read(folder):
    return json.loads((folder / 'result.json').read_text())


@pytest.mark.thorough
def test_a_folder_is_trained_evaluated_and_predicted(script, photos, tmp_path, capsys):
    out = tmp_path / 'out'
    flags = ('--device=cpu', '--precision=float32', '--width=0.06', '--epochs=4')
    call(script, photos, *flags, f'--out={out}')
    said = capsys.readouterr().out
    counts = ', '.join(f'{name} 12' for name in sorted(COLOURS))
    assert said.splitlines()[0] == (
        f'phötos: 48 images of 4 classes ({counts}); 40 to train on, 8 to test on'
    )
    assert 'resnet9 on images of 32 x 32' in said.splitlines()[1]
    assert f'python examples/predict.py {out} FILE' in said.splitlines()[-1]
    names = {path.name for path in out.iterdir()}
    assert {'model.keras', 'report.html', 'result.json'} <= names
    result = read(out)
    assert result['test_accuracy'] > 0.5  # of four colours
    assert (result['train_images'], result['test_images']) == (40, 8)
    assert result['class_names'] == sorted(COLOURS)
    assert result['command'].startswith(f"python examples/folder.py '{photos}' --")
    with loaded(ROOT / 'examples' / 'predict.py') as predict:
        predict.main([str(out), *map(str, sorted(photos.glob('blue/*')))])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(name in line for line in lines for name in ('%', '/blue/'))
    # A second time: refused without --resume, and finished with it.
    assert refused(script, photos, *flags, f'--out={out}').startswith('`out` must not hold a run')
    call(script, photos, *flags, f'--out={out}', '--resume')
    assert 'holds a finished run' in capsys.readouterr().out


@pytest.mark.thorough
def test_other_ways_to_say_the_classes_train_the_same(script, photos, tmp_path):
    def weights(name, *arguments):
        call(script, *arguments, *SMALL, '--batch_size=16', f'--out={tmp_path / name}')
        return keras.saving.load_model(tmp_path / name / 'model.keras').get_weights()

    expected = weights('folders', photos)
    rows = [f'"{path.relative_to(photos)}","{path.parent.name}"' for path in photos.glob('*/*.*')]
    (tmp_path / 'labels.csv').write_text('\n'.join(['file,kind', *sorted(rows)]))
    of_csv = weights('csv', photos, f'--csv={tmp_path}/labels.csv', '--label_column=kind')
    of_pattern = weights('pattern', photos, r'--pattern=^([^/]+)/')
    images = data.ImageList.from_folders(photos)
    data.write_shards(images, tmp_path / 'shards', shards=1, show_progress=False)
    of_shards = weights('shards', f'--tfrecord={tmp_path}/shards/images-*')
    for others in (of_csv, of_pattern, of_shards):
        for mine, theirs in zip(others, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.thorough
def test_a_finished_run_of_other_data_is_refused(script, photos, tmp_path, capsys):
    """Its result was given out as that of the new data."""
    folder, out = tmp_path / 'some', tmp_path / 'out'
    shutil.copytree(photos, folder)
    flags = (folder, *SMALL, f'--out={out}', '--resume')
    call(script, *flags[:-1])
    (folder / 'blue').rename(folder / 'azure')  # the same images and labels, but another name
    line = refused(script, *flags)
    assert line.startswith(f'`resume` must go on with the data of the finished run in {out}, ')
    (folder / 'azure').rename(folder / 'blue')
    (folder / 'blue' / '0 .jpg').rename(tmp_path / 'kept')
    shutil.copy(folder / 'grey' / '0 .jpg', folder / 'blue' / '0 .jpg')
    assert 'images or labels have changed since' in refused(script, *flags)
    result = read(out)
    del result['data_digest']  # as of a run of an earlier version
    (out / 'result.json').write_text(json.dumps(result))
    call(script, *flags)
    assert 'holds a finished run' in capsys.readouterr().out


@pytest.mark.thorough
def test_folds_test_on_every_image_once(script, photos, tmp_path, capsys, monkeypatch):
    copies, in_memory, dataset = [], [], data.ImageArrays.dataset

    def counted(*arguments):
        made = dataset(*arguments)
        copies.append(weakref.ref(made))
        in_memory.append(sum(copy() is not None for copy in copies))
        return made

    monkeypatch.setattr(data.ImageArrays, 'dataset', counted)
    call(script, photos, *SMALL, '--folds=4', f'--out={tmp_path}/out')
    assert 'over 4 folds on phötos' in capsys.readouterr().out
    results = [read(tmp_path / 'out' / fold) for fold in '0123']
    assert [result['test_images'] for result in results] == [12] * 4
    assert [result['seed'] for result in results] == [0] * 4
    assert results[0]['settings']['split'] == [0, 0, 4]
    assert in_memory == [1, 2, 2, 2]


@pytest.mark.thorough
def test_a_folder_with_its_own_test_images(script, photos, tmp_path, capsys):
    for part in ('train', 'val'):
        shutil.copytree(photos, tmp_path / 'divided' / part)
    for path in (tmp_path / 'divided' / 'val').glob('*/[2-9]*'):
        path.unlink()
    call(script, tmp_path / 'divided', *SMALL, f'--out={tmp_path}/out')
    result = read(tmp_path / 'out')
    assert (result['train_images'], result['test_images']) == (48, 16)
    assert 'one of them' not in capsys.readouterr().out
    for flag in ('--folds=2', '--test_fraction=0.1', '--split_seed=1'):
        name = flag[2:].partition('=')[0]
        assert f'`{name}` must not be given' in refused(script, tmp_path / 'divided', flag)
    for part in ('train', 'val'):
        (tmp_path / 'divided' / part / 'blue' / '0 .jpg').write_bytes(b'damaged')
    assert '`--skip_damaged`' in refused(script, tmp_path / 'divided', *SMALL)
    call(script, tmp_path / 'divided', *SMALL, '--skip_damaged', f'--out={tmp_path}/less')
    result = read(tmp_path / 'less')
    assert (result['train_images'], result['test_images']) == (47, 15)
    (tmp_path / 'divided' / 'val' / 'blue').rename(tmp_path / 'divided' / 'val' / 'blau')
    assert 'must have the classes of' in refused(script, tmp_path / 'divided')


@pytest.mark.thorough
def test_all_three_parts(script, photos, tmp_path, caplog):
    """They were taken for three classes."""
    parts = tmp_path / 'parts'
    for part in ('Train', 'val', 'test', '.ipynb_checkpoints', '__MACOSX'):
        shutil.copytree(photos, parts / part)
    for path in (parts / 'test').glob('*/[2-9]*'):
        path.unlink()
    call(script, parts, *SMALL, f'--out={tmp_path}/out')
    result = read(tmp_path / 'out')
    assert (result['train_images'], result['test_images']) == (48, 16)
    assert result['class_names'] == sorted(COLOURS)
    assert 'left out: val' in caplog.text
    assert 'the training set has 16 test images, too: test/' in caplog.text
    (parts / 'other').mkdir()
    assert 'to train and to test on and no others' in refused(script, parts)
    for name in ('Train', 'other'):
        shutil.rmtree(parts / name)
    assert 'to train and to test on and no others' in refused(script, parts)


@pytest.mark.parametrize(
    ('name', 'flags'),
    [('README.md', ()), ('README.md', ('--resume',)), ('report.html', ('--runs=2',))],
)
def test_a_file_of_the_users_own_is_not_replaced(script, photos, tmp_path, name, flags):
    (tmp_path / name).write_text('mine')
    line = refused(script, photos, *SMALL, *flags, f'--out={tmp_path}')
    assert f'`out` must be a folder without {name}' in line
    assert (tmp_path / name).read_text() == 'mine'


def test_copies_and_groups_together(script):
    groups = np.array(['a', 'b', 'b', 'c', 'd', 'e'])
    same = np.array([0, 1, 2, 2, 3, 0])  # b and c share pixels, and a and e
    joined = script.joined(groups, same)
    assert len(set(joined)) == 3
    assert joined[1] == joined[2] == joined[3]
    assert joined[0] == joined[5]
    assert script.joined(None, None) is None
    assert script.joined(groups, None) is groups


def test_copies_stay_on_one_side(script, tmp_path):
    images = np.repeat(np.arange(20, dtype=np.uint8), 2)[:, None, None, None] + np.zeros(
        (40, 2, 2, 3), np.uint8
    )
    numbers = script.copies(images)
    labels = np.repeat(np.arange(20) % 2, 2)
    train, test = data.train_validation_split(40, 0.3, labels=labels, groups=numbers)
    assert not {*train // 2} & {*test // 2}
    assert script.copies(images[::2]) is None


@pytest.fixture
def large(tmp_path):
    return make(tmp_path / 'large', count=4, sides=(96, 120))


@pytest.mark.thorough
def test_large_images_train_a_pretrained_network(script, large, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keras.applications, 'EfficientNetV2B0', tiny)
    tiny(include_top=False).save_weights(tmp_path / 'tiny.weights.h5')
    out = tmp_path / 'out'
    flags = (*FAST, '--epochs=2', '--image_size=16', '--stages=1', f'--out={out}')
    call(script, large, *flags, f'--weights={tmp_path}/tiny.weights.h5')
    assert 'EfficientNetV2B0 with the weights' in capsys.readouterr().out
    result = read(out)
    assert result['recipe'] == 'EfficientNetV2B0'
    assert result['settings']['pretrained'] == {
        'name': 'EfficientNetV2B0',
        'weights': 'tiny.weights.h5',
        'stages': 1,
        'stage_factor': 0.5,
    }
    model = keras.saving.load_model(out / 'model.keras')
    assert model.input_shape == (None, 16, 16, 3)
    assert model.get_layer('class_names').class_names == tuple(sorted(COLOURS))
    with loaded(ROOT / 'examples' / 'predict.py') as predict:
        predict.main([str(out), str(next(large.glob('blue/*')))])
    assert '%' in capsys.readouterr().out
    # The frozen stages are those of the file.
    inner = tiny(include_top=False)
    inner.load_weights(tmp_path / 'tiny.weights.h5')
    kernels = [w for w in model.weights if w.path.endswith('conv1/kernel')]
    np.testing.assert_array_equal(kernels[0], inner.get_layer('conv1').kernel)


def test_pixels_are_augmented_by_the_statistics_of_the_training_images(script, monkeypatch):
    """Of a pretrained network, and on the page; this transform clips to 0...255, and no more."""
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    dataset = data.Dataset('made', images, np.arange(8) % 2, images, np.arange(8) % 2, 'ab', '')
    changes = {'batch_size': 4, 'flip': 'none', 'augmentations': ('random_lighting(amount=0)',)}
    recipe = dataclasses.replace(script.fine_tuning.RECIPE, **changes)
    (shown,) = script.training_runs.pages.augmented(recipe, dataset, images, epochs=1)
    np.testing.assert_array_equal(shown, images)
    monkeypatch.setattr(keras.applications, 'EfficientNetV2B0', tiny)
    given = []
    monkeypatch.setattr(assemble, 'augmentations', lambda _, *each: given.extend(each) or [])
    script.fine_tuning.PretrainedNetwork('EfficientNetV2B0', None).build_trainer(recipe, dataset)
    np.testing.assert_array_equal(given, data.mean_std(images))


def test_pretrained_networks_take_no_recipe_and_say_what_is_wrong(
    script, large, tmp_path, monkeypatch
):
    monkeypatch.setattr(keras.applications, 'EfficientNetV2B0', tiny)
    monkeypatch.setattr(data, 'decode_images', None)  # nothing is decoded for nothing
    monkeypatch.chdir(tmp_path)
    out = ('--image_size=16', f'--out={tmp_path}/out')
    line = refused(script, large, *out)
    assert line.startswith("`weights` can't be downloaded (URL fetch failure")
    assert line.endswith('--pretrained=none trains a ResNet-9 instead')
    assert not (tmp_path / 'out').exists()
    pretrained = '--pretrained=EfficientNetV2B0'
    line = refused(script, large, *out, pretrained, '--recipe=page10')
    assert line.startswith('`recipe` must not be given with `pretrained`')
    line = refused(script, large, *out, pretrained, '--set=activation=celu')
    assert line.startswith('`set` must leave `activation` alone')
    for setting in ('rate_in_velocity=true', 'norm_momentum=0.5', 'widths=8,8,8'):
        line = refused(script, large, *out, pretrained, f'--set={setting}')
        assert line.startswith(f'`set` must leave `{setting.partition("=")[0]}` alone')
    line = refused(script, large, '--pretrained=resnet51')
    assert line.startswith('`pretrained` must be one of ConvNeXtBase, ')
    line = refused(script, large, *out, pretrained, '--weights=nowhere.h5')
    assert line.startswith("`weights` must be 'imagenet', None or an existing file.")
    line = refused(script, large, *out, pretrained, '--weights=none', '--stages=9')
    assert line.startswith('`stages` must be at most the 3')
    assert not (tmp_path / 'out').exists()


def text(path, content='no picture'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def damaged_jpeg(folder):
    path = folder / 'blue' / 'half.jpg'
    Image.new('RGB', (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:400])


def bomb(folder):
    """A PNG that states 40,000 x 40,000 pixels."""
    path = folder / 'blue' / 'bomb.png'
    Image.new('L', (1, 1)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = (40_000).to_bytes(4, 'big') * 2
    import zlib

    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, 'big')
    path.write_bytes(raw)


def one_class(folder):
    for path in list(folder.iterdir())[1:]:
        shutil.rmtree(path)


def few_of_a_class(folder):
    for path in list((folder / 'blue').iterdir())[1:]:
        path.unlink()


def all_damaged(folder):
    for path in folder.glob('*/*'):
        path.write_bytes(b'nonsense')


def only_train(folder):
    parts = list(folder.iterdir())
    (folder / 'train').mkdir()
    for part in parts:
        part.rename(folder / 'train' / part.name)


def side_by_side(folder):
    for path in list(folder.glob('*/*')):
        path.rename(folder / f'{path.parent.name} {path.name}')
    for path in list(folder.iterdir()):
        if path.is_dir():
            path.rmdir()


BAD_FOLDERS = {
    'half a JPEG': (damaged_jpeg, (), '`--skip_damaged` leaves such images out'),
    'nothing but damage': (all_damaged, (), 'must be an image'),
    'nothing but damage left out': (all_damaged, ('--skip_damaged',), 'at least one image'),
    'pictures side by side': (side_by_side, (), 'or use --csv or --pattern'),
    'a text': (lambda folder: text(folder / 'blue' / 'x.png'), (), 'x.png: must be an image'),
    'a bomb': (bomb, (), 'bomb.png'),
    'an empty class': (lambda folder: (folder / 'none').mkdir(), (), "no image in 'none'"),
    'one class': (one_class, (), 'must hold a folder of images for each class, at least 2'),
    'one of a class': (few_of_a_class, (), 'class 0'),
    'more folds than images': (
        few_of_a_class,
        ('--folds=2',),
        "`folds` must be at most 1, the number of images of class 0 ('blue')",
    ),
    'a pattern that misses': (None, ('--pattern=^(b[^/]+)/',), '`pattern` must match the path of'),
    'groups of no CSV file': (None, ('--group_column=patient',), '`group_column` needs `csv`'),
    'weights of nothing': (None, ('--weights=no.h5',), '`weights` needs `pretrained`'),
    'a share of folds': (
        None,
        ('--folds=2', '--test_fraction=0.5'),
        '`test_fraction` must not be given with `folds`',
    ),
    'a place of no data set': (None, ('--data_dir=x',), '`data_dir` needs `dataset`'),
    'images of no pixels': (None, ('--image_size=0',), '`image_size` must be at least 8 for'),
    'images of minus one': (None, ('--image_size=-1',), '`image_size` must be at least 8 for'),
    'images that shrink for the test': (
        None,
        ('--recipe=speed94', '--image_size=28'),
        '`image_sizes` must be at most the sides of the images, which must be square',
    ),
    'tiny images': (None, ('--image_size=4',), '`image_size` must be at least 8 for resnet9'),
    'a cache in a file': (
        lambda folder: text(folder / '.notes'),
        ('--cache_dir=bad/.notes',),
        '`cache_dir` must be a folder that can be written to. Received: bad/.notes',
    ),
    'one group': (
        None,
        ('--pattern=^(?P<label>[^/]+)/(?P<group>)',),
        '`pattern` must hold two different groups or more. Received: one',
    ),
    'training images alone': (
        lambda folder: only_train(folder),
        (),
        'as DIR, of which some images are then for the test. Received: train alone',
    ),
    'a wrong pattern': (None, ('--pattern=(',), '`pattern` must be a regular expression'),
}


@pytest.mark.parametrize('case', BAD_FOLDERS)
def test_bad_folders_are_one_line_and_nothing_is_written(
    script, photos, tmp_path, monkeypatch, case
):
    monkeypatch.chdir(tmp_path)
    spoil, flags, line = BAD_FOLDERS[case]
    folder = tmp_path / 'bad'
    shutil.copytree(photos, folder)
    if spoil:
        spoil(folder)
    assert line in refused(script, folder, *SMALL, *flags, '--out=out')
    assert {path.name for path in tmp_path.iterdir()} <= {'bad', 'data'}
    # Images that were decoded before the fault was found are kept whole, for the next start.
    kept = {path.suffix for path in tmp_path.glob('data/**/*') if path.is_file()}
    assert kept <= (
        {'.images'}
        if case.endswith(('of a class', 'than images', 'left out', 'one group'))
        else set()
    )


def odd_pictures(folder):
    """16-bit grey, an animation, and a picture that EXIF turns."""
    red, blue = (Image.new('RGB', (30, 20), COLOURS[name]) for name in ('red fox', 'blue'))
    Image.fromarray(np.full((20, 30), 128 * 257, np.uint16)).save(folder / 'grey' / '16 bits.png')
    red.save(folder / 'red fox' / 'moving.gif', save_all=True, append_images=[blue])
    exif = Image.Exif()
    exif[0x0112] = 6
    blue.save(folder / 'blue' / 'gedréht.jpg', exif=exif)
    return [
        folder / name for name in ('grey/16 bits.png', 'red fox/moving.gif', 'blue/gedréht.jpg')
    ]


@pytest.mark.thorough
def test_odd_pictures_are_taken_and_damaged_ones_left_out_by_choice(
    script, photos, tmp_path, capsys, caplog
):
    folder, out = tmp_path / 'some', tmp_path / 'out'
    shutil.copytree(photos, folder)
    odd = odd_pictures(folder)
    damaged_jpeg(folder)
    bomb(folder)
    (folder / 'blue' / 'loop').symlink_to(folder)
    call(script, folder, *SMALL, '--skip_damaged', f'--out={out}')
    assert '51 images of 4 classes' in capsys.readouterr().out
    assert 'loop links to a folder around it' in caplog.text
    result = read(out)
    assert result['train_images'] + result['test_images'] == 51
    with loaded(ROOT / 'examples' / 'predict.py') as predict:
        predict.main([str(out), *map(str, odd)])
        assert len(capsys.readouterr().out.splitlines()) == 3
        with pytest.raises(SystemExit):
            predict.main([str(out), str(folder / 'blue' / 'bomb.png')])
    line = capsys.readouterr().err
    assert line.startswith(f'predict.py: {folder}/blue/bomb.png: ')
    assert 'pixels' in line


@pytest.mark.thorough
def test_interrupted_in_a_fold_it_goes_on_and_ends_with_the_same_numbers(
    script, photos, tmp_path, monkeypatch, capsys
):
    flags = (photos, *FAST, '--width=0.03', '--epochs=2', '--folds=2')
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    call(script, *flags, f'--out={whole}')
    save = checkpoint.save

    def save_and_interrupt(path, *state):
        save(path, *state)
        if pathlib.Path(path).parent.name == '1':
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, 'save', save_and_interrupt)
        with pytest.raises(SystemExit):
            call(script, *flags, f'--out={cut}')
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f'folder.py: interrupted: the same flags with --resume --out={cut} go on'
    assert sorted(path.name for path in cut.glob('*/*.*') if path.suffix != '.npz') == [
        'README.md',
        'model.keras',
        'result.json',
    ]
    line = refused(script, *flags, f'--out={cut}', '--resume', '--split_seed=1')
    assert line.startswith('`resume` must go on with the settings')
    call(script, *flags, f'--out={cut}', '--resume')
    assert f'{cut}/0 holds a finished run' in capsys.readouterr().out
    for fold in '01':
        weights = [
            keras.saving.load_model(f / fold / 'model.keras').get_weights() for f in (whole, cut)
        ]
        for mine, theirs in zip(*weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    # The images had been decoded: nothing is decoded again.
    assert len([*tmp_path.glob('data/images/*')]) == 1


def test_an_interrupt_while_images_are_decoded_leaves_nothing(
    script, photos, tmp_path, monkeypatch, capsys
):
    decode = decoded.decode_image

    def decode_and_interrupt(path, *options):
        if path.name.startswith('5'):
            raise KeyboardInterrupt
        return decode(path, *options)

    monkeypatch.setattr(decoded, 'decode_image', decode_and_interrupt)
    with pytest.raises(SystemExit):
        call(script, photos, *SMALL, f'--out={tmp_path}/out')
    assert capsys.readouterr().err.splitlines()[-1] == 'folder.py: interrupted: start it again'
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


@pytest.mark.parametrize(
    ('rows', 'line'),
    [
        (['a.png,x'], "names 'a.png', which is no file in "),
        (['blue/0 .jpg,x', 'blue/0 .jpg,y'], 'in lines 2 and 3'),
        (['blue/0 .jpg,x', 'blue/1 .png,'], 'line 3 has no value in column'),
        (['blue/0 .jpg,x', 'blue/1 .png,x'], 'must have at least two classes'),
    ],
)
def test_bad_csv_files(script, photos, tmp_path, rows, line):
    text(tmp_path / 'labels.csv', '\n'.join(['file,kind', *rows]))
    assert line in refused(script, photos, f'--csv={tmp_path}/labels.csv')


@pytest.mark.thorough
def test_bad_tfrecords(script, photos, tmp_path):
    images = data.ImageList.from_folders(photos)
    (path,) = data.write_shards(images, tmp_path / 'shards', shards=1, show_progress=False)
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 1
    path.write_bytes(raw)
    line = refused(script, f'--tfrecord={path}', *SMALL)
    assert f'{path}: record 47' in line
    assert 'checksum' in line
    call(script, f'--tfrecord={path}', *SMALL, '--skip_damaged', f'--out={tmp_path}/out')
    assert read(tmp_path / 'out')['train_images'] + read(tmp_path / 'out')['test_images'] == 47
    line = refused(script, f'--tfrecord={tmp_path}/none-*')
    assert line.startswith('`tfrecord` must match files')


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        ([], 'DIR must be a folder of images, or use --csv, --tfrecord or --dataset'),
        (['nowhere'], '`DIR` must be a folder. Received: DIR='),
        (['a', 'b'], 'there are no arguments besides flags and FOLDER. Received: b'),
        (['a', '--tfrecord=b'], 'DIR must not be given with `tfrecord`'),
        (['--csv=a', '--tfrecord=b'], '`csv` must not be given with `tfrecord`'),
        (['--dataset=tfds:x', '--skip_damaged'], '`skip_damaged` must not be given with `dataset`'),
        (['--csv=nowhere.csv'], 'nowhere.csv: no such file'),
        (['a', '--csv='], "`csv` must not be empty. Received: csv=''"),
        (['a', '--out='], "`out` must not be empty. Received: out=''"),
    ],
)
def test_bad_arguments(script, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert refused(script, *arguments).startswith(line)

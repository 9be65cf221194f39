"""examples/predict.py: what it says of pictures of every kind, and of files that are none."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, loaded

from fenwicks import evaluate, export, layers

pytestmark = pytest.mark.backend('tensorflow', 'jax')

NAMES = ['red', 'green', 'blue']


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'predict.py') as module:
        yield module


def colour_model(class_names=(), side=8):
    """A model whose logits are the means of the channels, from 0 to 5."""
    images = keras.Input((side, side, 3))
    logits = keras.layers.Rescaling(5 / 255)(keras.layers.GlobalAveragePooling2D()(images))
    if class_names:
        logits = layers.ClassNames(class_names)(logits)
    return keras.Model(images, logits)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """The file of a model that tells colours apart, with the names of its classes."""
    path = tmp_path_factory.mktemp('model') / 'model.keras'
    colour_model(NAMES).save(path)
    return path


@pytest.fixture
def red(tmp_path):
    return picture(tmp_path / 'red.png', (255, 51, 0))


def picture(path, colour=(255, 51, 0), size=(8, 8), mode='RGB'):
    Image.new('RGB', size, colour).convert(mode).save(path)
    return path


def predict(script, capsys, *arguments):
    """Exit status, lines on standard output, lines on standard error."""
    status = 0
    try:
        script.main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


def refused(script, *arguments):
    """The one line with which the script refuses its arguments."""
    with pytest.raises(SystemExit) as raised:
        script.main([str(argument) for argument in arguments])
    line = raised.value.code
    assert line.startswith('predict.py: ')
    assert '\n' not in line
    return line.removeprefix('predict.py: ')


def test_pictures_fit_as_in_the_training(script, capsys, tmp_path):
    colour_model(NAMES).save(tmp_path / 'model.keras')
    wide = Image.new('RGB', (24, 8), (0, 0, 255))
    wide.paste((255, 0, 0), (8, 0, 16, 8))
    wide.save(tmp_path / 'wide.png')

    def likeliest(*flags):
        status, (line,), _ = predict(script, capsys, tmp_path, tmp_path / 'wide.png', *flags)
        assert status == 0
        return line.split(': ')[1].split()[0]

    assert likeliest() == 'red'
    (tmp_path / 'result.json').write_text('{"settings": {"fit": "stretch"}}')
    assert likeliest() == 'blue'
    assert likeliest('--fit=crop') == 'red'


@pytest.mark.parametrize('settings', [{}, {'fit': 'pad'}, {'fit': 'stretch'}])
def test_the_code_of_the_card_says_the_same(script, capsys, tmp_path, monkeypatch, settings):
    """It turned no picture that EXIF turns, and stretched all."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(0, 0.002))
    keras.Model(images, dense(keras.layers.Flatten()(images))).save(tmp_path / 'model.keras')
    (tmp_path / 'result.json').write_text(json.dumps({'settings': settings}))
    noise = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / 'photo.png', exif=exif)
    card = export.model_card(
        {'recipe': 'mine', 'dataset': 'own', 'test_accuracy': 0.5, 'settings': settings}
    )
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(card.partition('```python\n')[2].partition('```')[0], found)
    capsys.readouterr()
    _, (line,), _ = predict(script, capsys, tmp_path, tmp_path / 'photo.png', '--json')
    said = {each['class']: each['probability'] for each in json.loads(line)['predictions']}
    shares = keras.ops.convert_to_numpy(found['probabilities'])[0]
    np.testing.assert_allclose([said[f'class {n}'] for n in range(3)], shares, rtol=1e-5)
    assert np.ptp(shares) > 0.1


def test_the_contact_sheet_shows_what_the_model_saw(script, model, capsys, tmp_path, monkeypatch):
    plots = pytest.importorskip('fenwicks.plots')
    wide = picture(tmp_path / 'wide.png', size=(24, 8))
    shown = []
    monkeypatch.setattr(plots, 'images', lambda pictures, _: shown.append(pictures))
    monkeypatch.setattr(plots, 'save', lambda *_: None)
    flags = (f'--picture={tmp_path}/sheet.png', '--fit=pad')
    assert predict(script, capsys, model, wide, *flags)[0] == 0
    ((sheet,),) = shown
    assert not sheet[:30].any()
    assert sheet[48].any()


def test_names_the_likeliest_classes_with_their_probabilities(script, capsys, model, red):
    shares = np.exp([5.0, 1.0, 0.0]) / np.exp([5.0, 1.0, 0.0]).sum()
    expected = ', '.join(
        f'{name} {100 * share:.1f} %' for name, share in zip(NAMES, shares, strict=True)
    )
    assert predict(script, capsys, model, red) == (0, [f'{red}: {expected}'], [])
    _, (line,), _ = predict(script, capsys, model, red, '--top=1')
    assert line == f'{red}: red 97.6 %'


@pytest.mark.parametrize(
    ('suffix', 'mode', 'size'),
    [
        ('png', 'RGB', (1, 1)),
        ('png', 'P', (200, 3)),
        ('png', 'RGBA', (7, 90)),
        ('jpg', 'RGB', (640, 480)),
        ('jpg', 'CMYK', (64, 64)),
        ('gif', 'P', (33, 5)),
        ('webp', 'RGB', (40, 41)),
        ('bmp', 'RGB', (9, 8)),
        ('tiff', 'RGB', (100, 10)),
    ],
)
def test_takes_pictures_of_any_size_and_mode(script, capsys, model, tmp_path, suffix, mode, size):
    path = picture(tmp_path / f'picture.{suffix}', size=size, mode=mode)
    status, (line,), errors = predict(script, capsys, model, path)
    assert status == 0
    assert not errors
    assert line.startswith(f'{path}: red 9')


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'I;16'])
def test_takes_grey_pictures(script, capsys, model, tmp_path, mode):
    path = tmp_path / 'grey.png'
    if mode == 'I;16':
        Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path)
    else:
        Image.new(mode, (9, 9), 'white').save(path)
    _, (line,), _ = predict(script, capsys, model, path)
    assert sorted(line.removeprefix(f'{path}: ').split(', ')) == [
        'blue 33.3 %',
        'green 33.3 %',
        'red 33.3 %',
    ]


def test_looks_at_the_middle(script, capsys, model, tmp_path):
    wide = np.zeros((10, 50, 3), np.uint8)
    wide[..., 2] = 255
    wide[:, 20:30] = (0, 255, 0)
    Image.fromarray(wide).save(tmp_path / 'wide.png')
    _, (line,), _ = predict(script, capsys, model, tmp_path / 'wide.png')
    assert line.startswith(f'{tmp_path}/wide.png: green 98.')


def test_files_that_are_no_pictures_are_named_and_left_out(script, capsys, model, red, tmp_path):
    (tmp_path / 'text.png').write_text('no picture')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    (tmp_path / 'half.png').write_bytes(red.read_bytes()[:50])
    (tmp_path / 'folder').mkdir()
    bad = [tmp_path / name for name in ('text.png', 'empty.jpg', 'half.png', 'folder', 'none.png')]
    status, lines, errors = predict(script, capsys, model, *bad[:3], red, *bad[3:])
    assert status == 1
    assert [line.partition(':')[0] for line in lines] == [str(red)]
    assert len(errors) == len(bad)
    for path, error in zip(bad, errors, strict=True):
        assert error.startswith('predict.py: ')
        assert str(path) in error
        assert ' at 0x' not in error
        assert '<' not in error
    status, lines, errors = predict(script, capsys, model, *bad)
    assert (status, lines, len(errors)) == (1, [], len(bad))


def test_json_is_an_object_a_line(script, capsys, model, red, tmp_path):
    blue = picture(tmp_path / 'ünï "quoted".png', (0, 0, 255))
    status, lines, _ = predict(script, capsys, '--json', '--top=2', model, red, blue, tmp_path)
    assert status == 1  # of the folder
    first, second = map(json.loads, lines)
    assert first['file'] == str(red)
    assert [each['class'] for each in first['predictions']] == ['red', 'green']
    assert first['predictions'][0]['probability'] == pytest.approx(0.9756, abs=1e-4)
    assert second['file'] == str(blue)
    assert second['predictions'][0]['class'] == 'blue'


def test_augments_at_test_time(script, capsys, tmp_path):
    """The model sees the left half only, so that a mirror image makes a difference."""
    images = keras.Input((8, 8, 3))
    left = keras.layers.Cropping2D(((0, 0), (0, 4)))(images)
    means = keras.layers.Rescaling(5 / 255)(keras.layers.GlobalAveragePooling2D()(left))
    keras.Model(images, means).save(tmp_path / 'left.keras')
    halves = np.zeros((8, 8, 3), np.uint8)
    halves[:, :4, 0] = halves[:, 4:, 1] = 255
    Image.fromarray(halves).save(tmp_path / 'halves.png')
    arguments = tmp_path / 'left.keras', tmp_path / 'halves.png', '--top=2'
    _, (plain,), _ = predict(script, capsys, *arguments)
    _, (flipped,), _ = predict(script, capsys, *arguments, '--tta=flip')
    assert plain.endswith(': class 0 98.7 %, class 1 0.7 %')
    shares = np.exp([2.5, 2.5, 0]) / np.exp([2.5, 2.5, 0]).sum()
    assert flipped.count(f'{100 * shares[0]:.1f} %') == 2


def test_many_pictures_go_through_in_parts(script, capsys, model, red, monkeypatch):
    monkeypatch.setattr(script, 'BATCH', 2)
    status, lines, _ = predict(script, capsys, model, *[red] * 5)
    assert status == 0
    assert len(lines) == 5
    assert len(set(lines)) == 1


def test_takes_the_folder_of_a_run_and_models_of_grey(script, capsys, tmp_path):
    images = keras.Input((8, 8, 1))
    means = keras.layers.Rescaling(5 / 255)(keras.layers.GlobalAveragePooling2D()(images))
    both = keras.layers.Concatenate()([means, keras.layers.Rescaling(-1.0, 5.0)(means)])
    (tmp_path / 'run').mkdir()
    named = layers.ClassNames(['bright', 'dark'])(both)
    keras.Model(images, named).save(tmp_path / 'run' / 'model.keras')
    white = picture(tmp_path / 'white.png', 'white')
    _, (line,), _ = predict(script, capsys, tmp_path / 'run', white)
    assert line == f'{white}: bright 99.3 %, dark 0.7 %'


def test_contact_sheet_is_drawn(script, capsys, model, red, tmp_path, monkeypatch):
    from fenwicks import plots

    sheets = []
    monkeypatch.setattr(plots, 'save', lambda figure, path: sheets.append((figure, path)))
    green = picture(tmp_path / 'a very long name of a file.png', (0, 255, 0), (300, 200))
    bad = tmp_path / 'none.png'
    status, _, _ = predict(
        script, capsys, model, red, bad, green, '--picture', tmp_path / 'sheet.png'
    )
    assert status == 1
    ((figure, path),) = sheets
    assert path == str(tmp_path / 'sheet.png')
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [
        'red.png\nred 98 %',
        'a very long name …\ngreen 99 %',
    ]
    colours = [np.asarray(image.get_array()).mean(axis=(0, 1)) for image in axes.images]
    np.testing.assert_allclose(colours, [(255, 51, 0), (0, 255, 0)])


def test_contact_sheet_is_a_file(script, capsys, model, red, tmp_path):
    assert predict(script, capsys, model, red, f'--picture={tmp_path}/sheet.png')[0] == 0
    with Image.open(tmp_path / 'sheet.png') as sheet:
        assert sheet.width > 50


def test_no_picture_is_drawn_over(script, model, red):
    before = red.read_bytes()
    same = red.parent / '..' / red.parent.name / red.name
    line = refused(script, model, red, f'--picture={same}')
    assert line == f'`picture` must not be one of the images to classify. Received: picture={same}'
    assert red.read_bytes() == before


def test_refuses_what_it_cannot_use_in_one_line(script, model, red, tmp_path):
    assert refused(script, tmp_path / 'none.keras', red).endswith('none.keras, no such file')
    assert 'MODEL must be a file that Keras saved' in refused(script, red, red)
    (tmp_path / 'cut.keras').write_bytes(model.read_bytes()[:-100])
    assert refused(script, tmp_path / 'cut.keras', red).endswith('cut.keras, damaged or cut short')
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / 'dense.keras')
    assert 'of a model from images to logits' in refused(script, tmp_path / 'dense.keras', red)
    colour_model(side=None).save(tmp_path / 'any.keras')
    assert 'must take images of a fixed size' in refused(script, tmp_path / 'any.keras', red)
    colour_model(['red']).save(tmp_path / 'few.keras')
    assert 'each of its 3 logits' in refused(script, tmp_path / 'few.keras', red)
    assert '`top` must be a positive integer' in refused(script, model, red, '--top=0')
    assert '`picture` must end in one of' in refused(script, model, red, '--picture=a.docx')
    assert "invalid choice: 'twice'" in refused(script, model, red, '--tta=twice')
    assert 'arguments are required: IMAGE' in refused(script, model)


def test_what_is_no_saved_model_says_what_is(script, red, tmp_path):
    """Keras's four sentences on TFSMLayer were repeated."""
    (tmp_path / 'csvs').mkdir()
    assert refused(script, tmp_path / 'csvs', red) == (
        'MODEL must be a file that Keras saved, or the folder of a finished run. '
        f'Received: {tmp_path}/csvs, a folder without model.keras'
    )
    for name in ('model.onnx', 'model.tflite', 'model'):
        (tmp_path / name).write_bytes(b'?')
        assert refused(script, tmp_path / name, red) == (
            'MODEL must be a file that Keras saved (.keras), or the folder of a run. '
            f'Received: {tmp_path / name}'
        )


def test_a_folder_of_pictures_is_told_how_to_be_named(script, capsys, model, tmp_path):
    (tmp_path / 'holiday').mkdir()
    status, _, (line,) = predict(script, capsys, model, tmp_path / 'holiday')
    assert status == 1
    assert line == (
        f'predict.py: IMAGE must be a file: name those in {tmp_path}/holiday/*. '
        f'Received: {tmp_path}/holiday, a folder'
    )


def test_a_sheet_that_nobody_may_write_is_refused_before_the_work(script, model, red, denied):
    line = refused(script, model, red, f'--picture={denied}/sheet.png')
    assert line.startswith('`picture` must lie in a folder that can be written to. Received: pict')


def test_a_file_whose_name_begins_with_a_dash(script, model):
    line = refused(script, model, 'a.png', '-dash.png')
    assert line == 'unrecognized arguments: -dash.png: write ./-dash.png where a file is meant'


def test_the_sheet_never_goes_over_a_picture_in_the_home_folder(script, tmp_path, monkeypatch, red):
    """The path was looked for with its tilde, and written without."""
    monkeypatch.setenv('HOME', str(tmp_path))
    colour_model(NAMES).save(tmp_path / 'model.keras')
    before = red.read_bytes()
    line = refused(script, '~/model.keras', red, '--picture=~/red.png')
    assert line.startswith('`picture` must not be one of the images to classify')
    assert red.read_bytes() == before


@pytest.mark.parametrize(
    'around',
    [
        lambda model: evaluate.tta_model(model, evaluate.FLIP),
        lambda model: keras.Sequential([keras.Input((8, 8, 3)), model]),
        lambda model: keras.Model(model.inputs, {'logits': model.output}),
    ],
)
def test_models_within_models_have_their_class_names(script, capsys, tmp_path, red, around):
    around(colour_model(NAMES)).save(tmp_path / 'model.keras')
    status, lines, _ = predict(script, capsys, tmp_path / 'model.keras', red, '--tta=flip')
    assert status == 0
    assert lines[0].startswith(f'{red}: red ')


@pytest.mark.parametrize(
    'last',
    [
        [keras.layers.Dense(1)],
        [keras.layers.Dense(3, activation='softmax')],
        [keras.layers.Dense(3, activation='sigmoid')],
        [keras.layers.Dense(3), keras.layers.Softmax()],
        [keras.layers.Dense(3), keras.layers.Activation('softmax')],
        [keras.layers.Dense(3, activation='softmax'), layers.ClassNames(NAMES)],
    ],
)
def test_models_that_return_no_logits_are_refused(script, tmp_path, red, last):
    """Of one output every picture was class 0, for sure; a softmax was applied twice."""
    layers_ = [keras.layers.GlobalAveragePooling2D(), *last]
    keras.Sequential([keras.Input((8, 8, 3)), *layers_]).save(tmp_path / 'model.keras')
    line = refused(script, tmp_path / 'model.keras', red)
    one = len(last) == 1 and last[0].units == 1
    rule = 'a logit for each of two or more classes. ' if one else 'logits: leave out its last act'
    assert line.startswith(f'MODEL must return {rule}')


def test_a_model_of_two_outputs_is_refused_in_a_line(script, tmp_path, red):
    images = keras.Input((8, 8, 3))
    found = keras.layers.GlobalAveragePooling2D()(images)
    keras.Model(images, [found, found]).save(tmp_path / 'model.keras')
    assert 'of a model from images to logits' in refused(script, tmp_path / 'model.keras', red)


def test_outputs_that_are_no_numbers_are_no_answer(script, capsys, tmp_path, red):
    images = keras.Input((8, 8, 3))
    logits = keras.layers.Rescaling(float('nan'))(keras.layers.GlobalAveragePooling2D()(images))
    keras.Model(images, logits).save(tmp_path / 'model.keras')
    status, lines, errors = predict(script, capsys, tmp_path / 'model.keras', red, '--json')
    assert (status, lines) == (1, [])
    assert errors == [f'predict.py: MODEL must return numbers, not NaN, for {red}']


def test_a_name_that_is_no_text(script, capsys, model, tmp_path):
    import os

    path = tmp_path / os.fsdecode(b'x\xff.png')
    try:
        picture(tmp_path / 'red.png').rename(path)
    except OSError:
        pytest.skip('this file system knows no such names')
    sheet = tmp_path / 'sheet.png'
    status, lines, _ = predict(script, capsys, model, path, f'--picture={sheet}')
    assert status == 0
    assert lines[0].startswith(f'{tmp_path}/x\\xff.png: red')
    assert sheet.exists()


def test_a_name_of_two_lines_is_told_on_one(script, capsys, model, tmp_path):
    path = tmp_path / 'a\nb\x1b[2J.png'
    picture(tmp_path / 'red.png').rename(path)
    status, lines, _ = predict(script, capsys, model, path)
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith(f'{tmp_path}/a\\nb\\x1b[2J.png: red')


def test_the_sheet_shows_what_a_wide_model_sees(script, capsys, tmp_path):
    images = keras.Input((8, 32, 3))
    logits = keras.layers.GlobalAveragePooling2D()(images)
    keras.Model(images, keras.layers.Rescaling(0.1)(logits)).save(tmp_path / 'model.keras')
    wide = Image.new('RGB', (32, 8), (0, 255, 0))
    wide.paste((255, 0, 0), (0, 0, 8, 8))
    wide.save(tmp_path / 'wide.png')
    sheet = tmp_path / 'sheet.png'
    predict(script, capsys, tmp_path / 'model.keras', tmp_path / 'wide.png', f'--picture={sheet}')
    colours = {colour for _, colour in Image.open(sheet).convert('RGB').getcolors(2**24)}
    assert (255, 0, 0) in colours

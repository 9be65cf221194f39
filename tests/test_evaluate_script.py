"""examples/evaluate.py: how good a model is on a folder of pictures of known classes."""

import json
import shutil

import pytest
from PIL import Image
from scripts import ROOT, loaded
from test_predict_script import NAMES, colour_model

pytestmark = pytest.mark.backend('tensorflow', 'jax')

COLOURS = {'red': (255, 0, 0), 'green': (0, 255, 0), 'blue': (0, 0, 255)}


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'evaluate.py') as module:
        yield module


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run whose model tells colours apart; pictures of which one lies wrong."""
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'data'))
    colour_model(NAMES).save(tmp_path / 'model.keras')
    for name in ('red', 'blue'):
        (tmp_path / 'pictures' / name).mkdir(parents=True)
        for number in range(3):
            colour = COLOURS['green' if (name, number) == ('red', 2) else name]
            Image.new('RGB', (8, 8 + number), colour).save(
                tmp_path / 'pictures' / name / f'{number}.png'
            )
    return tmp_path


def refused(script, *arguments):
    with pytest.raises(SystemExit) as raised:
        script.main([str(argument) for argument in arguments])
    assert '\n' not in raised.value.code
    return raised.value.code


def test_accuracy_of_all_and_of_each_class(script, run, capsys):
    script.main([str(run), str(run / 'pictures')])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith('accuracy 83.33 %, loss ')
    assert first.endswith(' on 6 images')
    assert lines == [' 66.67 % of red', '100.00 % of blue', '1 of red taken for green']
    (run / 'pictures' / 'red' / 'damaged.png').write_text('no picture')
    line = refused(script, run, run / 'pictures')
    assert line.startswith(f'evaluate.py: {run}/pictures/red/damaged.png: must be an image')
    script.main(
        [str(run / 'model.keras'), str(run / 'pictures'), '--skip_damaged', '--tta=flip', '--json']
    )
    result = json.loads(capsys.readouterr().out)
    assert (result['images'], result['skipped']) == (6, 1)
    assert result['accuracy'] == pytest.approx(5 / 6)
    assert result['classes'] == {'red': pytest.approx(2 / 3), 'blue': 1.0}
    assert result['mistakes'] == [['red', 'green', 1]]


def test_a_folder_of_one_class(script, run, capsys):
    shutil.rmtree(run / 'pictures' / 'blue')
    script.main([str(run), str(run / 'pictures')])
    assert capsys.readouterr().out.startswith('accuracy 66.67 %')


def test_a_class_in_the_other_form_of_unicode(script, run, capsys):
    colour_model(['gr\u00fcn', *NAMES[1:]]).save(run / 'model.keras')
    (run / 'pictures' / 'red').rename(run / 'pictures' / 'gru\u0308n')
    script.main([str(run), str(run / 'pictures')])
    assert capsys.readouterr().out.startswith('accuracy ')


def test_what_is_wrong_is_one_line(script, run):
    (run / 'pictures' / 'red').rename(run / 'pictures' / 'rot')
    line = refused(script, run, run / 'pictures')
    assert line.startswith('evaluate.py: DIR must hold folders of the classes that the model knows')
    assert line.endswith('(red, green, blue). Received: rot')
    assert '`DIR` must be a folder' in refused(script, run, run / 'nowhere')
    assert 'MODEL must be a file that Keras saved' in refused(
        script, run / 'data', run / 'pictures'
    )


def test_a_home_that_cannot_be_written_to(script, run, capsys, caplog, monkeypatch):
    """The error named `cache_dir`, for which there is no flag."""
    (run / 'file').touch()
    monkeypatch.setenv('FENWICKS_DATA', str(run / 'file'))
    script.main([str(run), str(run / 'pictures')])
    assert capsys.readouterr().out.startswith('accuracy 83.33 %')
    assert [each.message for each in caplog.records if each.name == 'fenwicks'] == [
        'the decoded pictures are not kept (set FENWICKS_DATA): '
        f'{run}/file/images (Not a directory)'
    ]


def test_advice_names_the_flag(script, run):
    (run / 'pictures' / 'red' / 'damaged.png').write_text('no picture')
    assert '`--skip_damaged` leaves such images out' in refused(script, run, run / 'pictures')


def test_an_infinite_logit_is_an_answer(script):
    """It was right in the accuracy of all, and wrong in its class's."""
    import numpy as np

    logits = np.array([[np.inf, 0.0], [0.0, -np.inf]])
    found = script.scores(logits, np.array([0, 1]), ['cat', 'dog'])
    assert (found['accuracy'], found['classes']) == (0.5, {'cat': 1.0, 'dog': 0.0})
    assert found['mistakes'] == [['dog', 'cat', 1]]


def test_outputs_that_are_no_numbers_are_wrong_everywhere(script):
    """They were class 0, all right, in the table of classes."""
    import numpy as np

    logits = np.array([[np.nan, np.nan], [2.0, 1.0], [2.0, 1.0]])
    found = script.scores(logits, np.array([0, 0, 1]), ['cat', 'dog'])
    assert found['accuracy'] == pytest.approx(1 / 3)
    assert found['classes'] == {'cat': 0.5, 'dog': 0.0}
    assert found['mistakes'] == [['dog', 'cat', 1]]
    assert script.finite_or_none(found['loss']) is None

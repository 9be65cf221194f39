"""What a training script leaves behind: a page, names of classes, and a command that repeats it."""

import dataclasses
import json
import shlex
import types

import keras
import numpy as np
import pytest
from report_runs import Page
from scripts import ROOT, call, loaded

from fenwicks import data, recipes, report
from fenwicks.report.material import load_material

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SMALL = ('--dataset=digits', '--limit=96', '--batch_size=32', '--device=cpu', '--seed=3',
         '--precision=float32', '--recipe=page24', '--width=0.03', '--epochs=1')  # fmt: skip


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'cifar10.py') as module:
        yield module


@pytest.fixture(scope='module')
def folder(script, tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp('run') / 'one'
    call(script, *SMALL, f'--out={folder}')
    return folder


@pytest.mark.thorough
def test_a_run_has_a_page_with_all_its_sections(folder):
    page = Page((folder / 'report.html').read_text())
    accuracy = json.loads((folder / 'result.json').read_text())['test_accuracy']
    assert page.headings[0] == (1, f'page24 on digits: {100 * accuracy:.2f} %')
    headings = {heading for _, heading in page.headings}
    assert {'Augmented training images', 'Confusion matrix'} <= headings
    assert len([image for image in page.all('img') if 'augmented' in image['alt']]) == 6 * 6


@pytest.mark.thorough
def test_class_names_are_in_the_result_and_in_the_models_file(folder):
    digits = list('0123456789')
    assert json.loads((folder / 'result.json').read_text())['class_names'] == digits
    model = keras.saving.load_model(folder / 'model.keras')
    assert list(model.get_layer('class_names').class_names) == digits


def test_the_command_repeats_the_run(script, folder, tmp_path):
    first = json.loads((folder / 'result.json').read_text())
    python, path, *arguments = shlex.split(first['command'])
    assert (python, ROOT / path) == ('python', ROOT / 'examples' / 'cifar10.py')
    assert '--seed=3' in arguments
    call(script, *arguments, f'--out={tmp_path}/again', '--noreport')
    again = json.loads((tmp_path / 'again' / 'result.json').read_text())
    assert again['test_loss'] == first['test_loss']
    assert again['command'] == first['command']
    assert not (tmp_path / 'again' / 'report.html').exists()


def test_the_command_has_the_limit_that_the_sample_allows(script, tmp_path, monkeypatch):
    digits, trained = data.load('digits'), []
    monkeypatch.setattr(data, 'load', lambda *_: digits)
    monkeypatch.setattr(script.training_runs, 'summary', lambda *_: '')
    folders = types.SimpleNamespace(out=tmp_path)
    monkeypatch.setattr(
        script.training_runs, 'train_all', lambda jobs, *_: (trained.extend(jobs), folders)
    )
    call(script, '--limit=10000', '--device=cpu', '--precision=float32')
    assert trained[0][0].chosen == {'dataset': 'digits', 'limit': '1501'}


@pytest.mark.thorough
def test_several_runs_are_compared(script, tmp_path, monkeypatch):
    call(script, *SMALL, '--runs=2', f'--out={tmp_path}/two')
    assert (tmp_path / 'two' / '1' / 'report.html').exists()
    page = Page((tmp_path / 'two' / 'report.html').read_text())
    assert page.headings[0][1].startswith('page24 on digits, 2 runs: ')


@pytest.mark.thorough
def test_without_matplotlib_a_line_says_so(script, tmp_path, monkeypatch, capsys):
    def missing(*_):
        raise ImportError('plots need Matplotlib: pip install matplotlib')

    monkeypatch.setattr(report, 'write', missing)
    call(script, *SMALL, f'--out={tmp_path}/run')
    assert (
        'no report.html: plots need Matplotlib: pip install matplotlib' in capsys.readouterr().out
    )
    assert (tmp_path / 'run' / 'report.npz').exists()


def test_a_page_that_is_refused_costs_no_result(tmp_path, capsys):
    with loaded(ROOT / 'examples' / 'pages.py') as pages:
        pages.write([tmp_path / 'none'], tmp_path)
    assert capsys.readouterr().out.startswith('no report.html: a run must be a folder with a ')


@pytest.mark.parametrize(
    ('steps', 'shape'),
    [('random_resized_crop(height=28, width=28)', (6, 6, 28, 28, 3)), ('random_mixup', (0,))],
)
def test_an_augmentation_that_cannot_be_shown_costs_no_result(tmp_path, steps, shape):
    with loaded(ROOT / 'examples' / 'pages.py') as pages:
        recipe = dataclasses.replace(recipes.get('speed94'), augmentations=(steps,))
        dataset = data.load('digits').limit(32)
        logits = np.eye(10)[dataset.test_labels]
        pages.keep(tmp_path, recipe, dataset, logits, seed=0)
    kept = load_material(tmp_path)
    assert kept.augmented.shape[: len(shape)] == shape
    assert len(kept.samples) == 6

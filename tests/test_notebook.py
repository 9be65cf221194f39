"""The notebooks: as their texts, run from top to bottom, stored with real outputs or none."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types
import venv
import zipfile

import keras
import pytest

import fenwicks

ROOT = pathlib.Path(__file__).parent.parent
COLAB = ROOT / 'colab'
TEXT = COLAB / 'cifar10_in_two_minutes.py'
NAMES = ('cifar10_in_two_minutes', 'your_images', 'bag_of_tricks')
SETTINGS = {
    'FENWICKS_OFFLINE': '1',
    'FENWICKS_EPOCHS': '2',
    'FENWICKS_WIDTH': '0.0625',
    'FENWICKS_RECIPE': 'page10',
    'OMP_NUM_THREADS': '1',
    'JAX_PLATFORMS': 'cpu',
    'CUDA_VISIBLE_DEVICES': '',
}

# Run behind the last cell, among the notebook's own variables.
PROBES = {
    'cifar10_in_two_minutes': """
import dataclasses
import numpy as np
from fenwicks import assemble as page

assert pathlib.Path(fw.__file__).parent == pathlib.Path.cwd().parent / 'fenwicks'
assert dataset.name == 'digits'
assert [record['epoch'] for record in trainer.records] == [1, 2]
# Twice as good as guessing, after two epochs. (Too few for the second network's averages.)
assert score.accuracy > 0.2, score
assert trainer.records[-1]['val_accuracy'] == score.accuracy
assert fast.records[-1]['train_accuracy'] > 0.2, fast.records
assert abs(loaded_accuracy - score.accuracy) < 0.01, (loaded_accuracy, score)
assert loaded.input_shape == (None, *dataset.image_shape)
assert loaded.get_layer('class_names').class_names == dataset.class_names

# The cells spell out the recipe of which they speak.
spelled = recipes.get('fenwicks24').with_epochs(EPOCHS).with_width(WIDTH).for_small_data()
spelled = dataclasses.replace(spelled, ghost_batch_size=0)  # of eight devices each has its share
assert batch_size == spelled.batch_size
network = page.network(spelled, dataset.image_shape, dataset.num_classes)
assert [w.shape for w in network.weights] == [w.shape for w in model.weights]
rule = page.optimizer(spelled, steps_per_epoch)
steps = np.arange(total_steps + 1)
np.testing.assert_allclose(rule._learning_rate(steps), schedule(steps), rtol=1e-6)
told = ('momentum', 'nesterov', 'weight_decay')
assert [rule.get_config()[key] for key in told] == [optimizer.get_config()[key] for key in told]
assert loss.get_config()['label_smoothing'] == spelled.label_smoothing
originals = normalize(dataset.train_images[:4])
same = fw.augment.compose(page.augmentations(spelled))(originals, (3, 4))
np.testing.assert_array_equal(same, augment(originals, (3, 4)))
""",
    'your_images': """
assert dataset.class_names == ('circle', 'square', 'triangle')
assert len(dataset.train_images) + len(dataset.test_images) == 360
assert [record['epoch'] for record in trainer.records] == [1, 2]
assert trainer.records[-1]['val_accuracy'] == score.accuracy
assert loaded.get_layer('class_names').class_names == dataset.class_names
assert 0.99 < shares.sum() < 1.01
""",
    'bag_of_tricks': """
assert dataset.name == 'digits'
assert len(now) == len(averaged) == 2
assert trainer.records[-1]['train_accuracy'] > 0.2, trainer.records
# What the pictures are said to show.
assert len({image.tobytes() for image in np.asarray(alike) == 0}) == 2  # two groups
assert np.abs(np.asarray(as_before) - np.asarray(pool_first)).max() > 0.1
assert losses[0.0][-1] < losses[0.0][20] and losses[0.2][-1] > losses[0.2][20]
assert groups.mean(axis=1).std() > 0
assert abs(moments[0, 1]) < 1e-3 * moments[0, 0], moments[:2, :2]
np.testing.assert_allclose(both[2].sum(axis=1), 1, rtol=1e-5)
""",
}
# What must have been printed, and the number of pictures.
PRINTED = {
    'cifar10_in_two_minutes': (
        ['%|', 'images/s', 'val_accuracy', '% of the 296 test images', 'loaded back'],
        10,
    ),
    'your_images': (['%|', 'val_accuracy', 'of the 72 pictures kept aside', 'circle'], 8),
    'bag_of_tricks': (['mean of both', 'whitening', 'page10'], 12),
}


@pytest.fixture(scope='module')
def script():
    """`colab/execute.py`, where the packages that it needs are installed."""
    for package in ('ipykernel', 'jupytext', 'matplotlib', 'nbclient', 'nbformat'):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location('execute', COLAB / 'execute.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(name):
    import nbformat

    return nbformat.read(COLAB / f'{name}.ipynb', as_version=4)


def printed_by(cells):
    return ''.join(
        output.text
        for cell in cells
        for output in cell.get('outputs', ())
        if output.output_type == 'stream'
    )


def test_every_notebook_is_tested(script):
    assert {path.stem for path in COLAB.glob('*.ipynb')} == set(NAMES) == set(script.NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_and_its_text_hold_the_same(script, name):
    text, notebook = script.of_text(name), stored(name)

    def cells(of):
        return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in of.cells]

    assert len(notebook.cells) > 20
    assert cells(text) == cells(notebook)
    for key in ('accelerator', 'colab', 'kernelspec'):
        assert text.metadata.get(key) == notebook.metadata.get(key)


@pytest.mark.parametrize('name', NAMES)
def test_outputs_are_those_of_a_whole_run_or_none(script, name):
    """Of a run on CIFAR-10 that says when, on what and by which commit; without an error."""
    code = [cell for cell in stored(name).cells if cell.cell_type == 'code']
    if not any(cell.outputs for cell in code):
        assert all(cell.execution_count is None for cell in code)
        return
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {'stream', 'display_data', 'execute_result'}
    assert re.search(r'^20\d\d-\d\d-\d\d, .+, commit [0-9a-f]{12}$', printed_by(code[:1]), re.M)
    if name == 'cifar10_in_two_minutes':
        assert 'of the 10000 test images of cifar10' in printed_by(code)


@pytest.mark.parametrize('name', ['cifar10_in_two_minutes', 'bag_of_tricks'])
def test_the_last_cell_shows_the_recipes_as_they_are(name, capsys):
    """It trains nothing, so its stored output is what it prints today."""
    *_, last = (cell for cell in stored(name).cells if cell.cell_type == 'code')
    exec(last.source, {'fw': fenwicks, 'setting': lambda _, chosen: chosen})
    assert capsys.readouterr().out == printed_by([last])


def test_the_set_up_is_the_same_in_all(script):
    first, *rest = ([cell.source for cell in script.of_text(name).cells[1:3]] for name in NAMES)
    assert all(each == first for each in rest)


def pictures_cell(script, kind, folder, monkeypatch, zips=()):
    """What the cell of `your_images` that finds the pictures leaves behind."""
    modules = {name: types.ModuleType(name) for name in ('google', 'google.colab')}
    modules['google.colab'].files = types.SimpleNamespace(upload=lambda: dict.fromkeys(zips))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    (cell,) = (x for x in script.of_text('your_images').cells if '@title Your pictures' in x.source)
    monkeypatch.setenv('FENWICKS_FOLDER', folder)
    names = {'os': os, 'pathlib': pathlib, 'fw': fenwicks}
    exec(cell.source.replace("SOURCE_KIND = 'generated'", f'SOURCE_KIND = {kind!r}'), names)
    return names['photos']


def test_pictures_of_several_sources_stay_apart(script, tmp_path, monkeypatch):
    """Drawn ones and those of a zip file lay in one folder, and became classes of one network."""
    pytest.importorskip('PIL')
    monkeypatch.chdir(tmp_path)
    for name, inside in (('one', 'photos/'), ('two', '')):
        with zipfile.ZipFile(f'{name}.zip', 'w') as archive:
            for kind in ('cat', 'dog'):
                archive.writestr(f'{inside}{kind}/0.png', b'')
    drawn = pictures_cell(script, 'generated', 'pictures', monkeypatch)
    assert drawn.class_names == ('circle', 'square', 'triangle')
    for name in ('one.zip', 'two.zip'):
        found = pictures_cell(script, 'upload', 'pictures', monkeypatch, [name])
        assert found.class_names == ('cat', 'dog')
    with pytest.raises(FileExistsError, match='uploaded/one is there already'):
        pictures_cell(script, 'upload', 'pictures', monkeypatch, ['one.zip'])
    (tmp_path / 'uploaded' / 'one' / '.hidden').mkdir()
    assert (
        pictures_cell(script, 'folder', 'uploaded/one', monkeypatch).class_names
        == found.class_names
    )
    assert not (tmp_path / 'pictures').exists()


@pytest.mark.parametrize('given', [(), ('one.zip', 'two.zip'), ('photo.jpg',)])
def test_an_upload_is_one_zip_file(script, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    for name in given:
        pathlib.Path(name).write_bytes(b'no zip')
    told = f'choose one zip file. Received: {", ".join(given) or "none"}$'
    with pytest.raises(ValueError, match=told):
        pictures_cell(script, 'upload', 'pictures', monkeypatch, given)
    assert not (tmp_path / 'uploaded').exists()


def test_what_a_bar_leaves_on_the_screen(script):
    text = '  0%| \r 50%|#\r\repoch 1   \n\r 50%|# \n\n\repoch 2\n100%|##\n'
    assert script.on_screen(text) == 'epoch 1\nepoch 2\n100%|##\n'


@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize(
    'name',
    [
        *(pytest.param(name, marks=pytest.mark.thorough) for name in NAMES[:2]),
        pytest.param(NAMES[2], marks=pytest.mark.slow),
    ],
)
def test_it_runs_from_top_to_bottom(script, name, tmp_path):
    import nbformat

    notebook = script.of_text(name)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBES[name]))
    environment = {
        **os.environ,
        **SETTINGS,
        'KERAS_BACKEND': keras.backend.backend(),
        'HOME': str(tmp_path),  # where no CIFAR-10 lies
        'FENWICKS_DATA': str(tmp_path),
        'FENWICKS_MODEL_FILE': str(tmp_path / 'model.keras'),
        'FENWICKS_FOLDER': str(tmp_path / 'pictures'),
        'IPYTHONDIR': str(tmp_path / 'ipython'),
    }
    script.executed(notebook, environment, timeout=600)

    printed = printed_by(notebook.cells)
    words, pictures = PRINTED[name]
    assert f'on {keras.backend.backend()}, cpu' in printed
    for word in words:
        assert word in printed, printed
    assert 'Warning' not in printed, printed
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    assert sum('image/png' in output.get('data', ()) for output in outputs) == pictures
    if name != 'bag_of_tricks':
        assert (tmp_path / 'model.keras').exists()
        assert (tmp_path / 'model.safetensors').exists()
    if name == 'cifar10_in_two_minutes':
        assert re.search(r'page10: \d+\.\d\d % right', printed), printed


def freeze(python):
    run = subprocess.run(
        [python, '-m', 'pip', 'freeze'], capture_output=True, text=True, check=True
    )
    return dict(line.split('==') for line in run.stdout.splitlines() if '==' in line)


@pytest.mark.slow
@pytest.mark.backend('tensorflow')
def test_it_completes_a_runtime_like_that_of_colabs_tpus(tmp_path):
    """JAX and an older Keras, no TensorFlow, far from any copy of the repository."""
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    preinstalled = ['jax==0.7.2', 'keras==3.13.2', 'numpy==2.0.2']
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', *preinstalled], check=True)
    before = freeze(python)
    script = shutil.copy(TEXT, tmp_path)
    environment = {
        **{name: value for name, value in os.environ.items() if name != 'PYTHONPATH'},
        **SETTINGS,
        'FENWICKS_RECIPE': '',
        'FENWICKS_EPOCHS': '1',
        'FENWICKS_SOURCE': f'git+file://localhost{ROOT}',
        'FENWICKS_DATA': str(tmp_path),
        'MPLBACKEND': 'agg',
    }
    environment.pop('KERAS_BACKEND', None)
    run = subprocess.run(
        [python, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert 'on jax, cpu' in run.stdout
    assert 'loaded back' in run.stdout
    after = freeze(python)
    changed = {name for name, version in before.items() if after[name] != version}
    assert changed == {'keras'}
    assert not any(name.startswith('tensorflow') for name in after)

"""The notebook: in step with its text form, stored without outputs, runs from top to bottom."""

import os
import pathlib
import re
import shutil
import subprocess
import venv

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = ROOT / 'colab' / 'cifar10_in_two_minutes.py'
NOTEBOOK = TEXT.with_suffix('.ipynb')
SETTINGS = {
    'FENWICKS_OFFLINE': '1',
    'FENWICKS_EPOCHS': '2',
    'FENWICKS_WIDTH': '0.0625',
    'FENWICKS_RECIPE': 'page10',
    'OMP_NUM_THREADS': '1',
    'JAX_PLATFORMS': 'cpu',
    'CUDA_VISIBLE_DEVICES': '',
}

# Runs behind the last cell, among the notebook's own variables.
PROBE = """
import dataclasses
import pathlib
from fenwicks import assemble as page

assert pathlib.Path(fw.__file__).parent == pathlib.Path.cwd().parent / 'fenwicks'
assert dataset.name == 'digits'
assert history.epoch == [0, 1]
# Twice as good as guessing, after two epochs. (Too few for the second network's averages.)
assert score.accuracy > 0.2, score
assert fast.records[-1]['train_accuracy'] > 0.2, fast.records
assert abs(loaded_accuracy - score.accuracy) < 0.01, (loaded_accuracy, score)
assert loaded.input_shape == (None, *dataset.image_shape)

# The cells spell out the recipe of which they speak.
spelled = recipes.get('fenwicks24').with_epochs(EPOCHS).with_width(WIDTH).for_small_data()
spelled = dataclasses.replace(spelled, ghost_batch_size=0)  # of eight devices each has its share
assert batch_size == spelled.batch_size
network = page.network(spelled, dataset.image_shape, dataset.num_classes)
assert [w.shape for w in network.weights] == [w.shape for w in model.weights]
rule = page.optimizer(spelled, steps_per_epoch)
np.testing.assert_allclose(rule._learning_rate(steps), schedule(steps), rtol=1e-6)
told = ('momentum', 'nesterov', 'weight_decay')
assert [rule.get_config()[key] for key in told] == [optimizer.get_config()[key] for key in told]
assert loss.get_config()['label_smoothing'] == spelled.label_smoothing
same = fw.augment.compose(page.augmentations(spelled))(normalize(originals), (3, 4))
np.testing.assert_array_equal(same, augment(normalize(originals), (3, 4)))
"""


def stored():
    nbformat = pytest.importorskip('nbformat')
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_and_its_text_hold_the_same():
    jupytext = pytest.importorskip('jupytext')
    text, notebook = jupytext.read(TEXT), stored()

    def cells(of):
        return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in of.cells]

    assert len(notebook.cells) > 20
    assert cells(text) == cells(notebook)
    for key in ('accelerator', 'colab', 'kernelspec'):
        assert text.metadata[key] == notebook.metadata[key]


def test_it_is_stored_without_outputs():
    for cell in stored().cells:
        if cell.cell_type == 'code':
            assert (cell.outputs, cell.execution_count) == ([], None), cell.source


@pytest.mark.backend('tensorflow')  # once is enough: the notebook chooses its backend itself
def test_it_runs_from_top_to_bottom(tmp_path):
    pytest.importorskip('ipykernel')
    pytest.importorskip('matplotlib')
    nbclient, nbformat = pytest.importorskip('nbclient'), pytest.importorskip('nbformat')
    notebook = stored()
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    environment = {
        **os.environ,
        **SETTINGS,
        'HOME': str(tmp_path),  # where no CIFAR-10 lies
        'FENWICKS_DATA': str(tmp_path),
        'FENWICKS_MODEL_FILE': str(tmp_path / 'model.keras'),
        'IPYTHONDIR': str(tmp_path / 'ipython'),
    }
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name='python3',
        resources={'metadata': {'path': str(NOTEBOOK.parent)}},
    )
    client.execute(env=environment)

    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    printed = ''.join(output.text for output in outputs if output.output_type == 'stream')
    assert f'on {keras.backend.backend()}, cpu' in printed
    # The bar, which would be silent in a log, and what follows it.
    for words in ('%|', 'images/s', '% of the 296 test images', 'loaded back'):
        assert words in printed, printed
    assert re.search(r'page10: \d+\.\d\d % right', printed), printed
    assert 'Warning' not in printed, printed
    assert sum('image/png' in output.get('data', ()) for output in outputs) == 5
    assert (tmp_path / 'model.keras').exists()


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

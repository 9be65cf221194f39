"""Each Python block of the pages runs as a program of its own and does what the text says of it.

Blocks run twice: with Keras on TensorFlow, and where TensorFlow is not installed.
"""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from fenwicks import assemble, recipes

ROOT = pathlib.Path(__file__).parent.parent
PAGES = (
    'README.md',
    'fenwicks/models/README.md',
    'fenwicks/training/README.md',
    'fenwicks/diagnostics/README.md',
)

# What must hold after a block, found by some of its words.
AFTER = {
    'photo.png': """
assert logits.shape == (1, 10), logits.shape
assert model.get_layer('class_names').class_names[3] == 'class 3'
""",
    'fw.layers.ConvResBlk(64)': """
loss, accuracy = model.evaluate(dataset.test_images, dataset.test_labels, verbose=0)
assert accuracy > 0.2, accuracy
assert model.optimizer.iterations == 2 * steps
""",
    'averaging=fw.optimizers.EMA': """
assert [record['epoch'] for record in trainer.records] == [1, 2]
# Of the training: after 22 steps the running statistics of batch norm still lag behind.
assert trainer.records[-1]['train_accuracy'] > 0.4, trainer.records
""",
    'ImageList.from_folders': """
import keras, numpy as np
loaded = keras.models.load_model('photos.keras')
logits = loaded.predict(dataset.test_images, verbose=0)
np.testing.assert_allclose(logits, trainer.predict(dataset.test_images), atol=1e-3)
""",
    'fw.models.unfreeze': """
import keras, numpy as np
assert [each.path for each in model.trainable_variables][0].startswith('conv_dw_6/')
loaded = keras.models.load_model('fine_tuned.keras')
images = dataset.test_images[:8]
np.testing.assert_allclose(loaded.predict(images), trainer.predict(images), atol=1e-3)
""",
    'whitening.adapt(': """
assert whitening.get_weights()[0].any()  # it was adapted
assert model.history.history['accuracy'][-1] > 0.25, model.history.history
averaged = model.get_weights()
averaging.restore()  # the weights of the last step, which the averages are not
assert any((a != b).any() for a, b in zip(averaged, model.get_weights(), strict=True))
assert model.optimizer.iterations == 2 * (len(dataset.train_images) // 128)
""",
    "checkpoint='checkpoint.npz'": """
import os
assert history.epoch == [0, 1]
assert os.path.exists('checkpoint.npz') and os.path.exists('model.keras')
""",
    'trainer.fit(batches': """
assert [record['epoch'] for record in trainer.records] == [1, 2]
assert trainer.records[1]['train_loss'] < trainer.records[0]['train_loss']
""",
    'image_sizes=sizes': """
assert [record['epoch'] for record in trainer.records] == [1, 2]
assert trainer.evaluate(dataset.test_images, dataset.test_labels).loss < 100
""",
    'fw.training.HardExamples(': """
import keras
assert trainer.evaluate(dataset.test_images, dataset.test_labels).accuracy > 0.3
assert not [v.path for v in keras.saving.load_model('network.keras').variables if 'proxy' in v.path]
""",
    'fw.devices.distribute(128)': """
assert model.history.history['accuracy'][-1] > 0.2, model.history.history
assert model.optimizer.iterations == 2 * (whole // 128)
""",
    'find_learning_rate': """
assert len(norms.history) == 1 and len(norms.paths) == 7
assert found.losses[0] < 4 and leading.values[0] > 0
""",
    'fw.training.replicate()': 'assert trainer.replicas is replicas',
}

# Every Python imports it first. Where the test says so, TensorFlow is then not found.
HIDE = """
import os, sys
from importlib.machinery import PathFinder

class WithoutTensorFlow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split('.')[0] == 'tensorflow':
            return None
        return PathFinder.find_spec(name, path, target)

if os.environ.get('HIDE_TENSORFLOW'):
    sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
"""


def blocks():
    for page in PAGES:
        for block in re.findall(r'^```python\n(.*?)^```$', (ROOT / page).read_text(), re.M | re.S):
            marks = [mark for mark in AFTER if mark in block]
            name = f'{page}: {marks[0] if marks else block[:40]}'
            yield pytest.param(block, marks, id=name)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the blocks run: a model that the script saved, photos of two classes, no data set."""
    folder = tmp_path_factory.mktemp('readme')
    Image = pytest.importorskip('PIL.Image')
    rng = np.random.default_rng(0)
    for name, brightest in (('cat', 120), ('dog', 255)):
        (folder / 'photos' / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, brightest, (40, 48, 3)).astype('uint8')
            Image.fromarray(pixels).save(folder / 'photos' / name / f'{number}.png')
    Image.fromarray(pixels).save(folder / 'photo.png')
    (folder / 'out' / 'first').mkdir(parents=True)
    recipe = recipes.get('speed94').with_width(0.0625)
    network = assemble.network(recipe, (32, 32, 3), 10)
    model = assemble.with_normalization(
        network, [125.0] * 3, [60.0] * 3, class_names=[f'class {n}' for n in range(10)]
    )
    model.save(folder / 'out' / 'first' / 'model.keras')
    (folder / 'sitecustomize.py').write_text(HIDE)
    return folder


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('installed', ['tensorflow', 'jax'])
@pytest.mark.parametrize(('block', 'marks'), list(blocks()))
def test_a_block_runs_by_itself(block, marks, installed, folder):
    assert len(marks) == 1, 'AFTER must say what holds after this block'
    if installed == 'jax':
        pytest.importorskip('jax')
        if 'needs TensorFlow' in block:
            pytest.skip('needs TensorFlow')
    program = folder / 'block.py'
    program.write_text(f'{block}\n{AFTER[marks[0]]}')
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(folder), str(ROOT)]),
        'HOME': str(folder),
        'FENWICKS_DATA': str(folder / 'empty'),
        'FENWICKS_OFFLINE': '1',
        'HIDE_TENSORFLOW': '1' if installed == 'jax' else '',
        'JAX_PLATFORMS': 'cpu',
    }
    environment.pop('KERAS_BACKEND', None)
    run = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-1000:] + run.stderr[-3000:]


def test_the_first_page_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 250


def test_relative_links_lead_somewhere():
    for page in (*PAGES, 'CONTRIBUTING.md', 'UPGRADING.md'):
        text = (ROOT / page).read_text()
        for target in re.findall(r'\]\((?!https?:)([^)#]+)', text):
            assert ((ROOT / page).parent / target).exists(), f'{page} links to {target}'

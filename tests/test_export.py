"""Exports: each is loaded by its own runtime and gives the model's numbers; the card of a run."""

import importlib.util
import json
import os
import subprocess
import sys
from html import escape

import keras
import numpy as np
import pytest
from report_runs import result
from test_files import largest_file

from fenwicks import assemble, data, export, recipes
from fenwicks.export import __main__ as command_line
from fenwicks.export import formats

pytestmark = pytest.mark.backend('tensorflow', 'jax')

BACKEND = keras.backend.backend()
NAMES = [f'class {n}' for n in range(10)]


@pytest.fixture(scope='module')
def model():
    """Of the recipe with whitening, CELU, pooling and a residual branch in it."""
    keras.utils.set_random_seed(0)
    network = assemble.network(recipes.get('page10').with_width(0.05), (32, 32, 3), 10)
    for weight in network.weights:
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, weight.shape)
        if weight.path.endswith(('beta', 'gamma', 'moving_mean', 'moving_variance')):
            weight.assign(weight + noise)  # which would be 0 and 1
        elif 'classifier' in weight.path:
            weight.assign(weight * 100)  # logits of a trained network's size
    return assemble.with_normalization(
        network, [125.0, 120, 110], [60.0, 61, 62], class_names=NAMES
    )


@pytest.fixture(scope='module')
def pixels():
    return data.load('digits').test_images[:100].astype('float32')


@pytest.fixture(scope='module')
def logits(model, pixels):
    found = model.predict(pixels, batch_size=100, verbose=0)
    assert np.ptp(found, axis=0).min() > 0.1  # the images don't all get the same logits
    assert np.abs(found).max() < 100
    return found


def written(model, folder, name):
    try:
        (path,) = export.write(model, folder, [name])
    except ImportError as error:
        pytest.skip(str(error))
    assert path == folder / export.FORMATS[name]
    assert [each.name for each in folder.iterdir()] == [path.name]  # nothing half-written beside
    return path


def written_by_tensorflow(model, folder, name):
    """The same, on JAX by the command with Keras on TensorFlow."""
    if BACKEND == 'tensorflow':
        return written(model, folder, name)
    for package in ('tensorflow', 'tf2onnx'):
        pytest.importorskip(package)
    model.save(folder / 'model.keras')
    (folder / 'result.json').write_text(json.dumps(result()))
    command = [sys.executable, '-m', 'fenwicks.export', str(folder), f'--formats={name}']
    environment = {**os.environ, 'KERAS_BACKEND': 'tensorflow'}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    path = folder / export.FORMATS[name]
    assert (run.returncode, run.stderr) == (0, '')  # nor does TensorFlow print anything
    assert run.stdout.split() == [str(path), str(folder / 'README.md')]
    return path


def test_onnx(model, pixels, logits, tmp_path):
    runtime, onnx = pytest.importorskip('onnxruntime'), pytest.importorskip('onnx')
    path = written_by_tensorflow(model, tmp_path, 'onnx')
    session = runtime.InferenceSession(str(path))
    (wanted,) = session.get_inputs()
    assert wanted.shape[1:] == [32, 32, 3]
    assert not isinstance(wanted.shape[0], int)  # batches of any size
    found = session.run(None, {wanted.name: pixels})[0]
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)
    graph = onnx.load(path)
    assert {node.domain for node in graph.graph.node} <= {'', 'ai.onnx'}
    assert not graph.functions


def test_saved_model(model, pixels, logits, tmp_path):
    tf = pytest.importorskip('tensorflow')
    loaded = tf.saved_model.load(written(model, tmp_path, 'saved_model'))
    np.testing.assert_allclose(loaded.serve(pixels), logits, rtol=0, atol=1e-4)
    assert loaded.signatures['serving_default'].inputs[0].dtype == tf.float32
    again = tf.saved_model.load(export.write(model, tmp_path, ['saved_model'])[0])
    assert again.serve(pixels[:1]).shape == (1, 10)  # a second export takes the place of the first


@pytest.mark.filterwarnings('ignore:.*tf.lite.Interpreter is deprecated.*')
def test_litert(model, pixels, logits, tmp_path):
    tf = pytest.importorskip('tensorflow')
    interpreter = tf.lite.Interpreter(
        model_path=str(written_by_tensorflow(model, tmp_path, 'litert'))
    )
    place = interpreter.get_input_details()[0]['index']
    interpreter.resize_tensor_input(place, pixels.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, pixels)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]['index'])
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize('within', [False, True])
def test_safetensors(model, tmp_path, within):
    safetensors = pytest.importorskip('safetensors')
    model = keras.Sequential([keras.Input(model.input_shape[1:]), model]) if within else model
    path = written(model, tmp_path, 'safetensors')
    with safetensors.safe_open(path, 'numpy') as file:
        assert set(file.keys()) == {weight.path for weight in model.weights}
        for weight in model.weights:
            expected = keras.ops.convert_to_numpy(weight)
            np.testing.assert_array_equal(file.get_tensor(weight.path), expected)
        assert json.loads(file.metadata()['class_names']) == NAMES


def test_the_model_stays_as_it_was(model, pixels, logits):
    assert any(isinstance(layer, keras.layers.Normalization) for layer in model.layers)
    np.testing.assert_array_equal(model.predict(pixels, batch_size=100, verbose=0), logits)


def test_what_cannot_be_written_is_said_before_the_work(model, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r'`formats` must be among saved_model, .* Received: coreml'
    ):
        export.check_formats(['coreml'])
    if BACKEND == 'jax':
        with pytest.raises(
            ValueError, match=r'KERAS_BACKEND=tensorflow python -m fenwicks\.export'
        ):
            export.check_formats(['litert'])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='safetensors needs safetensors: pip install safeten'):
        export.write(model, tmp_path, ['safetensors'])
    assert not list(tmp_path.iterdir())


def test_other_precisions_are_refused(tmp_path):
    keras.config.set_dtype_policy('mixed_bfloat16')
    network = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)], name='half'
    )
    half = assemble.with_normalization(network, [0.0] * 3, [1.0] * 3, precision=None)
    with pytest.raises(
        ValueError, match=r'`model` must compute in float32 .* Received: bfloat16 in '
    ):
        export.write(half, tmp_path, ['safetensors'])


def metadata(text):
    yaml = pytest.importorskip('yaml')
    _, front, body = text.split('---\n', 2)
    return yaml.safe_load(front), body


def test_the_card_has_what_hubs_read():
    run = result(test_accuracy=0.94126, command='python examples/cifar10.py --seed=0')
    found, body = metadata(export.model_card(run, ['model.keras', 'model.onnx', 'notes.txt']))
    assert found['library_name'] == 'keras'
    assert found['pipeline_tag'] == 'image-classification'
    assert found['datasets'] == ['uoft-cs/cifar10']
    (entry,) = found['model-index']
    (reached,) = entry['results']
    assert reached['task'] == {'type': 'image-classification'}
    assert reached['dataset'] == {'name': 'cifar10', 'type': 'uoft-cs/cifar10', 'split': 'test'}
    assert reached['metrics'] == [{'type': 'accuracy', 'value': 0.9413}]
    assert '94.13 % of the 10,000 test images of cifar10' in body
    assert '| `model.onnx` |' in body
    assert 'notes.txt' not in body
    assert 'python examples/cifar10.py --seed=0' in body


def test_the_card_of_a_data_set_of_ones_own():
    run = {'recipe': 'page10: "mine"', 'dataset': "cats' & dogs", 'test_accuracy': 0.5}
    found, _ = metadata(export.model_card(run))
    assert 'datasets' not in found
    assert found['model-index'][0]['name'] == 'page10: "mine" on cats\' & dogs'
    assert found['model-index'][0]['results'][0]['dataset']['name'] == "cats' & dogs"


@pytest.mark.parametrize('name', ['a|b', '<b>', 'two\nlines', '🦊 \u202e', '`x`', '_a_', 'x' * 200])
def test_the_card_shows_names_as_they_are(name):
    run = {'recipe': name, 'dataset': name, 'test_accuracy': 0.5, 'class_names': [name, 'b']}
    found, body = metadata(
        export.model_card({**run, 'hardware': name, 'command': f'python {name}'})
    )
    assert found['model-index'][0]['results'][0]['dataset']['name'] == name
    markdown = pytest.importorskip('markdown_it')
    html = markdown.MarkdownIt('commonmark').enable('table').render(body)
    line = escape(' '.join(name.split()))
    assert f'Classes, in the order of the logits: {line}, b.' in html
    assert f'<td>{line}</td>' in html
    assert f'<h1>{line} on {line}</h1>' in html
    assert html.count('<table>') == 1
    assert f'python {escape(name)}\n</code>' in html


@pytest.mark.parametrize(
    ('network', 'begun'),
    [
        (None, 'trained from scratch with'),
        ({'name': 'ResNet50', 'weights': None}, 'a ResNet50 trained from random weights with'),
        (
            {'name': 'ResNet50', 'weights': 'imagenet', 'stages': 2},
            'a pretrained ResNet50 (weights: imagenet), fine-tuned in its last 2 stages with',
        ),
        (
            {'name': 'ResNet50', 'weights': 'imagenet', 'stages': 1},
            'a pretrained ResNet50 (weights: imagenet), fine-tuned in its last stage with',
        ),
        (
            {'name': 'ResNet50', 'weights': 'imagenet', 'stages': 0},
            'a pretrained ResNet50 (weights: imagenet), fine-tuned, only its head, with',
        ),
        (
            {'name': 'keras_hub:vit', 'weights': 'imagenet', 'stages': None},
            'a pretrained keras_hub:vit (weights: those of the preset), fine-tuned with',
        ),
    ],
)
def test_the_card_says_what_the_training_began_with(network, begun):
    settings = {} if network is None else {'pretrained': network}
    card = export.model_card(result(settings=settings))
    assert f'An image classifier, {begun} fenwicks. It' in card


def test_the_command_exports_a_finished_run(model, tmp_path, capsys):
    pytest.importorskip('safetensors')
    run = tmp_path / 'run'
    run.mkdir()
    with pytest.raises(SystemExit) as raised:
        command_line.main([str(run)])
    line = f'RUN must be the folder of a finished run. Received: {run}, no model.keras'
    assert raised.value.code == f'fenwicks.export: {line}'
    model.save(run / 'model.keras')
    (run / 'result.json').write_text(json.dumps(result()))
    whole = (run / 'model.keras').read_bytes()
    for damaged in (whole[: len(whole) // 2], b'', whole.replace(b'config.json', b'config.jsox')):
        (run / 'model.keras').write_bytes(damaged)
        with pytest.raises(SystemExit, match='RUN must hold a model as Keras saves it') as raised:
            command_line.main([str(run), '--formats=safetensors'])
        assert '\n' not in raised.value.code
    (run / 'model.keras').write_bytes(whole)
    command_line.main([str(run), '--formats=safetensors'])
    assert capsys.readouterr().out.split() == [
        str(run / 'model.safetensors'),
        str(run / 'README.md'),
    ]
    assert '| `model.safetensors` |' in (run / 'README.md').read_text()
    assert sorted(os.listdir(run)) == [
        'README.md',
        'model.keras',
        'model.safetensors',
        'result.json',
    ]


def test_the_command_says_before_the_work_which_folder_is_no_run(model, tmp_path, denied, capsys):
    runs = tmp_path / 'k1'
    for folder in (runs / '0', denied):
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / 'model.keras')
        (folder / 'result.json').write_text(json.dumps(result()))
    for folder, line in (
        (runs, f'RUN must be one of the runs in this folder, such as {runs}/0. Received: {runs}'),
        (
            denied,
            '`RUN` must be a folder that can be written to. '
            f'Received: {denied} (Permission denied)',
        ),
    ):
        with pytest.raises(SystemExit) as raised:
            command_line.main([str(runs / '0'), str(folder), '--formats=safetensors'])
        assert raised.value.code == f'fenwicks.export: {line}'
    with pytest.raises(OSError, match='`folder` must be a folder that can be written to'):
        export.write(model, denied, ['safetensors'])
    assert capsys.readouterr().out == ''
    assert not (runs / '0' / 'README.md').exists()


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('name', export.FORMATS)
def test_a_full_disk_leaves_the_former_export_and_says_so_in_a_line(name, tmp_path):
    inputs = keras.Input((8, 8, 3))
    h = keras.layers.Dense(512)(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, keras.layers.Dense(2)(h))
    path = tmp_path / export.FORMATS[name]
    if name == 'saved_model':
        path.mkdir()
        (path / 'saved_model.pb').touch()
        (path / 'old').touch()
    else:
        path.write_text('old')
    try:
        export.check_formats([name])
    except ImportError as error:
        pytest.skip(str(error))
    with largest_file(50_000), pytest.raises(OSError, match='the disk must take the') as raised:
        export.write(network, tmp_path, [name])
    assert str(path) in str(raised.value)
    assert '\n' not in str(raised.value)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert (path / 'old').exists() if path.is_dir() else path.read_text() == 'old'


@pytest.mark.backend('tensorflow')
def test_an_operation_that_a_format_lacks_is_no_matter_of_the_disk(tmp_path):
    tf = pytest.importorskip('tensorflow')

    class OfPython(keras.layers.Layer):
        def call(self, inputs):
            return tf.ensure_shape(tf.numpy_function(np.abs, [inputs], 'float32'), inputs.shape)

    model = keras.Sequential([keras.Input((4,), batch_size=1), OfPython(), keras.layers.Dense(2)])
    with pytest.raises(
        ValueError, match=r'^`model` must consist of .* that model\.tflite can'
    ) as raised:
        export.write(model, tmp_path, ['litert'])
    assert '\n' not in str(raised.value)
    assert not list(tmp_path.iterdir())


class OfCode(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def of_two_inputs():
    inputs = keras.Input((4,)), keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Add()(inputs)), name='of_two')


@pytest.mark.parametrize(
    ('make', 'name', 'received'),
    [
        (OfCode, 'saved_model', 'of_code'),
        (of_two_inputs, 'saved_model', 'of_two'),
        (lambda: keras.Sequential([keras.layers.Dense(2)], name='unbuilt'), 'saved_model', 'unb'),
        (lambda: keras.Sequential([keras.layers.Dense(2)], name='unbuilt'), 'safetensors', 'unb'),
    ],
)
def test_models_without_one_input_are_refused(make, name, received, tmp_path):
    pytest.importorskip('safetensors')
    if name == 'saved_model':
        pytest.importorskip('tensorflow')
    message = f'`model` must be a Functional or Sequential model .* Received: {received}'
    with pytest.raises(ValueError, match=message):
        export.write(make(), tmp_path, [name])
    assert not list(tmp_path.iterdir())


class Deep(keras.layers.Layer):
    """As many write their blocks: a number called `layers`."""

    layers = 3

    def call(self, inputs):
        return inputs


def test_a_number_called_layers(tmp_path):
    pytest.importorskip('safetensors')
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Deep()(inputs)))
    assert export.write(model, tmp_path, ['safetensors'])


def test_a_format_alone_is_no_sequence(model, tmp_path):
    with pytest.raises(ValueError, match=r'`formats` must be a sequence of names\. .*onnx'):
        export.write(model, tmp_path, 'onnx')


def test_an_inverted_normalization_is_exported_as_it_computes(tmp_path):
    images = keras.Input((8, 8, 3))
    inverted = keras.layers.Normalization(mean=[120.0, 110, 100], variance=[4.0, 5, 6], invert=True)
    logits = keras.layers.GlobalAveragePooling2D()(inverted(images))
    model = keras.Model(images, logits)
    from fenwicks.export.formats import _with_constants

    pixels = np.random.default_rng(0).uniform(0, 9, (2, 8, 8, 3)).astype('float32')
    found = keras.ops.convert_to_numpy(_with_constants(model)(pixels))
    np.testing.assert_allclose(found, model.predict(pixels, verbose=0), rtol=1e-5)


def test_nothing_of_the_user_is_replaced(tmp_path, model, monkeypatch, capsys):
    """An edited card and a folder of the name were."""
    monkeypatch.setenv('HOME', str(tmp_path))
    run = tmp_path / 'run'
    run.mkdir()
    model.save(run / 'model.keras')
    (run / 'result.json').write_text(json.dumps(result()))
    command_line.main(['~/run'])
    card = run / 'README.md'
    plain = card.read_text()
    command_line.main([str(run)])  # its own is written anew
    assert card.read_text() == plain
    card.write_text(plain + 'my notes')
    command_line.main([str(run)])
    assert card.read_text() == plain + 'my notes'
    assert capsys.readouterr().err == f'fenwicks.export: {card} was edited and stays as it is\n'
    (run / 'saved_model').mkdir()
    (run / 'saved_model' / 'notes.txt').write_text('mine')
    with pytest.raises((ValueError, ImportError), match='saved_model'):
        export.write(model, run, ['saved_model'])
    assert (run / 'saved_model' / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize(
    ('more', 'line'),
    [
        ({'dataset': None}, '`result` must hold dataset'),
        ({'test_accuracy': 'high'}, "must hold a number as test_accuracy. Received: 'high'"),
        ({'class_names': 5}, 'must hold a list as class_names. Received: 5'),
        ({'class_names': 'cat'}, "must hold a list as class_names. Received: 'cat'"),
        ({'test_accuracy': float('nan')}, 'must hold a number as test_accuracy. Received: nan'),
        ({'test_images': 1.5}, 'must hold an integer as test_images. Received: 1.5'),
    ],
)
def test_a_result_that_makes_no_card(more, line):
    with pytest.raises(ValueError, match=line):
        export.model_card({**result(), **more})
    assert 'test images' in export.model_card({**result(), 'test_images': None})
    assert '50.00 %' in export.model_card({**result(), 'test_accuracy': np.float32(0.5)})


def test_formats_from_a_generator(model, tmp_path):
    assert export.write(model, tmp_path, (name for name in ['safetensors'])) == [
        tmp_path / 'model.safetensors'
    ]


def test_an_interrupt_at_the_last_moment_keeps_the_former_folder(tmp_path, monkeypatch):
    class Model:
        def export(self, path, **_):
            os.mkdir(path)

    (tmp_path / 'saved_model').mkdir()
    (tmp_path / 'saved_model' / 'former').touch()
    real, calls = os.replace, []

    def replace(old, new):
        calls.append(old)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(old, new)

    monkeypatch.setattr(formats.os, 'replace', replace)
    with pytest.raises(KeyboardInterrupt):
        formats._write_folder(Model(), tmp_path / 'saved_model')
    assert os.listdir(tmp_path) == ['saved_model']
    assert os.listdir(tmp_path / 'saved_model') == ['former']

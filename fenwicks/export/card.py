"""The card of a run: `README.md` in its folder, as model hubs read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fenwicks.export.formats import FORMATS

# Where the Hugging Face hub keeps the data sets.
_HUB = {'cifar10': 'uoft-cs/cifar10', 'cifar100': 'uoft-cs/cifar100'}

# What may lie in the folder, and how it is used.
_FILES = {
    'model.keras': 'the model: `import fenwicks`, then `keras.saving.load_model`',
    FORMATS['saved_model']: 'TensorFlow: `tf.saved_model.load(...).serve(pixels)`',
    FORMATS['litert']: 'LiteRT: `ai_edge_litert.interpreter.Interpreter`',
    FORMATS['onnx']: 'ONNX: `onnxruntime.InferenceSession`',
    FORMATS['safetensors']: 'weights alone: `safetensors.numpy.load_file`',
    'result.json': 'settings, versions, times, and the metrics of every epoch',
    'report.html': 'the run on one page, with pictures',
    'report.npz': 'predictions on the test images, for `report.html`',
}


def model_card(result: Mapping[str, Any], files: Iterable[str] = ()) -> str:
    """The model card of a run, as Markdown with YAML metadata on top.

    Written to `README.md` in the folder of the run, it makes the folder a model repository: the
    Hugging Face hub reads task, library, data set and test accuracy from it.

    Args:
        result: what `result.json` holds. `recipe`, `dataset` and `test_accuracy` must be there.
        files: names of what lies in the folder; the card says what the known ones are.

    Returns:
        The text.

    Example:

    >>> from fenwicks import export
    >>> result = {'recipe': 'page24', 'dataset': 'cifar10', 'test_accuracy': 0.94125}
    >>> text = export.model_card(result)
    >>> text.splitlines()[1]
    'library_name: keras'
    """
    sections = (_metadata(result), _about(result), _use(result), _training(result), _files(files))
    return '\n\n'.join('\n'.join(section) for section in sections) + '\n'


def _title(result):
    return f'{result["recipe"]} on {result["dataset"]}'


def _metadata(result: Mapping[str, Any]) -> Iterator[str]:
    """YAML: every text in it is quoted as in JSON, which YAML takes."""
    dataset = result['dataset']
    yield from ('---', 'library_name: keras', 'pipeline_tag: image-classification')
    yield from ('tags:', '- keras', '- fenwicks', '- image-classification')
    if dataset in _HUB:
        yield from ('datasets:', f'- {_HUB[dataset]}')
    yield from ('metrics:', '- accuracy', 'model-index:', f'- name: {json.dumps(_title(result))}')
    yield from ('  results:', '  - task:', '      type: image-classification', '    dataset:')
    yield f'      name: {json.dumps(dataset)}'
    yield f'      type: {json.dumps(_HUB.get(dataset, dataset))}'
    yield from ('      split: test', '    metrics:')
    yield from ('    - type: accuracy', f'      value: {result["test_accuracy"]:.4f}', '---')


def _about(result: Mapping[str, Any]) -> Iterator[str]:
    yield from (f'# {_title(result)}', '')
    images = f'{result["test_images"]:,} test images' if 'test_images' in result else 'test images'
    views = result.get('test_time_augmentation')
    plain = result.get('test_accuracy_plain')
    remark = ''
    if views not in (None, 'none') and plain is not None:
        remark = (
            f' That is with the test-time augmentation `{views}`; without it, as in the files here,'
            f' {100 * plain:.2f} %.'
        )
    yield (
        f'An image classifier, trained from scratch with fenwicks. It classifies '
        f'{100 * result["test_accuracy"]:.2f} % of the {images} of {result["dataset"]} '
        f'correctly.{remark} That is one run: another seed gives a slightly different number.'
    )


def _use(result: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        '## Use',
        '',
        'It takes batches of RGB pixels from 0 to 255, as they are in a file, and returns logits.',
        '',
        '```python',
        'import fenwicks  # registers its layers',
        'import keras',
        'import numpy as np',
        'from PIL import Image',
        '',
        "model = keras.saving.load_model('model.keras')",
        "pixels = Image.open('photo.png').convert('RGB').resize(model.input_shape[2:0:-1])",
        "logits = model.predict(np.asarray(pixels, 'float32')[None])",
        'probabilities = keras.ops.softmax(logits)',
        '```',
    )
    names = result.get('class_names')
    if names:
        listed = ', '.join(names[:100]) + (', ...' if len(names) > 100 else '')
        yield from ('', f'Classes, in the order of the logits: {listed}.')
    yield from (
        '',
        f'It knows only what is in {result["dataset"]}: of any other picture it names one of its '
        'classes all the same, often with a high probability.',
    )


def _training(result: Mapping[str, Any]) -> Iterator[str]:
    words = {
        'epochs': 'epochs',
        'batch_size': 'images in a batch',
        'train_images': 'training images',
        'train_seconds': 'seconds of training',
        'precision': 'precision',
        'hardware': 'hardware',
        'backend': 'Keras backend',
        'seed': 'seed',
        'date': 'date',
        'commit': 'commit of fenwicks',
    }
    yield from ('## Training', '', '| | |', '| --- | --- |')
    for key, word in words.items():
        value = result.get(key)
        if value is not None:
            yield (
                f'| {word} | {value:,.1f} |'
                if isinstance(value, float)
                else (f'| {word} | {value} |')
            )
    if result.get('command'):
        yield from ('', 'The command that trains the same again:', '')
        yield from ('```bash', result['command'], '```')


def _files(files: Iterable[str]) -> Iterator[str]:
    there = set(files)
    found = {name: use for name, use in _FILES.items() if name in there}
    if found:
        yield from ('## Files', '', '| file | what it is |', '| --- | --- |')
        yield from (f'| `{name}` | {use} |' for name, use in found.items())

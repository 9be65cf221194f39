"""The card of a run: `README.md` in its folder, as model hubs read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fenwicks.data.images import FITS
from fenwicks.export.formats import FORMATS

# Where the Hugging Face hub keeps the data sets.
_HUB = {'cifar10': 'uoft-cs/cifar10', 'cifar100': 'uoft-cs/cifar100'}

# What may lie in the folder, and how it is used.
_FILES = {
    'model.keras': 'the model: `import fenwicks`, then `keras.saving.load_model`',
    FORMATS[
        'saved_model'
    ]: 'TensorFlow: `model = tf.saved_model.load(...)`, then `model.serve(pixels)`',
    FORMATS['litert']: 'LiteRT: `ai_edge_litert.interpreter.Interpreter`',
    FORMATS['onnx']: 'ONNX: `onnxruntime.InferenceSession`',
    FORMATS['safetensors']: 'weights alone: `safetensors.numpy.load_file`',
    'result.json': 'settings, versions, times, and the metrics of every epoch',
    'report.html': 'the run on one page, with pictures',
    'report.npz': 'predictions on the test images, for `report.html`',
}


_KINDS: dict[str, Any] = {
    'test_accuracy': int | float,
    'test_accuracy_plain': int | float,
    'test_images': int,
    'class_names': Sequence,
}
_WORDS = {int | float: 'a number', int: 'an integer', Sequence: 'a list'}


def model_card(result: Mapping[str, Any], files: Iterable[str] = ()) -> str:
    """The model card of a run, as Markdown with YAML metadata on top.

    Written to `README.md` in the folder of the run, it makes the folder a model repository: the
    Hugging Face hub reads task, library, data set and test accuracy from it.

    Args:
        result: what `result.json` holds. `recipe`, `dataset` and `test_accuracy` must be there.
        files: names of what lies in the folder; the card says what the known ones are.

    Returns:
        The text.

    Raises:
        ValueError: a key is missing, or its value is of another kind.

    Example:

    >>> from fenwicks import export
    >>> result = {'recipe': 'page24', 'dataset': 'cifar10', 'test_accuracy': 0.94125}
    >>> text = export.model_card(result)
    >>> text.splitlines()[1]
    'library_name: keras'
    """
    result = _checked(result)
    sections = (_metadata(result), _about(result), _use(result), _training(result), _files(files))
    return '\n\n'.join('\n'.join(section) for section in sections) + '\n'


def _checked(result):
    """The result without keys that hold nothing."""
    found = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in result.items()
        if value is not None
    }
    if missing := [key for key in ('recipe', 'dataset', 'test_accuracy') if key not in found]:
        raise ValueError(f'`result` must hold {missing[0]}. Received: {", ".join(found) or "{}"}')
    for key, kind in _KINDS.items():
        value = found.get(key)
        wrong = isinstance(value, bool | str) or not isinstance(value, kind)
        if value is not None and (wrong or value != value):  # NaN differs from itself
            raise ValueError(f'`result` must hold {_WORDS[kind]} as {key}. Received: {value!r}')
    return found


def own_text(card: str) -> list[str]:
    """A card's lines without those on files, which come and go."""
    starts = tuple(f'| `{name}` | ' for name in _FILES)
    about = ('## Files', '| file | what it is |', '| --- | --- |', '')
    return [x for x in card.splitlines() if x not in about and not x.startswith(starts)]


def _title(result):
    return f'{result["recipe"]} on {result["dataset"]}'


def _metadata(result: Mapping[str, Any]) -> Iterator[str]:
    dataset = result['dataset']
    yield from ('---', 'library_name: keras', 'pipeline_tag: image-classification')
    yield from ('tags:', '- keras', '- fenwicks', '- image-classification')
    if dataset in _HUB:
        yield from ('datasets:', f'- {_HUB[dataset]}')
    yield from ('metrics:', '- accuracy', 'model-index:', f'- name: {_quoted(_title(result))}')
    yield from ('  results:', '  - task:', '      type: image-classification', '    dataset:')
    yield f'      name: {_quoted(dataset)}'
    yield f'      type: {_quoted(_HUB.get(dataset, dataset))}'
    yield from ('      split: test', '    metrics:')
    yield from ('    - type: accuracy', f'      value: {result["test_accuracy"]:.4f}', '---')


def _quoted(text: object) -> str:
    """A text in YAML. JSON's quotes won't do: they write an emoji as two numbers, not one."""
    escaped = {'"': r'\"', '\\': r'\\'}
    letters = (
        escaped.get(letter, letter) if letter.isprintable() else f'\\U{ord(letter):08x}'
        for letter in str(text)
    )
    return f'"{"".join(letters)}"'


def _plain(text: object) -> str:
    """A text on one line of Markdown, whose letters stand for themselves."""
    line = ' '.join(str(text).split())
    return re.sub(r'[\\`*\[\]<>|~$&#]|(?<!\w)_|_(?!\w)', r'\\\g<0>', line)


def begun(result: Mapping[str, Any]) -> str:
    """What the training that gave a result began with, in words that follow `a classifier,`."""
    settings = result.get('settings')
    network = settings.get('pretrained') if isinstance(settings, Mapping) else None
    if not isinstance(network, Mapping):
        return 'trained from scratch with fenwicks'
    name = str(network.get('name'))
    hub = name.lower().startswith('keras_hub:')
    weights = 'those of the preset' if hub else network.get('weights')
    if weights is None:
        return f'a {name} trained from random weights with fenwicks'
    stages = network.get('stages')
    parts = {'None': '', '0': ', only its head,', '1': ' in its last stage'}
    part = parts.get(str(stages), f' in its last {stages} stages')
    return f'a pretrained {name} (weights: {weights}), fine-tuned{part} with fenwicks'


def _about(result: Mapping[str, Any]) -> Iterator[str]:
    yield from (f'# {_plain(_title(result))}', '')
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
        f'An image classifier, {_plain(begun(result))}. It classifies '
        f'{100 * result["test_accuracy"]:.2f} % of the {images} of {_plain(result["dataset"])} '
        f'correctly.{remark} That is one run: another seed gives a slightly different number.'
    )


def _use(result: Mapping[str, Any]) -> Iterator[str]:
    settings = result.get('settings')
    fit = settings.get('fit') if isinstance(settings, Mapping) else None
    yield from (
        '## Use',
        '',
        'It takes batches of RGB pixels from 0 to 255, as they are in a file, and returns logits.',
        '',
        '```python',
        'import fenwicks  # registers its layers',
        'import keras',
        'from fenwicks.data.images import decode_image',
        '',
        "model = keras.saving.load_model('model.keras')",
        '_, height, width, channels = model.input_shape',
        "pixels = decode_image('photo.png', (height, width), "
        f"fit='{fit if fit in FITS else FITS[0]}', channels=channels)",
        "logits = model.predict(pixels[None].astype('float32'))",
        'probabilities = keras.ops.softmax(logits)',
        '```',
    )
    names = result.get('class_names')
    if names:
        listed = ', '.join(map(_plain, names[:100])) + (', ...' if len(names) > 100 else '')
        yield from ('', f'Classes, in the order of the logits: {listed}.')
    yield from (
        '',
        f'It knows only what is in {_plain(result["dataset"])}: of any other picture it names one '
        'of its classes all the same, often with a high probability.',
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
        if key == 'epochs' and isinstance(value, float):
            value = f'{value:g}'
        if value is not None:
            yield (
                f'| {word} | {value:,.1f} |'
                if isinstance(value, float)
                else (f'| {word} | {_plain(value)} |')
            )
    if result.get('command'):
        yield from ('', 'The command that trains the same again:', '')
        command = str(result['command'])
        fence = max([*re.findall('`+', command), '``'], key=len) + '`'
        yield from (f'{fence}bash', command, fence)


def _files(files: Iterable[str]) -> Iterator[str]:
    there = set(files)
    found = {name: use for name, use in _FILES.items() if name in there}
    if found:
        yield from ('## Files', '', '| file | what it is |', '| --- | --- |')
        yield from (f'| `{name}` | {use} |' for name, use in found.items())

"""Folders of runs for the tests of the report, and a reader of pages that is strict about HTML."""

import dataclasses
import html.parser
import json
import math

import numpy as np

from fenwicks import recipes
from fenwicks.report import Material

VOID = {'meta', 'img', 'br', 'hr', 'link', 'input', 'wbr'}
NAMES = [f'kind {letter}' for letter in 'abcdefghij']


def result(recipe='page24', seed=0, accuracy=0.9375, epochs=3, **more):
    """A result as `examples/cifar10.py` writes it."""
    preset, _, removed = recipe.partition('-')
    chosen = recipes.get(preset, removed=[removed] if removed else []).with_epochs(epochs)
    settings = dataclasses.asdict(chosen)
    history = [
        {
            'epoch': epoch,
            'train_loss': 2.0 / epoch + 0.01 * seed,
            'train_accuracy': 1 - 0.5 / epoch,
            'learning_rate': 0.1 * (epochs - epoch),
            'seconds': 20.0,
            'images_per_second': 2500.0,
        }
        for epoch in range(1, math.ceil(epochs) + 1)
    ]
    return {
        'recipe': recipe,
        'dataset': 'cifar10',
        'train_images': 50_000,
        'test_images': 10_000,
        'epochs': epochs,
        'batch_size': settings['batch_size'],
        'seed': seed,
        'precision': 'bfloat16',
        'backend': 'tensorflow',
        'device': 'cpu',
        'hardware': 'Some Processor, 2 cores',
        'test_accuracy': accuracy,
        'test_accuracy_plain': accuracy,
        'test_loss': 0.25,
        'test_time_augmentation': 'none',
        'train_seconds': 61.5 + seed,
        'compile_seconds': 12.25,
        'preprocess_seconds': 1.5,
        'eval_seconds': 4.75,
        'first_step_seconds': 20.125,
        'images_per_second': 2500.0,
        'peak_memory_mb': 1280,
        'versions': {'python': '3.12.1', 'keras': '3.15.1'},
        'commit': 'abcdef0123456789abcdef0123456789abcdef01',
        'clean': True,
        'date': '2026-11-25',
        'class_names': NAMES,
        'settings': {'recipe': settings, 'dataset': 'cifar10', 'train_images': 50_000},
        'history': history,
        **more,
    }


def material(classes=10, mistakes=4, side=8):
    """Predictions that are right save for a few, and noise for images."""
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.int32) % classes
    logits = 4.0 * np.eye(classes)[labels]
    for place in range(mistakes):  # each surer than the one before
        logits[place, (labels[place] + 1) % classes] = 5.0 + place
    images = rng.integers(0, 256, (200, side, side, 3), np.uint8)
    samples = rng.integers(0, 256, (2, side, side, 3), np.uint8)
    return Material.of(logits, labels, images, samples, np.stack([samples, 255 - samples]))


def write_run(folder, values=None, extra=True, **changes):
    """A run's folder; `extra` is whether it has predictions and images."""
    folder.mkdir(parents=True)
    (folder / 'result.json').write_text(json.dumps(values or result(**changes)))
    if extra:
        material().save(folder)
    return folder


class Page(html.parser.HTMLParser):
    """Reads a page, and raises where an element isn't closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.headings, self.words = [], [], [], []
        assert text.startswith('<!DOCTYPE html>')
        self.feed(text)
        self.close()
        assert not self.open, f'left open: {self.open}'

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f'an attribute twice: {attrs}'
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert 'svg' in self.open or tag in VOID, f'<{tag}/> outside SVG'
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f'</{tag}> closes nothing'
        assert self.open.pop() == tag, f'</{tag}> closes another element'
        if tag != 'code':  # the one that stands within a sentence
            self.words.append(' ')

    def handle_data(self, data):
        if self.open and self.open[-1] in ('h1', 'h2', 'h3', 'h4'):
            self.headings.append((int(self.open[-1][1]), ' '.join(data.split())))
        if 'style' not in self.open and 'svg' not in self.open:
            self.words.append(data)

    def all(self, tag):
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        """All words outside drawings, with single spaces."""
        return ' '.join(''.join(self.words).split())

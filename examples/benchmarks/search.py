"""Trains variants of a recipe one after another, and compares their accuracy and time.

    python examples/benchmarks/search.py --log=search.jsonl --precision=bfloat16
    python examples/benchmarks/search.py --log=search.jsonl --file=variants.txt --seeds=0,1
    python examples/benchmarks/search.py --log=search.jsonl --variant='speed94_muon +tail epochs=8'

A variant is a recipe and its changes, with spaces between them: `+trick`, `-trick`, `epochs=8` (the
schedule is stretched), `batch_size=1000` (SGD's rates change in proportion, as those of a sum of
losses do), `width=0.5`, or a field of the recipe, as in `muon_learning_rate=0.2` or
`image_sizes=24,24,28,28,32,32`. Without any, those of `VARIANTS` are trained. Each run is appended
to the log when it ends; the same command goes on. Choices made on these seeds need fresh ones to be
confirmed: `--seeds=100,101,102`. `--render` trains nothing and prints the table of what is logged.
"""

from __future__ import annotations

import startup  # noqa: F401

import dataclasses
import pathlib

import logged
import resumable
import trainings
from absl import flags

from fenwicks import command, recipes, runlog
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
trainings.define_flags(changes=False)
flags.adopt_module_key_flags(trainings)
flags.DEFINE_string('log', 'search.jsonl', 'JSON-lines file of the runs; it is added to.')
flags.DEFINE_multi_string('variant', [], 'A variant; may be repeated.')
flags.DEFINE_string('file', None, 'A file with a variant on each line; # begins a comment.')
flags.DEFINE_list('seeds', ['0'], 'Seeds of each variant, by commas.')
flags.DEFINE_bool('render', False, 'Train nothing; print the table.')

# Around the settings of the record of 2026: batches, epochs, sizes, the tail, the activation.
VARIANTS = (
    'speed94',
    'speed94_muon',
    'speed94_muon epochs=9',
    'speed94_2026',
    'speed94_2026 batch_size=2000',
    'speed94_2026 epochs=8',
    'speed94_2026 epochs=7.5',
    'speed94 epochs=8',
    'speed94 epochs=7',
    'speed94_2026 image_sizes=24,24,28,28,28,32,32',
    'speed94_2026 image_sizes=24,24,24,24,28,28,28,32,32',
    'speed94_2026 image_sizes=26,26,26,28,28,28,32,32,32',
    'speed94_2026 epochs=8 image_sizes=24,24,24,28,28,28,32,32',
    'speed94_2026 -tail epochs=8.5',
    'speed94_2026 -jitter',
    'speed94_2026 -silu +gelu',
    'speed94_2026 -mild_smoothing +label_smoothing',
    'speed94_2026 -sparse_normalization',
    'speed94_muon epochs=9 +growing_images +jitter',
    'speed94_muon +growing_images +tail batch_size=1536',
)


def main():
    seeds = resumable.seeds_of(FLAGS.seeds)
    texts = list(dict.fromkeys(' '.join(text.split()) for text in chosen()))
    planned = {text: parse(text) for text in texts}  # bad ones are reported before any training
    if FLAGS.render:
        lines = runlog.read_lines(FLAGS.log)
    else:
        dataset = trainings.load_dataset(FLAGS)
        arms = {text: arm(recipe, dataset) for text, recipe in planned.items()}
        lines = resumable.train_missing(FLAGS.log, arms, seeds, 'variant', dataset)
    print(table(planned, lines))


def chosen():
    """The variants as texts."""
    texts = list(FLAGS.variant)
    if FLAGS.file:
        with open(pathlib.Path(FLAGS.file).expanduser()) as file:
            texts += [text for line in file if (text := line.partition('#')[0].strip())]
    return texts or VARIANTS


def parse(text):
    """The recipe that a variant means."""
    if not text:
        raise ValueError('`variant` must be a recipe and its changes. Received: variant=')
    name, *changes = text.split()
    added = [change[1:] for change in changes if change.startswith('+')]
    removed = [change[1:] for change in changes if change.startswith('-')]
    with command.renamed(dict.fromkeys(('set', 'name', 'added', 'removed'), 'variant')):
        settings = recipe_flags.parse_settings(
            change
            for change in changes
            if change[0] not in '+-' and not change.startswith('width=')
        )
        recipe = recipes.get(name, added, removed)
    widths = [factor(change) for change in changes if change.startswith('width=')]
    budget = {key: settings.pop(key) for key in ('epochs', 'batch_size') if key in settings}
    recipe = dataclasses.replace(recipe, **settings)
    for width in widths:
        recipe = recipe.with_width(width)
    if 'epochs' in budget:
        recipe = recipe.with_epochs(budget['epochs'])
    if 'batch_size' in budget:
        recipe = recipe.with_batch_size(budget['batch_size'], scale_rate=True)
    return recipe


def factor(change):
    """The factor of `width=FACTOR`."""
    try:
        return float(change.partition('=')[2])
    except ValueError:
        raise ValueError(
            f'`variant` must give `width` a number, as in width=0.5. Received: variant={change}'
        ) from None


def arm(recipe, dataset):
    """What each training of a recipe has in common, and the training as a function of its seed."""

    def train(seed):
        training = trainings.make('fenwicks', recipe, dataset, FLAGS, seed)
        about = {'benchmark': 'search', 'arithmetic_epochs': round(whole_epochs(recipe), 3)}
        return {**about, **training.run()}

    return resumable.planned(recipe, FLAGS), train


def whole_epochs(recipe, side=32):
    """The arithmetic of a recipe, in epochs of images of their own size."""
    sizes = recipe.image_size_epochs() or ((0, side),)
    ends = [start for start, _ in sizes[1:]] + [recipe.epochs]
    return sum(
        (end - start) * (size / side) ** 2 for (start, size), end in zip(sizes, ends, strict=True)
    )


def table(planned, lines):
    rows = []
    for text, recipe in planned.items():
        runs = [line for line in lines if line.get('variant') == text]
        if runs:
            count = len(logged.finished(runs))
            measured = [count, resumable.accuracy(runs), resumable.seconds(runs)]
            rows.append([text, f'{whole_epochs(recipe):.2f}', *measured])
    header = ['variant', 'arithmetic, epochs', 'n', 'test accuracy, %', 'training, s']
    return runlog.markdown(header, rows)


if __name__ == '__main__':
    command.run(main, 'search.py')

"""What a training script leaves beside its result: exports, the model card, pages with pictures."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shlex

import numpy as np
from absl import flags

from fenwicks import assemble, augment, command, data, export, report, runlog

# Flags that say where things lie, and how a training was split up, not what was trained.
_NOT_REPEATED = {
    *('out', 'resume', 'runs', 'seed', 'data_dir', 'report', 'export'),
    *('validate', 'tensorboard', 'history_csv', 'wandb', 'verbosity'),
}
SAMPLES, EPOCHS = 6, 6  # training images shown, and augmented versions of each


def define_flags():
    """Defines --report and --export."""
    flags.DEFINE_bool(
        'report', True, 'Write report.html into the folder of each run, if Matplotlib is installed.'
    )
    flags.DEFINE_list(
        'export', [], f'Also save the model as {", ".join(export.FORMATS)}, separated by commas.'
    )


def check_flags():
    """Raises, before the training, where a format of --export can't be written here."""
    with command.renamed({'formats': 'export'}):
        export.check_formats(flags.FLAGS.export)
        if flags.FLAGS.export and flags.FLAGS.model_precision != 'float32':
            raise ValueError(
                '`export` needs `model_precision` float32. '
                f'Received: model_precision={flags.FLAGS.model_precision}'
            )


def publish(model, result, folder):
    """Writes the exports of --export and the model card into the folder of a run."""
    export.write(model, folder, flags.FLAGS.export)
    named = {*os.listdir(folder), 'result.json'}
    if flags.FLAGS.report and importlib.util.find_spec('matplotlib'):
        named.add('report.html')  # which comes after all runs
    runlog.write_text(pathlib.Path(folder) / 'README.md', export.model_card(result, named))


def not_written(result, folder):
    """What the flags ask for and a finished run doesn't have, for a message; '' if nothing."""
    given, lacking = flags.FLAGS, []
    formats = [
        name for name in given.export if not pathlib.Path(folder, export.FORMATS[name]).exists()
    ]
    if formats:
        command_ = f'python -m fenwicks.export {shlex.quote(str(folder))}'
        lacking.append(
            f'{", ".join(export.FORMATS[name] for name in formats)} '
            f'({command_} --formats={",".join(formats)} writes it)'
        )
    if given.history_csv and not pathlib.Path(folder, 'history.csv').exists():
        lacking.append('history.csv (result.json has the metrics of each epoch)')
    lacking += [
        f'{name} (that needs another training)'
        for name in ('tensorboard', 'wandb')
        if given[name].value and not pathlib.Path(folder, name).exists()
    ]
    history = result.get('history')
    records = [x for x in history if isinstance(x, dict)] if isinstance(history, list) else []
    if given.validate and not any(name.startswith('test_') for each in records for name in each):
        lacking.append('the test accuracy after each epoch (that needs another training)')
    return ', '.join(lacking)


def keep(folder, recipe, dataset, logits, seed):
    """Writes predictions and images of a run to `folder`/report.npz.

    Args:
        folder: of the run.
        recipe: what it trained.
        dataset: on what.
        logits: of the test images.
        seed: of the run.
    """
    samples = dataset.train_images[:SAMPLES]
    made = augmented(recipe, dataset, samples, EPOCHS, seed)
    tests = dataset.test_labels, dataset.test_images
    try:
        report.Material.of(logits, *tests, samples, made).save(folder)
    except ValueError as error:  # images of thousands of pixels a side
        print(f'no report.npz: {error}', flush=True)


def augmented(recipe, dataset, images, epochs, seed=0):
    """What a recipe's augmentation makes of images in some epochs, as `augment.preview`.

    Of no epoch where they can't be shown, as where labels are mixed too: a picture must not cost
    anybody a training.
    """
    statistics = data.mean_std(dataset.train_images)
    chain = augment.compose(assemble.augmentations(recipe, *statistics))
    try:
        return augment.preview(images, chain, *statistics, epochs=epochs, seed=(0, seed))
    except ValueError:
        return np.zeros((0, *np.shape(images)), np.uint8)


def write(folders, out):
    """Writes the page of each run, and one that compares several; says in a line if it can't."""
    try:
        for folder in folders:
            report.write(folder)
        if len(folders) > 1:
            report.write([*folders], pathlib.Path(out) / 'report.html')
    except (ImportError, ValueError) as error:
        print(f'no report.html: {error}', flush=True)


def command_line(script, seed, arguments=(), **chosen):
    """The command that repeats a run.

    Args:
        script: its `__file__`.
        seed: of the run.
        arguments: positional arguments.
        **chosen: flags with the values that the script chose where a flag said `auto`.
    """
    given = [
        _serialized(flag)
        for module in flags.FLAGS.flags_by_module_dict().values()
        for flag in module
        if flag.present
        and flag.name not in {*_NOT_REPEATED, *chosen}
        and not flag.help.startswith('Alias for')  # the flag that it means is there, too
    ]
    parts = [part for text in given for part in text.split('\n') if part]
    parts += [f'--{name}={value}' for name, value in chosen.items()]
    name = f'examples/{pathlib.Path(script).name}'
    return shlex.join(['python', name, *arguments, *parts, f'--seed={seed}'])


def _serialized(flag):
    """A flag as it was probably given: `--epochs=1`, not `--epochs=1.0`."""
    whole = isinstance(flag.value, float) and flag.value.is_integer()
    return f'--{flag.name}={int(flag.value)}' if whole else flag.serialize()

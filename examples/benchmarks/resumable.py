"""Trainings of several arms and seeds, logged one by one, so that the same command goes on."""

from __future__ import annotations

import pathlib
import statistics

import keras
import logged

from fenwicks import command, devices, hardware, precision, runlog, training


def seeds_of(texts):
    """The seeds that a flag names, as integers.

    Raises:
        ValueError: one isn't an integer >= 0, or there is none.
    """
    if not texts or not all(text.isdecimal() for text in texts):
        raise ValueError(
            f'`seeds` must be integers >= 0, one at least. Received: seeds={",".join(texts)}'
        )
    return list(dict.fromkeys(map(int, texts)))  # each once, as a run


def planned(recipe, values):
    """What each run of a recipe logs, by the flags: settings, precision and hardware."""
    device = devices.select_device(values.device)
    return {
        'recipe': recipe.name,
        'precision': precision.set_precision(values.precision, device),
        'backend': keras.backend.backend(),
        'hardware': hardware.describe(device, training.default_replicas().count),
        'settings': logged.recipe_settings(recipe),
    }


def train_missing(path, arms, seeds, key, dataset):
    """Trains each arm with each seed that the log lacks, one seed of all arms after the other.

    Args:
        path: of a JSON-lines file.
        arms: by name, a dict, what `planned` says of the arm, and a function from a seed to the
            result of its training.
        seeds: integers.
        key: under which a line of the log holds the name of its arm.
        dataset: what they train on, a `data.Dataset`.

    Returns:
        The lines of these arms and seeds, earlier ones included; of trainings that diverged those
        have a `test_accuracy` of None.

    Raises:
        ValueError: the log holds trainings on other data, or trainings of these arms with other
            settings or on another machine.
    """
    path = pathlib.Path(path).expanduser()
    data = {
        'dataset': dataset.name,
        'train_images': len(dataset.train_images),
        'data_digest': dataset.digest(),
    }
    command.say_how_to_go_on('the same command goes on')
    runlog.start_log(path)
    with runlog.locked(path):
        lines = runlog.read_lines(path)
        for line in lines:
            about, _ = arms.get(line.get(key), ({}, None))
            about = {**data, **about}
            runlog.check_same(path, logged.with_all_settings(line), about, newer=about)
        done = {(line.get(key), line.get('seed')) for line in lines}
        for seed in seeds:
            for name, (about, train) in arms.items():
                if (name, seed) in done:
                    continue
                about = {key: name, **data, **about}
                try:
                    result = {**about, **train(seed)}
                    said = (
                        f'{100 * result["test_accuracy"]:.2f} % '
                        f'in {result["train_seconds"]:.1f} s of training'
                    )
                except training.DivergedError:  # a result, too, which the same command would repeat
                    code = hardware.provenance()
                    result = {**about, 'seed': seed, **code, 'test_accuracy': None}
                    said = 'diverged'
                runlog.append_line(path, result)
                print(f'{name}, seed {seed}: {said}', flush=True)
    wanted = {(name, seed) for name in arms for seed in seeds}
    return [x for x in runlog.read_lines(path) if (x.get(key), x.get('seed')) in wanted]


def accuracy(lines):
    """The mean test accuracy in percent, with two standard errors."""
    accuracies = [100 * line['test_accuracy'] for line in logged.finished(lines)]
    return runlog.mean_and_error(accuracies) if accuracies else 'diverged'


def seconds(lines):
    """The median seconds of training, for a table."""
    spent = [line['train_seconds'] for line in logged.finished(lines)]
    return f'{statistics.median(spent):.0f}' if spent else '-'

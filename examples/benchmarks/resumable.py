"""Trainings of several arms and seeds, logged one by one, so that the same command goes on."""

from __future__ import annotations

import pathlib
import statistics

from fenwicks import command, runlog
from fenwicks.training import DivergedError


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


def train_missing(path, arms, seeds, key, dataset):
    """Trains each arm with each seed that the log lacks, one seed of all arms after the other.

    Args:
        path: of a JSON-lines file.
        arms: by name, a function from a seed to the result of its training, a dict.
        seeds: integers.
        key: under which a line of the log holds the name of its arm.
        dataset: what they train on, a `data.Dataset`.

    Returns:
        The lines of these arms and seeds, earlier ones included; of trainings that diverged those
        have a `test_accuracy` of None.

    Raises:
        ValueError: the log holds trainings on other data.
    """
    path = pathlib.Path(path).expanduser()
    about = {
        'dataset': dataset.name,
        'train_images': len(dataset.train_images),
        'data_digest': dataset.digest(),
    }
    command.say_how_to_go_on('the same command goes on')
    runlog.start_log(path)
    with runlog.locked(path):
        lines = runlog.read_lines(path)
        check_same_data(path, lines, about)
        done = {(line.get(key), line.get('seed')) for line in lines}
        for seed in seeds:
            for name, train in arms.items():
                if (name, seed) in done:
                    continue
                try:
                    result = {key: name, **about, **train(seed)}
                    said = (
                        f'{100 * result["test_accuracy"]:.2f} % '
                        f'in {result["train_seconds"]:.1f} s of training'
                    )
                except DivergedError:  # a result, too, which the same command would repeat
                    result = {key: name, **about, 'seed': seed, 'test_accuracy': None}
                    said = 'diverged'
                runlog.append_line(path, result)
                print(f'{name}, seed {seed}: {said}', flush=True)
    wanted = {(name, seed) for name in arms for seed in seeds}
    return [x for x in runlog.read_lines(path) if (x.get(key), x.get('seed')) in wanted]


def check_same_data(path, lines, about):
    """Raises where a log has a line of other data; lines of earlier versions have no digest."""
    for line in lines:
        if any(line.get(name, value) != value for name, value in about.items()):
            raise ValueError(
                '`log` must hold trainings on one data set: pass another file. Received: '
                f'log={path}, with one on {line.get("train_images")} images of '
                f'{line.get("dataset")}, which are other images now'
            )


def finished(lines):
    """The lines of trainings that didn't diverge."""
    return [line for line in lines if line['test_accuracy'] is not None]


def accuracy(lines):
    """The mean test accuracy in percent, with two standard errors."""
    accuracies = [100 * line['test_accuracy'] for line in finished(lines)]
    return runlog.mean_and_error(accuracies) if accuracies else 'diverged'


def paired(lines, others, key='test_accuracy'):
    """The mean difference of lines from others of the same seeds, in points, with its error."""
    theirs = {line['seed']: line[key] for line in finished(others)}
    differences = [
        100 * (x[key] - theirs[x['seed']]) for x in finished(lines) if x['seed'] in theirs
    ]
    return runlog.mean_and_error(differences) if differences else '-'


def seconds(lines):
    """The median seconds of training, for a table."""
    spent = [line['train_seconds'] for line in finished(lines)]
    return f'{statistics.median(spent):.0f}' if spent else '-'

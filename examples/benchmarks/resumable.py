"""Trainings of several arms and seeds, logged one by one, so that the same command goes on."""

from __future__ import annotations

import pathlib
import statistics

from fenwicks import command, runlog


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
        The lines of these arms and seeds, earlier ones included.

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
                result = {key: name, **about, **train(seed)}
                runlog.append_line(path, result)
                print(
                    f'{name}, seed {seed}: {100 * result["test_accuracy"]:.2f} % '
                    f'in {result["train_seconds"]:.1f} s of training',
                    flush=True,
                )
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


def accuracy(lines):
    """The mean test accuracy in percent, with two standard errors."""
    return runlog.mean_and_error([100 * line['test_accuracy'] for line in lines])


def paired(lines, others, key='test_accuracy'):
    """The mean difference of lines from others of the same seeds, in points, with its error."""
    theirs = {line['seed']: line[key] for line in others}
    differences = [100 * (x[key] - theirs[x['seed']]) for x in lines if x['seed'] in theirs]
    return runlog.mean_and_error(differences) if differences else '-'


def seconds(lines):
    """The median seconds of training."""
    return statistics.median(line['train_seconds'] for line in lines)

"""What the logged ablation says of each trick: in the README's table, and in a notebook."""

from __future__ import annotations

import dataclasses
import functools
import statistics

import logged

from fenwicks import ablation, recipes, runlog

# The presets from which tricks were removed at full size, and the log of their arms.
FULL_SIZE = ('speed94',)
FULL_LOG = 'ablation_full.jsonl'


def small():
    """The rows of the small ablation."""
    return ablation.summarize(ablation.grid(), logged.read('ablation.jsonl'))


def full_size():
    """The rows of the ablation by whole trainings, with those that `runs.jsonl` has of a preset."""
    arms = logged.read(FULL_LOG)
    return [row for preset in FULL_SIZE for row in _full_size(preset, arms)] if arms else []


def _full_size(preset, arms):
    whole = [run for run in logged.whole_runs() if _belongs(run, preset, arms[0])]
    rows = ablation.summarize(ablation.grid('', preset), [*whole, *arms])
    if not whole:
        return rows
    of_preset, *removed = rows
    views = [trick for trick in recipes.PRESETS[preset].tricks if trick.endswith('_tta')]
    return [of_preset, *(_one_view(of_preset, trick, whole) for trick in views), *removed]


def _one_view(of_preset, trick, runs):
    """The row of test-time augmentation: both scores are of the same trainings, a pair each."""
    points = [100 * (run['test_accuracy_plain'] - run['test_accuracy']) for run in runs]
    return dataclasses.replace(
        of_preset,
        arm=ablation.Arm(of_preset.arm.preset, removed=trick),
        n=len(points),
        mean=statistics.fmean(100 * run['test_accuracy_plain'] for run in runs),
        difference=statistics.fmean(points),
        error=runlog.two_errors(points),
    )


def _belongs(run, preset, arm):
    """Whether a whole training of the preset can be compared with the arms."""
    same = all(run[key] == arm[key] for key in ('hardware', 'backend', 'precision'))
    return run['recipe'] == preset and same and logged.is_as_today(run)


def budget(runs):
    """What the runs of an ablation have in common, in words."""
    run, epochs = runs[0], sorted({run['epochs'] for run in runs})
    images = f'{run["train_images"]:,}'
    return (
        f'{run["dataset"]}, {"all" if logged.is_whole(run) else "the first"} {images} images, '
        f'{" or ".join(f"{each:g}" for each in epochs)} epochs, '
        f'{_share(run["width"])} of the width, {run["precision"]}, {run["backend"]}, '
        f'{run["hardware"]}'
    )


def _share(width):
    return 'all' if width == 1 else f'{width:g}'


def measured(rows, log):
    """From which accuracies the tricks were measured, and on what."""
    means = [f'`{row.arm.preset}` {ablation.mean(row)} %' for row in rows if not row.arm.trick]
    return f'Measured from {" and ".join(means)}: {budget(logged.read(log))}.' if means else ''


def small_measured():
    return measured(small(), 'ablation.jsonl')


def tricks_table():
    """One row for each trick, with what it was measured to be worth, and on what."""
    rows = full_size()
    parts = ablation.tricks_table(rows), measured(rows, FULL_LOG)
    return '\n\n'.join(part for part in parts if part)


def worth(trick):
    """What a trick is worth, in a sentence or two."""
    found = []
    for row in [*full_size(), *small()]:
        if row.arm.trick == trick:
            verb = 'added to' if row.arm.added else 'removed from'
            end = '' if row.resolved or not row.n else ', unresolved'
            runs = f'n={row.n or row.diverged}'
            points = f'{ablation.difference(row)} points, {runs}{end}'
            found.append(f'*Here, {verb} `{row.arm.preset}`:* {points}.')
    published = recipes.TRICKS[trick].published or 'part of a record, not separately'
    return ' '.join([f'*Published:* {published}.', *(found or ['*Here:* not measured.'])])


TABLES = {
    'tricks': tricks_table,
    'ablation': lambda: ablation.comparison_table(small()),
    'ablation_full': lambda: ablation.comparison_table(full_size()),
}
SENTENCES = {
    'measured': small_measured,
    **{f'worth_{name}': functools.partial(worth, name) for name in recipes.TRICKS},
}

"""What the logged ablation says of each trick: in the README's table, and in a notebook."""

from __future__ import annotations

import functools
import math
import statistics

import logged

from fenwicks import ablation, recipes


def rows():
    """The rows of the logged ablation."""
    return ablation.summarize(ablation.grid(), logged.read('ablation.jsonl'))


def budget():
    """What the runs of the logged ablation have in common, in words."""
    runs = logged.read('ablation.jsonl')
    run, epochs = runs[0], sorted({run['epochs'] for run in runs})
    return (
        f'{run["dataset"]}, the first {run["train_images"]:,} images, '
        f'{" or ".join(map(str, epochs))} epochs, '
        f'{run["width"]:g} of the width, {run["precision"]}, {run["backend"]}, {run["hardware"]}'
    )


def measured():
    """From which accuracies the tricks were measured, and what a difference must exceed."""
    found = rows()
    means = [f'`{row.arm.preset}` {ablation.mean(row)} %' for row in found if not row.arm.trick]
    if not means:
        return ''
    errors = [row.error for row in found if row.arm.trick and math.isfinite(row.error)]
    limit = f' (about {statistics.median(errors):.1f} points)' if errors else ''
    return (
        f'Measured from {" and ".join(means)}: {budget()}. Unresolved differences are smaller than '
        f'two standard errors{limit}.'
    )


def tricks_table():
    """One row for each trick, with what it was measured to be worth, and on what."""
    return '\n\n'.join(part for part in (ablation.tricks_table(rows()), measured()) if part)


def worth(trick):
    """What a trick is worth, in a sentence or two."""
    found = []
    for row in rows():
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
    'ablation': lambda: ablation.comparison_table(rows()),
}
SENTENCES = {
    'measured': measured,
    **{f'worth_{name}': functools.partial(worth, name) for name in recipes.TRICKS},
}

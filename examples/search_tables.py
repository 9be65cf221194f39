"""The tables of examples/benchmarks/search.py, parts.py and doubtful.py."""

from __future__ import annotations

import statistics

import logged

from fenwicks import runlog


def search_table():
    """One row for each variant and machine, those with more arithmetic first."""
    lines = logged.finished(logged.read('search.jsonl'))
    groups = logged.grouped(lines, ('variant', 'precision', 'hardware'))
    groups.sort(key=lambda runs: -runs[0]['arithmetic_epochs'])
    rows = [
        [
            f'`{runs[0]["variant"]}`',
            f'{runs[0]["arithmetic_epochs"]:.2f}',
            f'{runs[0]["hardware"]}, {runs[0]["precision"]}',
            len(runs),
            runlog.mean_and_error([100 * run['test_accuracy'] for run in runs]),
        ]
        for runs in groups
    ]
    header = ['variant', 'arithmetic, epochs', 'hardware', 'n', 'test accuracy, %']
    return logged.table(header, rows)


def parts_table():
    """A row for each part of each logged training, and one for the whole of it."""
    rows = []
    for line in logged.read('parts.jsonl'):
        about = [
            f'`{line["recipe"]}`, batches of {line["batch_size"]:,}',
            f'{line["hardware"]}, {line["precision"]}',
            logged.commits([line]),
        ]
        for part in line['parts']:
            seconds = (part['seconds'], part['seconds_with_a_learning_bias'])
            rows.append([*about, part['size'], part['steps'], *(f'{x:.3f}' for x in seconds)])
            about = [''] * 3
        rows.append([*about, 'all', sum(part['steps'] for part in line['parts'])])
        rows[-1] += [f'{line["train_seconds"]:.0f} s', '']
    header = ['recipe', 'hardware', 'commit', 'size', 'steps', 's a step', 'the bias learning']
    return logged.table(header, rows)


def doubtful_table():
    """One row for each margin, means of the logged models; then the seconds of both ways."""
    lines = logged.read('doubtful.jsonl')
    if not lines:
        return logged.NOT_YET
    rows = []
    for training, test in zip(
        *(columns(lines, name) for name in ('training', 'test')), strict=True
    ):
        passes = [f'{test["passes"]:.2f}', f'{100 * test["doubtful"]:.1f}']
        differ = [f'{100 * one["differ"]:.2f}' for one in (training, test)]
        rows.append([f'{test["margin"]:g}', *differ, *passes, f'{test["from_all_views"]:+.2f}'])
    header = ['margin', 'training images classified otherwise, %', 'test images, %']
    return runlog.markdown([*header, 'passes', 'doubtful, %', 'accuracy, points'], rows)


def columns(lines, name):
    """For each margin the means over the lines of what was found on `name`, training or test."""
    for rows in zip(*(line[name] for line in lines), strict=True):
        yield {key: statistics.mean(row[key] for row in rows) for key in rows[0]}


TABLES = {'search': search_table, 'parts': parts_table, 'doubtful': doubtful_table}

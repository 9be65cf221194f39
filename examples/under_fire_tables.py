"""The table of tests/under_fire.py and tests/endurance.py."""

from __future__ import annotations

import logged

# A figure's words, what it was measured on, and what was found.
FIGURES = {
    'kills': (
        'kills at random instants ({within_a_write} while a checkpoint was written)',
        '{training}, {backend}, {precision}',
        '{different} ended otherwise',
    ),
    'seeds': (
        'the same seed, each time in a new process',
        '{training}, {backend}, {precision}',
        '{different} ended otherwise',
    ),
    'files': (
        'damaged files',
        '{kinds} kinds of files',
        '{refused:,} refused in one line, the others read',
    ),
    'epochs': (
        'epochs of one training',
        'dense network, {backend}',
        'memory {memory_mb[0]} MB before, {memory_mb[1]} MB after',
    ),
    'trainers': (
        'Trainers made and dropped',
        'convolutional network, {backend}',
        'memory {memory_mb[0]} MB after a fifth of them, {memory_mb[1]} MB at the end',
    ),
}


def under_fire_table():
    """One row for each logged measurement."""
    header = ['what', 'of what', 'n', 'found', 'hardware', 'versions', 'commit']
    rows = []
    for line in logged.read('under_fire.jsonl'):
        what, of_what, found = (words.format_map(line) for words in FIGURES[line['figure']])
        found_versions = ', '.join(f'{name} {version}' for name, version in versions(line))
        commit = (line['commit'] or 'not logged')[:7]
        rows.append(
            [what, of_what, f'{line["n"]:,}', found, line['hardware'], found_versions, commit]
        )
    return logged.table(header, rows)


def versions(line):
    """Those of Keras and of the backend."""
    found = line['versions']
    names = [name for name in found if name.startswith(('keras', line['backend']))]
    return [(name, found[name]) for name in names]

"""The table of tests/under_fire.py."""

from __future__ import annotations

import logged

from fenwicks import runlog

NOT_YET = 'Not logged yet.'
FIGURES = {
    'kills': 'kills at random instants ({within_a_write} while a checkpoint was written)',
    'seeds': 'the same seed, each time in a new process',
}


def under_fire_table():
    """One row for each logged measurement."""
    header = ['what', 'training', 'n', 'ended otherwise', 'hardware', 'versions', 'commit']
    rows = [
        [
            FIGURES[line['figure']].format_map(line),
            f'{line["training"]}, {line["backend"]}, {line["precision"]}',
            line['n'],
            line['different'],
            line['hardware'],
            ', '.join(f'{name} {version}' for name, version in versions(line)),
            (line['commit'] or 'not logged')[:7],
        ]
        for line in logged.read('under_fire.jsonl')
    ]
    return runlog.markdown(header, rows) if rows else NOT_YET


def versions(line):
    """Those of Keras and of the backend."""
    found = line['versions']
    names = [name for name in found if name.startswith(('keras', line['backend']))]
    return [(name, found[name]) for name in names]

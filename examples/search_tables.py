"""The table of examples/benchmarks/search.py."""

from __future__ import annotations

import logged

from fenwicks import runlog


def search_table():
    """One row for each variant and machine, those with more arithmetic first."""
    groups = logged.grouped(logged.read('search.jsonl'), ('variant', 'precision', 'hardware'))
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
    return runlog.markdown(header, rows) if rows else 'Not logged yet.'

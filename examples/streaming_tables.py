"""The tables of examples/benchmarks/streaming.py."""

from __future__ import annotations

import logged


def of(benchmark):
    return [line for line in logged.read('streaming.jsonl') if line['benchmark'] == benchmark]


def streaming_table():
    """One row for each comparison of a stream with data on the device."""
    speeds = ['on the device, images/s', 'streamed, images/s']
    header = ['recipe', 'hardware', *speeds, 'ratio, median of turns']
    rows = [
        [
            f'`{line["recipe"]}`, {line["precision"]}, {line["backend"]}',
            line['hardware'],
            f'{line["resident_images_per_second"]:,.0f}',
            f'{line["streamed_images_per_second"]:,.0f}',
            f'{line["ratio"]:.2f}',
        ]
        for line in of('streaming')
    ]
    return logged.table(header, rows)


def overhead_table():
    """One row for each backend and machine: the newest comparison of the Trainer with `fit`."""
    ways = {
        'trainer': 'Trainer, µs a step',
        'fit': '`fit`',
        'fit_with_steps_per_execution': '`fit` with `steps_per_execution`',
    }
    header = ['backend', 'hardware', *ways.values(), 'Trainer, times as fast']
    newest = {(line['backend'], line['hardware']): line for line in of('overhead')}
    rows = [
        [
            f'{line["backend"]}, Keras {line["versions"]["keras"]}',
            line['hardware'],
            *(f'{line["microseconds_per_step"][way]:,.0f}' for way in ways),
            ' and '.join(f'{ratio:.1f}' for ratio in line['times_as_fast'].values()),
        ]
        for line in newest.values()
    ]
    return logged.table(header, rows)

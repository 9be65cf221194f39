"""What was measured on GPUs: the recipes in fenwicks on JAX, and the published one in PyTorch."""

from __future__ import annotations

import logged

from fenwicks import runlog


def beside_pytorch():
    """One row for each recipe and side, over its seeds."""
    rows = []
    runs = filter(logged.is_whole, logged.read('gpu.jsonl'))
    for group in logged.grouped(runs, ('recipe', 'hardware', 'precision', 'side', 'backend')):
        run = group[0]
        by = run['backend'] if run['side'] == 'pytorch' else f'fenwicks, {run["backend"]}'
        rows.append(
            [
                f'{logged.title(run)}, {run["epochs"]} epochs',
                by.replace('pytorch', 'PyTorch'),
                f'{run["hardware"]}, {run["precision"]}',
                len(group),
                runlog.mean_and_error([100 * run['test_accuracy'] for run in group]),
                logged.seconds_alone(group) or 'not timed alone',
                max(run['device_memory_mb'] for run in group),
            ]
        )
    header = ['recipe', 'trained by', 'hardware', 'n', 'test accuracy, %', 'training, s']
    return runlog.markdown([*header, 'GPU memory, MiB'], rows)


TABLES = {'gpu': beside_pytorch}

"""Results: what a run reached and on what, as JSON; tables and pictures of many runs."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Sequence

from fenwicks.files import written_whole
from fenwicks.recipes.ablation import Row
from fenwicks.recipes.tricks import TRICKS

_PACKAGES = ('fenwicks', 'keras', 'tensorflow', 'tensorflow-cpu', 'jax', 'torch', 'numpy')


def write_json(path, value):
    """Writes one JSON object with a line a key, whole or not at all."""
    text = json.dumps(value, indent=1) + '\n'
    with written_whole(path) as part:
        part.write_text(text)


def read_json(path):
    return json.loads(pathlib.Path(path).read_text())


def read_lines(path) -> list:
    """The values of a JSON-lines file.

    Raises:
        ValueError: a line is no JSON.
    """
    values = []
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), start=1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f'`log` must hold a JSON value a line. Received: {path}, line {number}: {error}'
            ) from None
    return values


def start_log(path):
    """Makes a JSON-lines file if there is none: what can't be written to fails before the work.

    Raises:
        OSError: it can't.
    """
    try:
        with open(path, 'a'):
            pass
    except OSError as error:
        raise OSError(
            f'`log` must be a file that can be written to. Received: {path} ({error.strerror})'
        ) from error


def append_line(path, value):
    """Adds one value to a JSON-lines file, in a single write."""
    with open(path, 'a') as file:
        file.write(json.dumps(value) + '\n')


def markdown(header: Sequence, rows: Sequence[Sequence]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def mean_and_error(values: Sequence[float]) -> str:
    """The mean, with two standard errors where there are several values.

    >>> mean_and_error([94.0, 94.2])
    '94.10 ± 0.20'
    """
    mean = f'{statistics.mean(values):.2f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {2 * statistics.stdev(values) / math.sqrt(len(values)):.2f}'


def difference(row: Row) -> str:
    """A row's difference and its error; in parentheses where it can't be told from none."""
    if math.isnan(row.difference):
        return 'diverged'
    text = f'{row.difference:+.2f}{_error(row)}'
    return text if row.resolved else f'({text})'


def mean(row: Row) -> str:
    """A row's mean; that of a preset, which is compared with nothing, with its error."""
    if not row.n:
        return 'diverged'
    return f'{row.mean:.2f}{"" if row.arm.trick else _error(row)}'


def _error(row):
    return f' ± {row.error:.2f}' if math.isfinite(row.error) else ''


def ablation_table(rows: Sequence[Row]) -> str:
    """The rows of an ablation as a Markdown table."""
    cells = []
    for row in rows:
        arm = row.arm
        sign = f'{arm.preset} + ' if arm.added else f'{arm.preset} without '
        cells.append(
            [
                f'{sign}{arm.trick}' if arm.trick else f'**{arm.preset}**',
                f'{row.n}' + (f' ({row.diverged} diverged)' if row.diverged else ''),
                mean(row),
                difference(row) if arm.trick else '',
                f'{row.seconds:.0f}' if row.n else '',
            ]
        )
    header = ['trick', 'n', 'test accuracy, %', 'difference, points', 'training, s']
    return markdown(header, cells)


def tricks_table(rows: Sequence[Row]) -> str:
    """Every trick: what it does, where it is, what was published, what was measured here."""
    found = {(row.arm.trick, bool(row.arm.added)): row for row in rows if row.arm.trick}

    def measured(name, added):
        row = found.get((name, added))
        return f'{difference(row)}, n={row.n or row.diverged}' if row else 'not measured'

    cells = [
        [
            f'`{name}`',
            trick.summary,
            f'`{trick.symbol}`',
            trick.published or 'part of a record, not apart',
            measured(name, True),
            measured(name, False),
        ]
        for name, trick in TRICKS.items()
    ]
    header = ['trick', 'what it does', 'in `fenwicks`', 'published', 'added', 'taken away']
    return markdown(header, cells)


def check_plot(path):
    """Raises, before the work, what would keep `plot_ablation` from drawing into a file.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: it doesn't know the file's suffix, or there is no such folder.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise ValueError(f'`plot` must lie in a folder that is there. Received: plot={path}')
    known = _new_figure().canvas.get_supported_filetypes()
    if (path.suffix[1:].lower() or 'png') not in known:
        raise ValueError(
            f'`plot` must end in one of {", ".join(f".{kind}" for kind in sorted(known))}. '
            f'Received: plot={path}'
        )


def _new_figure(**settings):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('a plot needs Matplotlib: pip install matplotlib') from None
    return Figure(**settings)


def plot_ablation(rows: Sequence[Row], path):
    """Draws the differences of an ablation with their errors, one trick a line.

    Raises:
        ImportError: Matplotlib is missing.
    """
    rows = [row for row in rows if row.arm.trick and not math.isnan(row.difference)]
    figure = _new_figure(figsize=(8, 1 + 0.3 * len(rows)), layout='constrained')
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.errorbar(
            row.difference,
            -place,
            xerr=row.error if math.isfinite(row.error) else None,
            fmt='o' if row.resolved else 'x',
            color='tab:green' if row.arm.added else 'tab:red',
        )
    axes.set_yticks([-place for place in range(len(rows))])
    axes.set_yticklabels([row.arm.recipe for row in rows])
    axes.axvline(0, color='gray', linewidth=0.8)
    axes.set_xlabel('difference in test accuracy, points, with two standard errors')
    with written_whole(path) as part:
        figure.savefig(part, format=pathlib.Path(path).suffix[1:] or 'png')


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on, where installed."""
    found = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(device='cpu') -> str:
    """The processor, or the accelerator, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    plural = '' if cores == 1 else 's'
    return f'{_processor()}, {cores} core{plural}' if device == 'cpu' else _accelerator(device)


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB of 2**20 bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == 'darwin' else 2**10))


def _processor():
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = dict(
        line.split(':', 1) for line in cpuinfo.read_text().splitlines() if line.count(':') == 1
    )
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    name = fields.get('model name', platform.machine())
    if 'flags' not in fields:  # not an x86
        return name
    flags = fields['flags'].split()
    units = [flag for flag in ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2') if flag in flags]
    return f'{name} ({units[0] if units else "no AVX2"})'


def _accelerator(device):
    import keras

    if keras.backend.backend() == 'jax':
        import jax

        return f'{len(jax.devices())} x {jax.devices()[0].device_kind}'
    import tensorflow as tf

    found = tf.config.list_physical_devices(device.upper())
    details = tf.config.experimental.get_device_details(found[0]) if found else {}
    return f'{len(found)} x {details.get("device_name", device.upper())}'

"""Estimates as rows of a table and lines of a log."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math

from fenwicks.tpu.costs import ESTIMATED, Estimate

COLUMNS = (
    'topology  ',
    'devices',
    'fits',
    'memory of a device, GiB',
    'TFLOP/step',
    'ms/step',
    's/epoch',
    's/run',
    'compiled in, s',
)
NOTE = (
    "Estimated: ms/step, s/epoch and s/run, from the compiler's cost of each operation of the "
    'program\nand the peak rates of memory and links; steps only, without pauses between them.\n'
    'Nothing was run on a TPU.'
)


def row(found: Estimate) -> str:
    """The table's row for an estimate."""
    return _aligned(
        [
            found.topology,
            found.devices,
            'yes' if found.fits else 'no',
            memory(found),
            _number(found.flops_per_step, 3, unit=1e12),
            _number(found.step_seconds, 2, unit=1e-3),
            _number(found.epoch_seconds, 2),
            _number(found.run_seconds, 1),
            _number(found.compile_seconds, 0),
        ]
    )


def _number(value, digits, unit=1.0):
    return '-' if value is None else f'{value / unit:.{digits}f}'


def _aligned(cells):
    padded = [f'{cell!s:<{len(title)}}' for cell, title in zip(cells, COLUMNS, strict=True)]
    return '  '.join(padded).rstrip()


HEADER = _aligned(COLUMNS)


def memory(found: Estimate) -> str:
    """Memory that the program needs, and that a device has, in GiB."""
    return f'{found.memory_bytes / 2**30:.2f} of {found.memory_limit_bytes / 2**30:.2f}'


def hardware_of(found: Estimate) -> str:
    """The hardware that a program was compiled for, in words."""
    generation, _, shape = found.topology.partition(':')
    chips = math.prod(map(int, shape.split('x')))
    return f'TPU {generation}, {chips} chip{"s" * (chips > 1)}'


def log_entry(
    found: Estimate, settings: dict, provenance: dict, more_versions: dict | None = None
) -> dict:
    """An estimate with the settings and versions that it depends on, for a JSON-lines file.

    Args:
        found: the estimate.
        settings: what was estimated.
        provenance: of `hardware.provenance`, from before the compilation.
        more_versions: of packages in another environment.
    """
    kept = ('fenwicks', 'jax', 'keras', 'python')
    versions = {name: version for name, version in provenance['versions'].items() if name in kept}
    versions['libtpu'] = importlib.metadata.version('libtpu')
    return {
        **settings,
        'hardware': hardware_of(found),
        **dataclasses.asdict(found),
        'estimated': list(ESTIMATED),
        **provenance,
        'versions': {**versions, **(more_versions or {})},
    }

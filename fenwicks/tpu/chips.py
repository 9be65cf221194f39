"""The generations of TPUs, and the figures of a chip of each."""

from __future__ import annotations

import dataclasses
import re

# Without these, libtpu searches for the TPU that it runs on, which takes long and logs much, and
# refuses to load while another process has loaded it. Nothing here uses a TPU.
LIBTPU_ENVIRONMENT = {
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip of one generation. A JAX device is a chip, or in v2, v3 and tpu7x half of one.

    Attributes:
        example: a small topology of such chips.
        memory_gib: high-bandwidth memory, in GiB.
        teraflops: peak rate of bfloat16 matrix products, in 10^12 operations/s.
        gigabytes_per_second: peak bandwidth of that memory, in 10^9 bytes/s.
        links_gigabytes_per_second: peak bandwidth of all links to other chips together, one way,
            in 10^9 bytes/s.
    """

    example: str
    memory_gib: int
    teraflops: float
    gigabytes_per_second: float
    links_gigabytes_per_second: float


# From https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and its pages on v4, v5e, v5p,
# v6e and tpu7x ("key chip specifications"); links of v2 and v3: Jouppi et al., A domain-specific
# supercomputer for training deep neural networks, 2020.
CHIPS = {
    'v2': Chip('v2:2x2', 16, 46, 700, 248),
    'v3': Chip('v3:2x2', 32, 123, 900, 328),
    'v4': Chip('v4:2x2x1', 32, 275, 1228, 300),
    'v5e': Chip('v5e:2x4', 16, 197, 819, 200),
    'v5p': Chip('v5p:2x2x1', 95, 459, 2765, 600),
    'v6e': Chip('v6e:1x1', 32, 918, 1638, 400),
    'tpu7x': Chip('tpu7x:2x2x1', 192, 2307, 7380, 600),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology: a generation and the number of chips along each axis.

    Args:
        topology: such as `'v5e:2x4'`, eight chips, or `'v4:2x2x1'`, four.

    Returns:
        An entry of `CHIPS`.

    Raises:
        ValueError: the topology has another form, or an unknown generation.

    Example:

    >>> chip_of('v5e:2x4').memory_gib
    16
    """
    generation, _, shape = topology.partition(':')
    chip = CHIPS.get(generation)
    axes = chip.example.count('x', chip.example.index(':')) if chip else 0
    if chip is None or not re.fullmatch(r'[1-9]\d*' + r'x[1-9]\d*' * axes, shape):
        raise unknown_topology(topology)
    return chip


def unknown_topology(topology: str, reason: str = '') -> ValueError:
    """The error for a topology that doesn't exist."""
    known = ', '.join(chip.example for chip in CHIPS.values())
    return ValueError(
        f'`topology` must be chips of a known TPU, such as {known}{reason and f" ({reason})"}. '
        f'Received: topology={topology}'
    )

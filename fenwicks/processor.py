"""What the processor of this machine can do, where Linux tells."""

from __future__ import annotations

import pathlib


def flags(cpuinfo='/proc/cpuinfo') -> frozenset[str]:
    """The instruction sets that it has, in the kernel's words: `'avx2'`, `'avx512f'`, ...

    Args:
        cpuinfo: where the kernel lists them.

    Returns:
        An empty set on other systems than Linux.
    """
    path = pathlib.Path(cpuinfo)
    if not path.exists():
        return frozenset()
    found = set()
    for line in path.read_text().splitlines():
        if line.startswith(('flags', 'Features')):  # x86, Arm
            found.update(line.split(':', 1)[1].split())
    return frozenset(found)

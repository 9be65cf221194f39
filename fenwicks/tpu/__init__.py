"""Memory, operations and estimated time of a training on TPUs, without a TPU.

    python -m fenwicks.tpu --recipe=fenwicks24 --topology=v5e:1x1,v5e:2x4,v6e:1x1,v2:2x2

libtpu contains the compiler for every TPU and runs on any x86-64 Linux. It compiles the program
with which the JAX engine trains, a whole epoch, and reports its memory and its operations. Nothing
runs on a TPU, so times are estimates and are called so; `fenwicks.tpu.costs` says how they are
computed, `README.md` in this folder how to use all this.
"""

from fenwicks.tpu.chips import CHIPS, Chip, chip_of
from fenwicks.tpu.costs import (
    ESTIMATED,
    Estimate,
    check_single_device,
    estimate,
    program_steps,
    replicas_on,
)
from fenwicks.tpu.shapes import DATA_SHAPES, DataShape

__all__ = [
    'CHIPS',
    'DATA_SHAPES',
    'ESTIMATED',
    'Chip',
    'DataShape',
    'Estimate',
    'check_single_device',
    'chip_of',
    'estimate',
    'program_steps',
    'replicas_on',
]

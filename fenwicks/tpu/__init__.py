"""What a training takes on a TPU, found out without one: memory, flops and time of its program.

    python -m fenwicks.tpu --recipe=fenwicks24 --topology=v5e:1x1,v5e:2x4,v6e:1x1,v2:2x2

libtpu holds the compiler for every TPU and runs on any x86-64 Linux. It compiles the very program
that the JAX engine trains with, a whole epoch, and says what memory that takes and what it will
cost. Nothing runs on a TPU, so times are estimates, and said to be; `fenwicks.tpu.costs` has how
they are made.
"""

from fenwicks.tpu.chips import CHIPS, Chip, chip_of
from fenwicks.tpu.costs import (
    DATA_SHAPES,
    ESTIMATED,
    DataShape,
    Estimate,
    check_single,
    estimate,
    shared_by,
)

__all__ = [
    'CHIPS',
    'DATA_SHAPES',
    'ESTIMATED',
    'Chip',
    'DataShape',
    'Estimate',
    'check_single',
    'chip_of',
    'estimate',
    'shared_by',
]

"""What the frameworks say of the devices that they have selected."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices that share each batch of Keras's `fit`.

    Attributes:
        count, processes, chief, jit_compile, distribution: as of `devices.Strategy`.
        feeding_processes: number of parts that a batch is fed in, each by a process of its own.
    """

    count: int
    processes: int
    chief: bool
    jit_compile: bool
    feeding_processes: int
    distribution: Any


def too_many(count: int, found: int, kind: str, advice: str = '') -> ValueError:
    """The error where more devices are asked for than there are."""
    return ValueError(
        f'`replicas` must be at most {found}, the devices of the kind {kind} here.{advice} '
        f'Received: replicas={count}'
    )


def not_all(count: int, found: int, whose: str) -> ValueError:
    """The error where only some of the devices are asked for and all are needed."""
    return ValueError(
        f'`replicas` must be {found}, all devices of {whose}. Received: replicas={count}'
    )

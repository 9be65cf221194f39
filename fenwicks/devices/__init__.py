"""Devices: which there are, what to install where one is missing, and a scope for Keras's `fit`."""

from fenwicks.devices.distribution import Strategy, distribute
from fenwicks.devices.selection import (
    DEVICES,
    check_backend,
    connect,
    remember_programs,
    select_device,
)

__all__ = [
    'DEVICES',
    'Strategy',
    'check_backend',
    'connect',
    'distribute',
    'remember_programs',
    'select_device',
]

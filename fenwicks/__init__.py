"""fenwicks: CIFAR-10 to 94 % in minutes, in Keras; every trick a block you can lift out.

Read the package in the order of the data's walk: ``data`` -> ``augment`` -> ``layers``, ``models``
-> ``losses`` -> ``optimizers`` -> ``schedules`` -> ``training`` -> ``evaluate`` -> ``report``.
"""

import os

from fenwicks import _backend

# TensorFlow's CPU device returns every large activation to the operating system and asks for it
# again at the next step; zeroing those pages took half of a ResNet-9 step. Its own caching
# allocator keeps them. TensorFlow reads this once, when it first touches the device.
os.environ.setdefault('TF_CPU_ALLOCATOR_USE_BFC', 'true')

_backend.choose()

from fenwicks import (  # noqa: E402
    augment,
    data,
    devices,
    evaluate,
    layers,
    losses,
    models,
    optimizers,
    precision,
    schedules,
    training,
)

__version__ = '0.1.0'

__all__ = [
    'augment',
    'data',
    'devices',
    'evaluate',
    'layers',
    'losses',
    'models',
    'optimizers',
    'precision',
    'schedules',
    'training',
]

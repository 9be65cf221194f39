"""The Trainer: compiled training steps, on one device or many; checkpoints."""

from fenwicks.training import callbacks, metrics
from fenwicks.training.engines.base import StepTotals
from fenwicks.training.epochs import DivergedError
from fenwicks.training.history import History
from fenwicks.training.replicas import BATCH_NORMS, Replicas, default_replicas, replicate
from fenwicks.training.selection import HardExamples
from fenwicks.training.trainer import Trainer

__all__ = [
    'BATCH_NORMS',
    'DivergedError',
    'HardExamples',
    'History',
    'Replicas',
    'StepTotals',
    'Trainer',
    'callbacks',
    'default_replicas',
    'metrics',
    'replicate',
]

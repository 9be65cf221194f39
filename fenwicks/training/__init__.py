"""The Trainer: one compiled program an epoch, on one device or many; checkpoints, progress."""

from fenwicks.training.replicas.base import BATCH_NORMS, Replicas, at_hand, replicate
from fenwicks.training.trainer import DivergedError, Trainer

__all__ = ['BATCH_NORMS', 'DivergedError', 'Replicas', 'Trainer', 'at_hand', 'replicate']

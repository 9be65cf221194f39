"""The Trainer: one compiled program an epoch, checkpoints, progress."""

from fenwicks.training.trainer import DivergedError, Trainer

__all__ = ['DivergedError', 'Trainer']

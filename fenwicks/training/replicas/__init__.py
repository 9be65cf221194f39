"""The devices that share each batch, one module a framework."""

from fenwicks.training.replicas.base import BATCH_NORMS, Replicas, at_hand, replicate

__all__ = ['BATCH_NORMS', 'Replicas', 'at_hand', 'replicate']

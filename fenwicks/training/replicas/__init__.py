"""Replicas, the devices that share each batch; a module for each framework."""

from fenwicks.training.replicas.base import BATCH_NORMS, Replicas
from fenwicks.training.replicas.select import default_replicas, replicate

__all__ = ['BATCH_NORMS', 'Replicas', 'default_replicas', 'replicate']

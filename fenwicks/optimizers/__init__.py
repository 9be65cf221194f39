"""Optimizers with PyTorch/TF1 semantics, and parameter groups for per-variable rates and decays."""

from fenwicks.optimizers.groups import ParameterGroup
from fenwicks.optimizers.sgd import SGD, sgd_update

__all__ = ['SGD', 'ParameterGroup', 'sgd_update']

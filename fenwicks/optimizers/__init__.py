"""Optimizers with PyTorch/TF1 semantics, parameter groups, and averages of the weights."""

from fenwicks.optimizers.averaging import (
    EMA,
    Lookahead,
    WeightAveraging,
    averaged_variables,
    initial_averages,
)
from fenwicks.optimizers.groups import ParameterGroup
from fenwicks.optimizers.sgd import SGD, sgd_update

__all__ = [
    'EMA',
    'SGD',
    'Lookahead',
    'ParameterGroup',
    'WeightAveraging',
    'averaged_variables',
    'initial_averages',
    'sgd_update',
]

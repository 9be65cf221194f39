"""SGD with PyTorch/TF1 semantics, Muon, LARS, parameter groups, and averages of the weights."""

from fenwicks.optimizers.averaging import (
    EMA,
    Lookahead,
    averaged_variables,
    initial_averages,
)
from fenwicks.optimizers.groups import ParameterGroup
from fenwicks.optimizers.lars import LARS, lars_step
from fenwicks.optimizers.muon import Muon
from fenwicks.optimizers.orthogonalize import muon_rescale, muon_step, newton_schulz
from fenwicks.optimizers.sgd import SGD, sgd_step
from fenwicks.optimizers.stage_rates import stage_groups
from fenwicks.optimizers.weight_averaging import WeightAveraging

__all__ = [
    'EMA',
    'LARS',
    'SGD',
    'Lookahead',
    'Muon',
    'ParameterGroup',
    'WeightAveraging',
    'averaged_variables',
    'initial_averages',
    'lars_step',
    'muon_rescale',
    'muon_step',
    'newton_schulz',
    'sgd_step',
    'stage_groups',
]

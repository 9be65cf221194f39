"""Looks into a training: learning rates, curvature, norms of weights, outputs of layers."""

from fenwicks.diagnostics.hessian import Hessian
from fenwicks.diagnostics.lanczos import Eigenpairs, leading_eigenpairs
from fenwicks.diagnostics.norms import WeightNorms
from fenwicks.diagnostics.outputs import OutputStatistics, output_statistics
from fenwicks.diagnostics.overlap import subspace_overlap
from fenwicks.diagnostics.rate_finder import RateSweep, find_learning_rate

__all__ = [
    'Eigenpairs',
    'Hessian',
    'OutputStatistics',
    'RateSweep',
    'WeightNorms',
    'find_learning_rate',
    'leading_eigenpairs',
    'output_statistics',
    'subspace_overlap',
]

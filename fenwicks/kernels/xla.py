"""Compilation of single functions by XLA, within a graph that TensorFlow runs as it is.

TensorFlow computes a formula step by step, each step a pass over memory. XLA fuses pointwise
operations, and sums over channels, into one pass. A whole training step compiled by XLA takes five
times as long on a CPU, because its convolutions are slow there; so the kernels of this package
compile small functions only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf


def compiled(function: Callable) -> Callable:
    """Decorates a function of tensors: XLA compiles it, once for each combination of shapes.

    Where a shape isn't fully known the function runs as ordinary TensorFlow operations, since XLA
    needs every shape.

    Args:
        function: takes tensors as positional arguments and constants (numbers, strings) by
            keyword; returns tensors.

    Returns:
        A function with the same arguments and results.
    """
    program = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*tensors, **constants):
        known = all(tensor.shape.is_fully_defined() for tensor in tensors)
        return (program if known else function)(*tensors, **constants)

    return call

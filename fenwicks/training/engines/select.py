"""The engine for Keras's backend."""

from __future__ import annotations

from collections.abc import Callable

import keras

from fenwicks.training.engines.base import Engine, Settings


def in_one_call(function: Callable) -> Callable:
    """Makes a function that reads and assigns variables one call to the framework.

    On TensorFlow each operation would be a call; on JAX they are cheap.
    """
    if keras.backend.backend() == 'jax':
        return function
    from fenwicks.training.engines.tensorflow import in_one_call

    return in_one_call(function)


def make_engine(settings: Settings) -> Engine:
    """The engine for Keras's backend, TensorFlow's or JAX's.

    Args:
        settings: its `Settings`, with the replicas of the same backend.
    """
    if keras.backend.backend() == 'jax':
        from fenwicks.training.engines.jax import JaxEngine

        return JaxEngine(settings)
    from fenwicks.training.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(settings)

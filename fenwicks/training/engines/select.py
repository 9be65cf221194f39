"""The engine for Keras's backend."""

from __future__ import annotations

import keras

from fenwicks.training.engines.base import Engine, Settings


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

"""Small functions of the JAX engine's state and of what it counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def no_axis(shape):
    """The axis along which an array is divided that every device holds whole."""
    return None


def measuring(replicas, metrics, correct):
    """What is counted of a batch: two functions, of which the step calls the first on each device.

    Args:
        replicas: the devices.
        metrics: a `MetricSet`.
        correct: from logits and labels to the number of correct answers.

    Returns:
        A function of labels and logits to an outcome that is the same on all devices; and one of
        the values of the metrics' variables and an outcome to the number of correct answers and the
        next values.
    """

    def count(labels, logits):
        return replicas.all_reduce_sum(correct(logits, labels))

    def gather(labels, logits):
        batch = [replicas.gather_batch(each) for each in (labels, logits.astype('float32'))]
        return count(labels, logits), *batch

    def update(values, outcome):
        found, labels, logits = outcome
        return found, metrics.updated(values, labels, logits)

    if metrics.metrics:
        return gather, update
    return count, lambda values, outcome: (outcome, values)


def first_carry(state, start, loss_sum):
    """What the loop begins with: state, step, sum of losses, correct answers, last loss."""
    return state, start, loss_sum, jnp.int32(0), jnp.float32(0)


def all_finite(state):
    """Whether all floats of the state are finite, the metrics' apart."""
    *trained, _ = state
    floats = [leaf for leaf in jax.tree.leaves(trained) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()

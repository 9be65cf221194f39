"""Gradients of a batch in several passes over parts of it, on JAX."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def in_parts(differentiate: Callable, split: Callable, parts: int, unrolled: bool) -> Callable:
    """Makes a function of a batch out of one that takes a part of it.

    Args:
        differentiate: from weights, other variables, loss scale, inputs and targets to gradients,
            and a tuple of the loss (a mean over the images), labels and logits, and the other
            variables.
        split: from an array `(batch, ...)` and a number to its equal parts `(parts, size, ...)`.
        parts: how many equal parts a batch is cut into.
        unrolled: whether the loop over them is unrolled: within XLA's loops a CPU misses its fast
            convolutions.

    Returns:
        A function as `differentiate`: the mean gradients, the mean loss, all labels and logits, and
        the other variables after the last part.
    """
    if parts == 1:
        return differentiate

    def differentiate_all(weights, fixed, scale, inputs, targets):
        def add(carry, part):
            totals, fixed, loss_sum = carry
            gradients, (loss, outputs, fixed) = differentiate(weights, fixed, scale, *part)
            return (jax.tree.map(jnp.add, totals, gradients), fixed, loss_sum + loss), outputs

        start = jax.tree.map(jnp.zeros_like, weights), fixed, jnp.float32(0)
        pieces = jax.tree.map(lambda leaf: split(leaf, parts), (inputs, targets))
        (totals, fixed, loss), outputs = lax.scan(
            add, start, pieces, unroll=parts if unrolled else 1
        )
        gradients = jax.tree.map(lambda total: total / parts, totals)
        outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
        return gradients, (loss / parts, outputs, fixed)

    return differentiate_all

"""Gradients of a batch in several passes over parts of it, on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def in_parts(differentiate: Callable, parts: int) -> Callable:
    """Makes a function of a batch out of one that takes a part of it.

    The parts follow each other, so that the memory of one serves for the next. There is no
    `tf.while_loop` around them: within one, replicas can't communicate.

    Args:
        differentiate: from inputs and targets to a loss that is a mean over them, their labels and
            logits, and a list of gradients, some of which may be `None`.
        parts: how many equal parts a batch is cut into.

    Returns:
        A function as `differentiate`: the mean loss, all labels and logits, and the mean gradients.
    """
    if parts == 1:
        return differentiate

    def differentiate_all(inputs, targets):
        leaves = [tf.split(leaf, parts) for leaf in tf.nest.flatten((inputs, targets))]
        losses, outputs = [], []
        totals: list | None = None
        for pieces in zip(*leaves, strict=True):
            # Each part waits for the one before.
            done = [total for total in totals or () if total is not None]
            with tf.control_dependencies(done):
                part = tf.nest.pack_sequence_as((inputs, targets), list(map(tf.identity, pieces)))
            loss, part_outputs, gradients = differentiate(*part)
            losses.append(loss)
            outputs.append(part_outputs)
            totals = gradients if totals is None else list(map(_sum, totals, gradients))
        means = [None if total is None else total / parts for total in totals or ()]
        whole = tuple(tf.concat(each, 0) for each in zip(*outputs, strict=True))
        return tf.add_n(losses) / parts, whole, means

    return differentiate_all


def _sum(one, other):
    return None if one is None else tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
